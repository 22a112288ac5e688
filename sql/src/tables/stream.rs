//! Statements of a script that write. In: INSERT, UPDATE, DELETE, CREATE TABLE. Out: rows of stored tables, or nodes that lead a stream into a pipe
//! or a sink.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Column as PlanColumn, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{ObjectName, Query};
use freshet_core::{NodeId, Op, Plan, ViewDef, ViewKind};

use super::live::relations_of_write;
use super::{SinkTable, Stored, change, relations_in};
use crate::ast::{CreateSink, CreateSource, Ident, OptionEntry, Write, normal_name};
use crate::bind::{placed, plan_maintained, plan_maintained_as};
use crate::context::Relation;
use crate::define;
use crate::error::nearest;
use crate::execute::memory_table;
use crate::pipeline::Pipeline;
use crate::refusal::{Refusal, Result};
use crate::windowing::{emit_on_close, marked_as, with_event_time};

impl Pipeline<'_> {
    /// CREATE TABLE without connector.
    pub(crate) fn create_table(&mut self, create: &CreateSource) -> Result<()> {
        let name = normal_name(&create.name);
        let pipe = self.survey.pipes.contains(&name);
        let inferred = match &create.query {
            Some(query) if create.columns.is_empty() => Some(self.schema_of(query)?),
            _ => None,
        };
        let stored = Stored::define(create, inferred, &self.catalog, (self.settings().clock, pipe))?;
        self.catalog.add(&name, Relation::stored(with_event_time(&stored.def.schema, stored.def.event_time)));
        if !pipe {
            let node = self.push_source(&stored.def);
            self.plan.views.push(ViewDef {
                name: name.clone(),
                node,
                kind: ViewKind::Materialized,
                schema: stored.def.schema.clone(),
                entity: Vec::new(),
            });
        }
        self.stored.insert(name.clone(), stored);
        match &create.query {
            Some(query) if pipe => self.insert_stream(&create.name, query, &[]),
            Some(query) if !self.replaying => self.insert_rows(&as_insert(&create.name, query)?),
            _ => Ok(()),
        }
    }

    /// CREATE TABLE … WITH (connector = …, type = 'sink').
    pub(crate) fn create_sink_table(&mut self, create: &CreateSource) -> Result<()> {
        if let Some(value) = create.computed.first() {
            use datafusion::sql::sqlparser::ast::Spanned;
            return Err(Refusal::new("a sink computes no columns").help("compute them in the SELECT that is inserted").at(value.expr.span()));
        }
        let fields = define::nested_fields_of(&create.columns, &self.catalog)?;
        let schema = (!fields.is_empty()).then(|| Arc::new(Schema::new(fields)));
        let name = normal_name(&create.name);
        let create = &self.without_commits(create);
        self.sink_tables.insert(name, SinkTable { create: create.clone(), schema, def: None });
        match &create.query {
            Some(query) => self.insert_stream(&create.name, query, &[]),
            None => Ok(()),
        }
    }

    /// Without what Flink is told of partitions that are complete: here every part is whole when it appears.
    fn without_commits(&mut self, create: &CreateSource) -> CreateSource {
        let mut create = create.clone();
        let theirs = |name: &str| name.starts_with("sink.partition-commit.") || name.starts_with("partition.time-extractor.");
        let marks = |option: &OptionEntry| option.name == "sink.partition-commit.policy.kind" && option.value.text().contains("success-file");
        if let Some(option) = create.options.iter().find(|option| marks(option)) {
            self.warn(Refusal::new("no _SUCCESS file is written: each part is whole when it appears").at(option.place.0));
        }
        create.options.retain(|option| !theirs(&option.name));
        create
    }

    /// INSERT, UPDATE, DELETE.
    pub(crate) fn write(&mut self, write: &Write) -> Result<()> {
        let name = normal_name(&write.table);
        let target = write.table.span;
        let is_pipe = self.stored.get(&name).map(|table| table.pipe);
        if write.returning().is_some() {
            return Err(Refusal::new("RETURNING tells a client, and a script has none").help("leave it out").at(target));
        }
        match (write.inserted(), is_pipe) {
            (Some((query, _)), kept) if write.conflict().is_some() && (kept.is_none() || self.reads_streams(query)) && self.flows(&name) => {
                Err(Refusal::new(format!("{name} keeps no rows that others could be in conflict with"))
                    .help("leave ON CONFLICT out; FORMAT UPSERT of a sink replaces rows by key")
                    .at(target))
            }
            (Some((query, columns)), Some(true)) if self.reads_streams(query) => self.insert_stream(&write.table, query, columns),
            (Some((query, columns)), None) if self.sink_tables.contains_key(&name) => self.insert_stream(&write.table, query, columns),
            (None, Some(true)) => Err(Refusal::new(format!("{name} is a pipe: a stream is inserted into it, and its rows are not kept"))
                .help(format!("{} rows of a table that only statements write to, or filter in a view", write.verb()))
                .at(target)),
            (_, Some(_)) => self.insert_rows(write),
            _ => Err(self.not_writable(&name, write)),
        }
    }

    /// Whether rows pass through it: a pipe or a sink.
    fn flows(&self, name: &str) -> bool {
        self.sink_tables.contains_key(name) || self.stored.get(name).is_some_and(|table| table.pipe)
    }

    /// A table it cannot write to, or none.
    fn not_writable(&self, name: &str, write: &Write) -> Refusal {
        let refusal = if self.sink_tables.contains_key(name) {
            return Refusal::new(format!("{name} is a sink: what was written cannot be changed")).help("use INSERT INTO").at(write.table.span);
        } else if self.relations.contains_key(name) {
            Refusal::new(format!("{name} is not a table: {} cannot change it", write.verb()))
                .help(format!("rows of a source come from its connector, those of a view from its query; CREATE TABLE {name}_rows (…) is writable"))
        } else {
            let refusal = Refusal::new(format!("there is no table named {name}"));
            match nearest(name, self.stored.keys().chain(self.sink_tables.keys()).map(String::as_str)) {
                Some(close) => refusal.help(format!("did you mean {close}?")),
                None => refusal.help(format!("CREATE TABLE {name} (column TYPE, …)")),
            }
        };
        refusal.at(write.table.span)
    }

    /// Whether the query reads anything but tables whose rows stand in the script.
    fn reads_streams(&self, query: &Query) -> bool {
        relations_in(query).iter().any(|name| self.stored.get(name).is_none_or(|table| table.pipe))
    }

    /// Rows of statements, computed now.
    fn insert_rows(&mut self, write: &Write) -> Result<()> {
        if !self.replaying {
            self.change_rows(write)?;
        }
        self.give_pipe_its_rows(&write.table)
    }

    /// What statements write into a pipe is a source of its own.
    fn give_pipe_its_rows(&mut self, table: &Ident) -> Result<()> {
        let name = normal_name(table);
        if !self.stored[&name].pipe || self.plan.sources.iter().any(|source| source.name == name) {
            return Ok(());
        }
        let def = self.stored[&name].def.clone();
        let before = self.relations.get(&name).copied();
        let node = self.push_source(&def);
        before.map_or(Ok(()), |before| self.join_pipe(table, before, node))
    }

    fn change_rows(&mut self, write: &Write) -> Result<()> {
        let name = normal_name(&write.table);
        let mut catalog = self.catalog.clone();
        for (other, table) in self.stored.iter().filter(|(other, table)| **other != name && !table.pipe) {
            let rows = full_rows(table)?;
            let schema = change::nullable(&table.def.schema);
            let rows = rows.iter().map(|rows| change::with_schema(rows, &schema)).collect::<Result<Vec<_>>>()?;
            catalog.relations.insert(other.clone(), memory_table(schema, rows).map_err(change::core_error)?);
        }
        let table = &self.stored[&name];
        let known = |other: &String| *other == name || self.stored.get(other).is_some_and(|table| !table.pipe);
        if let Some(other) = relations_of_write(write).into_iter().find(|other| self.relations.contains_key(other) && !known(other)) {
            return Err(Refusal::new(format!("what {other} holds is known when the pipeline runs, and this statement is done before"))
                .help(format!("{} over tables of the script only, or send the statement to the running pipeline", write.verb()))
                .at(write.table.span));
        }
        let content = if write.reads_itself() { full_rows(table)? } else { Vec::new() };
        let content = change::one_batch(&table.def.schema, &content)?;
        let planned = change::plan(write, table, &content, &catalog)?;
        let change = change::evaluate(write, table, &planned, vec![Vec::new()], (&content, &catalog))?;
        self.stored.get_mut(&name).expect("it is there").content.apply(&change).map_err(change::core_error)
    }

    /// Leads the rows of a query into a pipe or a sink.
    fn insert_stream(&mut self, target: &Ident, query: &Query, columns: &[ObjectName]) -> Result<()> {
        let name = normal_name(target);
        let wanted = match (self.stored.get(&name), self.sink_tables.get(&name)) {
            (Some(table), _) => Some(table.carried.clone()),
            (_, Some(sink)) => sink.schema.clone(),
            _ => None,
        };
        let mut grown = self.plan.clone();
        let (mut node, mut schema) = self.lower_into(&mut grown, query, (target, columns), (wanted.as_ref(), None))?;
        if self.sink_tables.get(&name).is_some_and(|sink| sink.inserts_only()) && !grown.node(node).append_only {
            // As in Flink and Arroyo: what can only be inserted is inserted when its window closes. Without a window the sink refuses it.
            let mut closing = self.plan.clone();
            if let Ok(closed) = self.lower_into(&mut closing, query, (target, columns), (wanted.as_ref(), Some(&name))) {
                ((node, schema), grown) = (closed, closing);
            }
        }
        self.plan = grown;
        if let Some(table) = self.stored.get(&name).cloned() {
            if table.def.event_time.is_none() && table.def.computed.is_empty() && !self.relations.contains_key(&name) {
                // The event time of what flows through it.
                self.catalog.add(&name, Relation::stored(marked_as(&table.def.schema, &schema)));
            }
            let node = self.with_computed(&table, node);
            return match self.relations.get(&name).copied() {
                Some(before) => self.join_pipe(target, before, node),
                None => {
                    self.relations.insert(name, node);
                    Ok(())
                }
            };
        }
        self.insert_into_sink(target, &name, node)
    }

    fn insert_into_sink(&mut self, target: &Ident, name: &str, node: NodeId) -> Result<()> {
        let table = self.sink_tables[name].clone();
        let before = table.def.as_ref().and_then(|def| self.plan.sinks.iter().position(|sink| sink.name == def.name));
        let (node, schema) = match before {
            Some(index) => {
                let schema = self.plan.sinks[index].schema.clone();
                (self.push_union(self.plan.sinks[index].node, node, schema.clone()), schema)
            }
            None => (node, self.plan.node(node).schema.clone()),
        };
        let create = &table.create;
        let sink = CreateSink {
            name: create.name.clone(),
            if_not_exists: false,
            from: create.name.clone(),
            key: create.primary_key.clone(),
            options: create.options.clone(),
            encoding: create.encoding.clone(),
        };
        let from = ViewDef { name: name.to_string(), node, kind: ViewKind::Materialized, schema: schema.clone(), entity: Vec::new() };
        // The table may stand in another script: what is wrong with it is told at the INSERT.
        let def = define::sink(&sink, &from, &self.plan, (self.connectors, &self.secrets)).map_err(|refusal| refusal.at(target.span))?;
        match before {
            Some(index) => self.plan.sinks[index] = def.clone(),
            None => self.plan.sinks.push(def.clone()),
        }
        let table = self.sink_tables.get_mut(name).expect("it is there");
        (table.def, table.schema) = (Some(def), Some(schema));
        Ok(())
    }

    /// Another stream of the same pipe. Errors: something reads the pipe already.
    fn join_pipe(&mut self, target: &Ident, before: NodeId, node: NodeId) -> Result<()> {
        let name = normal_name(target);
        let read = |plan: &Plan| {
            plan.nodes.iter().any(|node| node.inputs.contains(&before))
                || plan.views.iter().any(|view| view.node == before)
                || plan.sinks.iter().any(|sink| sink.node == before)
        };
        if read(&self.plan) {
            return Err(Refusal::new(format!("{name} is read by a statement before this one"))
                .help("put every INSERT INTO it before what reads it")
                .at(target.span));
        }
        let union = self.push_union(before, node, self.stored[&name].def.schema.clone());
        self.relations.insert(name, union);
        Ok(())
    }

    fn push_union(&mut self, before: NodeId, node: NodeId, schema: SchemaRef) -> NodeId {
        let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let mut plan = std::mem::take(&mut self.plan);
        let union = self.lowering(&mut plan).push_union(vec![before, node], Arc::new(Schema::new(fields)));
        self.plan = plan;
        union
    }

    fn with_computed(&mut self, table: &Stored, node: NodeId) -> NodeId {
        if table.def.computed.is_empty() {
            return node;
        }
        let mut plan = std::mem::take(&mut self.plan);
        let mut lowering = self.lowering(&mut plan);
        let node = lowering.computed(node, &table.def);
        self.plan = plan;
        node
    }

    /// The rows of the query as those of the target: its names and types, NULL where the INSERT names no value.
    fn lower_into(
        &self,
        grown: &mut Plan,
        query: &Query,
        (target, columns): (&Ident, &[ObjectName]),
        (wanted, closes): (Option<&SchemaRef>, Option<&str>),
    ) -> Result<(NodeId, DFSchemaRef)> {
        let plan = plan_maintained_as(query, &self.catalog, |plan| {
            let plan = match wanted {
                Some(wanted) => cast_into(plan, (target, columns), wanted)?,
                None => plan,
            };
            match closes {
                Some(view) => emit_on_close(plan, view),
                None => Ok(plan),
            }
        })?;
        let mut lowering = self.lowering(grown);
        let node = lowering.lower(&plan).and_then(|node| lowering.output(node, plan.schema())).map_err(|refusal| placed(refusal, query))?;
        Ok((node, plan.schema().clone()))
    }

    /// The columns of a query that makes a table.
    fn schema_of(&self, query: &Query) -> Result<SchemaRef> {
        if self.reads_streams(query) {
            let plan = plan_maintained(query, &self.catalog)?;
            let mut draft = self.plan.clone();
            let mut lowering = self.lowering(&mut draft);
            let node = lowering.lower(&plan).and_then(|node| lowering.output(node, plan.schema())).map_err(|refusal| placed(refusal, query))?;
            return Ok(change::nullable(&draft.node(node).schema));
        }
        let plan = crate::bind::plan_query(query, &self.catalog)?;
        let analysed = crate::optimise::analyse(plan, self.catalog.options())?;
        let fields = analysed.schema().fields().iter().map(|field| {
            let data_type = match field.data_type() {
                arrow::datatypes::DataType::Utf8View => arrow::datatypes::DataType::Utf8,
                other => other.clone(),
            };
            Field::new(field.name(), data_type, true)
        });
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

/// All columns of what the script's statements leave in a table.
pub(super) fn full_rows(table: &Stored) -> Result<Vec<arrow::array::RecordBatch>> {
    let rows = table.content.batches().map_err(change::core_error)?;
    rows.iter().map(|rows| change::complete(&table.def, rows)).collect()
}

fn as_insert(name: &Ident, query: &Query) -> Result<Write> {
    use datafusion::sql::sqlparser::ast::Statement;
    let quoted = format!("INSERT INTO \"{}\" SELECT 1", normal_name(name).replace('"', "\"\""));
    let parsed = crate::parse::parse_write(&quoted).map_err(|error| Refusal::new(error.message))?;
    let Some(crate::ast::Stmt::Write(mut write)) = parsed else { return Err(Refusal::new("the table cannot be filled")) };
    if let Statement::Insert(insert) = &mut write.statement {
        insert.source = Some(Box::new(query.clone()));
    }
    write.table = name.clone();
    Ok(*write)
}

fn cast_into(plan: LogicalPlan, (target, columns): (&Ident, &[ObjectName]), wanted: &SchemaRef) -> Result<LogicalPlan> {
    let names: Vec<String> = columns.iter().filter_map(|name| name.0.last()?.as_ident().map(normal_name)).collect();
    let given = plan.schema().fields().len();
    let expected = if names.is_empty() { wanted.fields().len() } else { names.len() };
    if given != expected {
        let all: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(Refusal::new(format!("INSERT INTO {target} gives {given} values for {expected} columns"))
            .help(format!("columns are {}", all.join(", ")))
            .at(target.span));
    }
    if let Some(unknown) = names.iter().find(|name| wanted.index_of(name).is_err()) {
        let refusal = Refusal::new(format!("{target} has no column {unknown}")).at(target.span);
        return Err(refusal.nearest(unknown, wanted.fields().iter().map(|field| field.name().as_str())));
    }
    let mut exprs = Vec::with_capacity(wanted.fields().len());
    for (index, field) in wanted.fields().iter().enumerate() {
        let place = if names.is_empty() { Some(index) } else { names.iter().position(|name| name == field.name()) };
        let expr = match place {
            Some(place) => Expr::Column(PlanColumn::from(plan.schema().qualified_field(place))),
            None => Expr::Literal(ScalarValue::Null, None),
        };
        let cast = expr.cast_to(field.data_type(), plan.schema()).map_err(|error| {
            let reason = Refusal::from(error).message;
            Refusal::new(format!("column {} of {target} cannot be filled: {reason}", field.name())).help("CAST it in the SELECT").at(target.span)
        })?;
        exprs.push(cast.alias(field.name()));
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs).and_then(|builder| builder.build())?)
}

/// The nodes that computed columns and unions of INSERTs need.
impl crate::lower::Lowering<'_> {
    fn push_union(&mut self, inputs: Vec<NodeId>, schema: SchemaRef) -> NodeId {
        self.push(Op::Union, inputs, schema)
    }

    fn computed(&mut self, node: NodeId, def: &freshet_core::SourceDef) -> NodeId {
        let own = self.schema(node);
        let mut exprs: Vec<Option<freshet_core::ExprRef>> = vec![None; def.schema.fields().len()];
        for (place, column) in def.carried_columns().into_iter().enumerate() {
            exprs[column] = Some(crate::lower::column(&own, place));
        }
        def.computed.iter().for_each(|one| exprs[one.column] = Some(one.expr.clone()));
        let names = def.schema.fields().iter().map(|field| field.name().clone()).collect();
        self.project_always(node, exprs.into_iter().flatten().collect(), names)
    }
}
