//! `SET name = value`. Only settings that exist, with values that fit.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::Result;
use super::cursor::Cursor;
use crate::ast::{OptionValue, Set, Stmt};
use crate::error::nearest;
use crate::options;

const SETTINGS: [&str; 2] = ["clock", "workers"];

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("SET")?;
    let name_place = cursor.place();
    let name = cursor.single_name("the name of a setting")?;
    if !cursor.eat_token(&Token::Eq) && !cursor.eat(&["TO"]) {
        return Err(cursor.error_expected("="));
    }
    let value_place = cursor.place();
    let value = options::value(cursor, name.value.as_str())?;
    let value_place = cursor.place_since(value_place);
    match name.value.to_ascii_lowercase().as_str() {
        "clock" if !matches!(value.text().as_str(), "wall" | "event") => {
            let error = cursor.error_at(value_place, format!("clock cannot be {value}"));
            Err(error.help("it is 'wall' (epochs follow the machine's clock) or 'event' (epochs follow event time)"))
        }
        "workers" if !matches!(&value, OptionValue::Number(number) if number.parse::<usize>().is_ok_and(|count| count > 0)) => {
            Err(cursor.error_at(value_place, format!("workers cannot be {value}")).help("it is a whole number from 1 on"))
        }
        "clock" | "workers" => Ok(Stmt::Set(Set { name, value, value_place })),
        unknown => {
            let error = cursor.error_at(name_place, format!("setting {name} is unknown"));
            Err(match nearest(unknown, SETTINGS) {
                Some(known) => error.help(format!("did you mean {known}?")),
                None => error.help(format!("settings are {}", SETTINGS.join(", "))),
            })
        }
    }
}
