//! The last node of a view: unique names, and types that can be stored, compared and served.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, IntervalUnit, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Cast, Expr};
use freshet_core::NodeId;

use super::Lowering;
use super::project::column;
use crate::expr::compile;
use crate::refusal::{Refusal, Result};

impl Lowering<'_> {
    /// The node with the names of the query's columns. Errors: a name twice, a type no view can have.
    pub fn output(&mut self, node: NodeId, schema: &DFSchema) -> Result<NodeId> {
        let own = self.schema(node);
        let mut names = BTreeSet::new();
        let mut exprs = Vec::with_capacity(own.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            if !names.insert(field.name().clone()) {
                return Err(Refusal::new(format!("two columns are called {}", field.name())).help(format!("rename one: … AS {}_2", field.name())));
            }
            exprs.push(match stored_as(field.data_type()) {
                Some(same) if same == *field.data_type() => column(&own, index),
                Some(stored) => {
                    let (qualifier, field) = schema.qualified_field(index);
                    let column = Expr::Column(datafusion::common::Column::from((qualifier, field)));
                    compile(&Expr::Cast(Cast::new(Box::new(column), stored)), schema)?
                }
                None => return Err(unstorable(field.name(), field.data_type())),
            });
        }
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let same = own.fields().iter().zip(&names).all(|(field, name)| field.name() == name) && exprs.iter().all(|expr| expr.as_column().is_some());
        if same {
            return Ok(node);
        }
        if let freshet_core::Op::Project { exprs: inner } = &self.plan.node(node).op
            && let Some(columns) = exprs.iter().map(|expr| expr.as_column()).collect::<Option<Vec<usize>>>()
        {
            let merged = columns.into_iter().map(|column| Arc::clone(&inner[column])).collect();
            let below = self.plan.node(node).inputs[0];
            return Ok(self.project_always(below, merged, names));
        }
        Ok(self.project_always(node, exprs, names))
    }
}

/// The types of columns that sources, features and keys know.
pub(crate) fn storable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Decimal128(_, _) => true,
        DataType::Float32 | DataType::Float64 => true,
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, None) => true,
        other => other.is_integer(),
    }
}

/// The type that a view holds a column as: its own, or the one it means the same in. None if no view can hold it.
pub(crate) fn stored_as(data_type: &DataType) -> Option<DataType> {
    let nested = |field: &FieldRef| Some(Arc::new(field.as_ref().clone().with_data_type(stored_as(field.data_type())?)));
    Some(match data_type {
        plain if storable(plain) => plain.clone(),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) => data_type.clone(),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, values) => stored_as(values)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => DataType::List(nested(item)?),
        DataType::Struct(fields) if !fields.is_empty() => DataType::Struct(fields.iter().map(nested).collect::<Option<Fields>>()?),
        DataType::Map(entries, sorted) => DataType::Map(nested(entries)?, *sorted),
        _ => return None,
    })
}

fn unstorable(name: &str, data_type: &DataType) -> Refusal {
    let refusal = Refusal::new(format!("column {name} is {data_type}, which no view can hold"));
    match data_type {
        DataType::Null => refusal.help(format!("give it a type: CAST(NULL AS VARCHAR) AS {name}")),
        DataType::List(_) | DataType::LargeList(_) => refusal.help(format!("give its elements a type: CAST({name} AS VARCHAR[])")),
        DataType::Decimal256(_, scale) => refusal.help(format!("a decimal has at most 38 digits: CAST({name} AS DECIMAL(38, {scale}))")),
        _ => refusal.help("CAST it to a number, a TIMESTAMP or VARCHAR"),
    }
}
