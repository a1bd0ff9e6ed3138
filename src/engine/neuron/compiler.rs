//! neuronx-cc: where it is, what it says, and what it compiled before.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

use super::NAME;
use crate::engine::EngineError;
use crate::lower::hlo::{self, Module};
use crate::onnx;

/// The compiler to use, over the one on the path.
pub const COMPILER: &str = "PORTER_NEURONX_CC";
/// The most of the compiler's output that an error repeats, in bytes from its end.
const TOLD: usize = 2000;

/// The SDK's compiler.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    version: String,
    cache: PathBuf,
}

impl Compiler {
    /// Finds the compiler: the one that is named, what [`COMPILER`] says, or `neuronx-cc` on the path.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where there is none, or it does not say its version. (PyPI has a package of its name that
    /// is only a placeholder; the SDK comes from its own index.)
    pub fn find(named: Option<PathBuf>, cache: Option<PathBuf>) -> Result<Self, EngineError> {
        let set = std::env::var_os(COMPILER).filter(|set| !set.is_empty()).map(PathBuf::from);
        let program = named.or(set).unwrap_or_else(|| "neuronx-cc".into());
        let absent = |problem: String| EngineError::Absent {
            engine: NAME.into(),
            problem,
            fix: format!(
                "Install the AWS Neuron SDK on a Trainium or Inferentia host, or set {COMPILER}; `--stand-in xla` runs the same module on the CPU"
            ),
        };
        let output = Command::new(&program)
            .arg("--version")
            .output()
            .map_err(|error| absent(format!("{} does not start: {error}", program.display())))?;
        if !output.status.success() {
            return Err(absent(format!("{} --version failed: {}", program.display(), tail(&output))));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let version = version.map_or_else(|| said.trim().to_string(), str::to_string);
        Ok(Self { program, version, cache: cache.unwrap_or_else(|| crate::home::home().join("neff")) })
    }

    /// What it says of itself: `2.22.12471.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles a module with a command that has `{module}` and `{output}` in it; gives the compiled file. A module that
    /// was compiled before, by the same version with the same flags, is not compiled again.
    ///
    /// # Errors
    /// What the compiler says, with its NCC code or, where it gives none, its exit code.
    pub fn compile(&self, module: &Module, command: &str) -> Result<PathBuf, EngineError> {
        let told = |problem: String| EngineError::Compile { engine: NAME.into(), code: None, problem };
        let bytes = hlo::to_bytes(module);
        let key: String = Sha256::new()
            .chain_update(&bytes)
            .chain_update([0])
            .chain_update(command)
            .chain_update([0])
            .chain_update(&self.version)
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let neff = self.cache.join(format!("{key}.neff"));
        if neff.is_file() {
            return Ok(neff);
        }
        std::fs::create_dir_all(&self.cache).map_err(|error| told(format!("{}: {error}", self.cache.display())))?;
        // Compiling takes minutes: who comes second waits for it instead of doing it again.
        let waiting = self.cache.join(format!("{key}.lock"));
        let lock = std::fs::File::create(&waiting)
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(|error| told(format!("{}: {error}", waiting.display())))?;
        if neff.is_file() {
            return Ok(neff);
        }
        let scratch = crate::scratch::ScratchFolder::new_in(&self.cache)
            .map_err(|error| told(format!("{}: {error}", self.cache.display())))?;
        let (source, made) = (scratch.path().join("model.hlo_module.pb"), scratch.path().join("model.neff"));
        onnx::write_with(&source, |out| out.write_all(&bytes)).map_err(|error| told(error.to_string()))?;
        let output = self.run(command, &source, &made, scratch.path())?;
        if !output.status.success() || !made.is_file() {
            return Err(failure(&output, scratch.path()));
        }
        std::fs::rename(&made, &neff).map_err(|error| told(format!("{}: {error}", neff.display())))?;
        drop(lock);
        Ok(neff)
    }

    fn run(&self, command: &str, source: &Path, made: &Path, folder: &Path) -> Result<Output, EngineError> {
        let fill = |word: &str| {
            word.replace("{module}", &source.display().to_string()).replace("{output}", &made.display().to_string())
        };
        let words: Vec<String> = command.split_whitespace().skip(1).map(fill).collect();
        Command::new(&self.program).args(words).current_dir(folder).output().map_err(|error| EngineError::Compile {
            engine: NAME.into(),
            code: None,
            problem: format!("{} does not start: {error}", self.program.display()),
        })
    }
}

/// A compiler's end as an error: the NCC code in its output or in the log it left, else how it ended.
fn failure(output: &Output, folder: &Path) -> EngineError {
    let mut said = tail(output);
    let log = std::fs::read_to_string(folder.join("log-neuron-cc.txt")).unwrap_or_default();
    // A compiler may say much after its error: the code is looked for in all of it.
    let whole = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes));
    let code = whole.iter().find_map(|said| code_in(said)).or_else(|| code_in(&log));
    if said.is_empty() {
        said = log.chars().rev().take(TOLD).collect::<Vec<_>>().into_iter().rev().collect();
    }
    if said.is_empty() {
        said = "it said nothing".into();
    }
    let ended = match output.status.code() {
        Some(0) => "no-output".to_string(),
        Some(code) => format!("exit:{code}"),
        None => signal(output),
    };
    EngineError::Compile { engine: NAME.into(), code: Some(code.unwrap_or(ended)), problem: said }
}

#[cfg(unix)]
fn signal(output: &Output) -> String {
    use std::os::unix::process::ExitStatusExt;
    format!("signal:{}", output.status.signal().unwrap_or_default())
}

#[cfg(not(unix))]
fn signal(_: &Output) -> String {
    "killed".into()
}

/// The first NCC code in a text: `NCC_EVRF029`.
pub fn code_in(text: &str) -> Option<String> {
    let start = text.find("NCC_")?;
    let word: String = text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (word.len() > "NCC_".len()).then_some(word)
}

/// The end of what a command said, its errors first.
fn tail(output: &Output) -> String {
    let text = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr).trim(),
        String::from_utf8_lossy(&output.stdout).trim()
    );
    let text = text.trim();
    let skip = text.chars().count().saturating_sub(TOLD);
    text.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_logs() {
        assert_eq!(code_in("ERROR: [NCC_EVRF029] Operation sort is not supported").as_deref(), Some("NCC_EVRF029"));
        assert_eq!(code_in("2026 INFO x\nNCC_IGCA030: state buffer\nNCC_EX").as_deref(), Some("NCC_IGCA030"));
        assert_eq!(code_in("NCC_"), None);
        assert_eq!(code_in("all is well"), None);
    }
}
