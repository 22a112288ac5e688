//! CREATE TABLE without connector, and computed columns of any source. In: declarations. Out: definitions of core, or a refusal at the part that
//! is wrong.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{CastKind, Expr as SqlExpr, Query, SelectItem, SetExpr, Spanned};
use freshet_core::{ClockKind, ComputedColumn, Encode, ExprRef, Format, SinkDef, SourceDef, TABLE_CONNECTOR, TABLE_LIVE};

use super::Content;
use crate::ast::{Column, ColumnValue, CreateSource, normal_name};
use crate::bind::{placed, plan_maintained};
use crate::context::{Catalog, Relation};
use crate::define::{column_index, nested_fields_of, time_column};
use crate::expr::compile;
use crate::lower::storable;
use crate::parse::parse_query;
use crate::refusal::{Refusal, Result};

/// A table without connector.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// With all columns.
    pub def: SourceDef,
    /// Columns that are not computed.
    pub carried: SchemaRef,
    /// Of carried columns.
    pub defaults: Vec<(String, Expr)>,
    /// A stream is inserted into it: its rows pass by.
    pub pipe: bool,
    /// What the script's statements leave in it: carried columns.
    pub content: Content,
}

/// A table with a connector that INSERT INTO writes to.
#[derive(Debug, Clone)]
pub(crate) struct SinkTable {
    pub create: CreateSource,
    /// None: no columns are declared, and nothing has been inserted yet.
    pub schema: Option<SchemaRef>,
    /// Once something is inserted.
    pub def: Option<SinkDef>,
}

impl SinkTable {
    /// What it writes cannot be taken back.
    pub fn inserts_only(&self) -> bool {
        self.create.encoding.as_ref().is_some_and(|encoding| encoding.format == Format::Plain)
    }
}

impl Stored {
    /// `schema` is the type of its query's rows, where it is made AS a query and declares no columns.
    pub fn define(create: &CreateSource, schema: Option<SchemaRef>, catalog: &Catalog, (clock, pipe): (ClockKind, bool)) -> Result<Stored> {
        let (schema, computed) = match schema {
            Some(schema) => (schema, Vec::new()),
            None => define_computed(create, catalog)?,
        };
        if let Some(included) = create.metadata.first() {
            return Err(Refusal::new("a table without connector has no metadata").help("leave it out").at(included.name.place.0));
        }
        let key = create.primary_key.iter().map(|column| column_index(&schema, column)).collect::<Result<Vec<usize>>>()?;
        if let Some(one) = computed.iter().find(|one| key.contains(&one.column)) {
            return Err(Refusal::new(format!("{} is computed and in the PRIMARY KEY", schema.field(one.column).name()))
                .help("name columns that are inserted")
                .at(create.name.span));
        }
        let fields = schema.fields().iter().enumerate().map(|(index, field)| {
            let optional = field.is_nullable() && !key.contains(&index);
            field.as_ref().clone().with_nullable(optional)
        });
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let time = |column: &_| time_column(&schema, column, "WATERMARK");
        let event_time = create.watermark.as_ref().map(|watermark| time(&watermark.column)).transpose()?;
        let live = clock == ClockKind::Wall && !pipe;
        // What nothing will change is as the script leaves it.
        let format = match (live, key.is_empty()) {
            (true, true) => Format::Debezium,
            (true, false) => Format::Upsert,
            (false, _) => Format::Plain,
        };
        let def = SourceDef {
            event_time,
            watermark_delay_ms: create.watermark.as_ref().and_then(|watermark| watermark.delay.as_ref()).map_or(0, |delay| delay.ms()),
            lateness_ms: create.lateness.as_ref().map(|lateness| lateness.ms()),
            options: live.then(|| (TABLE_LIVE.to_string(), "true".to_string())).into_iter().collect(),
            key,
            computed,
            ..SourceDef::new(&normal_name(&create.name), schema, TABLE_CONNECTOR, format, Encode::Json)
        };
        let carried = def.carried();
        let defaults = defaults(create, &carried.schema, catalog)?;
        Ok(Stored { content: Content::new(carried.schema.clone(), carried.key.clone()), carried: carried.schema, defaults, pipe, def })
    }

    /// Without computed columns.
    pub fn carried_of(&self, rows: &RecordBatch) -> RecordBatch {
        rows.project(&self.def.carried_columns()).expect("columns of the table")
    }

    /// The key among the carried columns.
    pub fn carried_key(&self) -> Vec<usize> {
        self.def.carried().key
    }

    pub fn computed_names(&self) -> impl Iterator<Item = &str> {
        self.def.computed.iter().map(|one| self.def.schema.field(one.column).name().as_str())
    }
}

/// The columns a source declares, and those of them that are computed.
pub(crate) fn define_computed(create: &CreateSource, catalog: &Catalog) -> Result<(SchemaRef, Vec<ComputedColumn>)> {
    let is_computed = |index: usize| create.computed.iter().any(|value| value.column == index);
    let own: Vec<Column> = create.columns.iter().enumerate().filter(|(index, _)| !is_computed(*index)).map(|(_, column)| column.clone()).collect();
    let carried = Arc::new(Schema::new(nested_fields_of(&own, catalog)?));
    if create.computed.is_empty() {
        return Ok((carried, Vec::new()));
    }
    let name = normal_name(&create.name);
    let exprs = computed_over(&name, &carried, create, catalog)?;
    let mut fields: Vec<Option<Field>> = vec![None; create.columns.len()];
    let mut rest = carried.fields().iter();
    for (_, field) in fields.iter_mut().enumerate().filter(|(index, _)| !is_computed(*index)) {
        *field = rest.next().map(|field| field.as_ref().clone());
    }
    let mut computed = Vec::with_capacity(exprs.len());
    for (value, expr) in create.computed.iter().zip(exprs) {
        let column = &create.columns[value.column];
        if !storable(&expr.data_type()) {
            return Err(Refusal::new(format!("the computed column {} is {}, which no column can be", column.name, expr.data_type()))
                .help("CAST it to a number, a TIMESTAMP or VARCHAR")
                .at(value.expr.span()));
        }
        fields[value.column] = Some(Field::new(normal_name(&column.name), expr.data_type(), !column.not_null));
        computed.push(ComputedColumn { column: value.column, expr });
    }
    Ok((Arc::new(Schema::new(fields.into_iter().flatten().collect::<Vec<_>>())), computed))
}

/// One expression for each computed column, over the others, of the type it declares.
fn computed_over(name: &str, carried: &SchemaRef, create: &CreateSource, catalog: &Catalog) -> Result<Vec<ExprRef>> {
    let mut catalog = catalog.clone();
    catalog.add(name, Relation::stored(carried.clone()));
    let typed = |value: &ColumnValue| {
        let column = &create.columns[value.column];
        let expr = match value.untyped {
            true => value.expr.clone(),
            false => SqlExpr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(value.expr.clone()),
                data_type: column.data_type.clone(),
                array: false,
                format: None,
            },
        };
        SelectItem::ExprWithAlias { expr, alias: column.name.clone() }
    };
    let query = selecting(name, create.computed.iter().map(typed).collect())?;
    let schema = DFSchema::try_from_qualified_schema(TableReference::bare(name), carried)?;
    let exprs = match plan_maintained(&query, &catalog)? {
        LogicalPlan::Projection(projection) => projection.expr,
        plan => plan.schema().columns().into_iter().map(Expr::Column).collect(),
    };
    let compiled = exprs
        .iter()
        .zip(&create.computed)
        .map(|(expr, value)| compile(expr, &schema).map_err(|refusal| if refusal.place.is_some() { refusal } else { refusal.at(value.expr.span()) }));
    compiled.collect::<Result<Vec<_>>>().map_err(|refusal| placed(refusal, &query))
}

/// Constants that stand for what an INSERT leaves out.
fn defaults(create: &CreateSource, carried: &SchemaRef, catalog: &Catalog) -> Result<Vec<(String, Expr)>> {
    if create.defaults.is_empty() {
        return Ok(Vec::new());
    }
    let nothing = Arc::new(Schema::empty());
    let mut found = Vec::new();
    for value in &create.defaults {
        let column = &create.columns[value.column];
        let name = normal_name(&column.name);
        let not_constant = |refusal: Refusal| Refusal { help: Some("a DEFAULT is a constant".into()), ..refusal }.at(value.expr.span());
        // Planned as the value of a table without columns, so that nothing but constants can stand in it.
        let alone = CreateSource { computed: vec![ColumnValue { column: 0, ..value.clone() }], columns: vec![column.clone()], ..create.clone() };
        let expr = computed_over("default$", &nothing, &alone, catalog).map_err(not_constant)?.swap_remove(0);
        let one = RecordBatch::try_new_with_options(nothing.clone(), Vec::new(), &arrow::array::RecordBatchOptions::new().with_row_count(Some(1)));
        let one = one.map_err(|error| Refusal::new(error.to_string()))?;
        let constant = expr.evaluate(&one).map_err(|error| not_constant(Refusal::new(error.message)))?;
        let constant = arrow::compute::cast(&constant, carried.field_with_name(&name).map_err(|error| Refusal::new(error.to_string()))?.data_type());
        let constant = constant.map_err(|error| not_constant(Refusal::new(error.to_string())))?;
        found.push((name, Expr::Literal(datafusion::common::ScalarValue::try_from_array(&constant, 0)?, None)));
    }
    Ok(found)
}

/// `SELECT items FROM name`.
fn selecting(name: &str, items: Vec<SelectItem>) -> Result<Query> {
    let text = format!("SELECT 1 FROM \"{}\"", name.replace('"', "\"\""));
    let mut query = parse_query(&text).map_err(|error| Refusal::new(error.message))?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = items;
    }
    Ok(*query)
}
