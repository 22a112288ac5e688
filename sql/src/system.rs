//! SHOW and DESCRIBE. In: what a reader says of its pipeline. Out: two tables, `freshet_objects` and `freshet_columns`, that any query may
//! read, and the SELECT over them that each SHOW stands for.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_core::{Epoch, ObjectState, PipelineStatus, Reader};

use crate::error::{SqlError, nearest};
use crate::parse::show_words;

pub(crate) const OBJECTS: &str = "freshet_objects";
pub(crate) const COLUMNS: &str = "freshet_columns";

/// What may follow SHOW, and the kind of object it lists.
const SHOWN: [(&str, Option<&str>); 6] = [
    ("OBJECTS", None),
    ("SOURCES", Some("source")),
    ("VIEWS", Some("view")),
    ("SINKS", Some("sink")),
    ("MODELS", Some("model")),
    ("JOBS", Some("job")),
];

pub(crate) fn tables() -> [(&'static str, SchemaRef); 2] {
    [(OBJECTS, objects_schema()), (COLUMNS, columns_schema())]
}

/// The SELECT that a SHOW or DESCRIBE stands for; the text itself if it is something else. Errors: it shows nothing there is.
pub(crate) fn selected(text: &str, reader: &dyn Reader) -> Result<String, SqlError> {
    let Some((words, place)) = show_words(text) else { return Ok(text.to_string()) };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["SHOW", "TABLES"] => Ok(shown(Some("view"))),
        ["SHOW", "MATERIALIZED" | "FEATURE", "VIEWS"] => Ok(shown(Some("view"))),
        ["SHOW", "RETRAINING", "JOBS"] => Ok(shown(Some("job"))),
        ["SHOW", what] => match SHOWN.iter().find(|(word, _)| word == what) {
            Some((_, kind)) => Ok(shown(*kind)),
            None => {
                let known = SHOWN.map(|(word, _)| word);
                let error = SqlError::new("query", place, format!("SHOW {what} is unknown"));
                Err(match nearest(what, known) {
                    Some(close) => error.help(format!("did you mean {close}?")),
                    None => error.help(format!("SHOW takes {}", known.join(", "))),
                })
            }
        },
        ["DESCRIBE" | "DESC", ..] | ["SHOW", "COLUMNS", "FROM", ..] => {
            let name = text.trim().trim_end_matches(';').split_whitespace().last().unwrap_or_default().trim_matches('"').to_lowercase();
            let known: Vec<String> = described(reader).into_iter().map(|(known, _)| known).collect();
            if !known.contains(&name) {
                let error = SqlError::new("query", place, format!("there is no source, view or service named {name}"));
                let known: Vec<&str> = known.iter().map(String::as_str).filter(|known| !known.contains('(')).collect();
                return Err(match nearest(&name, known.iter().copied()) {
                    Some(close) => error.help(format!("did you mean {close}?")),
                    None => error.help(format!("known: {}", known.join(", "))),
                });
            }
            Ok(format!("SELECT name, type, nullable FROM {COLUMNS} WHERE object = '{}' ORDER BY position", name.replace('\'', "''")))
        }
        _ => {
            let error = SqlError::new("query", place, "SHOW takes one word");
            Err(error.help(format!(
                "{}; DESCRIBE name tells the columns of a source, view or service",
                SHOWN.map(|(word, _)| format!("SHOW {word}")).join(", ")
            )))
        }
    }
}

fn shown(kind: Option<&str>) -> String {
    let columns = "name, kind, state, reason, since, last_progress, lag_rows, lag_seconds, rows";
    let kind = kind.map_or(String::new(), |kind| format!(" WHERE kind = '{kind}'"));
    format!("SELECT {columns} FROM {OBJECTS}{kind} ORDER BY kind, name")
}

/// The rows of a system table now.
pub(crate) fn rows(table: &str, reader: &dyn Reader) -> freshet_core::Result<RecordBatch> {
    if table == OBJECTS { objects(&reader.status()) } else { columns(reader) }
}

const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn objects_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("since", TIME, true),
        Field::new("last_progress", TIME, true),
        Field::new("lag_rows", DataType::Int64, true),
        Field::new("lag_seconds", DataType::Int64, true),
        Field::new("rows", DataType::Int64, true),
    ]))
}

fn columns_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("object", DataType::Utf8, false),
        Field::new("position", DataType::Int32, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("type", DataType::Utf8, false),
        Field::new("nullable", DataType::Boolean, false),
    ]))
}

/// One line of `freshet_objects`.
struct Object<'a> {
    name: &'a str,
    kind: &'static str,
    state: &'a ObjectState,
    lag_rows: Option<u64>,
    lag_ms: Option<u64>,
    rows: Option<u64>,
}

fn objects(status: &PipelineStatus) -> freshet_core::Result<RecordBatch> {
    let sources = status.sources.iter().map(|source| Object {
        name: &source.name,
        kind: "source",
        state: &source.state,
        lag_rows: source.lag_rows,
        lag_ms: Some(source.lag_ms),
        rows: Some(source.rows),
    });
    let views = status.views.iter().map(|view| Object {
        name: &view.name,
        kind: "view",
        state: &view.state,
        lag_rows: None,
        lag_ms: Some(view.lag_ms),
        rows: Some(view.rows),
    });
    let plain = |name, kind, state, rows| Object { name, kind, state, lag_rows: None, lag_ms: None, rows };
    let sinks = status.sinks.iter().map(|sink| Object {
        lag_rows: Some(sink.lag_rows),
        lag_ms: Some(sink.lag_ms),
        ..plain(sink.name.as_str(), "sink", &sink.state, Some(sink.rows))
    });
    let models = status.models.iter().map(|model| plain(model.name.as_str(), "model", &model.state, Some(model.rows)));
    let jobs = status.jobs.iter().map(|job| plain(job.name.as_str(), "job", &job.state, None));
    let checkpoints =
        status.checkpoints.iter().map(|state| Object { lag_ms: status.checkpoint_age_ms, ..plain("checkpoints", "checkpoints", state, None) });
    let all: Vec<Object> = sources.chain(views).chain(sinks).chain(models).chain(jobs).chain(checkpoints).collect();
    let time = |time: Option<Epoch>| time.filter(|time| *time != Epoch::ZERO).map(|time| time.0 as i64);
    let count = |count: Option<u64>| count.map(|count| count as i64);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all.iter().map(|object| object.name))),
        Arc::new(StringArray::from_iter_values(all.iter().map(|object| object.kind))),
        Arc::new(StringArray::from_iter_values(all.iter().map(|object| object.state.state.name()))),
        Arc::new(StringArray::from_iter(all.iter().map(|object| object.state.reason.as_deref()))),
        Arc::new(TimestampMillisecondArray::from_iter(all.iter().map(|object| time(Some(object.state.since))))),
        Arc::new(TimestampMillisecondArray::from_iter(all.iter().map(|object| time(object.state.progress)))),
        Arc::new(Int64Array::from_iter(all.iter().map(|object| count(object.lag_rows)))),
        Arc::new(Int64Array::from_iter(all.iter().map(|object| count(object.lag_ms.map(|lag| lag.div_ceil(1000)))))),
        Arc::new(Int64Array::from_iter(all.iter().map(|object| count(object.rows)))),
    ];
    Ok(RecordBatch::try_new(objects_schema(), columns)?)
}

/// Everything that has columns, by name.
fn described(reader: &dyn Reader) -> Vec<(String, SchemaRef)> {
    let views = reader.views().into_iter().map(|view| (view.name, view.schema));
    let services = reader.services().into_iter().map(|service| (service.def.name, service.def.schema));
    let views: Vec<_> = views.collect();
    // A stored table is a source and what is kept of it, under one name.
    let sources = reader.sources().into_iter().filter(|(name, _)| views.iter().all(|(view, _)| view != name));
    let sources: Vec<_> = sources.collect();
    sources.into_iter().chain(views).chain(services).collect()
}

fn columns(reader: &dyn Reader) -> freshet_core::Result<RecordBatch> {
    let mut found: Vec<(String, i32, Field)> = Vec::new();
    for (object, schema) in described(reader) {
        found.extend(schema.fields().iter().zip(1..).map(|(field, position)| (object.clone(), position, field.as_ref().clone())));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(found.iter().map(|(object, _, _)| object))),
        Arc::new(Int32Array::from_iter_values(found.iter().map(|(_, position, _)| *position))),
        Arc::new(StringArray::from_iter_values(found.iter().map(|(_, _, field)| field.name()))),
        Arc::new(StringArray::from_iter_values(found.iter().map(|(_, _, field)| field.data_type().to_string()))),
        Arc::new(found.iter().map(|(_, _, field)| Some(field.is_nullable())).collect::<BooleanArray>()),
    ];
    Ok(RecordBatch::try_new(columns_schema(), columns)?)
}
