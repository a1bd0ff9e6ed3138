//! What a run leaves behind: tensors, what was found, and annotated pictures.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::report::Story;
use crate::cli::{Failure, overwrite};
use crate::draw::{self, Thing};
use crate::engine::Tensors;
use crate::inputs::{self, Form, Plan};
use crate::run::{Answers, Found, FoundIn, Program};

/// A file to be written.
pub struct Output {
    path: PathBuf,
    json: bool,
}

impl Output {
    /// # Errors
    /// A form that is not known, or one of the files that are `read`.
    pub fn new(path: &Path, read: &[&Path]) -> Result<Self, Failure> {
        overwrite::refuse(path, read.iter().copied())?;
        let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if !json && Form::of(path).is_none() {
            return Err(Failure::input(format!(
                "{}: expected .npz, .npy or .safetensors for tensors, or .json for what was found",
                path.display()
            )));
        }
        Ok(Self { path: path.to_path_buf(), json })
    }

    /// Whether it is to hold what was found, not the tensors.
    pub fn is_json(&self) -> bool {
        self.json
    }

    pub fn write(&self, tensors: &Tensors, story: &Story) -> Result<(), Failure> {
        if !self.json {
            return inputs::write(&self.path, tensors).map_err(Failure::environment);
        }
        let text = serde_json::to_string_pretty(&story.document()).map_err(Failure::environment)? + "\n";
        std::fs::write(&self.path, text)
            .map_err(|error| Failure::environment(format!("{}: cannot be written: {error}", self.path.display())))
    }
}

/// Where annotated pictures go.
pub struct Drawing {
    path: PathBuf,
    /// The file is one of several in a folder.
    many: bool,
    /// What must not be drawn over.
    inputs: HashSet<PathBuf>,
    taken: Mutex<HashSet<PathBuf>>,
}

impl Drawing {
    pub fn new(path: &Path, program: &Program, plan: &Plan, read: &[&Path]) -> Result<Self, Failure> {
        if program.head.is_none() {
            return Err(Failure::input(
                "--draw: it is not known what the model's outputs mean, so there is nothing to draw",
            ));
        }
        if program.wanted.picture().is_none() {
            return Err(Failure::input(format!(
                "--draw: the model takes no picture to draw on; it takes {}",
                program.wanted.list()
            )));
        }
        let many = path.is_dir() || plan.pictures() > 1;
        let kind = image::ImageFormat::from_path(path).ok();
        if many && kind.is_some() && !path.is_dir() {
            return Err(Failure::input(format!(
                "--draw {}: there are {} pictures; give a folder",
                path.display(),
                plan.pictures()
            )));
        }
        if !many && !kind.is_some_and(|kind| kind.writing_enabled()) {
            return Err(Failure::input(format!("--draw {}: expected .png, .jpg or .webp", path.display())));
        }
        let inputs: HashSet<PathBuf> = plan.files().filter_map(|file| file.canonicalize().ok()).collect();
        if !many {
            overwrite::refuse(path, read.iter().copied())?;
        } else {
            std::fs::create_dir_all(path)
                .map_err(|error| Failure::environment(format!("{}: {error}", path.display())))?;
        }
        Ok(Self { path: path.to_path_buf(), many, inputs, taken: Mutex::default() })
    }

    /// Draws what was found in a picture.
    pub fn draw(&self, found: &FoundIn) -> Result<(), Failure> {
        let Some(mut picture) = found.frame.picture.clone() else { return Ok(()) };
        match &found.answers {
            Answers::Things(list) => {
                fn thing(one: &Found) -> Thing<'_> {
                    let Found { detection, name, mask, .. } = one;
                    Thing { detection, label: format!("{name} {:.2}", detection.score), mask: mask.as_ref() }
                }
                draw::things(&mut picture, &list.iter().map(thing).collect::<Vec<_>>());
            }
            Answers::Classes(classes) => {
                let line =
                    |(ranked, name): &(crate::postprocess::Ranked, String)| format!("{:.2} {name}", ranked.score);
                draw::lines(&mut picture, &classes.iter().map(line).collect::<Vec<_>>());
            }
        }
        let path = if self.many { self.place(&found.frame.name) } else { self.path.clone() };
        picture
            .save(&path)
            .map_err(|error| Failure::environment(format!("{}: cannot be written: {error}", path.display())))
    }

    /// A file of its own in the folder.
    fn place(&self, frame: &str) -> PathBuf {
        let stem = Path::new(frame).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.filter(|stem| !stem.is_empty()).unwrap_or_else(|| "picture".into());
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = |count: usize| match count {
            0 => format!("{stem}.png"),
            count => format!("{stem}-{count}.png"),
        };
        let input = |path: &Path| path.canonicalize().is_ok_and(|path| self.inputs.contains(&path));
        let mut places = (0..).map(|count| self.path.join(name(count)));
        let free = places.find(|path| !input(path) && taken.insert(path.clone()));
        free.unwrap_or_else(|| self.path.clone())
    }
}
