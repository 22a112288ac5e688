//! Arrow messages as clients send them. In: bytes of anybody. Out: what they say, or an error: the reader of the IPC format panics at some broken
//! messages, and a panic ends the process unless it is known to be about foreign bytes.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_flight::error::FlightError;
use futures::Stream;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread reads foreign bytes just now: then a panic is an answer to whoever sent them, and no bug of ours.
pub fn reads_foreign_bytes() -> bool {
    READING.get()
}

/// Errors: the bytes are such that their reader gave up.
pub fn read_foreign<T>(read: impl FnOnce() -> T) -> Result<T, &'static str> {
    let before = READING.replace(true);
    // Whatever the reader had begun is dropped by the caller, who stops at the first error.
    let found = catch_unwind(AssertUnwindSafe(read));
    READING.set(before);
    found.map_err(|_| "the message is broken: it is no Arrow IPC that can be read")
}

/// A decoder of foreign messages as a stream that ends with an error where the decoder would panic.
pub struct Foreign<S>(pub S);

impl<T, S: Stream<Item = Result<T, FlightError>> + Unpin> Stream for Foreign<S> {
    type Item = Result<T, FlightError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match read_foreign(|| Pin::new(&mut self.0).poll_next(context)) {
            Ok(polled) => polled,
            Err(reason) => Poll::Ready(Some(Err(FlightError::DecodeError(reason.into())))),
        }
    }
}
