//! What stands behind `--input`: a file, a folder or a glob, with or without an input's name before it.

use std::path::{Path, PathBuf};

use super::{Form, InputError};

/// The kinds of picture that are read.
const PICTURES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// One `--input`.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The text as it was given.
    pub text: String,
    /// The input it is for, where it says so.
    pub name: Option<String>,
    /// The files it stands for, in order.
    pub files: Vec<PathBuf>,
}

/// Whether a file is a picture, going by its extension.
pub(super) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| PICTURES.contains(&extension.as_str()))
}

fn is_known(path: &Path) -> bool {
    is_picture(path) || Form::of(path).is_some()
}

/// Finds the files that an `--input` stands for. `names` are the model's inputs: what stands before a `=` is taken for
/// one of them only if it is one.
///
/// # Errors
/// Nothing is there, or nothing that can be read.
pub fn expand(text: &str, names: &[&str]) -> Result<Given, InputError> {
    let failed = |problem: String| InputError::Given { given: text.into(), problem };
    let (name, place) = match text.split_once('=') {
        Some((name, place)) if names.contains(&name) => (Some(name.to_string()), place),
        Some((name, _)) if !Path::new(text).exists() && !name.contains(['/', '*', '?', '[']) => {
            return Err(failed(format!("the model has no input '{name}'; it has {}", names.join(", "))));
        }
        _ => (None, text),
    };
    let path = Path::new(place);
    let mut files = Vec::new();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| failed(error.to_string()))?;
        for entry in entries {
            let file = entry.map_err(|error| failed(error.to_string()))?.path();
            if file.is_file() && is_known(&file) {
                files.push(file);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(failed(format!("the folder holds {}", nothing())));
        }
    } else if path.exists() {
        if !is_known(path) {
            return Err(failed(format!("is {}", nothing())));
        }
        files.push(path.to_path_buf());
    } else if place.contains(['*', '?', '[']) {
        let matches = glob::glob(place).map_err(|error| failed(format!("is no pattern: {error}")))?;
        for file in matches {
            let file = file.map_err(|error| failed(error.to_string()))?;
            if file.is_file() && is_known(&file) {
                files.push(file);
            }
        }
        if files.is_empty() {
            return Err(failed(format!("the pattern fits {}", nothing())));
        }
    } else {
        return Err(failed("there is no such file or folder".into()));
    }
    Ok(Given { text: text.into(), name, files })
}

fn nothing() -> String {
    format!("nothing that can be read: expected .npz, .npy, .safetensors, .{}", PICTURES.join(", ."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_globs_are_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.png", "a.JPG", "c.txt", "d.npz"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let place = folder.path().to_str().unwrap();
        let files = |text: &str| -> Vec<String> {
            let given = expand(text, &["x"]).unwrap();
            given.files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(files(place), ["a.JPG", "b.png", "d.npz"]);
        assert_eq!(files(&format!("{place}/*.png")), ["b.png"]);
        assert_eq!(expand(&format!("x={place}/b.png"), &["x"]).unwrap().name.as_deref(), Some("x"));
        let told = |text: &str| expand(text, &["x", "y"]).unwrap_err().to_string();
        assert_eq!(told("z=a.npy"), "--input z=a.npy: the model has no input 'z'; it has x, y");
        assert!(told(&format!("{place}/c.txt")).contains("is nothing that can be read: expected .npz"));
        assert!(told(&format!("{place}/*.jpeg")).contains("the pattern fits nothing"));
        assert!(told("nowhere.png").ends_with("there is no such file or folder"));
    }
}
