//! How much one client may ask of the server. Every bound of this crate stands here, with its reason and what happens at it.

use std::time::Duration;

/// 64 MiB: the largest message a client may send; a lookup of 100,000 rows is about a tenth. Larger: RESOURCE_EXHAUSTED.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// 2 MiB of columns per answer message: half of gRPC's default limit on the receiving side. Larger answers are cut by rows.
pub const ANSWER_BYTES_TARGET: usize = 2 << 20;

/// Rows of one lookup, so that one request cannot hold a thread for long (about 0.1 s). More: INVALID_ARGUMENT.
pub const LOOKUP_ROWS_MAX: usize = 100_000;

/// Parameter rows of one prepared statement: each is a query of its own. More: INVALID_ARGUMENT.
pub const PARAMETER_ROWS_MAX: usize = 10_000;
/// Their bytes: they travel in the ticket. More: INVALID_ARGUMENT.
pub const PARAMETER_BYTES_MAX: usize = 1 << 20;

/// Prepared statements kept for clients that never close them; the oldest makes room.
pub const PREPARED_MAX: usize = 1_000;

/// Answers computed for a FlightInfo and not fetched yet; the oldest makes room and is computed again when asked for.
pub const ANSWERS_MAX: usize = 64;
/// As `ANSWERS_MAX`, by bytes of Arrow memory.
pub const ANSWERS_BYTES_MAX: usize = 256 << 20;

/// SQL queries that run at the same time; others wait up to `QUERY_WAIT_MAX`, then UNAVAILABLE.
pub const QUERIES_CONCURRENT_MAX: usize = 8;
pub const QUERY_WAIT_MAX: Duration = Duration::from_secs(30);

/// The text of one statement. Longer: INVALID_ARGUMENT.
pub const SQL_BYTES_MAX: usize = 1 << 20;

/// gRPC streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Bytes of an HTTP body: 4 MiB hold a lookup of about 100,000 short keys. Larger: 413.
pub const HTTP_BODY_BYTES_MAX: usize = 4 << 20;
/// HTTP connections; more wait in the listener's backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// HTTP requests in work. More: 503.
pub const HTTP_REQUESTS_CONCURRENT_MAX: usize = 64;
/// From the end of the headers to the answer. Longer: 504.
pub const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// From the connection to the end of the headers. Longer: the connection closes.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long open requests may go on after a stop was asked for.
pub const DRAIN_MAX: Duration = Duration::from_secs(2);
