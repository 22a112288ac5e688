//! The plan node of a window table function. In: rows. Out: each once per window of its time, with the window's bounds; or, while it is
//! fused with its aggregate, with the name of its session.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DFSchema, DFSchemaRef, Result, TableReference, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};
use freshet_core::Windows;

pub(crate) const START: &str = "window_start";
pub(crate) const END: &str = "window_end";
/// Flink's third column: the last instant of the window.
pub(crate) const TIME: &str = "window_time";
/// No user can type it unquoted at its place.
pub(crate) const SESSION: &str = "freshet$session";

/// Which windows. Lengths are in the unit of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    Fixed(Windows),
    Session {
        gap: i64,
    },
    /// As Session, with one column that names the session instead of its bounds.
    SessionName {
        gap: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowTvf {
    pub shape: Shape,
    /// A timestamp.
    pub time: Expr,
    /// Of sessions.
    pub partition: Vec<Expr>,
    /// There is a column `window_time`.
    pub with_time: bool,
    /// The view whose late rows are those behind a window that has closed; None: a window is never closed.
    pub closes: Option<Arc<str>>,
    /// Of the columns that are added.
    pub qualifier: Option<TableReference>,
    pub input: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl WindowTvf {
    /// With windows that close, for this view.
    pub fn closing(self, closes: Option<Arc<str>>) -> WindowTvf {
        WindowTvf { closes, ..self }
    }

    pub fn new(
        shape: Shape,
        (time, partition): (Expr, Vec<Expr>),
        with_time: bool,
        qualifier: Option<TableReference>,
        input: Arc<LogicalPlan>,
    ) -> Result<WindowTvf> {
        let data_type = time.get_type(input.schema())?;
        if unit_of(&data_type).is_none() {
            return plan_err!("windows need a TIMESTAMP, and {time} is {data_type}");
        }
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        let names: &[&str] = match shape {
            Shape::SessionName { .. } => &[SESSION],
            _ if with_time => &[START, END, TIME],
            _ => &[START, END],
        };
        let data_type = if matches!(shape, Shape::SessionName { .. }) { DataType::Binary } else { data_type };
        fields.extend(names.iter().map(|name| (qualifier.clone(), Arc::new(Field::new(*name, data_type.clone(), false)))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(WindowTvf { shape, time, partition, with_time, closes: None, qualifier, input, schema })
    }
}

/// The unit of a TIMESTAMP without time zone.
pub(crate) fn unit_of(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, None) => Some(*unit),
        _ => None,
    }
}

pub(crate) fn unit_ns(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// The functions there are, and the lengths each takes behind its time; where windows have a grid, an offset may follow.
pub(crate) const FUNCTIONS: [(&str, &[&str]); 4] =
    [("tumble", &["size"]), ("hop", &["slide", "size"]), ("cumulate", &["step", "size"]), ("session", &["gap"])];

/// The shape of a call, its lengths and offset in nanoseconds, over times of this unit. Errors: what is wrong, and what to write.
pub(crate) fn shape_of(function: &str, ns: &[i64], unit: TimeUnit) -> std::result::Result<Shape, (String, String)> {
    let (_, names) = FUNCTIONS.into_iter().find(|(name, _)| *name == function).expect("only these are called");
    let wrong = |message: String, help: &str| Err((message, help.to_string()));
    let mut lengths = Vec::with_capacity(ns.len());
    for (index, ns) in ns.iter().enumerate() {
        let name = names.get(index).copied().unwrap_or("offset");
        if *ns <= 0 && name != "offset" {
            return wrong(format!("the {name} of {function}() is not above zero"), "give it a length: INTERVAL '1 minute'");
        }
        if ns % unit_ns(unit) != 0 {
            let unit = unit_name(unit);
            return wrong(
                format!("the {name} of {function}() is no whole number of {unit}s, which its times count"),
                "declare the time finer: TIMESTAMP(9)",
            );
        }
        lengths.push(ns / unit_ns(unit));
    }
    let offset = lengths.get(names.len()).copied().unwrap_or(0);
    let windows = match function {
        "session" if lengths.len() > 1 => return wrong("session() has no grid, and so no offset".into(), "leave it out"),
        "session" => return Ok(Shape::Session { gap: lengths[0] }),
        "tumble" => Windows::Hop { size: lengths[0], slide: lengths[0], offset },
        "hop" => Windows::Hop { size: lengths[1], slide: lengths[0], offset },
        _ => Windows::Cumulate { size: lengths[1], step: lengths[0], offset },
    };
    if !windows.is_sound() {
        return wrong("the size of cumulate() is no multiple of its step".into(), "choose a step that divides it");
    }
    if windows.per_row() > Windows::PER_ROW_MAX {
        return wrong(
            format!("{function}() puts each row into {} windows; at most {} are kept", windows.per_row(), Windows::PER_ROW_MAX),
            "make the windows shorter or the steps longer",
        );
    }
    Ok(Shape::Fixed(windows))
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "second",
        TimeUnit::Millisecond => "millisecond",
        TimeUnit::Microsecond => "microsecond",
        TimeUnit::Nanosecond => "nanosecond",
    }
}

impl PartialOrd for WindowTvf {
    fn partial_cmp(&self, _: &WindowTvf) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for WindowTvf {
    fn name(&self) -> &str {
        "WindowTvf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.partition).cloned().collect()
    }

    /// A condition on a row may be tested before its windows are known; one on its windows not, and any row may hold a session together.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let first = match self.shape {
            Shape::Fixed(_) => self.input.schema().fields().len(),
            Shape::Session { .. } | Shape::SessionName { .. } => 0,
        };
        self.schema.fields()[first..].iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowTvf: {:?} of {}", self.shape, self.time)?;
        if !self.partition.is_empty() {
            let keys: Vec<String> = self.partition.iter().map(ToString::to_string).collect();
            write!(f, " by {}", keys.join(", "))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<WindowTvf> {
        let partition = exprs.split_off(1);
        let time = exprs.pop().expect("the time comes first");
        let input = Arc::new(inputs.pop().expect("windows have one input"));
        let made = WindowTvf::new(self.shape, (time, partition), self.with_time, self.qualifier.clone(), input)?;
        Ok(made.closing(self.closes.clone()))
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|column| *column < input.fields().len()).collect();
        let exprs = UserDefinedLogicalNodeCore::expressions(self);
        needed.extend(exprs.iter().flat_map(Expr::column_refs).filter_map(|column| input.index_of_column(column).ok()));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
