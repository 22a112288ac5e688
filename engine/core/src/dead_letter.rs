//! Records that could not be taken in (C3), and the seam through which they come in again.

use crate::{Epoch, Result};

/// A record that could not be decoded, with its provenance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetter {
    pub partition: u32,
    pub offset: u64,
    /// Where the partition is to be found: a file's path, `topic/partition`, a topic of sensors. Empty if the source has one place only.
    pub origin: String,
    pub field: String,
    pub reason: String,
    /// The record as it came, or as far as a limit allows.
    pub raw: Vec<u8>,
    /// Bytes of the whole record where `raw` is only its beginning; else 0.
    pub bytes_whole: u64,
    /// The record's key, where records have one.
    pub key: Option<Vec<u8>>,
    /// What decoding the record again needs beside its bytes, in the words of its connectors; may be empty.
    pub context: String,
    pub form: LetterForm,
}

impl DeadLetter {
    /// Bytes of the record as it came.
    pub fn raw_bytes(&self) -> u64 {
        self.bytes_whole.max(self.raw.len() as u64)
    }
}

/// How many dead letters a source keeps: the oldest go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterLimits {
    /// Bytes of all of them, with what they say besides their records.
    pub bytes_max: u64,
    /// A letter goes when the pipeline's time is so far beyond its epoch, or a sixteenth of that later. None: only the bytes count.
    pub age_ms: Option<u64>,
}

impl Default for LetterLimits {
    /// 64 MiB: some hundred thousand records as most are, a thousand of the largest that are kept whole.
    fn default() -> LetterLimits {
        LetterLimits { bytes_max: 64 << 20, age_ms: None }
    }
}

/// What the bytes of a dead letter are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LetterForm {
    /// Those of the record.
    #[default]
    Record,
    /// The record was read, so its bytes are gone: its row as a JSON object.
    Row,
    /// As `Row`, but the row alone is not all that the record says: it took a row out, or changed one.
    Change,
}

impl LetterForm {
    pub fn name(self) -> &'static str {
        match self {
            LetterForm::Record => "record",
            LetterForm::Row => "row",
            LetterForm::Change => "change",
        }
    }

    pub fn of(name: &str) -> LetterForm {
        match name {
            "row" => LetterForm::Row,
            "change" => LetterForm::Change,
            _ => LetterForm::Record,
        }
    }
}

/// Which dead letters of a source are to come in again; all of these conditions hold for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayRequest {
    pub source: String,
    /// In any of these; empty: anywhere.
    pub offsets: Vec<OffsetRange>,
    /// The reason contains this text.
    pub reason: Option<String>,
    /// In place of the bytes that are kept; only these records then.
    pub corrected: Vec<Corrected>,
    /// Only tell what would happen.
    pub dry_run: bool,
}

/// Offsets of one partition, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    pub partition: u32,
    pub from: u64,
    pub to: u64,
}

impl OffsetRange {
    pub fn contains(&self, partition: u32, offset: u64) -> bool {
        self.partition == partition && (self.from..=self.to).contains(&offset)
    }
}

/// A dead record as it should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrected {
    pub partition: u32,
    pub offset: u64,
    pub raw: Vec<u8>,
}

/// What has become of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records that the request names.
    pub selected: u64,
    /// Those that can be read now: they have left the dead letters, or would in a dry run.
    pub replayed: u64,
    /// The epoch of the last of them; None: nothing came in.
    pub epoch: Option<Epoch>,
    /// The first of those that still cannot be read.
    pub refused: Vec<Refused>,
}

/// A dead letter that stays one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub partition: u32,
    pub offset: u64,
    pub field: String,
    pub reason: String,
}

/// Lets dead letters of a running pipeline come in again. Any thread, any time; one request at a time.
pub trait Replay: Send + Sync {
    /// Errors: Invalid (no such source, a clock or connector that forbids it, a correction of what is no dead letter), Unavailable (the pipeline
    /// has ended, is stopping or is busy; then nothing has come in that the answer does not name).
    fn replay(&self, request: &ReplayRequest) -> Result<Replayed>;
}
