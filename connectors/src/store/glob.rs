//! Which files a pattern means. In: `*` and `?` within a name, `**` for any folders. Out: whether a path below the base fits.
//!
//! Names that begin with a dot or an underscore, and those of files that are still being written, fit only a pattern that spells this out.

/// How the names of files end that somebody is still writing.
const UNFINISHED: [&str; 6] = [".tmp", ".part", ".partial", ".inprogress", ".crdownload", "~"];

/// A path below a base folder, segment by segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<String>,
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        Pattern { segments: text.split('/').filter(|segment| !segment.is_empty()).map(str::to_string).collect() }
    }

    /// Every file of the folder itself.
    pub fn any() -> Pattern {
        Pattern { segments: vec!["*".into()] }
    }

    pub fn is_wild(segment: &str) -> bool {
        segment.contains(['*', '?'])
    }

    pub fn matches(&self, path: &[&str]) -> bool {
        fit(&self.segments, path)
    }

    /// Whether files below this folder may fit.
    pub fn may_match_below(&self, folder: &[&str]) -> bool {
        below(&self.segments, folder)
    }
}

fn fit(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            fit(rest, path) || path.split_first().is_some_and(|(name, below)| !below.is_empty() && is_plain(name) && fit(pattern, below))
        }
        (Some((first, rest)), Some((name, below))) => {
            let is_file = below.is_empty();
            fits_name(first, name) && (!is_file || is_finished(first, name)) && fit(rest, below)
        }
        _ => false,
    }
}

fn below(pattern: &[String], folder: &[&str]) -> bool {
    match (pattern.split_first(), folder.split_first()) {
        (Some(_), None) => true,
        (Some((first, rest)), Some((name, deeper))) if first == "**" => below(rest, folder) || (is_plain(name) && below(pattern, deeper)),
        (Some((first, rest)), Some((name, deeper))) => fits_name(first, name) && below(rest, deeper),
        (None, _) => false,
    }
}

fn is_plain(name: &str) -> bool {
    !name.starts_with(['.', '_'])
}

fn fits_name(pattern: &str, name: &str) -> bool {
    (is_plain(name) || pattern.chars().next() == name.chars().next()) && fits(pattern.as_bytes(), name.as_bytes())
}

fn is_finished(pattern: &str, name: &str) -> bool {
    !UNFINISHED.iter().any(|ending| name.ends_with(ending) && !pattern.ends_with(ending))
}

/// `*` is any bytes, `?` one character.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on if what came after the last star does not fit here.
    let (mut at, mut in_name, mut retry) = (0, 0, None);
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, in_name));
                at += 1;
            }
            Some(b'?') => {
                at += 1;
                in_name += 1;
                while in_name < name.len() && name[in_name] & 0xc0 == 0x80 {
                    in_name += 1;
                }
            }
            Some(byte) if *byte == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            _ => match &mut retry {
                Some((after, from)) => {
                    *from += 1;
                    (at, in_name) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).matches(&path.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_cross_folders() {
        for (pattern, path) in [
            ("part-*.csv", "part-7.csv"),
            ("*", "x"),
            ("a*b*c", "a12b3c"),
            ("part-??.csv", "part-éx.csv"),
            ("day=*/*.csv", "day=1/a.csv"),
            ("**/*.csv", "a.csv"),
            ("**/*.csv", "x/y/a.csv"),
            ("x/**/a.csv", "x/a.csv"),
            ("x/**/a.csv", "x/y/z/a.csv"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("part-*.csv", "part-7.json"),
            ("a*b*c", "ab"),
            ("ab*ba", "aba"),
            ("*", "x/y"),
            ("day=*/*.csv", "day=1/2/a.csv"),
            ("**/*.csv", "x/a.json"),
            ("part-?.csv", "part-10.csv"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn hidden_and_unfinished_files_must_be_spelled_out() {
        for (pattern, path) in
            [("*", ".a"), ("*", "_a"), ("*", "a.csv.tmp"), ("*", "a~"), ("**/*", ".git/a"), ("*.csv", ".part.csv"), ("*/*", "_t/a")]
        {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("_*", "_a"), ("*.tmp", "a.tmp"), (".hidden/*", ".hidden/a")] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn folders_without_a_match_are_not_listed() {
        let may = |pattern: &str, folder: &str| Pattern::new(pattern).may_match_below(&folder.split('/').collect::<Vec<_>>());
        assert!(may("day=*/*.csv", "day=1") && may("**/*.csv", "x/y") && may("x/**/a", "x/y/z"));
        assert!(!may("*.csv", "x") && !may("day=*/*.csv", "x") && !may("day=*/*.csv", "day=1/x") && !may("**/*", ".git"));
    }
}
