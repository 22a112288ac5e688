//! Scalar functions of Flink that DataFusion has not, or has with another meaning. In: planning. Out: functions by name.
//!
//! | file | what it holds |
//! |---|---|
//! | `function.rs` | what they are called, take and give |
//! | `dates.rs` | DATE_FORMAT with Java's letters, and the parts of a time |
//! | `texts.rs` | SPLIT_INDEX, REGEXP_EXTRACT, COUNT_CHAR |

mod dates;
mod function;
mod texts;

pub(crate) use function::functions;
