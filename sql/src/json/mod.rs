//! JSON columns: text in a column, and operators and functions that look into it.
//!
//! | file | what it does |
//! |---|---|
//! | `text.rs` | finds values in a document |
//! | `functions.rs` | the functions, and what `->`, `->>`, `#>` and `#>>` mean |

mod functions;
mod text;

pub(crate) use functions::{JsonOperators, functions};
