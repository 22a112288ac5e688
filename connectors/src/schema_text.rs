//! `schema` and `schema.file`: a schema that is written in the script or lies beside it. In: WITH options. Out: its text.

use std::collections::BTreeMap;

use freshet_core::OptionError;

use crate::options::wrong;

pub const SCHEMA: &str = "schema";
pub const SCHEMA_FILE: &str = "schema.file";
pub const REGISTRY: &str = "schema.registry";

/// Errors: none or more than one of the places a schema may come from.
pub fn check(options: &BTreeMap<String, String>, encode: &str, places: &[&str]) -> Result<(), OptionError> {
    let given: Vec<&str> = places.iter().copied().filter(|place| options.contains_key(*place)).collect();
    match given[..] {
        [_] => Ok(()),
        [] => {
            let message = format!("ENCODE {encode} needs a schema: name one of {}", places.join(", "));
            Err(OptionError { option: None, message })
        }
        [_, other, ..] => Err(wrong(other, format!("a schema comes from one place; leave out {}", given.join(" or ")))),
    }
}

/// Errors: a file that cannot be read, by name.
pub fn read(options: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(text) = options.get(SCHEMA) {
        return Ok(text.clone());
    }
    let path = options.get(SCHEMA_FILE).ok_or("there is no schema")?;
    std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read schema.file '{path}': {error}; relative paths start at the folder the command runs in"))
}
