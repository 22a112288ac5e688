//! Window table functions: fixed windows are one stateless operator; a session's bounds are joined to its rows by the session's name.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column as PlanColumn, DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use freshet_core::{AggregateCall, AggregateFunction, ExprRef, NodeId, Op, Windows};

use super::Lowering;
use super::project::column;
use crate::context::TIMESTAMP;
use crate::expr::compile;
use crate::refusal::{Refusal, Result};
use crate::windowing::{ArrivalNode, CloseNode, Shape, WindowTvf, unit_ns, unit_of};

impl Lowering<'_> {
    pub(super) fn windows(&mut self, tvf: &WindowTvf) -> Result<NodeId> {
        let input = self.lower(&tvf.input)?;
        let wanted: Vec<Expr> = std::iter::once(&tvf.time).chain(&tvf.partition).cloned().collect();
        let (wide, mut columns) = self.extend(input, tvf.input.schema(), &wanted)?;
        let keys = columns.split_off(1);
        let wide = match (&tvf.closes, tvf.shape) {
            // Behind the watermark a row could lengthen a session that has been emitted.
            (Some(view), Shape::Session { .. } | Shape::SessionName { .. }) => self.gate(wide, columns[0], view),
            _ => wide,
        };
        match tvf.shape {
            Shape::Fixed(windows) => self.fixed_windows(tvf, (input, wide), columns[0], windows),
            Shape::SessionName { gap } => {
                let named = self.sessions(wide, (columns[0], gap), keys);
                let own: Vec<usize> = (0..self.width(input)).chain([self.width(wide)]).collect();
                Ok(self.pick(named, &own))
            }
            Shape::Session { gap } => self.session_bounds(tvf, (input, wide), (columns[0], gap), keys),
        }
    }

    fn fixed_windows(&mut self, tvf: &WindowTvf, (input, wide): (NodeId, NodeId), time: usize, windows: Windows) -> Result<NodeId> {
        let schema = self.schema(wide);
        let bounds = ["window_start", "window_end"].map(|name| Arc::new(Field::new(name, schema.field(time).data_type().clone(), true)));
        let fields: Vec<Arc<Field>> = schema.fields().iter().cloned().chain(bounds).collect();
        let node = self.push(Op::Windows { time, windows }, vec![wide], Arc::new(Schema::new(fields)));
        let node = match &tvf.closes {
            Some(view) => self.gate(node, self.width(wide) + 1, view),
            None => node,
        };
        let (schema, start) = (self.schema(node), self.width(wide));
        let mut exprs: Vec<ExprRef> = (0..self.width(input)).chain([start, start + 1]).map(|index| column(&schema, index)).collect();
        if tvf.with_time {
            exprs.push(self.last_instant(node, start + 1, 0)?);
        }
        Ok(self.project(node, exprs, names_of(tvf)))
    }

    fn sessions(&mut self, wide: NodeId, (time, gap): (usize, i64), keys: Vec<usize>) -> NodeId {
        let fields: Vec<Arc<Field>> =
            self.schema(wide).fields().iter().cloned().chain([Arc::new(Field::new("session", DataType::Binary, true))]).collect();
        self.push(Op::Session { time, gap, keys }, vec![wide], Arc::new(Schema::new(fields)))
    }

    /// Every row with the least and greatest time of its session; a session whose bounds change takes all of its rows along.
    fn session_bounds(&mut self, tvf: &WindowTvf, (input, wide): (NodeId, NodeId), (time, gap): (usize, i64), keys: Vec<usize>) -> Result<NodeId> {
        let named = self.sessions(wide, (time, gap), keys);
        let (schema, session) = (self.schema(named), self.width(wide));
        let call = |function| AggregateCall::new(function, Some(time));
        let calls = vec![call(AggregateFunction::Min), call(AggregateFunction::Max)];
        let bound = |name: &str| Field::new(name, schema.field(time).data_type().clone(), true);
        let fields = vec![schema.field(session).clone(), bound("first"), bound("last")];
        let bounds = self.push(Op::Aggregate { keys: vec![session], calls }, vec![named], Arc::new(Schema::new(fields)));
        let fields: Vec<Arc<Field>> = schema.fields().iter().chain(self.schema(bounds).fields()).cloned().collect();
        let op = Op::inner_join(vec![session], vec![0], Vec::new());
        let joined = self.push(op, vec![named, bounds], Arc::new(Schema::new(fields)));
        let (schema, first) = (self.schema(joined), session + 2);
        let mut exprs: Vec<ExprRef> = (0..self.width(input)).chain([first]).map(|index| column(&schema, index)).collect();
        exprs.push(self.shifted(joined, first + 1, i128::from(gap) * i128::from(self.unit_of(joined, first + 1)))?);
        if tvf.with_time {
            exprs.push(self.last_instant(joined, first + 1, gap)?);
        }
        Ok(self.project(joined, exprs, names_of(tvf)))
    }

    fn gate(&mut self, node: NodeId, end: usize, view: &str) -> NodeId {
        let schema = self.schema(node);
        self.push(Op::Gate { end, view: view.to_string() }, vec![node], schema)
    }

    pub(super) fn emit_on_close(&mut self, close: &CloseNode) -> Result<NodeId> {
        let input = self.lower(&close.input)?;
        let (wide, columns) = self.extend(input, close.input.schema(), std::slice::from_ref(&close.end))?;
        if self.plan.timed_sources(wide).is_empty() {
            return Err(Refusal::new("no source of this view declares a WATERMARK, so that no window would ever close")
                .help("CREATE SOURCE … (…, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')"));
        }
        let schema = self.schema(wide);
        let node = self.push(Op::EmitOnClose { end: columns[0] }, vec![wide], schema);
        let own: Vec<usize> = (0..self.width(input)).collect();
        Ok(self.pick(node, &own))
    }

    /// EMIT EVERY.
    pub fn emit_every(&mut self, node: NodeId, every_ms: u64) -> NodeId {
        let schema = self.schema(node);
        self.push(Op::EmitEvery { every_ms }, vec![node], schema)
    }

    pub(super) fn arrival(&mut self, arrival: &ArrivalNode) -> Result<NodeId> {
        let input = self.lower(&arrival.input)?;
        let fields = self.schema(input).fields().iter().cloned().chain([Arc::new(Field::new("arrival", TIMESTAMP, true))]).collect::<Vec<_>>();
        Ok(self.push(Op::Arrival, vec![input], Arc::new(Schema::new(fields))))
    }

    fn unit_of(&self, node: NodeId, column: usize) -> i64 {
        unit_of(self.schema(node).field(column).data_type()).map_or(1, unit_ns)
    }

    /// The end of a window that ends `units` behind this column, less a millisecond.
    fn last_instant(&self, node: NodeId, column: usize, units: i64) -> Result<ExprRef> {
        let unit = self.unit_of(node, column);
        self.shifted(node, column, i128::from(units) * i128::from(unit) - i128::from(unit.max(1_000_000)))
    }

    /// A timestamp column + ns.
    fn shifted(&self, node: NodeId, column: usize, ns: i128) -> Result<ExprRef> {
        let schema = self.schema(node);
        let fields = schema.fields().iter().enumerate().map(|(index, field)| (None, Arc::new(field.as_ref().clone().with_name(format!("{index}$")))));
        let schema = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
        let interval = ScalarValue::new_interval_mdn(0, 0, i64::try_from(ns).unwrap_or(i64::MAX));
        compile(&(Expr::Column(PlanColumn::new_unqualified(format!("{column}$"))) + Expr::Literal(interval, None)), &schema)
    }
}

fn names_of(tvf: &WindowTvf) -> Vec<String> {
    let schema = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(tvf);
    schema.fields().iter().map(|field| field.name().clone()).collect()
}
