//! DoExchange lookups. In: a descriptor, then batches of keys. Out: our schema when the client's arrives, then exactly one batch per
//! batch, with mode, q, s and lag in its metadata. Answered on the connection's own task: no hand-over, no queue.
//!
//! The descriptor may name positions that the first answer waits for, and the metadata of a batch, `{"min_position": …}`, those of its own.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use freshet_core::{Error, ReadMode, Result};
use futures::{StreamExt, TryStreamExt, future, stream};
use serde::Deserialize;
use tonic::{Status, Streaming};

use crate::ask::{Ask, FeaturesAsk};
use crate::error::grpc_status;
use crate::flight::front::AnswerStream;
use crate::foreign::Foreign;
use crate::lookup::{LookupService, Lookups};
use crate::positions::Positions;
use crate::wire::Encoder;

/// Opens the exchange; errors in the descriptor come at once, errors in a batch end the stream. `positions` are those of the call.
pub async fn exchange(lookups: Arc<Lookups>, positions: Positions, mut messages: Streaming<FlightData>) -> std::result::Result<AnswerStream, Status> {
    let mut first = messages.message().await?.ok_or_else(|| Status::invalid_argument("the exchange ended before its first message"))?;
    let descriptor =
        first.flight_descriptor.take().ok_or_else(|| Status::invalid_argument("the first message of an exchange carries a descriptor"))?;
    let session = Session::open(lookups, &descriptor, positions).map_err(grpc_status)?;
    // C++ and Python clients send the descriptor alone, in a message without an IPC header, which the decoder does not survive.
    let rest = stream::iter([Ok(first)]).chain(messages).try_filter(|message| future::ready(!message.data_header.is_empty()));
    let decoder = Foreign(FlightDataDecoder::new(rest.map_err(|status| FlightError::Tonic(Box::new(status)))));
    // In a box: the state moves from answer to answer.
    let state = Box::new((session, decoder));
    let answers = stream::try_unfold(state, |mut state| async move {
        let (session, decoder) = &mut *state;
        while let Some(decoded) = decoder.try_next().await? {
            if let Some(answer) = session.answer(decoded).await.map_err(grpc_status)? {
                return Ok(Some((answer, state)));
            }
        }
        Ok(None)
    });
    Ok(answers.boxed())
}

struct Session {
    lookups: Arc<Lookups>,
    service: Arc<LookupService>,
    mode: ReadMode,
    statuses: bool,
    encoder: Encoder,
    /// What the next answer waits for; empty once it has.
    positions: Positions,
    /// How far each answer may be behind.
    staleness_ms_max: Option<u64>,
}

/// The metadata of one batch of keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchNote {
    #[serde(default)]
    min_position: Positions,
}

impl Session {
    fn open(lookups: Arc<Lookups>, descriptor: &FlightDescriptor, positions: Positions) -> Result<Session> {
        let mut ask = ask_of(descriptor)?;
        ask.min_position = ask.min_position.and(positions)?;
        let service = lookups.service(&ask.service)?;
        let schema: SchemaRef = if ask.status { service.output_with_status.clone() } else { service.output.clone() };
        let mode = ask.read_mode()?;
        let (positions, staleness_ms_max) = (ask.min_position, ask.max_staleness_ms);
        Ok(Session { mode, statuses: ask.status, encoder: Encoder::new(schema), lookups, service, positions, staleness_ms_max })
    }

    async fn answer(&mut self, decoded: DecodedFlightData) -> Result<Option<FlightData>> {
        match decoded.payload {
            DecodedPayload::None => Ok(None),
            DecodedPayload::Schema(_) => Ok(Some(self.encoder.schema(Bytes::new()))),
            DecodedPayload::RecordBatch(rows) => {
                if !decoded.inner.app_metadata.is_empty() {
                    self.note(&decoded.inner.app_metadata)?;
                }
                if !self.positions.is_empty() || self.staleness_ms_max.is_some() {
                    self.lookups.wait_for(&std::mem::take(&mut self.positions), self.staleness_ms_max, &self.service).await?;
                }
                let answer = self.lookups.answer(&self.service, &rows, self.mode, self.statuses)?;
                self.encoder.batch(&answer.rows, answer.metadata()).map(Some)
            }
        }
    }

    fn note(&mut self, note: &[u8]) -> Result<()> {
        let wrong = |error: serde_json::Error| Error::invalid(format!("the metadata of a batch is {{\"min_position\": …}}: {error}"));
        let note: BatchNote = serde_json::from_slice(note).map_err(wrong)?;
        if matches!(self.mode, ReadMode::AsOf(_)) && !note.min_position.is_empty() {
            return Err(Error::invalid("the exchange reads as_of an instant; min_position waits for one"));
        }
        self.positions = std::mem::take(&mut self.positions).and(note.min_position)?;
        Ok(())
    }
}

fn ask_of(descriptor: &FlightDescriptor) -> Result<FeaturesAsk> {
    let ask = if descriptor.path.is_empty() { Ask::from_bytes(&descriptor.cmd)? } else { Ask::from_path(&descriptor.path)? };
    match ask {
        Ask::Features(ask) => Ok(ask),
        _ => {
            Err(Error::invalid("an exchange is for lookups: its descriptor is the path [\"features\", service] or the JSON {\"features\": service}"))
        }
    }
}
