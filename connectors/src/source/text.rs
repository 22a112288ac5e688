//! Cuts text files into records and decodes them. In: JSON lines or CSV files. Out: batches; a record that cannot be decoded is a dead letter of its own.
//!
//! Blank lines are no records. The offset of a record is its running number over all files, headers not counted.

use std::rc::Rc;

use freshet_core::{Encode, Error, Result, SourceBatch, SourceDef};

use super::metadata::Place;
use super::{Files, Records};
use crate::decode::{Record, RecordDecoder, Rows};
use crate::options::Csv;
use crate::store::{Store, StoredFile};

/// One read: large enough that a request to a bucket pays off.
const READ_BYTES: u64 = 4 << 20;
/// A longer record means that the file has another encoding.
const RECORD_BYTES_MAX: usize = 16 << 20;

pub struct TextRecords {
    store: Rc<Store>,
    files: Vec<StoredFile>,
    rows: Rows,
    decoder: RecordDecoder,
    csv: bool,
    header: bool,
    /// A blank line of a file with one column is a record.
    blank_counts: bool,
    file_index: usize,
    read_bytes: u64,
    buffer: Vec<u8>,
    cursor: usize,
    file_begun: bool,
    /// Of the first record of this file.
    file_first: u64,
    offset: u64,
    /// Comes after the rows that were read before it.
    failure: Option<Error>,
}

/// What the splitter found.
enum Found {
    /// A record, without its line end, within the buffer.
    Record(std::ops::Range<usize>),
    FileEnded,
}

impl TextRecords {
    /// Errors: Invalid if the first header does not fit.
    pub fn open(def: &SourceDef, files: Files) -> Result<TextRecords> {
        let Files { store, files, first } = files;
        for file in &files {
            if let Some(ending) = [".gz", ".zst", ".bz2", ".xz"].iter().find(|ending| file.name.ends_with(**ending)) {
                return Err(Error::invalid(format!("{}: compressed text ({ending}) is not in this build yet; decompress the file", file.name)));
            }
        }
        let csv = def.encode == Encode::Csv;
        let header = csv && Csv::parse(&def.options).map_err(|error| Error::invalid(error.message))?.header;
        let mut records = TextRecords {
            store,
            files,
            rows: Rows::new(def.schema.clone()),
            decoder: RecordDecoder::open(def)?,
            csv,
            header,
            blank_counts: csv && def.schema.fields().len() == 1,
            file_index: 0,
            read_bytes: 0,
            buffer: Vec::new(),
            cursor: 0,
            file_begun: false,
            file_first: first,
            offset: first,
            failure: None,
        };
        records.begin_file()?;
        Ok(records)
    }

    /// Reads the header, if the file has one.
    fn begin_file(&mut self) -> Result<()> {
        self.file_begun = true;
        self.file_first = self.offset;
        if !self.header {
            return self.decoder.begin(None).map_err(|reason| self.unfit(&reason));
        }
        match self.find()? {
            Found::Record(range) => {
                let header = self.buffer[range].to_vec();
                self.decoder.begin(Some(&header)).map_err(|reason| self.unfit(&reason))
            }
            // An empty file has no records whatever its columns.
            Found::FileEnded => Ok(()),
        }
    }

    fn unfit(&self, reason: &str) -> Error {
        Error::invalid(format!("{}: {reason}", self.files[self.file_index].name))
    }

    /// The next record of any file as a range of the buffer; None after the last.
    fn find_record(&mut self) -> Result<Option<std::ops::Range<usize>>> {
        while self.file_index < self.files.len() {
            if !self.file_begun {
                self.begin_file()?;
            }
            match self.find()? {
                Found::Record(range) => return Ok(Some(range)),
                Found::FileEnded => {
                    self.file_index += 1;
                    self.read_bytes = 0;
                    self.buffer.clear();
                    self.cursor = 0;
                    self.file_begun = false;
                }
            }
        }
        Ok(None)
    }

    /// The next record of this file.
    fn find(&mut self) -> Result<Found> {
        let mut scanned = self.cursor;
        let mut quoted = false;
        loop {
            match self.line_end(&mut scanned, &mut quoted) {
                Some(end) => {
                    let begin = std::mem::replace(&mut self.cursor, end + 1);
                    scanned = self.cursor;
                    if let Some(range) = self.trimmed(begin, end) {
                        return Ok(Found::Record(range));
                    }
                }
                None if self.read_bytes < self.files[self.file_index].bytes => {
                    scanned -= self.cursor;
                    self.refill()?;
                    scanned += self.cursor;
                }
                None => {
                    let (begin, end) = (self.cursor, self.buffer.len());
                    self.cursor = end;
                    if begin < end
                        && let Some(range) = self.trimmed(begin, end)
                    {
                        return Ok(Found::Record(range));
                    }
                    return Ok(Found::FileEnded);
                }
            }
        }
    }

    /// Where the record ends that begins at the cursor; `scanned` and `quoted` remember the search over a refill.
    fn line_end(&self, scanned: &mut usize, quoted: &mut bool) -> Option<usize> {
        if !self.csv {
            let end = memchr::memchr(b'\n', &self.buffer[*scanned..]).map(|found| *scanned + found);
            *scanned = end.unwrap_or(self.buffer.len());
            return end;
        }
        while let Some(found) = memchr::memchr2(b'\n', b'"', &self.buffer[*scanned..]) {
            let at = *scanned + found;
            *scanned = at + 1;
            match self.buffer[at] {
                b'"' => *quoted = !*quoted,
                _ if !*quoted => return Some(at),
                _ => {}
            }
        }
        *scanned = self.buffer.len();
        None
    }

    /// Without the carriage return; None if nothing is left that counts.
    fn trimmed(&self, begin: usize, end: usize) -> Option<std::ops::Range<usize>> {
        let end = if end > begin && self.buffer[end - 1] == b'\r' { end - 1 } else { end };
        let blank = self.buffer[begin..end].iter().all(u8::is_ascii_whitespace);
        (!blank || self.blank_counts).then_some(begin..end)
    }

    fn refill(&mut self) -> Result<()> {
        let file = &self.files[self.file_index];
        if self.buffer.len() - self.cursor > RECORD_BYTES_MAX {
            let offset = self.offset;
            return Err(Error::data(format!("{}: record {offset} is longer than 16 MiB; is the file of another encoding?", file.name)));
        }
        self.buffer.drain(..self.cursor);
        self.cursor = 0;
        let end = (self.read_bytes + READ_BYTES).min(file.bytes);
        let bytes = self.store.read(file, self.read_bytes..end).map_err(|error| error.into_error(&file.name))?;
        let first = self.read_bytes == 0;
        self.read_bytes = end;
        let content = if first { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
        self.buffer.extend_from_slice(content);
        Ok(())
    }
}

impl Records for TextRecords {
    fn skip(&mut self, records: u64) -> Result<()> {
        while self.offset < records {
            if self.find_record()?.is_none() {
                let found = self.offset;
                return Err(Error::data(format!("cannot go on at record {records}: the files have only {found}; they have changed since")));
            }
            self.offset += 1;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<SourceBatch>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let begin = self.offset;
        while !self.rows.is_full() {
            match self.read_record() {
                Ok(true) => {}
                Ok(false) => break,
                Err(failure) if self.offset == begin => return Err(failure),
                Err(failure) => {
                    self.failure = Some(failure);
                    break;
                }
            }
        }
        if self.offset == begin {
            return Ok(None);
        }
        self.rows.finish(0, self.offset).map(Some)
    }
}

impl TextRecords {
    /// Decodes the next record. False after the last.
    fn read_record(&mut self) -> Result<bool> {
        let Some(range) = self.find_record()? else { return Ok(false) };
        let file = &self.files[self.file_index];
        let place = Place { file, record: self.offset, row: self.offset - self.file_first };
        let record = Record { key: None, payload: Some(&self.buffer[range]), offset: self.offset, origin: &file.name, metadata: &place };
        self.decoder.decode(&record, &mut self.rows).map_err(|wait| Error::unavailable(format!("{}: {}", file.name, wait.reason)))?;
        self.offset += 1;
        Ok(true)
    }
}
