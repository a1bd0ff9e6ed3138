//! The scripts of a bundle, for targets that compile ahead of time: one compiles its parts, one runs it on every core.

use crate::bundle::TextFile;
use crate::target::{Setting, Target};

/// The compile script's name in the bundle.
const COMPILE: &str = "compile.sh";
/// The run script's name in the bundle.
const RUN: &str = "run.sh";

/// Both scripts; none for targets that compile when they run, or where nothing runs there.
pub fn scripts(target: &Target, setting: &Setting, stems: &[String]) -> Vec<TextFile> {
    let file = |name: &str, text: String| TextFile { name: name.into(), text, executable: true };
    match compile_script(target, setting, stems) {
        Some(compile) => vec![file(COMPILE, compile), file(RUN, run_script(target, setting))],
        None => Vec::new(),
    }
}

/// A script that runs the bundle with porter, a session on each of the device's cores, on the inputs that it is given.
fn run_script(target: &Target, setting: &Setting) -> String {
    let cores = setting.device.facts.get("cores").and_then(|cores| cores.as_u64()).unwrap_or(1).max(1);
    let (target, device) = (&target.name, &setting.device.name);
    format!(
        "#!/bin/sh\n# Runs the bundle on all cores of a {device}: run.sh --input FOLDER --output found.json\n\
         set -eu\nfolder=$(cd \"$(dirname \"$0\")\" && pwd)\n\
         exec \"${{PORTER:-porter}}\" run \"$folder\" --target {target} --device {device} --jobs \"${{JOBS:-{cores}}}\" \"$@\"\n"
    )
}

/// A script that compiles each of the target's parts, from the target's command template.
///
/// In the template `{module}` is the compiler's input, `{neff}` and `{output}` the compiled file, `{device}` the device,
/// and any other name a fact of the device.
fn compile_script(target: &Target, setting: &Setting, stems: &[String]) -> Option<String> {
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
