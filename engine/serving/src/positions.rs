//! Read your writes (C2). In: positions that a client was told when it wrote. Out: the moment from which a read sees them, or an error that
//! says how far the pipeline is. A read without positions passes through without waiting.

use std::time::Instant;

use freshet_core::{Epoch, Error, Reader, Result};
use serde::{Deserialize, Serialize};

use crate::limits::{MIN_POSITION_LOOK_EVERY, MIN_POSITION_WAIT_MAX, MIN_POSITIONS_MAX};
use crate::lookup::machine_epoch;

/// The gRPC metadata that carries positions beside any read: `rides:0:42`, several with commas.
pub const MIN_POSITION_HEADER: &str = "x-freshet-min-position";

/// How often a waiting read looks whether the pipeline has failed, in looks.
const FAILURE_LOOK_EVERY: u32 = 100;

/// Everything of a source's partition before this position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub source: String,
    #[serde(default)]
    pub partition: u32,
    pub position: u64,
}

/// What a read must see: `{"source": "rides", "partition": 0, "position": 42}`, or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OneOrMany", into = "Vec<Position>")]
pub struct Positions(Vec<Position>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "min_position is {\"source\": …, \"partition\": 0, \"position\": …} or a list of such")]
enum OneOrMany {
    One(Position),
    Many(Vec<Position>),
}

impl TryFrom<OneOrMany> for Positions {
    type Error = Error;

    fn try_from(positions: OneOrMany) -> Result<Positions> {
        match positions {
            OneOrMany::One(position) => Ok(Positions(vec![position])),
            OneOrMany::Many(list) => Positions(list).bounded(),
        }
    }
}

impl From<Positions> for Vec<Position> {
    fn from(positions: Positions) -> Vec<Position> {
        positions.0
    }
}

/// Why a read goes on waiting.
enum Missing<'a> {
    /// Not input yet.
    Input(&'a Position),
    /// Input at this epoch, but the views, or the clock that a fresh read follows, have not passed it.
    Views { epoch: Epoch, frontier: Epoch },
}

impl Positions {
    /// `source:partition:position` or `source:position`, several with commas. Errors: Invalid.
    pub fn parse(text: &str) -> Result<Positions> {
        let parse = |text: &str| {
            let understood = || {
                let (rest, position) = text.trim().rsplit_once(':')?;
                let position = position.parse().ok()?;
                let (source, partition) = match rest.rsplit_once(':') {
                    Some((source, partition)) => (source, partition.parse().ok()?),
                    None => (rest, 0),
                };
                (!source.is_empty()).then(|| Position { source: source.to_string(), partition, position })
            };
            understood().ok_or_else(|| Error::invalid(format!("min_position {text:?} is not source:partition:position, as in rides:0:42")))
        };
        Positions(text.split(',').map(parse).collect::<Result<_>>()?).bounded()
    }

    fn bounded(self) -> Result<Positions> {
        if self.0.len() > MIN_POSITIONS_MAX {
            return Err(Error::invalid(format!("a read names at most {MIN_POSITIONS_MAX} positions, this one {}", self.0.len())));
        }
        Ok(self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and those.
    pub fn and(mut self, others: Positions) -> Result<Positions> {
        self.0.extend(others.0);
        self.bounded()
    }

    /// Returns once a fresh read of these views (all, if none is named) sees every position. Errors: Invalid for an unknown source or
    /// view, Unavailable after `MIN_POSITION_WAIT_MAX` or if the pipeline has failed.
    pub async fn wait(&self, reader: &dyn Reader, views: &[&str], wall_clock: bool) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + MIN_POSITION_WAIT_MAX;
        let mut looks = 0_u32;
        while let Some(missing) = self.missing(reader, views, wall_clock)? {
            if Instant::now() >= deadline {
                return Err(describe(&missing, reader));
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(FAILURE_LOOK_EVERY)
                && let Some(failure) = reader.status().failure
            {
                return Err(Error::unavailable(format!("the pipeline has failed: {failure}")));
            }
            tokio::time::sleep(MIN_POSITION_LOOK_EVERY).await;
        }
        Ok(())
    }

    fn missing(&self, reader: &dyn Reader, views: &[&str], wall_clock: bool) -> Result<Option<Missing<'_>>> {
        let mut epoch = None;
        for position in &self.0 {
            let Some(reached) = reader.reached(&position.source, position.partition, position.position)? else {
                return Ok(Some(Missing::Input(position)));
            };
            epoch = epoch.max(Some(reached));
        }
        let Some(epoch) = epoch else { return Ok(None) };
        let frontier = reader.frontier(views)?;
        // A fresh read stands at min(request time, F): in the millisecond of the ticket itself it would not see the ticket's rows.
        let sees = frontier.min(if wall_clock { machine_epoch() } else { frontier });
        Ok((sees <= epoch).then_some(Missing::Views { epoch, frontier }))
    }
}

fn describe(missing: &Missing, reader: &dyn Reader) -> Error {
    let waited = MIN_POSITION_WAIT_MAX.as_secs();
    Error::unavailable(match missing {
        Missing::Input(Position { source, partition, position }) => {
            let reached = read_upto(reader, source, *partition, *position);
            format!(
                "source {source}, partition {partition}: position {position} has not been read after {waited} s, it stands at {reached}; try again later"
            )
        }
        Missing::Views { epoch, frontier } => {
            format!("the positions are input of epoch {epoch}, but after {waited} s the views are complete below {frontier} only; try again later")
        }
    })
}

/// How far the partition has been read, below `position`.
fn read_upto(reader: &dyn Reader, source: &str, partition: u32, position: u64) -> u64 {
    let (mut reached, mut beyond) = (0, position);
    while beyond - reached > 1 {
        let middle = reached + (beyond - reached) / 2;
        if matches!(reader.reached(source, partition, middle), Ok(Some(_))) {
            reached = middle;
        } else {
            beyond = middle;
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_as_text_and_as_json() {
        let one = Positions(vec![Position { source: "rides".into(), partition: 0, position: 42 }]);
        assert_eq!(Positions::parse("rides:0:42").unwrap(), one);
        assert_eq!(Positions::parse("rides:42").unwrap(), one);
        assert_eq!(Positions::parse("a:1:2, b:3").unwrap().0.len(), 2);
        let json = |text: &str| serde_json::from_str::<Positions>(text);
        assert_eq!(json(r#"{"source": "rides", "partition": 0, "position": 42}"#).unwrap(), one);
        assert_eq!(json(r#"[{"source": "rides", "position": 42}]"#).unwrap(), one);
        assert!(json("[]").unwrap().is_empty());
        for wrong in ["", "rides", "rides:x", ":1", "rides:-1:2", "rides:0:4x"] {
            assert!(Positions::parse(wrong).unwrap_err().message.contains("rides:0:42"), "{wrong}");
        }
        assert!(json("7").unwrap_err().to_string().contains("min_position is"));
        assert!(json(&format!("[{}]", vec![r#"{"source": "r", "position": 1}"#; 65].join(","))).unwrap_err().to_string().contains("at most 64"));
    }
}
