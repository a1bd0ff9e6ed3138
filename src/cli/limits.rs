//! `--time-limit` and `--memory-limit`: what a target that runs in a process of its own may take.

use std::time::Duration;

use crate::reach;

/// Limits of a target's process.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Limits {
    /// Seconds that the target may take for one request (600 if left out); it runs in a process of its own then
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    time_limit: Option<u64>,
    /// Memory that the target may take, such as 512M or 4G; it runs in a process of its own then
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_limit: Option<u64>,
}

impl Limits {
    /// Whether there are any: what runs in porter's own process cannot be held to them.
    pub fn any(&self) -> bool {
        self.time_limit.is_some() || self.memory_limit.is_some()
    }

    /// Puts them into how a target is reached.
    pub fn apply(&self, options: &mut reach::Options) {
        if let Some(seconds) = self.time_limit {
            options.time_limit = Duration::from_secs(seconds);
        }
        options.memory_limit = self.memory_limit.or(options.memory_limit);
    }

    /// The arguments that say the same.
    pub fn arguments(&self) -> Vec<String> {
        let time = self.time_limit.map(|seconds| format!("--time-limit={seconds}"));
        time.into_iter().chain(self.memory_limit.map(|bytes| format!("--memory-limit={bytes}"))).collect()
    }
}

/// Bytes, or as many with K, M, G or T behind, each 1024 times the last.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes, such as 512M or 4G".to_string();
    let (digits, power) = match text.char_indices().next_back().ok_or_else(wrong)? {
        (end, unit) if unit.is_ascii_alphabetic() => {
            let power = "KMGT".find(unit.to_ascii_uppercase()).ok_or_else(wrong)? as u32 + 1;
            (&text[..end], power)
        }
        _ => (text, 0),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(1024u64.pow(power)).filter(|&bytes| bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        assert_eq!((parse_size("512M"), parse_size("4g")), (Ok(512 << 20), Ok(4 << 30)));
        for wrong in ["", "0", "G", "4GB", "-1", "99999999999T", "4µ"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
