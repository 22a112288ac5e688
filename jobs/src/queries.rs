//! SQL behind the servers. In: a statement, parameter rows, an epoch. Out: rows read at one instant of the running pipeline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use freshet_core::{Epoch, Error, Ingress, Push, PushBody, ReadPoint, Reader, Result, SubscribeRequest};
use freshet_serving::{Prepared, Queries, QueryAnswer};
use freshet_sql::{PinnedReader, SqlError, Tables, Written, count_schema, query};

/// How long a statement waits until its rows can be read. A tick takes 20 ms; a pipeline that is seconds behind is told of by its status.
const VISIBLE_MAX: Duration = Duration::from_secs(30);
const VISIBLE_LOOK_EVERY: Duration = Duration::from_millis(1);

/// Plans with `freshet_sql`, reads with the engine.
pub struct PipelineQueries {
    reader: Arc<dyn Reader>,
    writing: Option<Writing>,
}

/// What statements that write need.
struct Writing {
    tables: Tables,
    ingress: Arc<dyn Ingress>,
    /// One writer a table at a time: a change is computed from what the table holds.
    turns: BTreeMap<String, Mutex<()>>,
}

impl PipelineQueries {
    pub fn new(reader: Arc<dyn Reader>) -> PipelineQueries {
        PipelineQueries { reader, writing: None }
    }

    /// Statements may change these tables.
    pub fn with_tables(self, tables: Tables, ingress: Arc<dyn Ingress>) -> PipelineQueries {
        let turns = tables.live().into_iter().map(|table| (table, Mutex::new(()))).collect();
        PipelineQueries { writing: Some(Writing { tables, ingress, turns }), ..self }
    }

    fn write(&self, writing: &Writing, sql: &str, parameters: Option<&RecordBatch>) -> Result<QueryAnswer> {
        let target = writing.tables.target(sql).map_err(invalid)?;
        let turn = target.as_ref().and_then(|table| writing.turns.get(table));
        let _turn = turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        // It sees everything that was taken before it.
        let positions = writing.ingress.sources().into_iter().filter(|source| writing.turns.contains_key(&source.name));
        for source in positions {
            self.wait_for(&source.name, source.position)?;
        }
        let (count, returned) = match writing.tables.write(sql, parameters, self.reader.as_ref())? {
            Written::Flush => (0, None),
            Written::Change { table, rows, diffs, count, returned } => {
                if rows.num_rows() > 0 {
                    let pushed = writing.ingress.push(Push { source: table.clone(), id: None, body: PushBody::Changes(rows, diffs) })?;
                    self.wait_for(&table, pushed.position)?;
                }
                (count, returned)
            }
        };
        let rows = match returned {
            Some(rows) => rows,
            None => RecordBatch::try_new(count_schema(), vec![Arc::new(Int64Array::from(vec![count as i64]))])?,
        };
        let point = ReadPoint::at(self.reader.frontier(&[])?);
        Ok(QueryAnswer { schema: rows.schema(), batches: vec![rows], point, changed: Some(count) })
    }

    /// Errors: Unavailable, if what stands before this position cannot be read after a while.
    fn wait_for(&self, source: &str, position: u64) -> Result<()> {
        if position == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + VISIBLE_MAX;
        loop {
            let reached = self.reader.reached(source, 0, position)?;
            if let Some(epoch) = reached
                && self.reader.frontier(&[])? > epoch
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::unavailable(format!(
                    "rows of {source} were taken, and cannot be read after {} s; FLUSH waits for them",
                    VISIBLE_MAX.as_secs()
                )));
            }
            std::thread::park_timeout(VISIBLE_LOOK_EVERY);
        }
    }
}

impl Queries for PipelineQueries {
    fn prepare(&self, sql: &str) -> Result<Prepared> {
        if let Some(writing) = &self.writing
            && writing.tables.writes(sql).map_err(invalid)?
        {
            let (schema, parameters) = writing.tables.prepare(sql, self.reader.as_ref()).map_err(invalid)?;
            return Ok(Prepared { schema, parameters });
        }
        let planned = query::plan(sql, self.reader.as_ref()).map_err(invalid)?;
        Ok(Prepared { schema: planned.schema, parameters: planned.parameters })
    }

    fn run(&self, sql: &str, parameters: Option<&RecordBatch>, at: Option<Epoch>) -> Result<QueryAnswer> {
        if let Some(writing) = &self.writing
            && writing.tables.writes(sql).map_err(invalid)?
        {
            return match at {
                None => self.write(writing, sql, parameters),
                // Its answer was kept for a while; running it again would write again.
                Some(_) => Err(Error::invalid("the statement has run, and its count has been fetched or was given up")),
            };
        }
        let planned = query::plan(sql, self.reader.as_ref()).map_err(invalid)?;
        let (schema, batches, point) = match at {
            None => query::run(&planned, parameters, self.reader.as_ref())?,
            Some(at) => query::run(&planned, parameters, &PinnedReader { reader: self.reader.clone(), at })?,
        };
        Ok(QueryAnswer { schema, batches, point, changed: None })
    }

    fn writes(&self, sql: &str) -> Result<bool> {
        self.writing.as_ref().map_or(Ok(false), |writing| writing.tables.writes(sql).map_err(invalid))
    }

    fn subscription(&self, sql: &str) -> Result<Option<(SubscribeRequest, bool)>> {
        query::subscription(sql).map_err(invalid)
    }
}

fn invalid(error: SqlError) -> Error {
    Error::invalid(error.to_string())
}
