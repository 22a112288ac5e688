//! Avro without generated code: schemas as a list of types, bytes straight to cells and back.

mod read;
mod schema;
mod text;
mod write;

pub use read::{Input, Plan, Row};
pub use schema::{Type, TypeId, Types};
pub use write::{Writer, schema_of, write_counted, write_long};
