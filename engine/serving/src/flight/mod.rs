//! Arrow Flight and Flight SQL on one port.
//!
//! | file | what |
//! |---|---|
//! | `front.rs` | the outer service: decides what is Flight SQL and what is plain Flight |
//! | `statements.rs` | Flight SQL: statements, prepared statements, refusals |
//! | `catalog.rs` | Flight SQL: catalogs, schemas, tables, server facts |
//! | `prepared.rs` | prepared statements and answers that wait to be fetched, both bounded |
//! | `plain.rs` | tickets and paths of plain Flight: views, lookups, SQL text |
//! | `subscribe.rs` | subscriptions: DoGet streams that stay open |
//! | `put.rs` | DoPut: batches into a push source, each answered with its position |
//! | `exchange.rs` | DoExchange: batches of keys in, features out |
mod catalog;
mod exchange;
mod front;
mod plain;
mod prepared;
mod put;
mod statements;
mod subscribe;

pub use front::Front;
