//! Arrow messages as clients send them. In: bytes of anybody. Out: what they say, or an error: the reader of the IPC format panics at some broken
//! messages, and a panic ends the process unless it is known to be about foreign bytes.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_flight::error::FlightError;
use futures::Stream;

/// What stands before a length, since Arrow 0.15.
const CONTINUATION: i32 = -1;

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

/// Whether every message of an IPC stream says lengths that its bytes have: the reader makes room for what it is told. Errors: why not.
pub fn check_lengths(mut bytes: &[u8]) -> Result<(), String> {
    let mut take = |count: usize| -> Result<&[u8], String> {
        let (taken, rest) = bytes.split_at_checked(count).ok_or("it ends in the middle of a message")?;
        bytes = rest;
        Ok(taken)
    };
    let number = |bytes: &[u8]| bytes.try_into().map_or(-1, i32::from_le_bytes);
    loop {
        let Ok(first) = take(4) else { return Ok(()) };
        let length = match number(first) {
            CONTINUATION => number(take(4)?),
            length => length,
        };
        if length == 0 {
            return Ok(());
        }
        let head = take(usize::try_from(length).map_err(|_| "a message has a negative length")?)?;
        let message = arrow::ipc::root_as_message(head).map_err(|error| error.to_string())?;
        take(usize::try_from(message.bodyLength()).map_err(|_| "a message has a negative length")?)?;
    }
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
