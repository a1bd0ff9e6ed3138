//! What stands behind `--target`, taken apart.

use super::ReachError;
use crate::engine::ort::Optimisation;

/// A target as it is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// tract, in process.
    Tract,
    /// ONNX Runtime on the CPU.
    Ort(Optimisation),
    /// A target file.
    Named(String),
    /// A target file, run in another way than by default: `openvino:bf16`, `cuda:off,partial`, `cuda:device_id=1`.
    Tuned {
        /// The target.
        name: String,
        /// `off`, `basic` or `all` (optimisation), `partial` (what the target does not take runs on the CPU), a mode of
        /// the target file, or an option of the provider.
        words: Vec<String>,
    },
    /// A program that speaks the worker protocol.
    Worker(String),
    /// Known faults, planted in an engine that has none.
    Faulty {
        /// Their names, at least one.
        faults: Vec<String>,
        /// The engine: `ort` or `tract`; the first that is there, where none is named.
        base: Option<String>,
    },
    /// XLA on the CPU.
    Xla {
        /// Whether everything is computed in float64.
        double: bool,
    },
}

impl Spec {
    /// Takes a target's name apart.
    ///
    /// # Errors
    /// A word after the colon that means nothing, or none where one is needed.
    pub fn parse(text: &str) -> Result<Self, ReachError> {
        let wrong = |problem: &str| ReachError::Spec { text: text.into(), problem: problem.into() };
        let (head, rest) = match text.split_once(':') {
            Some((head, rest)) => (head, Some(rest.trim())),
            None => (text, None),
        };
        match (head, rest) {
            ("cpu" | "tract", None) => Ok(Self::Tract),
            ("ort", None | Some("all")) => Ok(Self::Ort(Optimisation::All)),
            ("ort", Some("basic")) => Ok(Self::Ort(Optimisation::Basic)),
            ("ort", Some("off")) => Ok(Self::Ort(Optimisation::Off)),
            ("ort", Some(_)) => Err(wrong("expected ort:off, ort:basic or ort:all")),
            ("worker", Some(command)) if !command.is_empty() => Ok(Self::Worker(command.into())),
            ("worker", _) => Err(wrong("expected worker: and the command that starts it")),
            ("faulty", Some(rest)) => {
                let (list, base) = match rest.rsplit_once('@') {
                    Some((list, base @ ("ort" | "tract"))) => (list, Some(base.to_string())),
                    Some(_) => return Err(wrong("expected @ort or @tract at the end")),
                    None => (rest, None),
                };
                let faults: Vec<String> =
                    list.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_string).collect();
                if faults.is_empty() {
                    return Err(wrong("expected faulty: and the names of known faults, such as faulty:N1,N3"));
                }
                Ok(Self::Faulty { faults, base })
            }
            ("faulty", None) => Err(wrong("expected faulty: and the names of known faults, such as faulty:N1,N3")),
            ("xla", None | Some("f32")) => Ok(Self::Xla { double: false }),
            ("xla", Some("f64")) => Ok(Self::Xla { double: true }),
            ("xla", Some(_)) => Err(wrong("expected xla:f32 or xla:f64")),
            (name, None) => Ok(Self::Named(name.into())),
            ("cpu" | "tract", Some(_)) => Err(wrong("tract takes nothing after a colon")),
            (name, Some(rest)) => {
                let words: Vec<String> = rest.split(',').map(|word| word.trim().to_string()).collect();
                if words.iter().any(String::is_empty) {
                    return Err(wrong("expected words with commas between them after the colon"));
                }
                Ok(Self::Tuned { name: name.into(), words })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        Spec::parse(text).map_or_else(|error| error.to_string(), |spec| format!("{spec:?}"))
    }

    #[test]
    fn every_form_is_understood() {
        assert_eq!(told("cpu"), "Tract");
        assert_eq!(told("ort:off"), "Ort(Off)");
        assert_eq!(told("openvino"), "Named(\"openvino\")");
        assert_eq!(told("worker:python3 a.py --x=1:2"), "Worker(\"python3 a.py --x=1:2\")");
        assert_eq!(told("faulty:N1, N3@tract"), "Faulty { faults: [\"N1\", \"N3\"], base: Some(\"tract\") }");
        assert_eq!(told("cuda:off,a=1"), "Tuned { name: \"cuda\", words: [\"off\", \"a=1\"] }");
        assert_eq!(told("xla:f64"), "Xla { double: true }");
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        assert_eq!(told("ort:fast"), "--target ort:fast: expected ort:off, ort:basic or ort:all");
        assert_eq!(told("worker:"), "--target worker:: expected worker: and the command that starts it");
        assert_eq!(told("faulty:N1@gpu"), "--target faulty:N1@gpu: expected @ort or @tract at the end");
        assert_eq!(told("cpu:0"), "--target cpu:0: tract takes nothing after a colon");
        assert_eq!(told("cuda:"), "--target cuda:: expected words with commas between them after the colon");
    }
}
