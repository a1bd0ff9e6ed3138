//! Toolchain versions and ranges of them: `>=2.28, <2.31`, `2.27.5334`, `all`.
//!
//! Vendors' versions are no semantic versions ("2.26.6360", "11.2.1"), so these are compared number by number, and a
//! bound covers everything that starts with it: `<=2.29` holds for 2.29.4, `2.27` means any 2.27.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A version: numbers between dots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(Vec<u64>);

impl Version {
    /// Reads a version.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.trim();
        let numbers: Option<Vec<u64>> =
            text.strip_prefix('v').unwrap_or(text).split('.').map(|n| n.parse().ok()).collect();
        numbers.map(Version)
    }

    /// How this compares with a bound, of which only the given numbers count.
    fn against(&self, bound: &Version) -> Ordering {
        let own = (0..bound.0.len()).map(|i| self.0.get(i).copied().unwrap_or_default());
        own.cmp(bound.0.iter().copied())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// A range of versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Versions {
    source: String,
    bounds: Vec<(Comparison, Version)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

impl Versions {
    /// Reads a range; all its comparisons must hold.
    ///
    /// # Errors
    /// What was expected, in words.
    pub fn parse(text: &str) -> Result<Versions, String> {
        let source = text.trim().to_string();
        if source.is_empty() || source == "all" {
            return Ok(Versions { source, bounds: Vec::new() });
        }
        let mut bounds = Vec::new();
        for part in source.split(',') {
            let part = part.trim();
            let (comparison, rest) = match part {
                _ if part.starts_with("<=") => (Comparison::LessOrEqual, &part[2..]),
                _ if part.starts_with(">=") => (Comparison::GreaterOrEqual, &part[2..]),
                _ if part.starts_with('<') => (Comparison::Less, &part[1..]),
                _ if part.starts_with('>') => (Comparison::Greater, &part[1..]),
                _ if part.starts_with('=') => (Comparison::Equal, &part[1..]),
                _ => (Comparison::Equal, part),
            };
            let version = Version::parse(rest).ok_or_else(|| {
                format!("'{part}' is no comparison with a version; write for example '>=2.28, <2.31', '2.27' or 'all'")
            })?;
            bounds.push((comparison, version));
        }
        Ok(Versions { source, bounds })
    }

    /// Whether the version lies in the range.
    pub fn contains(&self, version: &Version) -> bool {
        self.bounds.iter().all(|(comparison, bound)| {
            let order = version.against(bound);
            match comparison {
                Comparison::Less => order == Ordering::Less,
                Comparison::LessOrEqual => order != Ordering::Greater,
                Comparison::Equal => order == Ordering::Equal,
                Comparison::GreaterOrEqual => order != Ordering::Less,
                Comparison::Greater => order == Ordering::Greater,
            }
        })
    }

    /// Whether every version lies in it.
    pub fn is_all(&self) -> bool {
        self.bounds.is_empty()
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_all() { "all" } else { &self.source })
    }
}

impl Serialize for Versions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Versions::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Versions {
    fn schema_name() -> Cow<'static, str> {
        "Versions".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Comparisons with versions that must all hold, such as '>=2.28, <2.31'; 'all' for any."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(range: &str, version: &str) -> bool {
        Versions::parse(range).unwrap().contains(&Version::parse(version).unwrap())
    }

    #[test]
    fn bounds_cover_what_starts_with_them() {
        assert!(holds(">=2.28, <2.31", "2.28") && holds(">=2.28, <2.31", "2.30.9") && !holds(">=2.28, <2.31", "2.31"));
        assert!(holds("<=2.29", "2.29.4") && holds("2.27", "2.27.5334") && !holds("2.27.5334", "2.27"));
        assert!(holds("all", "1") && holds("", "99.1") && !holds(">2.29", "2.29.4") && holds("< 11", "9.1"));
        assert!(holds("2.9", "2.9") && !holds("<2.9", "2.10"));
    }

    #[test]
    fn a_broken_range_says_what_was_expected() {
        assert!(Versions::parse(">=two").unwrap_err().contains(">=2.28, <2.31"));
    }
}
