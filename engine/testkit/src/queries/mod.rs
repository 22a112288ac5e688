//! Random queries of a typed grammar: every one is SQL that means something, and every one can be made smaller.
//!
//! | file | what |
//! |---|---|
//! | `tree.rs` | a derivation: nodes named after the rules that made them, their text, and the smaller trees next to one |
//! | `generator.rs` | what a case may use, and chance |
//! | `expressions.rs` | scalar and aggregate expressions by type |
//! | `nested.rs` | lists, structs, maps and JSON |
//! | `selects.rs` | SELECT with its clauses, set operations |
//! | `relations.rs` | tables, windows, recursions, joins |
//! | `conditions.rs` | subqueries, temporal filters |
//! | `ordered.rs` | top-N, LIMIT, QUALIFY, DISTINCT ON, OVER |
//! | `case.rs` | a query with tables and their records: the tame ones that DataFusion answers too, and the wild ones |
mod case;
mod conditions;
mod expressions;
mod generator;
mod nested;
mod ordered;
mod relations;
mod selects;
mod tree;

pub use case::{Case, Meets};
pub use generator::Generator;
pub use tree::{Kind, List, Node, Part};
