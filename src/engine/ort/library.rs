//! Finds ONNX Runtime's library on this machine and loads it, once for the process.
//!
//! porter neither links nor downloads it. It is looked for where a user says (`PORTER_ORT`, or `ORT_DYLIB_PATH` as the
//! `ort` crate has it), in porter's own folder (`PORTER_HOME`), and in the packages of the Python that is on the path:
//! the wheel `onnxruntime` carries the library. Python is only asked for its search path; nothing is imported.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use ort::AsPointer;

use super::super::{EngineError, quiet};

/// The release of the wheel that porter is tested with.
pub const TESTED: &str = "1.31.1";
/// What the `ort` crate needs at least.
const OLDEST: &str = "1.24";

/// ONNX Runtime's library file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The file.
    pub path: PathBuf,
    /// Who named it: `PORTER_ORT`, `PORTER_HOME`, `python3`.
    pub source: &'static str,
}

/// Looks for the library; `None` when there is none.
pub fn find() -> Option<Library> {
    locate().ok()
}

/// Looks for the library.
///
/// # Errors
/// There is none, or a variable names a place where it is not.
pub fn locate() -> Result<Library, EngineError> {
    locate_for(None)
}

/// As [`locate`], with the one first that came with a runtime of porter's (`ort-gpu` has another build than `ort`).
///
/// # Errors
/// As [`locate`].
pub fn locate_for(runtime: Option<&str>) -> Result<Library, EngineError> {
    for variable in ["PORTER_ORT", "ORT_DYLIB_PATH"] {
        if let Some(place) = std::env::var_os(variable).filter(|place| !place.is_empty()) {
            let place = PathBuf::from(place);
            let path = within(&place)
                .ok_or_else(|| absent(format!("{variable} says {}, where no ONNX Runtime is", place.display())))?;
            return Ok(Library { path, source: variable });
        }
    }
    let home = crate::home::home();
    let installed = runtime.into_iter().chain(["ort"]).map(crate::home::runtime);
    if let Some(path) = installed.chain([home.clone(), home.join("ort")]).find_map(|place| within(&place)) {
        return Ok(Library { path, source: "PORTER_HOME" });
    }
    if let Some((python, folders)) = python_path()
        && let Some(path) = folders.iter().find_map(|folder| within(folder))
    {
        return Ok(Library { path, source: python });
    }
    Err(absent("its library is not on this machine".into()))
}

/// A file of a Python package: in the runtime that porter installed, beside the ONNX Runtime that is used, or where
/// Python looks for packages.
pub fn in_package(package: &str, file: &str, runtime: Option<&str>) -> Option<PathBuf> {
    let folder = package.replace('-', "_");
    let at = |place: &Path| Some(place.join(&folder).join(file)).filter(|path| path.is_file());
    let beside = locate_for(runtime).ok().and_then(|library| library.path.ancestors().nth(3).map(Path::to_path_buf));
    let places = runtime.map(crate::home::runtime).into_iter().chain(beside);
    places.into_iter().find_map(|place| at(&place)).or_else(|| python_path()?.1.iter().find_map(|place| at(place)))
}

fn absent(problem: String) -> EngineError {
    EngineError::Absent {
        engine: "ONNX Runtime".into(),
        problem,
        fix: format!(
            "Install it with `porter runtime install ort`, or with: python3 -m pip install onnxruntime=={TESTED}; or set \
             PORTER_ORT to its library"
        ),
    }
}

/// The library at a place: the file itself, or where the wheel keeps it below a folder.
fn within(place: &Path) -> Option<PathBuf> {
    if place.is_file() {
        return Some(place.to_path_buf());
    }
    ["", "lib", "capi", "onnxruntime/capi"].iter().find_map(|below| {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(place.join(below)).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort(); // the plain name before the one with a version
        files.into_iter().find(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(is_library))
    })
}

fn is_library(name: &str) -> bool {
    let unix = name.starts_with("libonnxruntime.so") || name == "libonnxruntime.dylib";
    unix || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib")) || name == "onnxruntime.dll"
}

/// The Python on the path and where it looks for packages; asked once.
fn python_path() -> Option<(&'static str, &'static [PathBuf])> {
    static FOUND: OnceLock<Option<(&'static str, Vec<PathBuf>)>> = OnceLock::new();
    let found =
        FOUND.get_or_init(|| ["python3", "python"].into_iter().find_map(|python| Some((python, search_path(python)?))));
    found.as_ref().map(|(python, folders)| (*python, folders.as_slice()))
}

/// Where a Python looks for packages.
fn search_path(python: &str) -> Option<Vec<PathBuf>> {
    let output = Command::new(python)
        .args(["-c", "import sys; print('\\n'.join(sys.path))"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}

/// The process's one environment of ONNX Runtime, loading the library on the first call.
///
/// # Errors
/// The library is not found, does not load, or is too old. A failure stays for the life of the process.
/// There is one library to a process: the first call decides which runtime's it is.
pub(super) fn environment(runtime: Option<&str>) -> Result<&'static ort::environment::Environment, EngineError> {
    static ENVIRONMENT: OnceLock<Result<ort::environment::Environment, EngineError>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| load(runtime)).as_ref().map_err(Clone::clone)
}

/// The version of the loaded library, such as `1.31.1`; what it says of its build where it names none, empty where no
/// library is.
pub(super) fn version(runtime: Option<&str>) -> String {
    let Ok(environment) = environment(runtime) else { return String::new() };
    let own = environment.devices().find(|device| device.ep().is_ok_and(|name| name == "CPUExecutionProvider"));
    own.and_then(|device| metadata(&device, c"version")).unwrap_or_else(|| ort::info().to_string())
}

/// What a provider says of one of its devices under a key.
pub(super) fn metadata(device: &ort::device::Device, key: &CStr) -> Option<String> {
    let api = ort::api();
    // SAFETY: the device lives as long as the environment, which is never dropped; the text is copied at once.
    unsafe {
        let pairs = (api.EpDevice_EpMetadata)(device.ptr());
        let value = (api.GetKeyValue)(pairs, key.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

fn load(runtime: Option<&str>) -> Result<ort::environment::Environment, EngineError> {
    let library = locate_for(runtime)?;
    let told = |error: String| absent(format!("{} does not load: {error}", library.path.display()));
    let start = || -> Result<_, String> {
        let builder = ort::init_from(&library.path).map_err(|error| match error {
            ort::LoadDynamicError::BadVersion { version_str, .. } => {
                format!("it is version {version_str}, and porter needs {OLDEST} or newer")
            }
            other => other.to_string(),
        })?;
        let environment =
            builder.with_name("porter").with_telemetry(false).build().map_err(|error| error.to_string())?;
        // What goes wrong comes back as an error; the library need not write it to the terminal as well.
        environment.set_log_level(ort::logging::LogLevel::Fatal);
        Ok(environment)
    };
    quiet::catch(start).map_err(told)?.map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_their_neighbours() {
        for name in ["libonnxruntime.so", "libonnxruntime.so.1.31.1", "libonnxruntime.1.31.1.dylib", "onnxruntime.dll"]
        {
            assert!(is_library(name), "{name}");
        }
        for name in ["libonnxruntime_providers_shared.so", "onnxruntime.pyd", "libonnxruntime4j_jni.so"] {
            assert!(!is_library(name), "{name}");
        }
    }

    #[test]
    fn the_wheel_is_found_below_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(within(folder.path()), None);
        let capi = folder.path().join("onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        std::fs::write(capi.join("libonnxruntime_providers_shared.so"), "").unwrap();
        std::fs::write(capi.join("libonnxruntime.so.1.31.1"), "").unwrap();
        assert_eq!(within(folder.path()), Some(capi.join("libonnxruntime.so.1.31.1")));
    }
}
