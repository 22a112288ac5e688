//! What a trainer prints: kept in a file of bounded size. Its last words on stderr are kept too, because they say why it failed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use freshet_core::Result;

use crate::retrain::journal::unavailable;
use crate::retrain::trainer::Line;

/// 4 MiB: a line of progress a second for half a day. What comes later is counted, not kept.
const LOG_BYTES_MAX: usize = 4 << 20;
/// How much of stderr a reason shows: a person reads it in a table.
const WORDS_LINES_MAX: usize = 3;
const WORDS_CHARS_MAX: usize = 400;

pub struct TrainerLog {
    path: PathBuf,
    file: File,
    bytes: usize,
    last: VecDeque<String>,
}

impl TrainerLog {
    /// Adds to what earlier attempts left. Errors: Unavailable.
    pub fn open(path: &Path) -> Result<TrainerLog> {
        let file = File::options().create(true).append(true).open(path).map_err(|error| unavailable(path, &error))?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len() as usize);
        Ok(TrainerLog { path: path.to_path_buf(), file, bytes, last: VecDeque::new() })
    }

    /// Another attempt: what the one before said is no reason any more.
    pub fn begin(&mut self, command: &str) -> Result<()> {
        self.last.clear();
        self.note(&format!("$ {command}"))
    }

    pub fn write(&mut self, line: &Line) -> Result<()> {
        match line {
            Line::Out(text) => {
                tracing::debug!(line = text, "the trainer says");
                self.note(text)
            }
            Line::Err(text) => {
                if !text.trim().is_empty() {
                    self.last.push_back(text.trim().to_string());
                    self.last.drain(..self.last.len().saturating_sub(WORDS_LINES_MAX));
                }
                self.note(text)
            }
        }
    }

    pub fn note(&mut self, text: &str) -> Result<()> {
        if self.bytes > LOG_BYTES_MAX {
            return Ok(());
        }
        self.bytes += text.len() + 1;
        let end = if self.bytes > LOG_BYTES_MAX { "… the log is full; the rest is not kept\n" } else { "" };
        self.file.write_all(format!("{text}\n{end}").as_bytes()).map_err(|error| unavailable(&self.path, &error))
    }

    /// `: last line of stderr`, or nothing.
    pub fn last_words(&self) -> String {
        let words = self.last.iter().map(String::as_str).collect::<Vec<_>>().join(" | ");
        let skipped = words.chars().count().saturating_sub(WORDS_CHARS_MAX);
        let kept: String = words.chars().skip(skipped).collect();
        match (kept.is_empty(), skipped) {
            (true, _) => String::new(),
            (_, 0) => format!(": {kept}"),
            _ => format!(": …{kept}"),
        }
    }
}
