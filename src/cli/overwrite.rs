//! What a command reads, it does not write over.

use std::path::Path;

use super::Failure;
use crate::bundle;

/// Refuses an output that is one of the files that are read, or belongs to a bundle that is.
///
/// # Errors
/// The failure that says so.
pub fn refuse<'a>(output: &Path, read: impl IntoIterator<Item = &'a Path>) -> Result<(), Failure> {
    let Ok(real) = output.canonicalize() else { return Ok(()) }; // there is nothing to write over
    let same = |path: &Path| path.canonicalize().is_ok_and(|path| path == real);
    let belongs = |folder: &Path| {
        let manifest = folder.is_dir().then(|| bundle::read(folder).ok()).flatten();
        let files = manifest.map(|manifest| manifest.files).unwrap_or_default();
        files.iter().map(String::as_str).chain([bundle::MANIFEST]).any(|file| same(&folder.join(file)))
    };
    match read.into_iter().find(|path| same(path) || belongs(path)) {
        None => Ok(()),
        Some(path) => {
            let place = output.display();
            let what = if same(path) { "is an input".into() } else { format!("belongs to {}", path.display()) };
            Err(Failure::input(format!("{place}: {what}, which would be overwritten"))
                .help("name another file")
                .at(place))
        }
    }
}
