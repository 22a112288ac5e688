//! ARCHITECTURE.md names every crate and every folder of source. In: its text and the places that exist. Out: the places it leaves out.

use std::path::Path;

use anyhow::Result;

use super::Report;

pub fn check(architecture: &str, places: &[String], report: &mut Report) {
    for place in places.iter().filter(|place| !names(architecture, place)) {
        report.fail("ARCHITECTURE.md", format!("does not name `{place}`; say there what lives in it"));
    }
}

/// Whether the text names exactly this path, not only a longer one.
fn names(text: &str, place: &str) -> bool {
    text.match_indices(place).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + place.len()..].trim_start_matches('/').chars().next();
        let part_of_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/');
        !before.is_some_and(part_of_path) && !after.is_some_and(part_of_path)
    })
}

/// Crate folders, and all folders below their `src`, relative to the root.
pub fn places(crates: &[String], root: &Path) -> Result<Vec<String>> {
    let mut places = Vec::new();
    for folder in crates {
        places.push(folder.clone());
        folders_below(root, &format!("{folder}/src"), &mut places)?;
    }
    places.sort();
    Ok(places)
}

fn folders_below(root: &Path, folder: &str, places: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            places.push(path.clone());
            folders_below(root, &path, places)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_named_fails() {
        let mut report = Report::default();
        let places = ["engine".to_string(), "engine/src/bridge".to_string(), "sql".to_string()];
        check("`engine/src/bridge/` is where threads meet; `sql` plans", &places, &mut report);
        assert_eq!(report.failures, ["ARCHITECTURE.md: does not name `engine`; say there what lives in it"]);
    }
}
