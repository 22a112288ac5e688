//! Subscriptions over DoGet. In: a request and the view's columns. Out: a stream that stays open: `epoch`, `diff`, `progress`, then the columns.
//! A row with progress = true says that everything below its epoch has been told; its columns are NULL.
//!
//! A stream is only read while its client reads; what waits meanwhile is bounded by the engine, which cuts the reader off.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use freshet_core::{Error, Reader, Result, SubscribeRequest, Subscription, ViewChanges};
use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::grpc_status;
use crate::flight::front::AnswerStream;
use crate::limits::{PROGRESS_EVERY, SUBSCRIPTIONS_MAX};
use crate::wire::{Encoder, conform, pieces, wire_schema};

/// What a subscription to a view of these columns sends.
pub fn subscription_schema(view: &Schema) -> SchemaRef {
    let own = [("epoch", DataType::UInt64), ("diff", DataType::Int64), ("progress", DataType::Boolean)];
    let mut fields: Vec<Field> = own.map(|(name, data_type)| Field::new(name, data_type, false)).to_vec();
    fields.extend(wire_schema(view).fields().iter().map(|field| field.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(fields))
}

/// Opens subscriptions, a bounded number at a time.
pub struct Subscriptions {
    reader: Arc<dyn Reader>,
    open: Arc<Semaphore>,
}

impl Subscriptions {
    pub fn new(reader: Arc<dyn Reader>) -> Subscriptions {
        Subscriptions { reader, open: Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX)) }
    }

    /// Errors: Invalid, naming the views there are.
    pub fn schema(&self, view: &str) -> Result<SchemaRef> {
        let views = self.reader.views();
        let known: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
        let found = views.iter().find(|known| known.name == view);
        let found = found.ok_or_else(|| Error::invalid(format!("there is no view {view}; known: {}", known.join(", "))))?;
        Ok(subscription_schema(&found.schema))
    }

    /// Errors: of the view, or Unavailable when there are too many.
    pub fn open(&self, request: &SubscribeRequest, progress: bool) -> Result<AnswerStream> {
        let schema = self.schema(&request.view)?;
        let permit = self.open.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Error::unavailable(format!("{SUBSCRIPTIONS_MAX} subscriptions are open already; end one and try again")))?;
        let subscription = self.reader.subscribe(request)?;
        Ok(changes(Subscribed { subscription, schema, progress, _permit: permit }))
    }
}

/// The open end of a subscription.
struct Subscribed {
    subscription: Box<dyn Subscription>,
    schema: SchemaRef,
    /// Whether rows say how far it is.
    progress: bool,
    /// One of a bounded number.
    _permit: OwnedSemaphorePermit,
}

/// The answer's stream; each wait is on a thread that may block.
fn changes(subscribed: Subscribed) -> AnswerStream {
    let encoder = Encoder::new(subscribed.schema.clone());
    let head = encoder.schema(Bytes::new());
    let told = stream::unfold(Some((subscribed, encoder)), |state| async move {
        let (mut subscribed, mut encoder) = state?;
        let waited = tokio::task::spawn_blocking(move || {
            let next = subscribed.subscription.next(PROGRESS_EVERY);
            let messages = next.and_then(|next| match next {
                None => Ok(None),
                Some(changes) => {
                    rows(&subscribed, &changes)?.into_iter().map(|batch| encoder.batch(&batch, Bytes::new())).collect::<Result<Vec<_>>>().map(Some)
                }
            });
            (messages, subscribed, encoder)
        });
        match waited.await {
            Ok((Ok(Some(messages)), subscribed, encoder)) => Some((Ok(messages), Some((subscribed, encoder)))),
            Ok((Ok(None), ..)) => None,
            Ok((Err(error), ..)) => Some((Err(grpc_status(error)), None)),
            Err(error) => Some((Err(grpc_status(Error::internal(format!("a subscription did not go on: {error}")))), None)),
        }
    });
    let told = told.flat_map(|messages| {
        stream::iter(match messages {
            Ok(messages) => messages.into_iter().map(Ok).collect(),
            Err(status) => vec![Err(status)],
        })
    });
    stream::once(async move { Ok(head) }).chain(told).boxed()
}

/// The changes in pieces of a bounded size, then the progress if it is wanted.
fn rows(subscribed: &Subscribed, told: &ViewChanges) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    if let Some(changes) = &told.changes {
        let count = changes.len();
        let own: [ArrayRef; 3] = [
            Arc::new(UInt64Array::from_iter_values((0..count).map(|row| changes.epoch(row).0))),
            Arc::new(Int64Array::from_iter_values((0..count).map(|row| changes.diff(row)))),
            Arc::new(BooleanArray::from(vec![false; count])),
        ];
        let view = Schema::new(subscribed.schema.fields()[own.len()..].to_vec());
        let columns = conform(changes.rows(), &Arc::new(view))?;
        batches.extend(pieces(batch(&subscribed.schema, own.into_iter().chain(columns.columns().iter().cloned()).collect(), count)?));
    }
    if subscribed.progress {
        let own: [ArrayRef; 3] =
            [Arc::new(UInt64Array::from(vec![told.progress.0])), Arc::new(Int64Array::from(vec![0])), Arc::new(BooleanArray::from(vec![true]))];
        let nulls = subscribed.schema.fields()[own.len()..].iter().map(|field| new_null_array(field.data_type(), 1));
        batches.push(batch(&subscribed.schema, own.into_iter().chain(nulls).collect(), 1)?);
    }
    Ok(batches)
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}
