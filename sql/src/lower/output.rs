//! The last node of a view: unique names, and types that can be stored, compared and served.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
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
            exprs.push(match field.data_type() {
                DataType::Utf8View | DataType::LargeUtf8 => {
                    let (qualifier, field) = schema.qualified_field(index);
                    let column = Expr::Column(datafusion::common::Column::from((qualifier, field)));
                    compile(&Expr::Cast(Cast::new(Box::new(column), DataType::Utf8)), schema)?
                }
                data_type if storable(data_type) => column(&own, index),
                other => return Err(unstorable(field.name(), other)),
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

/// The types of columns that views, keys and files know.
pub(crate) fn storable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Decimal128(_, _) => true,
        DataType::Float32 | DataType::Float64 => true,
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, None) => true,
        other => other.is_integer(),
    }
}

fn unstorable(name: &str, data_type: &DataType) -> Refusal {
    let refusal = Refusal::new(format!("column {name} is {data_type}, which no view can hold yet"));
    match data_type {
        DataType::Null => refusal.help(format!("give it a type: CAST(NULL AS VARCHAR) AS {name}")),
        DataType::Interval(_) | DataType::Duration(_) => refusal.help("subtract epochs instead: date_part('epoch', a) - date_part('epoch', b)"),
        DataType::Struct(fields) if !fields.is_empty() => {
            refusal.help(format!("select its fields one by one: (…)['{}'] AS {}, …", fields[0].name(), fields[0].name()))
        }
        DataType::Struct(_) | DataType::List(_) | DataType::LargeList(_) => refusal.help("select its fields or elements one by one"),
        _ => refusal.help("CAST it to a number, a TIMESTAMP or VARCHAR"),
    }
}
