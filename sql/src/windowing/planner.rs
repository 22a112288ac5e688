//! `FROM TUMBLE(…)`, HOP, CUMULATE and SESSION. In: a table factor. Out: the node, or an error at the argument that is wrong.
//!
//! Flink: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), size [, offset]))` and named arguments; RisingWave: `TUMBLE(t, c, size [, offset])`. The first
//! argument may be a subquery or a CTE. Flink's spelling adds `window_time` to `window_start` and `window_end`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Spanned};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::context::TIMESTAMP;
use crate::fold::normal;
use crate::now::exact_ns;
use crate::relation::wrong_at;
use crate::windowing::node::{FUNCTIONS, WindowTvf, shape_of, unit_of};

/// Plans window table functions; leaves everything else to the next planner.
#[derive(Debug)]
pub(crate) struct WindowPlanner;

impl RelationPlanner for WindowPlanner {
    fn plan_relation(&self, relation: ast::TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let call = match &relation {
            ast::TableFactor::Table { name, args: Some(arguments), alias, .. } => Some((name, &arguments.args, alias)),
            ast::TableFactor::TableFunction { expr: ast::Expr::Function(call), alias } => match &call.args {
                ast::FunctionArguments::List(list) => Some((&call.name, &list.args, alias)),
                _ => None,
            },
            _ => None,
        };
        let Some((name, arguments, alias)) = call else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let Some((function, lengths)) = function(name) else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let plan = Call { function, lengths, place: name.span() }.plan(arguments, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

fn function(name: &ast::ObjectName) -> Option<(&'static str, &'static [&'static str])> {
    let [part] = name.0.as_slice() else { return None };
    let name = normal(part.as_ident()?);
    FUNCTIONS.into_iter().find(|(function, _)| *function == name)
}

struct Call {
    function: &'static str,
    lengths: &'static [&'static str],
    place: Span,
}

/// The arguments by what they are.
#[derive(Default)]
struct Arguments {
    data: Option<ast::Expr>,
    time: Option<ast::Expr>,
    /// The time stood in DESCRIPTOR(…).
    described: bool,
    partition: Vec<ast::Expr>,
    /// In the order of the function's names, an offset last.
    lengths: Vec<Option<ast::Expr>>,
}

impl Call {
    fn usage(&self) -> String {
        let names: Vec<String> = self.lengths.iter().map(|name| format!("INTERVAL '…' /* {name} */")).collect();
        format!("{}(table, time, {})", self.function.to_uppercase(), names.join(", "))
    }

    fn plan(&self, arguments: &[ast::FunctionArg], context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Arguments { data, time, described, partition, lengths } = self.sorted(arguments)?;
        let missing = |what: &str| wrong_at(&format!("{}() is given no {what}", self.function), &self.usage(), self.place);
        let data = data.ok_or_else(|| missing("table"))?;
        let place = data.span();
        let input =
            context.plan(relation_of(data).ok_or_else(|| wrong_at("the first argument is a table, a view or a subquery", &self.usage(), place))?)?;
        let schema = input.schema().clone();
        let time = time.ok_or_else(|| missing("time column"))?;
        let time_place = time.span();
        let mut time_expr = context.sql_to_expr(time, &schema)?;
        if time_expr.get_type(&schema)? == DataType::Date32 {
            time_expr = time_expr.cast_to(&TIMESTAMP, &schema)?;
        }
        let data_type = time_expr.get_type(&schema)?;
        let Some(unit) = unit_of(&data_type) else {
            return Err(wrong_at(
                &format!("windows need a TIMESTAMP, and {time_expr} is {data_type}"),
                "CAST(… AS TIMESTAMP), in a view below",
                time_place,
            ));
        };
        let mut ns = Vec::new();
        for (index, length) in lengths.into_iter().enumerate() {
            let name = self.lengths.get(index).copied().unwrap_or("offset");
            let Some(length) = length else {
                if name == "offset" {
                    break;
                }
                return Err(missing(name));
            };
            ns.push(self.exact(name, length, &schema, context)?);
        }
        let shape = shape_of(self.function, &ns, unit).map_err(|(message, help)| wrong_at(&message, &help, self.place))?;
        let partition = partition.into_iter().map(|key| context.sql_to_expr(key, &schema)).collect::<Result<Vec<Expr>>>()?;
        if !partition.is_empty() && self.function != "session" {
            return Err(wrong_at("PARTITION BY is for SESSION: other windows are the same for every key", "leave it out", self.place));
        }
        let node = WindowTvf::new(shape, (time_expr, partition), described, None, Arc::new(input))?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    /// A constant interval in nanoseconds.
    fn exact(&self, name: &str, length: ast::Expr, schema: &datafusion::common::DFSchema, context: &mut dyn RelationPlannerContext) -> Result<i64> {
        let place = length.span();
        let wrong = |message: &str, help: &str| wrong_at(message, help, if place == Span::empty() { self.place } else { place });
        let found = match context.sql_to_expr(length, schema)? {
            Expr::Literal(value, _) => exact_ns(&value).map_err(|refusal| wrong(&refusal.message, &refusal.help.unwrap_or_default()))?,
            _ => None,
        };
        found.ok_or_else(|| wrong(&format!("the {name} of {}() is a constant interval", self.function), "INTERVAL '1 minute'"))
    }

    fn sorted(&self, arguments: &[ast::FunctionArg]) -> Result<Arguments> {
        let mut sorted = Arguments { lengths: vec![None; self.lengths.len() + 1], ..Arguments::default() };
        let mut position = 0;
        for argument in arguments {
            let (name, value) = match argument {
                ast::FunctionArg::Named { name, arg: ast::FunctionArgExpr::Expr(value), .. } => (Some(normal(name)), value),
                ast::FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg: ast::FunctionArgExpr::Expr(value), .. } => {
                    (Some(normal(name)), value)
                }
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) => (None, value),
                other => return Err(wrong_at(&format!("{other} is no argument of {}()", self.function), &self.usage(), self.place)),
            };
            if let Some(keys) = inside(value, "partition_by") {
                sorted.partition = keys;
                continue;
            }
            let name = match name {
                Some(name) => name,
                None => {
                    let names = ["data", "timecol"].iter().chain(self.lengths).chain(&["offset"]);
                    let name = names.copied().nth(position).map(str::to_string);
                    position += 1;
                    name.ok_or_else(|| wrong_at(&format!("{}() is given too many arguments", self.function), &self.usage(), value.span()))?
                }
            };
            match name.as_str() {
                "data" => sorted.data = Some(value.clone()),
                "timecol" => {
                    let described = inside(value, "descriptor");
                    sorted.described = described.is_some();
                    sorted.time = Some(described.and_then(|columns| columns.into_iter().next()).unwrap_or_else(|| value.clone()));
                }
                "offset" => sorted.lengths[self.lengths.len()] = Some(value.clone()),
                other => match self.lengths.iter().position(|known| *known == other) {
                    Some(index) => sorted.lengths[index] = Some(value.clone()),
                    None => return Err(wrong_at(&format!("{}() has no argument {other}", self.function), &self.usage(), value.span())),
                },
            }
        }
        Ok(sorted)
    }
}

/// The arguments of `name(…)`.
fn inside(value: &ast::Expr, name: &str) -> Option<Vec<ast::Expr>> {
    let ast::Expr::Function(function) = value else { return None };
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let expr = |argument: &ast::FunctionArg| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    function.name.to_string().eq_ignore_ascii_case(name).then(|| list.args.iter().filter_map(expr).collect())
}

fn relation_of(data: ast::Expr) -> Option<ast::TableFactor> {
    let table = |parts: Vec<ast::Ident>| ast::TableFactor::Table {
        name: ast::ObjectName::from(parts),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    Some(match data {
        ast::Expr::Identifier(name) => table(vec![name]),
        ast::Expr::CompoundIdentifier(parts) => table(parts),
        ast::Expr::Nested(inner) => relation_of(*inner)?,
        ast::Expr::Subquery(subquery) => ast::TableFactor::Derived { lateral: false, subquery, alias: None, sample: None },
        _ => return None,
    })
}
