//! The operator table of a target: for each operator, what it takes.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::predicate::Predicate;

/// What a target takes of one operator.
#[derive(Clone, Debug, Default)]
pub enum Entry {
    /// Everything.
    Any,
    /// Nothing.
    #[default]
    None,
    /// What these say; the first whose opsets hold the model's counts.
    Limits(Vec<Limits>),
}

/// Limits of an operator over a range of opsets.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// The opsets that this is about; every one, where it is left out.
    #[serde(default, skip_serializing_if = "Span::is_all")]
    pub opsets: Span,
    /// Set where the operator is refused: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<String>,
    /// The error that the target gives for what is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Element types.
    #[serde(default, skip_serializing_if = "Types::is_any")]
    pub dtypes: Types,
    /// Dimensions of the first input.
    #[serde(default, skip_serializing_if = "Span::is_all")]
    pub ranks: Span,
    /// What else must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// How it is run, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A predicate that a node must meet.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Requirement {
    /// The predicate.
    pub that: Predicate,
    /// What to tell the reader where it does not hold.
    #[serde(rename = "else")]
    pub otherwise: String,
    /// The error that the target gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A span of whole numbers, both ends included: `11..`, `2..4`, `4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The least.
    pub from: u32,
    /// The greatest.
    pub to: u32,
}

impl Default for Span {
    fn default() -> Self {
        Span { from: 0, to: u32::MAX }
    }
}

impl Span {
    /// Whether it holds every number.
    pub fn is_all(&self) -> bool {
        *self == Span::default()
    }

    /// Whether it holds this one.
    pub fn contains(&self, number: i64) -> bool {
        (i64::from(self.from)..=i64::from(self.to)).contains(&number)
    }

    fn parse(text: &str) -> Option<Span> {
        let number = |text: &str, default: u32| match text.trim() {
            "" => Some(default),
            text => text.parse().ok(),
        };
        let span = match text.split_once("..") {
            Some((from, to)) => Span { from: number(from, 0)?, to: number(to, u32::MAX)? },
            None => {
                let only = text.trim().parse().ok()?;
                Span { from: only, to: only }
            }
        };
        (span.from <= span.to).then_some(span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span { from, to } if from == to => write!(f, "{from}"),
            Span { from: 0, to: u32::MAX } => f.write_str("any"),
            Span { from, to: u32::MAX } => write!(f, "{from}.."),
            Span { from: 0, to } => write!(f, "..{to}"),
            Span { from, to } => write!(f, "{from}..{to}"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span of whole numbers such as \"11..\", \"2..4\" or 4")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span, E> {
                let only = u32::try_from(number).map_err(E::custom)?;
                Ok(Span { from: only, to: only })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"],
            "description": "Whole numbers with both ends included: '11..', '2..4', 4."
        })
    }
}

/// Element types by position (`in0`, `out0`); a plain list is about the first input, or the first output where there
/// is no input. Names are element types or sets of the file's `types`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Types(pub IndexMap<String, Vec<String>>);

/// The position that a plain list is about.
pub const MAIN: &str = "main";

impl Types {
    /// Whether it says nothing.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Types {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.get(MAIN) {
            Some(list) if self.0.len() == 1 => list.serialize(serializer),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Types {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Types;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of element types, or such lists by position (in0, in1, ..., out0)")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Types, A::Error> {
                let list = Vec::<String>::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(Types(IndexMap::from([(MAIN.to_string(), list)])))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Types, A::Error> {
                let lists = IndexMap::<String, Vec<String>>::deserialize(MapAccessDeserializer::new(map))?;
                for position in lists.keys() {
                    let number = position.strip_prefix("in").or_else(|| position.strip_prefix("out"));
                    if number.is_none_or(|number| number.parse::<usize>().is_err()) {
                        return Err(de::Error::custom(format!(
                            "'{position}' is no position; write in0, in1, ..., out0"
                        )));
                    }
                }
                Ok(Types(lists))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Types {
    fn schema_name() -> Cow<'static, str> {
        "Types".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "array", "items": { "type": "string" } },
                { "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } } }
            ],
            "description": "Element types, or names of sets of them: of the first input, or by position (in0, out0)."
        })
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Entry::Any => serializer.serialize_str("any"),
            Entry::None => serializer.serialize_str("none"),
            Entry::Limits(limits) => match limits.as_slice() {
                [one] => one.serialize(serializer),
                all => all.serialize(serializer),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("'any', 'none', limits, or a list of limits by opset")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Entry, E> {
                match text {
                    "any" => Ok(Entry::Any),
                    "none" => Ok(Entry::None),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Entry, A::Error> {
                Vec::<Limits>::deserialize(SeqAccessDeserializer::new(seq)).map(Entry::Limits)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let limits = Limits::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Entry::Limits(vec![limits]))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Entry {
    fn schema_name() -> Cow<'static, str> {
        "Entry".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let limits = generator.subschema_for::<Limits>();
        schemars::json_schema!({
            "anyOf": [{ "enum": ["any", "none"] }, limits, { "type": "array", "items": limits }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_written() {
        assert_eq!(Span::parse("11.."), Some(Span { from: 11, to: u32::MAX }));
        assert_eq!(Span::parse("2..4"), Some(Span { from: 2, to: 4 }));
        assert_eq!(Span::parse("5..2"), None);
        assert!(Span::parse("..4").unwrap().contains(0) && !Span::parse("4").unwrap().contains(5));
        assert_eq!(Span::parse("2..4").unwrap().to_string(), "2..4");
    }

    #[test]
    fn entries_take_every_form() {
        let read = |text: &str| serde_yaml::from_str::<Entry>(text);
        assert!(matches!(read("any").unwrap(), Entry::Any) && matches!(read("none").unwrap(), Entry::None));
        assert!(matches!(read("{}").unwrap(), Entry::Limits(limits) if limits.len() == 1));
        let two =
            read("[{ opsets: '11..12', dtypes: [float] }, { opsets: '13..', dtypes: { in1: [int64] } }]").unwrap();
        let Entry::Limits(limits) = two else { panic!("expected limits") };
        assert_eq!(limits[0].dtypes.0[MAIN], ["float"]);
        assert_eq!(limits[1].dtypes.0["in1"], ["int64"]);
        assert!(read("some").unwrap_err().to_string().contains("'any', 'none'"));
        assert!(read("{ dtype: [float] }").unwrap_err().to_string().contains("dtypes"));
        assert!(read("{ dtypes: { first: [float] } }").unwrap_err().to_string().contains("in0, in1"));
    }
}
