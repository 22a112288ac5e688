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

/// Open subscriptions: each holds a thread while it waits. More: UNAVAILABLE.
pub const SUBSCRIPTIONS_MAX: usize = 128;
/// How often a subscription without changes says how far it is, and notices that its client has gone.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The text of one statement. Longer: INVALID_ARGUMENT.
pub const SQL_BYTES_MAX: usize = 1 << 20;

/// gRPC streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Bytes of an HTTP body: 4 MiB hold a lookup of about 100,000 short keys. Larger: 413.
pub const HTTP_BODY_BYTES_MAX: usize = 4 << 20;
/// How much of a refused body is read and thrown away, so that its client gets the answer instead of a reset connection. More: it closes.
pub const UNREAD_BYTES_MAX: usize = 64 << 20;
/// For how long.
pub const UNREAD_WAIT_MAX: Duration = Duration::from_secs(5);
/// HTTP connections; more wait in the listener's backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// HTTP requests in work. More: 503.
pub const HTTP_REQUESTS_CONCURRENT_MAX: usize = 64;
/// From the end of the headers to the answer. Longer: 504.
pub const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// From the connection to the end of the headers. Longer: the connection closes.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the body of one HTTP push, as sent and as unpacked: a second of 50,000 rows of 300 bytes. Larger: 413.
pub const INGEST_BODY_BYTES_MAX: usize = 16 << 20;
/// HTTP pushes in work, so that their bodies take 256 MiB at most. More: 429.
pub const INGEST_REQUESTS_CONCURRENT_MAX: usize = 16;
/// Bodies up to here are decoded on the connection's own task: the hand-over would cost more.
pub const INGEST_INLINE_BYTES_MAX: usize = 64 << 10;
/// What a 429 says in Retry-After. A queue empties with every step, which takes milliseconds; a header knows whole seconds only.
pub const INGEST_RETRY_AFTER_SECONDS: u64 = 1;

/// How long a DoPut waits for room in the queue, its stream unread meanwhile. Longer: UNAVAILABLE.
pub const PUT_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it looks: a step of the pipeline is about 10 ms.
pub const PUT_RETRY_EVERY: Duration = Duration::from_millis(2);
/// Answers of a DoPut that the client has not read yet, about 100 bytes each; then its stream is not read further.
pub const PUT_ANSWERS_AHEAD_MAX: usize = 65_536;

/// How long a read waits for the positions it names. Longer: UNAVAILABLE, with how far it is.
pub const MIN_POSITION_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it looks; a look is a microsecond, a step of the pipeline about 10 ms.
pub const MIN_POSITION_LOOK_EVERY: Duration = Duration::from_millis(1);
/// Positions that one read may name. More: INVALID_ARGUMENT.
pub const MIN_POSITIONS_MAX: usize = 64;

/// How long open requests may go on after a stop was asked for.
pub const DRAIN_MAX: Duration = Duration::from_secs(2);
