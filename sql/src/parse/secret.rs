//! `CREATE SECRET name FROM ENV 'VARIABLE' | FROM FILE 'path'`.

use super::Result;
use super::cursor::Cursor;
use crate::ast::{CreateSecret, SecretFrom, Stmt};

const ORDER: &str = "CREATE SECRET name FROM ENV 'VARIABLE', or FROM FILE 'path'";

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("SECRET")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the secret")?;
    if matches!(cursor.word(0).as_str(), "AS" | "WITH") {
        let error = cursor.error_here("the value of a secret does not stand in a script");
        return Err(error.help(format!("say where it is: {ORDER}")));
    }
    cursor.clause(&["FROM"], ORDER)?;
    let (from, example): (fn(String) -> SecretFrom, _) = match cursor.word(0).as_str() {
        "ENV" => (SecretFrom::Env, "FROM ENV 'KAFKA_PASSWORD'"),
        "FILE" => (SecretFrom::File, "FROM FILE '/run/secrets/kafka_password'"),
        _ => return Err(cursor.error_clause("ENV or FILE", ORDER)),
    };
    let what = if cursor.word(0) == "ENV" { "the name of a variable" } else { "the path of a file" };
    cursor.next_token();
    let text = cursor.text(what, example)?;
    if text.value.contains(['\0', '=']) && what.ends_with("variable") {
        return Err(cursor
            .error_at(text.place, format!("'{}' names no variable of the environment", text.value))
            .help(format!("for example {example}")));
    }
    Ok(Stmt::CreateSecret(CreateSecret { name, if_not_exists, from: from(text.value), place: text.place }))
}
