//! Messages on the local disk until a checkpoint holds their rows, so that the broker may forget them at once. In: messages in order, and how
//! far checkpoints are. Out: after a restart, the messages behind the checkpoint, under the offsets they had.
//!
//! Invariant: what lies below `kept` survives the machine. A broker lets only so many messages be unacknowledged (20 by default with
//! mosquitto and MQTT 3.1.1), so waiting for a checkpoint would let in no more than these between two of them.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};

use super::packet::Message;

/// A file of it; those that checkpoints have passed are deleted whole.
const SEGMENT_BYTES_MAX: u64 = 8 << 20;
/// What is written down at the latest while messages keep coming; it is also what one sync of the disk is shared by.
const BUFFERED_BYTES_MAX: usize = 1 << 20;
/// Length and sum of an entry.
const HEAD_BYTES: usize = 4 + 8;

#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    /// First offset and file, oldest first; the last one is written to.
    segments: VecDeque<(u64, PathBuf)>,
    file: Option<File>,
    /// Whole entries in the last segment.
    file_bytes: u64,
    /// Entries that are not in the file yet.
    buffer: Vec<u8>,
    buffered: u64,
    kept: u64,
}

impl Journal {
    /// Goes on at `from`, the offset of a checkpoint. Errors: the folder cannot be read or written.
    pub fn open(folder: &Path, from: u64) -> Result<(Journal, Replay)> {
        std::fs::create_dir_all(folder)?;
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if let Some(first) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()) {
                segments.push((first, path));
            }
        }
        segments.sort_unstable();
        let mut kept = from;
        let mut replayed = VecDeque::new();
        for (first, path) in &segments {
            let end = first + count(&std::fs::read(path)?);
            // What follows a hole was never acknowledged under these offsets.
            if end > kept && *first <= kept {
                kept = end;
                replayed.push_back((*first, path.clone()));
            } else {
                std::fs::remove_file(path)?;
            }
        }
        let segments = replayed.clone();
        let journal = Journal { folder: folder.into(), segments, file: None, file_bytes: 0, buffer: Vec::new(), buffered: 0, kept };
        Ok((journal, Replay { segments: replayed, from, bytes: Bytes::new(), next: from }))
    }

    /// No message below this is lost.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    pub fn is_dirty(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Enough has gathered.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= BUFFERED_BYTES_MAX
    }

    pub fn add(&mut self, message: &Message) {
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEAD_BYTES]);
        write(message, &mut self.buffer);
        let (length, sum) = ((self.buffer.len() - begin - HEAD_BYTES) as u32, sum(&self.buffer[begin + HEAD_BYTES..]));
        self.buffer[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
        self.buffer[begin + 4..begin + HEAD_BYTES].copy_from_slice(&sum);
        self.buffered += 1;
    }

    /// Everything added is on the disk. Errors: it is not, and is tried again by the next call.
    pub fn commit(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.append();
        if written.is_err() {
            // Half an entry may be there; the next ones go into a file of their own.
            self.file = None;
        }
        written?;
        self.file_bytes += self.buffer.len() as u64;
        self.kept += self.buffered;
        self.buffer.clear();
        self.buffered = 0;
        Ok(())
    }

    fn append(&mut self) -> Result<()> {
        if self.file.is_none() || self.file_bytes >= SEGMENT_BYTES_MAX {
            let path = self.folder.join(format!("{:020}.log", self.kept));
            self.file = Some(OpenOptions::new().create(true).write(true).truncate(true).open(&path)?);
            self.file_bytes = 0;
            self.segments.retain(|(first, _)| *first != self.kept);
            self.segments.push_back((self.kept, path));
            // The name must last as its content does.
            File::open(&self.folder)?.sync_all()?;
        }
        let file = self.file.as_mut().expect("it has just been opened");
        file.write_all(&self.buffer)?;
        file.sync_data()
    }

    /// A checkpoint holds everything below `offset`.
    pub fn trim(&mut self, offset: u64) -> Result<()> {
        while let Some((next, _)) = self.segments.get(1)
            && *next <= offset
            && let Some((_, path)) = self.segments.pop_front()
        {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// What an earlier run has left, in order.
#[derive(Debug)]
pub struct Replay {
    segments: VecDeque<(u64, PathBuf)>,
    from: u64,
    bytes: Bytes,
    next: u64,
}

impl Replay {
    pub fn next(&mut self) -> Result<Option<Message>> {
        loop {
            while let Some((entry, rest)) = entry(&self.bytes) {
                let message = read(entry).ok_or_else(|| Error::new(ErrorKind::InvalidData, "an entry of the journal cannot be read"))?;
                self.bytes = rest;
                self.next += 1;
                if self.next > self.from {
                    return Ok(Some(message));
                }
            }
            let Some((first, path)) = self.segments.pop_front() else { return Ok(None) };
            (self.bytes, self.next) = (std::fs::read(path)?.into(), first);
        }
    }
}

/// The first whole entry, and what follows it. None: nothing, or what a crash has torn.
fn entry(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let body = bytes.get(HEAD_BYTES..HEAD_BYTES.checked_add(length)?)?;
    (bytes[4..HEAD_BYTES] == sum(body)).then(|| (bytes.slice(HEAD_BYTES..HEAD_BYTES + length), bytes.slice(HEAD_BYTES + length..)))
}

fn count(bytes: &[u8]) -> u64 {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut count = 0;
    while let Some((_, after)) = entry(&rest) {
        (rest, count) = (after, count + 1);
    }
    count
}

fn sum(body: &[u8]) -> [u8; 8] {
    let hash = Sha256::digest(body);
    std::array::from_fn(|index| hash[index])
}

fn write(message: &Message, out: &mut Vec<u8>) {
    let Message { topic, payload, qos, retain, duplicate: _, id: _, content_type, response_topic, user, oversized } = message;
    out.extend_from_slice(&[*qos, u8::from(*retain)]);
    out.extend_from_slice(&oversized.map_or(u64::MAX, |bytes| bytes as u64).to_le_bytes());
    let mut part = |bytes: Option<&[u8]>| {
        out.extend_from_slice(&bytes.map_or(u32::MAX, |bytes| bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes.unwrap_or_default());
    };
    part(Some(topic.as_bytes()));
    part(Some(payload));
    part(content_type.as_ref().map(String::as_bytes));
    part(response_topic.as_ref().map(String::as_bytes));
    for (name, value) in user {
        part(Some(name.as_bytes()));
        part(Some(value.as_bytes()));
    }
}

fn read(mut bytes: Bytes) -> Option<Message> {
    let (qos, retain) = (bytes.try_get_u8().ok()?, bytes.try_get_u8().ok()? != 0);
    let oversized = usize::try_from(bytes.try_get_u64_le().ok()?).ok().filter(|bytes| *bytes != usize::MAX);
    let text = |part: Option<Bytes>| part.map(|part| String::from_utf8(part.to_vec())).transpose().ok();
    let topic = text(part(&mut bytes)?)??;
    let payload = part(&mut bytes)??;
    let (content_type, response_topic) = (text(part(&mut bytes)?)?, text(part(&mut bytes)?)?);
    let mut user = Vec::new();
    while !bytes.is_empty() {
        user.push((text(part(&mut bytes)?)??, text(part(&mut bytes)?)??));
    }
    Some(Message { topic, payload, qos, retain, duplicate: false, id: 0, content_type, response_topic, user, oversized })
}

/// None: the bytes are cut off. Some(None): it is absent.
fn part(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match bytes.try_get_u32_le().ok()? {
        u32::MAX => Some(None),
        length => (bytes.len() >= length as usize).then(|| Some(bytes.split_to(length as usize))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64) -> Message {
        let user = (0..number % 3).map(|index| (format!("name {index}"), String::new())).collect();
        let content_type = (number.is_multiple_of(2)).then(|| "text/plain".to_string());
        Message { topic: format!("t/{number}"), payload: vec![0xff; number as usize].into(), qos: 1, content_type, user, ..Message::default() }
    }

    fn rest(mut replay: Replay) -> Vec<Message> {
        std::iter::from_fn(|| replay.next().unwrap()).collect()
    }

    #[test]
    fn what_a_checkpoint_does_not_hold_comes_again_and_a_torn_end_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, replay) = Journal::open(folder.path(), 7).unwrap();
        assert!(rest(replay).is_empty());
        for number in 0..5 {
            journal.add(&message(number));
        }
        assert!(journal.is_dirty() && journal.kept() == 7);
        journal.commit().unwrap();
        assert_eq!((journal.kept(), journal.is_dirty()), (12, false));
        let path = journal.segments[0].1.clone();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();

        let (mut journal, replay) = Journal::open(folder.path(), 9).unwrap();
        assert_eq!(rest(replay), [message(2), message(3)]);
        assert_eq!(journal.kept(), 11);
        let large = Message { oversized: Some(99), retain: true, response_topic: Some("r".into()), ..message(1) };
        journal.add(&large);
        journal.commit().unwrap();
        let (mut journal, replay) = Journal::open(folder.path(), 10).unwrap();
        assert_eq!(rest(replay), [message(3), large]);
        journal.trim(10).unwrap();
        assert_eq!(journal.segments.len(), 2);
        journal.trim(11).unwrap();
        assert_eq!(journal.segments.len(), 1);
        // A checkpoint that is ahead of it: there is nothing to go on with.
        let (journal, replay) = Journal::open(folder.path(), 20).unwrap();
        assert!(rest(replay).is_empty() && journal.kept() == 20 && std::fs::read_dir(folder.path()).unwrap().count() == 0);
    }

    #[test]
    fn whatever_byte_is_broken_the_entries_before_it_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), 0).unwrap();
        (0..3).for_each(|number| journal.add(&message(number)));
        journal.commit().unwrap();
        let path = journal.segments[0].1.clone();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut broken = good.clone();
            broken[at] ^= 0x80;
            std::fs::write(&path, &broken).unwrap();
            let (_, replay) = Journal::open(folder.path(), 0).unwrap();
            let found = rest(replay);
            assert!(found.len() < 3 && found.iter().enumerate().all(|(number, found)| *found == message(number as u64)));
        }
    }
}
