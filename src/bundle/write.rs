//! Writes a bundle: as a draft in a temporary folder beside its place, which is renamed there when it is whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::manifest::Part;
use super::{BundleError, MANIFEST, Manifest, foreign_files, is_bundle};
use crate::graph::Model;
use crate::onnx;
use crate::scratch::{self, ScratchFolder};

/// A bundle in the making. Dropped before it is finished, it leaves nothing behind.
pub struct Draft {
    place: PathBuf,
    scratch: ScratchFolder,
    inside: PathBuf,
}

/// A file of the bundle besides models and manifest.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Its name in the folder.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether it is to be executable.
    pub executable: bool,
}

impl Draft {
    /// Starts a bundle that is to stand at `place`. A bundle that stands there already will be replaced; anything else
    /// there is an error.
    ///
    /// # Errors
    /// Something else stands there, or its folder cannot be written.
    pub fn new(place: &Path) -> Result<Self, BundleError> {
        refuse_foreign(place)?;
        let parent = parent_of(place);
        fs::create_dir_all(&parent).map_err(|source| BundleError::io(&parent, source))?;
        let scratch = ScratchFolder::new_in(&parent).map_err(|source| BundleError::io(&parent, source))?;
        let inside = scratch.path().join("bundle"); // one deeper, made with the user's own permissions
        fs::create_dir(&inside).map_err(|source| BundleError::io(&inside, source))?;
        Ok(Self { place: place.to_path_buf(), scratch, inside })
    }

    /// Writes a part's model.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_part(&self, part: &Part, model: &Model) -> Result<(), BundleError> {
        Ok(onnx::write(&self.inside.join(&part.file), &model.to_proto())?)
    }

    /// Where a file of this name stands while the bundle is made.
    pub fn path(&self, name: &str) -> PathBuf {
        self.inside.join(name)
    }

    /// Reads a part's model back, as whoever runs the bundle will.
    ///
    /// # Errors
    /// The file does not read as it was written.
    pub fn read_part(&self, part: &Part) -> Result<Model, BundleError> {
        Ok(crate::load(&self.inside.join(&part.file))?)
    }

    /// Writes manifest and text files and puts the bundle in its place.
    ///
    /// # Errors
    /// A file cannot be written, or something else stands in the place by now.
    pub fn finish(self, manifest: &Manifest, files: &[TextFile]) -> Result<(), BundleError> {
        for file in files {
            let path = self.inside.join(&file.name);
            fs::write(&path, &file.text).map_err(|source| BundleError::io(&path, source))?;
            #[cfg(unix)]
            if file.executable {
                use std::os::unix::fs::PermissionsExt;
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&path, mode).map_err(|source| BundleError::io(&path, source))?;
            }
        }
        let path = self.inside.join(MANIFEST);
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|error| BundleError::Manifest { path: path.clone(), problem: error.to_string() })?;
        fs::write(&path, text + "\n").map_err(|source| BundleError::io(&path, source))?;
        refuse_foreign(&self.place)?;
        replace(&self.inside, &self.place).map_err(|source| BundleError::io(&self.place, source))?;
        let beside = self.scratch.path().to_path_buf();
        self.scratch.close().map_err(|source| BundleError::io(&beside, source))
    }
}

fn parent_of(place: &Path) -> PathBuf {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn refuse_foreign(place: &Path) -> Result<(), BundleError> {
    let empty = || fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
    match fs::symlink_metadata(place) {
        Err(_) => Ok(()),
        Ok(_) if is_bundle(place) => match foreign_files(place)? {
            files if files.is_empty() => Ok(()),
            files => Err(BundleError::Foreign { path: place.to_path_buf(), files: files.join(", ") }),
        },
        Ok(_) if empty() => Ok(()),
        Ok(_) => Err(BundleError::NotOurs { path: place.to_path_buf() }),
    }
}

/// Puts the new folder in its place. Where the system can exchange two folders in one step, there is never a moment without
/// a bundle, and the old one goes away with the draft.
fn replace(new: &Path, place: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(place).is_err() {
        return fs::rename(new, place);
    }
    scratch::undisturbed(|| scratch::exchange(new, place).or_else(|_| replace_in_steps(new, place)))
}

/// An old bundle is moved aside first, and only removed once the new one stands.
fn replace_in_steps(new: &Path, place: &Path) -> std::io::Result<()> {
    let aside = tempfile::Builder::new().prefix(".porter-old-").tempdir_in(parent_of(place))?;
    let old = aside.path().join("bundle");
    fs::rename(place, &old)?;
    if let Err(error) = fs::rename(new, place) {
        // Put the old one back; where even that fails it stays where it is, for it is the only one.
        if fs::rename(&old, place).is_err() {
            let kept = aside.keep().join("bundle");
            return Err(std::io::Error::new(error.kind(), format!("{error}; the old bundle is in {}", kept.display())));
        }
        return Err(error);
    }
    aside.close()
}
