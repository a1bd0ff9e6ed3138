//! From a target file's `reach` to a provider of ONNX Runtime, with the words after the target's name.

use indexmap::IndexMap;

use super::{Options, ReachError};
use crate::engine::ort::{Optimisation, Ort, Plugin, Provider};
use crate::target::{Reach, Target};

/// The CPU provider is ONNX Runtime itself.
pub(super) const CPU: &str = "CPUExecutionProvider";

/// ONNX Runtime as the target and the words say. `None` where the target is not reached through it.
///
/// # Errors
/// A word that means nothing there, or a device that the target does not have.
pub(super) fn ort(text: &str, target: &Target, words: &[String], options: &Options) -> Result<Option<Ort>, ReachError> {
    let Reach::Onnxruntime { provider, options: own, modes, plugin, runtime, system, .. } = &target.reach else {
        return Ok(None);
    };
    let mut settings: IndexMap<String, String> = own.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let (mut optimisation, mut partial) = (Optimisation::All, false);
    for word in words {
        match (word.as_str(), word.split_once('=')) {
            ("off", _) => optimisation = Optimisation::Off,
            ("basic", _) => optimisation = Optimisation::Basic,
            ("all", _) => optimisation = Optimisation::All,
            ("partial", _) => partial = true,
            (_, Some((key, value))) => set(&mut settings, key, value),
            (mode, None) => match modes.get(mode) {
                Some(changes) => changes.iter().for_each(|(key, value)| set(&mut settings, key, value)),
                None => {
                    let known: Vec<&str> = modes.keys().map(String::as_str).collect();
                    let known = if known.is_empty() { String::new() } else { format!("{}, ", known.join(", ")) };
                    return Err(ReachError::Spec {
                        text: text.into(),
                        problem: format!(
                            "'{mode}' means nothing; expected {known}off, basic, all, partial or OPTION=VALUE"
                        ),
                    });
                }
            },
        }
    }
    options.provider_options.iter().for_each(|(key, value)| set(&mut settings, key, value));
    let device = target.setting(options.device.as_deref(), None)?.device.name;
    let provider = (provider != CPU).then(|| Provider {
        label: target.name.clone(),
        name: provider.clone(),
        options: settings,
        plugin: plugin.as_ref().map(|plugin| Plugin {
            name: plugin.name.clone(),
            package: plugin.package.clone(),
            library: plugin.library.clone(),
            device: Some(device).filter(|device| !device.is_empty()),
        }),
        partial,
        runtime: runtime.clone(),
        system: system.clone(),
    });
    Ok(Some(Ort { optimisation, threads: options.threads, provider }))
}

/// Sets an option, or leaves it out.
fn set(settings: &mut IndexMap<String, String>, key: &str, value: &str) {
    if value.is_empty() {
        settings.shift_remove(key);
    } else {
        settings.insert(key.into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(words: &[&str]) -> Result<Ort, ReachError> {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        ort("cuda:...", Target::shipped("cuda").unwrap(), &words, &Options::default()).map(Option::unwrap)
    }

    #[test]
    fn words_change_what_the_file_says() {
        let plain = made(&[]).unwrap();
        assert_eq!(plain.optimisation, Optimisation::All);
        assert_eq!(plain.provider.unwrap().options["use_tf32"], "0");
        let tuned = made(&["off", "partial", "use_tf32=", "device_id=1"]).unwrap();
        let provider = tuned.provider.unwrap();
        assert_eq!(tuned.optimisation, Optimisation::Off);
        assert!(provider.partial && provider.options["device_id"] == "1" && !provider.options.contains_key("use_tf32"));
        assert_eq!(made(&["tf32"]).unwrap().provider.unwrap().options["use_tf32"], "1");
        let told = made(&["tf3"]).unwrap_err().to_string();
        assert!(told.contains("'tf3' means nothing; expected tf32, off, basic"), "{told}");
    }
}
