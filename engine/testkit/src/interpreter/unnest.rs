//! Lists into rows, and subqueries that stand for a value. In: rows. Out: rows.

use arrow::array::{Array, AsArray};
use freshet_core::{NodeId, Op, Value};

use crate::interpreter::content::{Bag, NodeError};
use crate::interpreter::evaluate::batch_of_row;
use crate::interpreter::history::{Interpreter, Row};

impl Interpreter {
    /// The rows of one row, or why there are none.
    pub(super) fn unnested(&self, node: NodeId, row: &Row) -> Result<Vec<Row>, NodeError> {
        let definition = self.plan.node(node);
        let Op::Unnest { exprs, lists } = &definition.op else { unreachable!("this node unnests") };
        let batch = batch_of_row(&self.plan.node(definition.inputs[0]).schema, row);
        let mut columns: Vec<Vec<Value>> = Vec::new();
        for (index, expr) in exprs.iter().enumerate() {
            let failed = |message: String| NodeError { field: definition.schema.field(index).name().clone(), message, row: row.clone() };
            let value = expr.evaluate(&batch).map_err(|error| failed(error.to_string()))?;
            if !lists.contains(&index) {
                columns.push(vec![Value::of(&value, 0).map_err(|error| failed(error.to_string()))?]);
                continue;
            }
            let elements = match value.is_null(0) {
                true => Vec::new(),
                false => {
                    let list = match (value.as_list_opt::<i32>(), value.as_fixed_size_list_opt()) {
                        (Some(list), _) => list.value(0),
                        (None, Some(list)) => list.value(0),
                        (None, None) => value.as_list::<i64>().value(0),
                    };
                    (0..list.len()).map(|place| Value::of(&list, place)).collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?
                }
            };
            columns.push(elements);
        }
        let longest = lists.iter().map(|list| columns[*list].len()).max().unwrap_or(0);
        let cell = |column: usize, place: usize| match lists.contains(&column) {
            true => columns[column].get(place).cloned().unwrap_or(Value::Null),
            false => columns[column][0].clone(),
        };
        let row = |place: usize| (0..columns.len()).map(|column| cell(column, place)).collect();
        Ok((0..longest).map(row).collect())
    }

    pub(super) fn single_row(&self, node: NodeId, rows: &Bag) -> Bag {
        let width = self.plan.node(node).schema.fields().len();
        match rows.values().map(Vec::len).sum::<usize>() {
            0 => Bag::from([(vec![Value::Null; width], vec![0])]),
            1 => rows.clone(),
            _ => Bag::new(),
        }
    }
}
