//! The compile script of a bundle, for targets that compile ahead of time.

use crate::target::{Setting, Target};

/// The script's name in the bundle.
pub const NAME: &str = "compile.sh";

/// A script that compiles each of the target's parts, from the target's command template.
///
/// In the template `{module}` is the compiler's input, `{neff}` and `{output}` the compiled file, `{device}` the device,
/// and any other name a fact of the device.
pub fn compile_script(target: &Target, setting: &Setting, stems: &[String]) -> Option<String> {
    let template = target.compile.as_deref()?;
    let mut script = String::from(
        "#!/bin/sh\n# Compiles the bundle's parts for the target. Run it where the target's compiler is installed.\n\
         set -eu\ncd \"$(dirname \"$0\")\"\n",
    );
    for stem in stems {
        let module = format!("{stem}.hlo_module.pb");
        let mut command = template
            .replace("{module}", &module)
            .replace("{neff}", &format!("{stem}.neff"))
            .replace("{output}", &format!("{stem}.neff"))
            .replace("{device}", &setting.device.name);
        for (name, fact) in &setting.device.facts {
            let text = fact.as_str().map_or_else(|| fact.to_string(), str::to_string);
            command = command.replace(&format!("{{{name}}}"), &text);
        }
        script.push_str(&format!(
            "if [ ! -f {module} ]; then\n  echo \"{module} is missing: lower {stem}.onnx first\" >&2\n  exit 3\nfi\n{command}\n"
        ));
    }
    Some(script)
}
