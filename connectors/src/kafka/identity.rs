//! Which topic it is that bears a name: one that was deleted and created again has other records at the same offsets, and reading on would leave out
//! its first ones in silence. In: a consumer. Out: an error, once brokers give the topic another id than the one that was read.
//!
//! The id is remembered in the data directory, from before the first record is handed over. Brokers before 2.8 have no ids.

use std::path::PathBuf;

use freshet_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::bounds::{REQUEST_WAIT, Unready};
use super::client::Consumer;
use super::topic_id::topic_id;

/// The topic of one source.
pub struct Identity {
    source: String,
    topic: String,
    /// None: what was read before this process is not known.
    file: Option<PathBuf>,
    /// The id of what is being read.
    id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    topic: String,
    id: String,
}

impl Identity {
    pub fn new(source: &str, topic: &str, file: Option<PathBuf>) -> Identity {
        Identity { source: source.into(), topic: topic.into(), file, id: None }
    }

    /// Before the first record. Errors: Trouble while brokers do not answer or the id cannot be written down, Failed for another topic than the
    /// checkpoint's.
    pub fn begin(&mut self, consumer: &Consumer, from_checkpoint: bool) -> Result<(), Unready> {
        let topic = &self.topic;
        let asked = topic_id(consumer, topic, REQUEST_WAIT);
        let found = asked.map_err(|reason| Unready::Trouble(format!("the id of topic {topic} is not known: {reason}")))?;
        let Some(found) = found else { return Ok(()) };
        let remembered = self.remembered().map_err(|error| Unready::Trouble(error.message))?;
        match remembered.filter(|_| from_checkpoint) {
            Some(known) if known != found => return Err(Unready::Failed(self.another(&known, &found))),
            Some(_) => {}
            None => self.remember(&found).map_err(|error| Unready::Trouble(error.message))?,
        }
        self.id = Some(found);
        Ok(())
    }

    /// Whether brokers have answered. Errors: it is another topic by now.
    pub fn check(&self, consumer: &Consumer) -> Result<bool> {
        let Some(known) = &self.id else { return Ok(true) };
        match topic_id(consumer, &self.topic, REQUEST_WAIT) {
            Ok(Some(found)) if found != *known => Err(self.another(known, &found)),
            Ok(_) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    fn another(&self, known: &str, found: &str) -> Error {
        Error::data(format!(
            "source {}: topic {} has been deleted and created again: it was {known} and is {found} now, whose records have the same offsets; start from an \
             empty data directory, or give the new one another name",
            self.source, self.topic
        ))
    }

    /// The id of the last life, if it read the topic of this name.
    fn remembered(&self) -> Result<Option<String>> {
        let Some(file) = &self.file else { return Ok(None) };
        match std::fs::read(file) {
            Ok(bytes) => {
                let remembered = serde_json::from_slice::<Remembered>(&bytes).ok();
                Ok(remembered.filter(|remembered| remembered.topic == self.topic).map(|remembered| remembered.id))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::unavailable(format!("{} cannot be read: {error}", file.display()))),
        }
    }

    fn remember(&self, id: &str) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let text =
            serde_json::to_vec(&Remembered { topic: self.topic.clone(), id: id.into() }).map_err(|error| Error::internal(error.to_string()))?;
        let draft = file.with_extension("draft");
        let write = || -> std::io::Result<()> {
            file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&draft, &text)?;
            std::fs::File::open(&draft)?.sync_all()?;
            std::fs::rename(&draft, file)
        };
        write().map_err(|error| Error::unavailable(format!("the id of the topic cannot be kept in {}: {error}", file.display())))
    }
}
