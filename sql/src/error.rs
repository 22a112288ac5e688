//! What is wrong with a script and where: file, line, column, one sentence and the way out.

use std::fmt;

use datafusion::sql::sqlparser::tokenizer::Location;

/// An error or warning that points into the user's text. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    pub file: String,
    pub line: u64,
    pub column: u64,
    pub message: String,
    pub help: Option<String>,
}

impl SqlError {
    pub fn new(file: &str, at: Location, message: impl Into<String>) -> SqlError {
        SqlError { file: file.to_string(), line: at.line, column: at.column, message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> SqlError {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SqlError {}

/// The known name that `name` most likely means: at most a third of its letters differ, and one may in a short
/// name. Ignores case.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.to_lowercase().chars().collect();
    let limit = (wanted.len() / 3).max(usize::from(wanted.len() > 1));
    let distances = known.into_iter().map(|candidate| (edit_distance(&wanted, &candidate.to_lowercase().chars().collect::<Vec<_>>()), candidate));
    distances.filter(|(distance, _)| *distance <= limit).min().map(|(_, candidate)| candidate)
}

/// How many letters must be inserted, removed, replaced or swapped with their neighbour.
fn edit_distance(left: &[char], right: &[char]) -> usize {
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typing_slips_and_nothing_else() {
        let known = ["connector", "path", "bad_data"];
        assert_eq!(nearest("conector", known), Some("connector"));
        assert_eq!(nearest("PAHT", known), Some("path"));
        assert_eq!(nearest("topic", known), None);
    }
}
