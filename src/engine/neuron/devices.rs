//! The machine's Neuron devices, as `neuron-ls` lists them, and which of their cores a process takes.
//!
//! The runtime gives a process every core that it may see, and no other process any of those. So a process that is to run
//! beside others first claims one core, by a lock on a file that ends with the process, and shows the runtime that one alone.
//!
//! `neuron-ls --json-output` gives one object a device with its `neuron_device` number, its `nc_count` of cores and the
//! `neuron_processes` that hold some of them; newer versions wrap the list in an object.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::NAME;
use crate::engine::EngineError;

/// The command to ask, over the one on the path.
pub const LISTER: &str = "PORTER_NEURON_LS";
/// Where the SDK puts it.
const PLACE: &str = "/opt/aws/neuron/bin/neuron-ls";

/// The cores that the runtime shows a process: `0-3`, `0,2`.
const VISIBLE: &str = "NEURON_RT_VISIBLE_CORES";

/// What the machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// How many devices.
    pub devices: usize,
    /// How many cores they have together.
    pub cores: usize,
    /// Processes that hold cores now.
    pub processes: usize,
}

impl Devices {
    /// Asks the command that is named, what [`LISTER`] says, the one on the path, or the SDK's. `None` where there is no
    /// such command: the runtime knows the cores too.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where it says that there is no device, or says what is not understood.
    pub fn list(named: Option<PathBuf>) -> Result<Option<Self>, EngineError> {
        let set = std::env::var_os(LISTER).filter(|set| !set.is_empty()).map(PathBuf::from);
        let places = match named.or(set) {
            Some(one) => vec![one],
            None => vec!["neuron-ls".into(), PLACE.into()],
        };
        for place in places {
            match Command::new(&place).arg("--json-output").output() {
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stdout);
                    let told = String::from_utf8_lossy(&output.stderr);
                    return match (output.status.success(), Self::read(&said)) {
                        (true, Some(found)) if found.cores > 0 => Ok(Some(found)),
                        (true, Some(_)) => Err(absent(&place, "it lists no device")),
                        (true, None) => Err(absent(&place, &format!("its list is not understood: {}", start(&said)))),
                        (false, _) => Err(absent(&place, start(if told.trim().is_empty() { &said } else { &told }))),
                    };
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(absent(&place, &format!("it does not start: {error}"))),
            }
        }
        Ok(None)
    }

    /// What its JSON says; `None` where it is no such list.
    fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let list = match &value {
            Value::Object(object) => object.get("neuron_devices")?.as_array()?,
            other => other.as_array()?,
        };
        let mut found = Devices { devices: list.len(), ..Devices::default() };
        for device in list {
            found.cores += usize::try_from(device["nc_count"].as_u64()?).ok()?;
            found.processes += device["neuron_processes"].as_array().map_or(0, Vec::len);
        }
        Some(found)
    }
}

/// A core that this process has to itself while it lives.
pub struct Claim {
    /// Which of the machine's.
    pub core: usize,
    _lock: File,
}

impl Claim {
    /// Takes the first core that no process of porter's has, out of those that the user left visible, and shows the runtime
    /// that one alone. The runtime must not have been started. `folder` holds the locks.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where every core is taken, or the locks cannot be made.
    pub fn take(devices: Devices, folder: &Path) -> Result<Self, EngineError> {
        let cores = match std::env::var(VISIBLE) {
            Ok(set) => {
                listed(&set).ok_or_else(|| absent(Path::new(VISIBLE), &format!("'{set}' is no list of cores")))?
            }
            Err(_) => (0..devices.cores).collect(),
        };
        let told = |error: std::io::Error| absent(folder, &error.to_string());
        std::fs::create_dir_all(folder).map_err(told)?;
        for &core in &cores {
            let lock = File::create(folder.join(format!("core-{core}.lock"))).map_err(told)?;
            if lock.try_lock().is_ok() {
                // SAFETY: as for the size of logical cores: no other thread reads the environment yet.
                unsafe { std::env::set_var(VISIBLE, core.to_string()) };
                return Ok(Self { core, _lock: lock });
            }
        }
        Err(absent(
            folder,
            &format!("all {} cores are taken by other sessions of porter; ask for fewer --jobs", cores.len()),
        ))
    }
}

/// The cores of a list such as `0-2,5`.
fn listed(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once('-') {
            Some((first, last)) => cores.extend(first.trim().parse().ok()?..=last.trim().parse::<usize>().ok()?),
            None => cores.push(part.parse().ok()?),
        }
    }
    Some(cores)
}

fn absent(place: &Path, problem: &str) -> EngineError {
    EngineError::Absent {
        engine: NAME.into(),
        problem: format!("{}: {problem}", place.display()),
        fix: format!(
            "A Trainium or Inferentia instance lists its devices with `neuron-ls`; {LISTER} names another command; `--stand-in xla` runs the same module on the CPU"
        ),
    }
}

/// The first line of what a command said.
fn start(said: &str) -> &str {
    said.trim().lines().next().unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(listed("0-2, 5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(listed("3"), Some(vec![3]));
        assert_eq!(listed("all"), None);
    }

    #[test]
    fn both_forms_of_the_list_are_read() {
        let device = r#"{"neuron_device": 0, "bdf": "00:1e.0", "connected_to": null, "nc_count": 2, "memory_size": 34359738368,
            "neuron_processes": [{"pid": 7, "command": "serve", "neuroncore_ids": [0]}]}"#;
        let found = Devices { devices: 1, cores: 2, processes: 1 };
        assert_eq!(Devices::read(&format!("[{device}]")), Some(found));
        assert_eq!(
            Devices::read(&format!(r#"{{"instance_type": "trn1.2xlarge", "neuron_devices": [{device}]}}"#)),
            Some(found)
        );
        assert_eq!(Devices::read("[]"), Some(Devices::default()));
        assert_eq!(Devices::read(r#"[{"neuron_device": 0}]"#), None);
        assert_eq!(Devices::read("no devices"), None);
    }
}
