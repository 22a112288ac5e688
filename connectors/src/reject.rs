//! Records that the other side will never take. In: what and why. Out: an error, or a count and a warning: `on_reject`.

use std::collections::BTreeMap;

use freshet_core::{Error, OptionError, Result};
use tracing::warn;

use crate::options::wrong;

pub const ON_REJECT: &str = "on_reject";
/// Rejected records that are told one by one; then each power of two.
const TOLD_EACH: u64 = 8;

/// What a sink does with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejects {
    sink: String,
    fail: bool,
    count: u64,
}

impl Rejects {
    pub fn parse(sink: &str, options: &BTreeMap<String, String>) -> Result<Rejects, OptionError> {
        let fail = match options.get(ON_REJECT).map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("fail") => true,
            Some("drop") => false,
            Some(other) => return Err(wrong(ON_REJECT, format!("on_reject is 'fail' or 'drop', found '{other}'"))),
        };
        Ok(Rejects { sink: sink.to_string(), fail, count: 0 })
    }

    pub fn drops(&self) -> bool {
        !self.fail
    }

    /// Errors: Data, naming the record, unless such records are dropped.
    pub fn reject(&mut self, record: &str, reason: &str) -> Result<()> {
        let sink = self.sink.clone();
        self.reject_as(record, reason, || format!("sink {sink}: {record} cannot be delivered: {reason}; mend it, or set on_reject = 'drop'"))
    }

    /// The same where the error is in other words.
    pub fn reject_as(&mut self, record: &str, reason: &str, said: impl FnOnce() -> String) -> Result<()> {
        if self.fail {
            return Err(Error::data(said()));
        }
        self.count += 1;
        if self.count <= TOLD_EACH || self.count.is_power_of_two() {
            warn!(sink = self.sink, record, reason, count = self.count, "a record cannot be delivered and is dropped");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_nobody_takes_stops_the_sink_unless_told_otherwise() {
        let mut rejects = Rejects::parse("out", &BTreeMap::new()).unwrap();
        let error = rejects.reject("row 1", "404").unwrap_err();
        assert_eq!(error.message, "sink out: row 1 cannot be delivered: 404; mend it, or set on_reject = 'drop'");
        let mut rejects = Rejects::parse("out", &[(ON_REJECT.to_string(), "drop".to_string())].into()).unwrap();
        rejects.reject("row 1", "404").unwrap();
        assert_eq!(rejects.count, 1);
        assert!(Rejects::parse("out", &[(ON_REJECT.to_string(), "x".to_string())].into()).is_err());
    }
}
