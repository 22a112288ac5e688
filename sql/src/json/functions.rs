//! Functions of JSON text. In: arguments of a planned call, and batches. Out: text, as JSON or as SQL has it.
//!
//! | written | answers |
//! |---|---|
//! | `j -> 'k'`, `j -> 0`, `j #> '{k,0}'`, `json_extract_path(j, 'k', …)` | the value there, as JSON; NULL if there is none |
//! | `j ->> 'k'`, `j ->> 0`, `j #>> '{k,0}'`, `json_extract_path_text(j, 'k', …)` | the same as text: strings without quotes, null as NULL |
//! | `json_query(j, '$.a')`, `json_extract`, `get_first_json_object` | the first value of a path, as JSON |
//! | `json_value(j, '$.a')`, `json_extract_string`, `extract_json_string` | the same as text; json_value only of what is no array or object |
//! | `extract_json(j, '$.a[*]')` | all values of a path, as a list of JSON |
//! | `json_exists(j, '$.a')`, `json_array_length(j)`, `json_typeof(j)` | what the names say |
//!
//! Text that is not JSON is an error of its row, but NULL where Flink and Arroyo say so: in the functions that take a path with `$`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Int64Builder, ListBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DFSchema, Result, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::text::{Kind, Step, as_text, children, document, find, kind, path};

/// What a function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Json,
    Text,
    /// As Text, of scalars only.
    Scalar,
    List,
    Exists,
    Length,
    Type,
}

/// How a function says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Where {
    /// Keys and indexes, one argument each.
    Steps,
    /// One argument, `{a,0}` or a list of texts.
    Braces,
    /// One argument, `$.a[0]`; what is not JSON is NULL.
    Path,
    Nowhere,
}

const FUNCTIONS: [(&str, &[&str], Answer, Where); 13] = [
    ("json_get", &["json_extract_path"], Answer::Json, Where::Steps),
    ("json_get_text", &["json_extract_path_text"], Answer::Text, Where::Steps),
    ("json_at", &[], Answer::Json, Where::Braces),
    ("json_at_text", &[], Answer::Text, Where::Braces),
    ("json_query", &["json_extract", "get_first_json_object"], Answer::Json, Where::Path),
    ("json_extract_string", &["extract_json_string", "get_json_object"], Answer::Text, Where::Path),
    ("json_value", &[], Answer::Scalar, Where::Path),
    ("extract_json", &[], Answer::List, Where::Path),
    ("json_exists", &[], Answer::Exists, Where::Path),
    ("json_array_length", &["jsonb_array_length"], Answer::Length, Where::Nowhere),
    ("json_typeof", &["jsonb_typeof"], Answer::Type, Where::Nowhere),
    ("jsonb_extract_path", &[], Answer::Json, Where::Steps),
    ("jsonb_extract_path_text", &[], Answer::Text, Where::Steps),
];

/// All functions, by these names.
pub(crate) fn functions() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.into_iter().map(|(name, aliases, answer, place)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let aliases = aliases.iter().map(|alias| alias.to_string()).collect();
        ScalarUDF::from(JsonFunction { name, aliases, answer, place, signature })
    })
}

fn named(name: &str) -> Option<Arc<ScalarUDF>> {
    functions().find(|function| function.name() == name).map(Arc::new)
}

/// `->` and its kin over text.
#[derive(Debug)]
pub(crate) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let name = match expr.op {
            BinaryOperator::Arrow => "json_get",
            BinaryOperator::LongArrow => "json_get_text",
            BinaryOperator::HashArrow => "json_at",
            BinaryOperator::HashLongArrow => "json_at_text",
            _ => return Ok(PlannerResult::Original(expr)),
        };
        if !is_text(&expr.left.get_type(schema)?) {
            return Ok(PlannerResult::Original(expr));
        }
        let Some(function) = named(name) else { return Ok(PlannerResult::Original(expr)) };
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![expr.left, expr.right]))))
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    aliases: Vec<String>,
    answer: Answer,
    place: Where,
    signature: Signature,
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.answer {
            Answer::Json | Answer::Text | Answer::Scalar | Answer::Type => DataType::Utf8,
            Answer::List => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            Answer::Exists => DataType::Boolean,
            Answer::Length => DataType::Int64,
        })
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name;
        let Some((json, places)) = arguments.split_first() else { return plan_err!("{name} takes JSON text") };
        if !is_text(json) {
            return plan_err!("{name} looks into JSON text, and this is {json}; CAST it to VARCHAR");
        }
        let places = match (self.place, places) {
            (Where::Nowhere, []) => Vec::new(),
            (Where::Path, [place]) if is_text(place) => vec![DataType::Utf8],
            (Where::Path, _) => return plan_err!("{name} takes JSON text and a path; {name}(column, '$.key[0]')"),
            (Where::Braces, [place]) if is_text(place) => vec![DataType::Utf8],
            (Where::Braces, [DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _)]) => {
                vec![DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))]
            }
            (Where::Braces, _) => return plan_err!("#> takes the names on the way; column #> '{{key,0}}'"),
            (Where::Steps, places) if !places.is_empty() => {
                let coerced = places.iter().map(|place| match place {
                    place if is_text(place) => Ok(DataType::Utf8),
                    place if place.is_integer() => Ok(DataType::Int64),
                    place => plan_err!("{name} takes a key or a place from 0, and this is {place}"),
                });
                coerced.collect::<Result<_>>()?
            }
            _ => return plan_err!("{name} does not take {} arguments", arguments.len()),
        };
        Ok([vec![DataType::Utf8], places].concat())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let json = cast(&columns[0], &DataType::Utf8)?;
        let json = json.as_string::<i32>();
        let mut answers = Answers::new(self.answer);
        for row in 0..rows {
            let steps = match self.place {
                Where::Nowhere => Some(Vec::new()),
                _ => self.steps(&columns[1..], row)?,
            };
            let (true, Some(steps)) = (json.is_valid(row), steps) else {
                answers.push(None);
                continue;
            };
            match document(json.value(row)) {
                Some(document) => answers.push(Some(&find(document, &steps))),
                None if self.place == Where::Path && self.answer == Answer::Exists => answers.push(Some(&[])),
                None if self.place == Where::Path => answers.push(None),
                None => return exec_err!("this is not JSON: {}", shortened(json.value(row))),
            }
        }
        Ok(ColumnarValue::Array(answers.finish()))
    }
}

impl JsonFunction {
    /// None if one of them is NULL. Errors: a path that is none.
    fn steps(&self, places: &[ArrayRef], row: usize) -> Result<Option<Vec<Step>>> {
        if places.iter().any(|place| place.is_null(row)) {
            return Ok(None);
        }
        let text = |place: &ArrayRef| place.as_string::<i32>().value(row).to_string();
        Ok(Some(match self.place {
            Where::Nowhere => Vec::new(),
            Where::Path => match path(&text(&places[0])) {
                Some(steps) => steps,
                None => return exec_err!("{} takes a path like '$.key[0]', and this is {}", self.name, text(&places[0])),
            },
            Where::Braces => match places[0].data_type() {
                DataType::List(_) => {
                    let names = places[0].as_list::<i32>().value(row);
                    names.as_string::<i32>().iter().flatten().map(key_or_index).collect()
                }
                _ => {
                    let braces = text(&places[0]);
                    let Some(inner) = braces.trim().strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) else {
                        return exec_err!("#> takes the names on the way in braces, '{{key,0}}', and this is {braces}");
                    };
                    let names = inner.split(',').map(|name| name.trim().trim_matches('"'));
                    names.filter(|name| !name.is_empty()).map(key_or_index).collect()
                }
            },
            Where::Steps => {
                let steps = places.iter().map(|place| match place.data_type() {
                    DataType::Int64 => Step::Index(place.as_primitive::<Int64Type>().value(row)),
                    // Of several names each may be a place, as PostgreSQL has it.
                    _ if places.len() > 1 => key_or_index(&text(place)),
                    _ => Step::Key(text(place)),
                });
                steps.collect()
            }
        }))
    }
}

/// In a list of names a number is a place in an array, but also a key of an object: `find` looks at what is there.
fn key_or_index(name: &str) -> Step {
    name.parse().map_or_else(|_| Step::Key(name.to_string()), Step::Index)
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

enum Answers {
    Text(Answer, StringBuilder),
    List(ListBuilder<StringBuilder>),
    Exists(BooleanBuilder),
    Length(Int64Builder),
}

impl Answers {
    fn new(answer: Answer) -> Answers {
        match answer {
            Answer::List => Answers::List(ListBuilder::new(StringBuilder::new())),
            Answer::Exists => Answers::Exists(BooleanBuilder::new()),
            Answer::Length => Answers::Length(Int64Builder::new()),
            answer => Answers::Text(answer, StringBuilder::new()),
        }
    }

    /// What was found; None where there was nothing to look into.
    fn push(&mut self, found: Option<&[&str]>) {
        let first = found.and_then(|found| found.first().copied());
        match self {
            Answers::Text(Answer::Json, builder) => builder.append_option(first),
            Answers::Text(Answer::Type, builder) => builder.append_option(first.map(|value| match kind(value) {
                Kind::Object => "object",
                Kind::Array => "array",
                Kind::String => "string",
                Kind::Number => "number",
                Kind::Boolean => "boolean",
                Kind::Null => "null",
            })),
            Answers::Text(answer, builder) => {
                let scalar = first.filter(|value| *answer != Answer::Scalar || !matches!(kind(value), Kind::Object | Kind::Array));
                builder.append_option(scalar.and_then(as_text));
            }
            Answers::List(builder) => {
                found.into_iter().flatten().for_each(|value| builder.values().append_value(value));
                builder.append(found.is_some());
            }
            Answers::Exists(builder) => builder.append_option(found.map(|found| !found.is_empty())),
            Answers::Length(builder) => {
                let length = first.filter(|value| kind(value) == Kind::Array).map(|value| children(value).len() as i64);
                builder.append_option(length);
            }
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Answers::Text(_, mut builder) => Arc::new(builder.finish()),
            Answers::List(mut builder) => Arc::new(builder.finish()),
            Answers::Exists(mut builder) => Arc::new(builder.finish()),
            Answers::Length(mut builder) => Arc::new(builder.finish()),
        }
    }
}
