//! The story of a run: on the screen, and as a JSON document.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;
use serde::Serialize;

use super::spoken;
use super::tensor::TensorStory;
use crate::engine::{Placement, Tensors};
use crate::run::{Answers, Crew, Done, Found, FoundIn, Line, Program};

/// Things that are listed one by one on the screen, at most.
const LISTED: usize = 20;
/// Pictures that are listed one by one on the screen, at most.
const PICTURES: usize = 40;

/// Everything there is to tell of a run.
pub struct Story {
    model: PathBuf,
    title: String,
    task: Option<String>,
    parts: Vec<PartStory>,
    compiled: Duration,
    jobs: usize,
    found: Vec<FoundIn>,
    tensors: Vec<TensorStory>,
    elements: usize,
    runs: usize,
    whole: Duration,
}

#[derive(Serialize)]
struct PartStory {
    #[serde(skip_serializing_if = "String::is_empty")]
    part: String,
    engine: String,
    #[serde(skip)]
    times: Vec<Duration>,
    /// The middle of what its runs took, in milliseconds.
    milliseconds: f64,
    /// How many nodes ran where, as far as the engine says.
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
}

#[derive(Serialize)]
struct Document<'a> {
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    parts: &'a [PartStory],
    jobs: usize,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    images: &'a [FoundIn],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    outputs: &'a [TensorStory],
    timing: Timing,
}

#[derive(Serialize)]
struct Timing {
    compile_seconds: f64,
    run_seconds: f64,
    runs: usize,
    elements: usize,
    elements_a_second: f64,
}

impl Story {
    pub fn new(model: &Path, program: &Program, crew: &Crew, stands_in: bool, compiled: Duration, jobs: usize) -> Self {
        let part = |(piece, label): (&crate::run::Piece, &str)| PartStory {
            part: piece.name.clone(),
            engine: match &program.target {
                Some((target, _)) if stands_in && piece.device == *target => {
                    format!("{label}, in place of {target}")
                }
                _ => label.to_string(),
            },
            times: Vec::new(),
            milliseconds: 0.0,
            placement: None,
        };
        Self {
            model: model.to_path_buf(),
            title: program.facts.title().unwrap_or_default(),
            task: program.head.is_some().then(|| program.facts.task.clone()).flatten(),
            parts: program.pieces.iter().zip(crew.labels()).map(part).collect(),
            compiled,
            jobs,
            found: Vec::new(),
            tensors: Vec::new(),
            elements: 0,
            runs: 0,
            whole: Duration::ZERO,
        }
    }

    /// A run is done.
    pub fn ran(&mut self, done: &Done) {
        self.runs += 1;
        self.elements += done.feed.frames.len();
        self.parts.iter_mut().zip(&done.took).for_each(|(part, &took)| part.times.push(took));
    }

    /// Something was found in a picture, or nothing.
    pub fn found(&mut self, found: FoundIn) {
        self.found.push(found);
    }

    /// Everything together took so long.
    pub fn took(&mut self, whole: Duration) {
        self.whole = whole;
        for part in &mut self.parts {
            part.times.sort();
            part.milliseconds = part.times.get(part.times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        }
    }

    /// Where the nodes of each part ran.
    pub fn placed(&mut self, lines: &[Line]) {
        let placements = lines.first().map(Line::placements).unwrap_or_default();
        self.parts.iter_mut().zip(placements).for_each(|(part, placement)| part.placement = placement.cloned());
    }

    /// The outputs of one more run, where nobody can read them as an answer. Only what is told of them is kept.
    pub fn tensors(&mut self, tensors: &Tensors) {
        for (name, tensor) in tensors {
            let more = TensorStory::of(name, tensor);
            match self.tensors.iter_mut().find(|story| story.name == *name) {
                Some(story) => story.add(more),
                None => self.tensors.push(more),
            }
        }
    }

    /// The story as a JSON document.
    pub fn document(&self) -> impl Serialize + '_ {
        Document {
            model: self.model.display().to_string(),
            task: self.task.as_deref(),
            parts: &self.parts,
            jobs: self.jobs,
            images: &self.found,
            outputs: &self.tensors,
            timing: Timing {
                compile_seconds: self.compiled.as_secs_f64(),
                run_seconds: self.whole.as_secs_f64(),
                runs: self.runs,
                elements: self.elements,
                elements_a_second: self.elements as f64 / self.whole.as_secs_f64().max(1e-9),
            },
        }
    }

    /// The story for the screen.
    pub fn text(&self) -> Vec<String> {
        let mut engines: Vec<&str> = self.parts.iter().map(|part| part.engine.as_str()).collect();
        engines.dedup();
        let words =
            [self.title.clone(), self.task.clone().unwrap_or_default(), format!("on {}", engines.join(" and "))];
        let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let mut lines = vec![format!("{}   {}", self.model.display(), words.join(", "))];
        let alone = self.found.len() == 1;
        for found in self.found.iter().take(PICTURES) {
            lines.extend(self.picture(found, alone));
        }
        if self.found.len() > PICTURES {
            lines.push(format!("  ... and {} more pictures (--json lists all)", self.found.len() - PICTURES));
        }
        let wide = self.tensors.iter().map(|tensor| tensor.name.chars().count()).max().unwrap_or(0);
        lines.extend(self.tensors.iter().map(|tensor| tensor.line(wide)));
        lines.push(format!("  {:<10}{}", "timing", self.timing()));
        lines
    }

    /// What was found in a picture: a table where it is the only one, else a line.
    fn picture(&self, found: &FoundIn, alone: bool) -> Vec<String> {
        let size = found.frame.fit.map(|fit| format!("{} x {}", fit.size[0], fit.size[1])).unwrap_or_default();
        let head = |what: String| format!("  {}   {size}   {what}", found.frame.name);
        match &found.answers {
            Answers::Classes(classes) => {
                let each =
                    |(ranked, name): &(crate::postprocess::Ranked, String)| format!("{:.3}  {name}", ranked.score);
                match alone {
                    false => vec![head(classes.first().map(each).unwrap_or_default())],
                    true => {
                        let table = classes.iter().map(|one| format!("    {}", each(one)));
                        std::iter::once(head(String::new()).trim_end().to_string()).chain(table).collect()
                    }
                }
            }
            Answers::Things(things) if things.is_empty() => vec![head("nothing found".into())],
            Answers::Things(things) => {
                let mut lines = vec![head(counts(things))];
                if alone {
                    let wide = things.iter().take(LISTED).map(|one| one.name.chars().count()).max().unwrap_or(0);
                    lines.extend(things.iter().take(LISTED).map(|one| row(one, wide)));
                    if things.len() > LISTED {
                        lines.push(format!("    ... and {} more (--json lists all)", things.len() - LISTED));
                    }
                }
                lines
            }
        }
    }

    /// `model 41.2 ms, host 0.3 ms a run; 12 pictures in 0.6 s (20.1 a second); compiled in 0.9 s`.
    fn timing(&self) -> String {
        let each = |part: &PartStory| {
            let time = spoken(Duration::from_secs_f64(part.milliseconds / 1e3));
            if part.part.is_empty() { time } else { format!("{} {time}", part.part) }
        };
        let mut said = self.parts.iter().map(each).collect::<Vec<_>>().join(", ");
        if self.runs > 1 {
            let jobs = if self.jobs > 1 { format!(", {} at once", self.jobs) } else { String::new() };
            let rate = self.elements as f64 / self.whole.as_secs_f64().max(1e-9);
            said += &format!(" a run; {} in {} ({rate:.1} a second{jobs})", self.elements, spoken(self.whole));
        }
        format!("{said}; compiled in {}", spoken(self.compiled))
    }
}

/// `3 person, 1 dog`.
fn counts(things: &[Found]) -> String {
    let mut counts: IndexMap<&str, usize> = IndexMap::new();
    things.iter().for_each(|one| *counts.entry(one.name.as_str()).or_default() += 1);
    counts.sort_by(|_, a, _, b| b.cmp(a));
    let more = counts.len().saturating_sub(6);
    let mut said: Vec<String> = counts.iter().take(6).map(|(name, count)| format!("{count} {name}")).collect();
    if more > 0 {
        said.push(format!("{more} more kinds"));
    }
    said.join(", ")
}

fn row(one: &Found, wide: usize) -> String {
    let found = &one.detection;
    let [left, top, right, bottom] = found.corners;
    let mut line =
        format!("    {:<wide$}  {:.3}   {left:6.1} {top:6.1} {right:6.1} {bottom:6.1}", one.name, found.score);
    if let Some(oriented) = &found.oriented {
        let ([x, y], [w, h]) = (oriented.centre, oriented.size);
        line = format!(
            "    {:<wide$}  {:.3}   {x:6.1} {y:6.1}   {w:6.1} x {h:<6.1} {:5.1} degrees",
            one.name,
            found.score,
            oriented.angle.to_degrees().rem_euclid(180.0)
        );
    }
    let seen = found.keypoints.iter().filter(|point| point.visible.is_none_or(|visible| visible >= 0.5)).count();
    if !found.keypoints.is_empty() {
        line += &format!("   {seen} of {} points", found.keypoints.len());
    }
    if let Some(mask) = &one.packed {
        line += &format!("   mask of {} pixels", mask.area);
    }
    line
}
