//! `CREATE MODEL name INPUT … OUTPUT (…) [FROM 'file'] [WITH (…)]`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::{Result, source};
use crate::ast::{Column, CreateModel, ModelInput, OptionEntry, Stmt, Text};
use crate::options;

const ORDER: &str = "write CREATE MODEL name INPUT FEATURES service OUTPUT (column DOUBLE) [FROM 'file.onnx'] [WITH (…)]";

/// Each option with the values it takes and those it will take.
const OPTIONS: [(&str, &[&str], &[&str]); 3] =
    [("device", &["cpu"], &["cuda", "gpu", "tensorrt"]), ("missing", &["nan", "null"], &[]), ("on_version_change", &["keep"], &["rescore"])];

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.expect("MODEL")?;
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the model")?;
    cursor.clause(&["INPUT"], ORDER)?;
    let input = input(cursor)?;
    cursor.clause(&["OUTPUT"], ORDER)?;
    if *cursor.token() != Token::LParen {
        return Err(cursor.error_expected("(").help("name what the model gives: OUTPUT (score DOUBLE)"));
    }
    let outputs = columns(cursor, "an output column of a model", "a row that cannot be scored is NULL")?;
    let from = if cursor.eat(&["FROM"]) { Some(file(cursor)?) } else { None };
    let options = if cursor.word(0) == "WITH" { model_options(cursor)? } else { Vec::new() };
    let wanted: &[&str] = match (&from, &options[..]) {
        (_, [_, ..]) => &[],
        (Some(_), []) => &["WITH"],
        (None, []) => &["FROM", "WITH"],
    };
    cursor.clauses_end(wanted, ORDER)?;
    Ok(Stmt::CreateModel(CreateModel { name, if_not_exists, input, outputs, from, options }))
}

fn input(cursor: &mut Cursor) -> Result<ModelInput> {
    if *cursor.token() == Token::LParen {
        return Ok(ModelInput::Columns(columns(cursor, "an input column of a model", "what a NULL means to the model says WITH (missing = …)")?));
    }
    if !cursor.eat(&["FEATURES"]) {
        let error = cursor.error_expected("FEATURES or (");
        return Err(error.help("write INPUT FEATURES service, or the columns in its order: INPUT (column TYPE, …)"));
    }
    if *cursor.token() == Token::LParen {
        return Err(cursor.error_here("FEATURES of a model stands without brackets").help("write INPUT FEATURES service"));
    }
    Ok(ModelInput::Features(cursor.single_name("the name of a feature service")?))
}

fn columns(cursor: &mut Cursor, what: &str, why_null: &str) -> Result<Vec<Column>> {
    let columns = cursor.list(|cursor| source::typed_column(cursor, what, why_null))?;
    cursor.unique(columns.iter().map(|column| &column.name), "column")?;
    Ok(columns)
}

fn file(cursor: &mut Cursor) -> Result<Text> {
    let file = cursor.text("the model's file", "FROM 'model.onnx'")?;
    if file.value.contains("://") {
        let error = cursor.error_at(file.place, "models behind an address are not supported yet");
        return Err(error.help("name an ONNX file in the pipeline's folder: FROM 'model.onnx'"));
    }
    Ok(file)
}

fn model_options(cursor: &mut Cursor) -> Result<Vec<OptionEntry>> {
    let found = options::list(cursor)?;
    options::require_known(cursor, &found, &OPTIONS.map(|(name, ..)| name))?;
    for option in &found {
        let (_, now, later) = OPTIONS.iter().find(|(name, ..)| *name == option.name).expect("unknown options were refused");
        options::require_value(cursor, option, now, later)?;
    }
    Ok(found)
}
