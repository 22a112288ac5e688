//! `CREATE [TEMPORARY] FUNCTION name AS 'class' [LANGUAGE word]`: Flink's way to name a class. What has the name here is used instead.

use super::Result;
use super::cursor::Cursor;
use crate::ast::{CreateFunction, Stmt};

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.eat(&["TEMPORARY"]);
    cursor.eat(&["SYSTEM"]);
    cursor.expect("FUNCTION")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the function")?;
    if cursor.word(0) != "AS" {
        return Err(cursor.error_expected("AS").help("only CREATE FUNCTION name AS 'class' is read; write an expression into a view instead"));
    }
    cursor.expect("AS")?;
    let class = cursor.text("the class of the function", "'com.example.CountChar'")?.value;
    if cursor.eat(&["LANGUAGE"]) {
        cursor.name("a language")?;
    }
    Ok(Stmt::CreateFunction(CreateFunction { name, if_not_exists, class }))
}
