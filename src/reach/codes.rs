//! What a target file knows of its compiler's errors, by the code that the compiler gives.

use indexmap::IndexMap;

use crate::target::Target;

/// The text for each code: `NCC_EVRF029`, `exit:70`. Where several faults share one, each is told.
pub(super) fn known(target: &Target) -> IndexMap<String, String> {
    let mut known: IndexMap<String, String> = IndexMap::new();
    let mut tell = |code: String, text: &str| {
        let all = known.entry(code).or_default();
        *all = if all.is_empty() { text.into() } else { format!("{all} {text}") };
    };
    for quirk in &target.quirks {
        let answer = quirk.answer.as_ref().map(|answer| format!(" Answered by {answer}.")).unwrap_or_default();
        let text = format!("Known as {}: {}{answer}", quirk.id, quirk.what);
        for code in quirk.symptom.code.iter().flat_map(|codes| codes.split(',')) {
            tell(code.trim().into(), &text);
        }
        if let Some(status) = quirk.symptom.crash.as_deref().and_then(|crash| crash.strip_prefix("exit ")) {
            tell(format!("exit:{}", status.trim()), &text);
        }
    }
    for note in &target.notes {
        for code in words(&note.what).filter(|word| word.starts_with("NCC_")) {
            tell(code.into(), &format!("Known as {}: {}", note.id, note.what));
        }
    }
    known
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TargetSet;

    #[test]
    fn every_code_of_the_neuron_file_is_explained_by_itself() {
        let known = known(TargetSet::shipped().get("neuron").unwrap());
        for (code, id) in [
            ("NCC_EVRF029", "N4"),
            ("NCC_INAS001", "N5"),
            ("NCC_ISGV902", "N5"),
            ("NCC_IGCA030", "N8"),
            ("NCC_EOOM002", "N37"),
            ("exit:70", "N3"),
        ] {
            assert!(known[code].contains(&format!("Known as {id}:")), "{code}: {:?}", known.get(code));
        }
        assert!(known.keys().all(|code| !code.contains(',')), "{known:?}");
    }
}
