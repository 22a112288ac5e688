//! What the engine is measured against: the executable model of the rules, the naive interpreter of a plan, random input, comparison.
//!
//! Nothing here shares code with the engine. Everything is written to be obviously right; speed is second.
//!
//! | module | what it answers |
//! |---|---|
//! | [`model`] | the rules of time, features and changes (T0 to T24, C1) over plain rows |
//! | [`interpreter`] | what any node of any plan must contain at any epoch |
//! | [`generate`] | seeded input with everything that goes wrong in it |
//! | [`memory`] | sources and sinks in memory |
//! | [`stream`] | sources that are fed while they are read, and absences |
//! | [`control`] | a control plane with known decisions |
//! | [`queries`] | random queries of a typed grammar, and how they get smaller |
//! | [`faults`] | mistakes planted on purpose, to see that they are found |
//! | [`compare`] | multisets of rows, and the smallest input on which they differ |
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod compare;
pub mod control;
pub mod faults;
pub mod generate;
pub mod interpreter;
pub mod lives;
pub mod memory;
pub mod model;
pub mod queries;
pub mod stream;

pub use control::ScriptedControl;
pub use interpreter::{Assigned, InputRow, Interpreter, assign_epochs};
pub use memory::{MemoryConnectors, RawRecord};
pub use stream::{Stream, StreamConnectors};
