//! DoExchange lookups. In: a descriptor, then batches of keys. Out: our schema when the client's arrives, then exactly one batch per
//! batch, with mode, q, s and lag in its metadata. Answered on the connection's own task: no hand-over, no queue.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use freshet_core::{Error, ReadMode, Result};
use futures::{StreamExt, TryStreamExt, future, stream};
use tonic::{Status, Streaming};

use crate::ask::{Ask, FeaturesAsk};
use crate::error::grpc_status;
use crate::flight::front::AnswerStream;
use crate::lookup::{LookupService, Lookups};
use crate::wire::Encoder;

/// Opens the exchange; errors in the descriptor come at once, errors in a batch end the stream.
pub async fn exchange(lookups: Arc<Lookups>, mut messages: Streaming<FlightData>) -> std::result::Result<AnswerStream, Status> {
    let mut first = messages.message().await?.ok_or_else(|| Status::invalid_argument("the exchange ended before its first message"))?;
    let descriptor =
        first.flight_descriptor.take().ok_or_else(|| Status::invalid_argument("the first message of an exchange carries a descriptor"))?;
    let mut session = Session::open(lookups, &descriptor).map_err(grpc_status)?;
    // C++ and Python clients send the descriptor alone, in a message without an IPC header, which the decoder does not survive.
    let rest = stream::iter([Ok(first)]).chain(messages).try_filter(|message| future::ready(!message.data_header.is_empty()));
    let decoder = FlightDataDecoder::new(rest.map_err(|status| FlightError::Tonic(Box::new(status))));
    let answers = decoder.map(move |decoded| {
        let decoded = decoded.map_err(Status::from)?;
        session.answer(decoded.payload).map_err(grpc_status)
    });
    Ok(answers.try_filter_map(future::ok).boxed())
}

struct Session {
    lookups: Arc<Lookups>,
    service: Arc<LookupService>,
    mode: ReadMode,
    statuses: bool,
    encoder: Encoder,
}

impl Session {
    fn open(lookups: Arc<Lookups>, descriptor: &FlightDescriptor) -> Result<Session> {
        let ask = ask_of(descriptor)?;
        let service = lookups.service(&ask.service)?;
        let schema: SchemaRef = if ask.status { service.output_with_status.clone() } else { service.output.clone() };
        Ok(Session { mode: ask.read_mode()?, statuses: ask.status, encoder: Encoder::new(schema), lookups, service })
    }

    fn answer(&mut self, payload: DecodedPayload) -> Result<Option<FlightData>> {
        match payload {
            DecodedPayload::None => Ok(None),
            DecodedPayload::Schema(_) => Ok(Some(self.encoder.schema(Bytes::new()))),
            DecodedPayload::RecordBatch(rows) => {
                let answer = self.lookups.answer(&self.service, &rows, self.mode, self.statuses)?;
                self.encoder.batch(&answer.rows, answer.metadata()).map(Some)
            }
        }
    }
}

fn ask_of(descriptor: &FlightDescriptor) -> Result<FeaturesAsk> {
    let ask = if descriptor.path.is_empty() { Ask::from_bytes(&descriptor.cmd)? } else { Ask::from_path(&descriptor.path)? };
    match ask {
        Ask::Features(ask) => Ok(ask),
        Ask::View { .. } | Ask::Sql(_) => {
            Err(Error::invalid("an exchange is for lookups: its descriptor is the path [\"features\", service] or the JSON {\"features\": service}"))
        }
    }
}
