//! Reading a source or a view by name.

use datafusion::logical_expr::TableScan;
use freshet_core::{NodeId, Op};

use super::Lowering;
use crate::refusal::{Refusal, Result};

impl Lowering<'_> {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<NodeId> {
        if scan.fetch.is_some() || !scan.filters.is_empty() {
            return Err(Refusal::new("a scan was given a filter or a limit of its own; that is a bug of Freshet"));
        }
        if self.body.is_some() {
            return self.round_before(scan);
        }
        let name = scan.table_name.table();
        // A pipe is known before its first INSERT.
        let node = *self.relations.get(name).ok_or_else(|| {
            Refusal::new(format!("nothing has been inserted into {name} yet")).help(format!("put every INSERT INTO {name} before what reads it"))
        })?;
        self.read_as_stream(node);
        match &scan.projection {
            Some(columns) => Ok(self.pick(node, columns)),
            None => Ok(node),
        }
    }

    /// A feature view that is read as a stream of changes has to emit them.
    pub(crate) fn read_as_stream(&mut self, node: NodeId) {
        let node = &mut self.plan.nodes[node.index()];
        if let Op::Feature { eager, .. } = &mut node.op {
            *eager = true;
        }
    }
}
