//! Many runs at once: a thread loads, a thread a part computes, and each hands over to the next. Or one after the other in
//! one thread, where the others would only take the engine's cores from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::line::{Stage, in_order};
use super::{Line, RunError};
use crate::engine::Tensors;
use crate::inputs::Feed;

/// Runs that wait between two parts: enough that neither waits for the other, few enough to hold in memory.
const WAITING: usize = 1;

/// How the work on many runs is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Loading, each part, and what becomes of the results in threads of their own: one run is loaded while another is
    /// computed.
    Beside,
    /// One run after the other in the caller's thread, where there is one line of one part. An engine that has every core
    /// to itself waits for the slowest of them: whoever takes one for a moment stops it on all.
    InTurn,
}

/// A run that is done.
pub struct Done {
    /// Its number.
    pub run: usize,
    /// What went in; its tensors are gone.
    pub feed: Feed,
    /// What came out.
    pub outputs: Tensors,
    /// What each part took.
    pub took: Vec<Duration>,
}

/// A run on its way.
struct Going {
    run: usize,
    feed: Feed,
    known: Tensors,
    took: Vec<Duration>,
}

/// Passes runs 0 to `runs` through the lines, each line one at a time a part, and hands the results to `take` in order.
/// `load` makes the tensors of a run.
///
/// # Errors
/// The first that `load`, a part or `take` gives; what is on its way is given up then.
pub fn pipeline<E: From<RunError> + Send>(
    lines: &mut [Line],
    runs: usize,
    pace: Pace,
    load: impl Fn(usize) -> Result<Feed, RunError> + Sync,
    mut take: impl FnMut(Done) -> Result<(), E>,
) -> Result<(), E> {
    if let (Pace::InTurn, [Line { stages, outputs, .. }]) = (pace, &mut *lines)
        && let [stage] = stages.as_mut_slice()
    {
        return in_turn(stage, outputs, runs, load, take);
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outputs: Vec<String> = lines.first().map(|line| line.outputs.clone()).unwrap_or_default();
    let parts: Vec<String> = lines.iter().flat_map(|line| line.stages.iter().map(|stage| stage.name.clone())).collect();
    std::thread::scope(|scope| {
        let (results, collected) = sync_channel::<Result<Going, RunError>>(lines.len().max(1));
        for line in lines.iter_mut() {
            let (next, stop, load) = (&next, &stop, &load);
            let mut to = results.clone();
            for stage in line.stages.iter_mut().rev() {
                let (before, mine) = sync_channel(WAITING);
                let following = std::mem::replace(&mut to, before);
                scope.spawn(move || {
                    for going in mine {
                        let done = going.and_then(|mut going: Going| {
                            let ran = catch(|| stage.run(&mut going.known));
                            let part = || stage.name.clone();
                            going.took.push(ran.map_err(|panic| RunError::Crashed { part: part(), panic })??);
                            Ok(going)
                        });
                        if following.send(done).is_err() {
                            return; // given up
                        }
                    }
                });
            }
            scope.spawn(move || {
                let fed = catch(|| feed(runs, next, stop, load, &to));
                if let Err(panic) = fed {
                    let _ = to.send(Err(RunError::Crashed { part: "the inputs".into(), panic }));
                }
            });
        }
        drop(results);
        let outcome = collect(collected, runs, &outputs, &mut take);
        stop.store(true, Ordering::Relaxed);
        match outcome {
            Ok(true) => Ok(()),
            // Every thread is gone and not every run came back.
            Ok(false) => {
                let part = parts.first().cloned().unwrap_or_default();
                Err(RunError::Crashed { part, panic: "a thread did not come back".into() }.into())
            }
            Err(error) => Err(error),
        }
    })
}

/// Every run in this thread.
fn in_turn<E: From<RunError>>(
    stage: &mut Stage,
    outputs: &[String],
    runs: usize,
    load: impl Fn(usize) -> Result<Feed, RunError>,
    mut take: impl FnMut(Done) -> Result<(), E>,
) -> Result<(), E> {
    for run in 0..runs {
        let loaded = catch(|| load(run)).map_err(|panic| RunError::Crashed { part: "the inputs".into(), panic });
        let mut feed = loaded.and_then(|feed| feed)?;
        let mut known = std::mem::take(&mut feed.tensors);
        let ran = catch(|| stage.run(&mut known));
        let took = ran.map_err(|panic| RunError::Crashed { part: stage.name.clone(), panic }).and_then(|took| took)?;
        take(Done { run, feed, outputs: in_order(known, outputs), took: vec![took] })?;
    }
    Ok(())
}

/// Turns a panic into what it said: one that left its thread would take the whole scope with it.
fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| said(panic.as_ref()))
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    text.unwrap_or_else(|| "a panic without words".into())
}

/// Loads runs for one line until there are no more.
fn feed(
    runs: usize,
    next: &AtomicUsize,
    stop: &AtomicBool,
    load: &(impl Fn(usize) -> Result<Feed, RunError> + Sync),
    feeds: &SyncSender<Result<Going, RunError>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let run = next.fetch_add(1, Ordering::Relaxed);
        if run >= runs {
            return;
        }
        let loaded = load(run).map(|mut feed| {
            let known = std::mem::take(&mut feed.tensors);
            Going { run, feed, known, took: Vec::new() }
        });
        let failed = loaded.is_err();
        if feeds.send(loaded).is_err() || failed {
            return;
        }
    }
}

/// Puts results in order and hands them on; says whether every run came back.
fn collect<E: From<RunError>>(
    results: Receiver<Result<Going, RunError>>,
    runs: usize,
    outputs: &[String],
    take: &mut impl FnMut(Done) -> Result<(), E>,
) -> Result<bool, E> {
    let mut early: BTreeMap<usize, Going> = BTreeMap::new();
    let mut wanted = 0;
    for going in results {
        let going = going?;
        early.insert(going.run, going);
        while let Some(Going { run, feed, known, took }) = early.remove(&wanted) {
            take(Done { run, feed, outputs: in_order(known, outputs), took })?;
            wanted += 1;
        }
    }
    Ok(wanted == runs)
}
