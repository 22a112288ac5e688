//! ENCODE AVRO: data with the id of their schema in front, or all of one schema. In: bytes. Out: rows, as each writer's schema says; a column
//! that it lacks is NULL.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use freshet_core::{Error, Result, SourceDef};

use super::debezium::{effect, no_after, no_before};
use super::record::{ChangeDecoder, Refusal, RowDecoder, RowEnd, Wait};
use super::{Cell, Fault, Rows};
use crate::avro::{Input, Plan, Row, Type, TypeId, Types};
use crate::registry::{Known, RegisteredSchema, Registry, RegistryOptions, SchemaKind, unframe};
use crate::schema_text;

/// Where schemas come from.
enum Schemas {
    /// One for all, no id in front.
    One(Arc<Writer>),
    Registry {
        registry: Registry,
        writers: HashMap<u32, Arc<Writer>>,
    },
}

/// How data of one writer become rows.
struct Writer {
    plan: Plan,
    shape: Shape,
}

enum Shape {
    Row(Row),
    /// A key of one column that is no record.
    Single(TypeId),
    /// The members of an envelope in their order.
    Envelope {
        members: Vec<(Member, TypeId)>,
        row: Row,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Before,
    After,
    Op,
    Other,
}

/// What a datum is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum {
    Row,
    /// Rows before and after a change.
    Envelope,
    /// A row of the key's columns, or the value of the one.
    Key,
}

pub struct AvroDecoder {
    schemas: Schemas,
    schema: SchemaRef,
    columns: Vec<usize>,
    datum: Datum,
}

impl AvroDecoder {
    /// Reads these columns. Errors: Invalid, naming the schema file or what is wrong in it.
    pub fn open(def: &SourceDef, columns: &[usize], datum: Datum) -> Result<AvroDecoder> {
        let invalid = |message: String| Error::invalid(format!("source {}: {message}", def.name));
        let (schema, columns) = (def.schema.clone(), columns.to_vec());
        let schemas = match RegistryOptions::parse(&def.options).map_err(|error| invalid(error.message))? {
            Some(options) => Schemas::Registry { registry: Registry::start(options)?, writers: HashMap::new() },
            None => {
                let text = schema_text::read(&def.options).map_err(invalid)?;
                let types = Types::parse(&text, &[]).map_err(invalid)?;
                Schemas::One(Arc::new(Writer::new(types, &schema, &columns, datum).map_err(invalid)?))
            }
        };
        Ok(AvroDecoder { schemas, schema, columns, datum })
    }

    fn writer<'a>(&mut self, payload: &'a [u8]) -> Result<(Arc<Writer>, &'a [u8]), Refusal> {
        let AvroDecoder { schemas, schema, columns, datum: shape } = self;
        match schemas {
            Schemas::One(writer) => Ok((writer.clone(), payload)),
            Schemas::Registry { registry, writers } => {
                let (id, datum) = unframe(payload).map_err(Fault::of_record)?;
                if let Some(writer) = writers.get(&id) {
                    return Ok((writer.clone(), datum));
                }
                let registered = match registry.schema(id) {
                    Known::Schema(registered) => registered,
                    Known::Never(reason) => return Err(Fault::of_record(reason).into()),
                    Known::NotYet(reason) => return Err(Refusal::Wait(Wait { reason })),
                };
                let writer = parse(&registered).and_then(|types| Writer::new(types, schema, columns, *shape));
                let writer = Arc::new(writer.map_err(|reason| Fault::of_record(format!("schema {id}: {reason}")))?);
                writers.insert(id, writer.clone());
                Ok((writer, datum))
            }
        }
    }
}

fn parse(registered: &RegisteredSchema) -> Result<Types, String> {
    if registered.kind != SchemaKind::Avro {
        return Err(format!("it is a schema of kind {}, not AVRO", registered.kind.name()));
    }
    let mut texts = Vec::new();
    collect(registered, &mut texts);
    Types::parse(&registered.text, &texts)
}

/// What a schema refers to, the innermost first.
fn collect<'r>(registered: &'r RegisteredSchema, texts: &mut Vec<&'r str>) {
    for (_, reference) in &registered.references {
        collect(reference, texts);
        texts.push(&reference.text);
    }
}

impl Writer {
    fn new(types: Types, schema: &SchemaRef, columns: &[usize], datum: Datum) -> Result<Writer, String> {
        let plan = Plan::new(types);
        let root = plan.types().root();
        if !matches!(plan.types().get(root), Type::Record(..)) {
            if datum == Datum::Key && columns.len() == 1 {
                return Ok(Writer { plan, shape: Shape::Single(root) });
            }
            return Err("its schema is no record".into());
        }
        if datum != Datum::Envelope {
            let row = plan.row(root, schema, columns)?;
            return Ok(Writer { plan, shape: Shape::Row(row) });
        }
        let fields = plan.types().record(root).ok_or("its schema is no record")?;
        let member = |name: &str| match name {
            "before" => Member::Before,
            "after" => Member::After,
            "op" => Member::Op,
            _ => Member::Other,
        };
        let members: Vec<_> = fields.iter().map(|(name, id)| (member(name), *id)).collect();
        let after = members.iter().find(|(member, _)| *member == Member::After);
        let (_, after) = after.ok_or("its schema is no Debezium envelope: it has no field after")?;
        let row = plan.row(*after, schema, columns)?;
        Ok(Writer { plan, shape: Shape::Envelope { members, row } })
    }
}

impl RowDecoder for AvroDecoder {
    fn fill(&mut self, payload: &[u8], rows: &mut Rows) -> Result<(), Refusal> {
        if let Schemas::One(writer) = &self.schemas {
            return fill(writer, &self.columns, payload, rows);
        }
        let (writer, datum) = self.writer(payload)?;
        fill(&writer, &self.columns, datum, rows)
    }
}

fn fill(writer: &Writer, columns: &[usize], datum: &[u8], rows: &mut Rows) -> Result<(), Refusal> {
    let mut input = Input::new(datum);
    match &writer.shape {
        Shape::Row(row) => writer.plan.fill(row, &mut input, rows)?,
        Shape::Single(id) => {
            let cell = writer.plan.text(*id, &mut input).map_err(Fault::of_record)?;
            rows.set(columns[0], &cell)?;
        }
        Shape::Envelope { .. } => return Err(Fault::of_record("an envelope is no row").into()),
    }
    Ok(input.end().map_err(Fault::of_record)?)
}

impl ChangeDecoder for AvroDecoder {
    fn changes(&mut self, payload: &[u8], rows: &mut Rows, end: &mut RowEnd) -> Result<(), Refusal> {
        let (writer, datum) = self.writer(payload)?;
        let Shape::Envelope { members, row } = &writer.shape else { return Err(Fault::of_record("a row is no envelope").into()) };
        let mut input = Input::new(datum);
        let (mut before, mut after, mut op) = (None, None, Cell::Null);
        for (member, id) in members {
            match member {
                Member::Before => before = cells(&writer.plan, *id, row, &mut input)?,
                Member::After => after = cells(&writer.plan, *id, row, &mut input)?,
                Member::Op => op = writer.plan.text(*id, &mut input).map_err(|reason| Fault::new("op", reason))?,
                Member::Other => writer.plan.skip(*id, &mut input, 0).map_err(Fault::of_record)?,
            }
        }
        input.end().map_err(Fault::of_record)?;
        let Cell::Text(op) = &op else { return Err(Fault::new("op", "missing: a Debezium record has op, before and after").into()) };
        let (retracts, inserts) = effect(op)?;
        let mut put = |cells: Vec<(usize, Cell)>, diff: i64| {
            cells.iter().try_for_each(|(column, cell)| rows.set(*column, cell))?;
            end(rows, diff)
        };
        if retracts {
            put(before.ok_or_else(|| no_before(op))?, -1)?;
        }
        if inserts {
            put(after.ok_or_else(|| no_after(op))?, 1)?;
        }
        Ok(())
    }
}

/// The row of an envelope, or None where it is null.
fn cells<'a>(plan: &Plan, id: TypeId, row: &Row, input: &mut Input<'a>) -> Result<Option<Vec<(usize, Cell<'a>)>>, Fault> {
    if let Type::Union(branches) = plan.types().get(id) {
        let branch = branches[input.branch(branches.len()).map_err(Fault::of_record)?];
        if plan.types().record(branch).is_none() {
            plan.skip(branch, input, 0).map_err(Fault::of_record)?;
            return Ok(None);
        }
    }
    let mut cells = Vec::new();
    plan.read(row, input, |column, cell| {
        cells.push((column, cell));
        Ok(())
    })?;
    Ok(Some(cells))
}
