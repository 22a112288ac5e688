//! CREATE SOURCE, CREATE SINK and CREATE FEATURE SERVICE → definitions of core. In: statements and what exists. Out: definitions, or a
//! refusal at the part that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::{ColumnDef, DataType as SqlType, Ident, TimezoneInfo};
use freshet_core::{
    Connectors, Encode, Format, MetadataColumn, NodeId, Op, OptionError, Plan, RankKind, ServiceColumn, ServiceDef, ServicePart, SetOperation,
    SinkDef, SourceDef, ViewDef, ViewKind,
};

use crate::ast::{Column, CreateFeatureService, CreateSink, CreateSource, Encoding, OptionEntry, ServiceItem, find_option, normal_name};
use crate::bind::parser_options;
use crate::context::Catalog;
use crate::error::nearest;
use crate::limits;
use crate::lower::storable;
use crate::refusal::{Refusal, Result};
use crate::secrets::Secrets;
use crate::tables::define_computed;

pub(crate) fn source(source: &CreateSource, catalog: &Catalog, (connectors, secrets): (&dyn Connectors, &Secrets)) -> Result<SourceDef> {
    let (schema, computed) = define_computed(source, catalog)?;
    if schema.fields().is_empty() {
        return Err(Refusal::new("a source needs its columns")
            .help("CREATE SOURCE name (id VARCHAR, ts TIMESTAMP, …) WITH (…)")
            .at(source.name.span));
    }
    let event_time = source.watermark.as_ref().map(|watermark| time_column(&schema, &watermark.column, "WATERMARK")).transpose()?;
    let arrival = source.arrival.as_ref().map(|column| time_column(&schema, column, "ARRIVAL")).transpose()?;
    let key = source.primary_key.iter().map(|column| column_index(&schema, column)).collect::<Result<Vec<usize>>>()?;
    if let Some(query) = &source.query {
        use datafusion::sql::sqlparser::ast::Spanned;
        return Err(Refusal::new("a source has no query").help("CREATE MATERIALIZED VIEW name AS SELECT …").at(query.span()));
    }
    let bare = bare_encoding(&source.options, Format::Plain, connectors);
    let Some(encoding) = source.encoding.as_ref().or(bare.as_ref()) else {
        return Err(Refusal::new("a source needs to say how its bytes read").help("FORMAT PLAIN ENCODE JSON (or CSV, PARQUET)").at(source.name.span));
    };
    check_encoding(source, encoding)?;
    let (connector, mut options) = connector_and_options(&source.name, &source.options, encoding, secrets)?;
    let name = normal_name(&source.name);
    let bad_data = limits::bad_data(&source.options, &name)?;
    let time_limits = limits::time_limits(&source.options)?;
    limits::NAMES.iter().for_each(|name| drop(options.remove(*name)));
    let times = if encoding.format == Format::Upsert { [event_time, arrival] } else { [None, None] };
    let def = SourceDef {
        name,
        schema: with_optional(schema, &times),
        event_time,
        watermark_delay_ms: source.watermark.as_ref().and_then(|watermark| watermark.delay.as_ref()).map_or(0, |delay| delay.ms()),
        lateness_ms: source.lateness.as_ref().map(|lateness| lateness.ms()),
        arrival,
        connector,
        options,
        format: encoding.format,
        encode: encoding.encode,
        bad_data,
        key,
        metadata: source.metadata.iter().map(|one| MetadataColumn { column: one.column, name: one.name.value.clone() }).collect(),
        limits: time_limits,
        letters: limits::letter_limits(&source.options)?,
        computed,
        rows: Vec::new(),
    };
    connectors.check_source(&def.carried()).map_err(|error| source_refusal(secrets.hidden_in(error), source, encoding))?;
    Ok(def)
}

/// Errors: a column that is no time.
pub(crate) fn time_column(schema: &Schema, ident: &Ident, clause: &str) -> Result<usize> {
    let index = column_index(schema, ident)?;
    match schema.field(index).data_type() {
        DataType::Timestamp(_, _) | DataType::Date32 => Ok(index),
        other => Err(Refusal::new(format!("{clause} needs a TIMESTAMP or DATE column, {ident} is {other}")).at(ident.span)),
    }
}

/// A deletion by key has no time of its own: NOT NULL of such a column would ask for one. That others have it, the engine sees to (T13).
fn with_optional(schema: Arc<Schema>, columns: &[Option<usize>]) -> Arc<Schema> {
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        let optional = field.is_nullable() || columns.contains(&Some(index));
        field.as_ref().clone().with_nullable(optional)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What FORMAT and ENCODE would say of a connector whose rows are no bytes.
fn bare_encoding(options: &[OptionEntry], format: Format, connectors: &dyn Connectors) -> Option<Encoding> {
    let connector = find_option(options, "connector")?;
    let bare = !connectors.has_bytes(&connector.value.text());
    bare.then(|| Encoding { format, encode: Encode::Json, options: Vec::new(), place: connector.place })
}

/// What FORMAT and ENCODE ask of the columns.
fn check_encoding(source: &CreateSource, encoding: &Encoding) -> Result<()> {
    if encoding.format == Format::Upsert && source.primary_key.is_empty() {
        return Err(Refusal::new(format!("FORMAT UPSERT replaces rows by key, and {} declares none", source.name))
            .help("say among its columns what a row is known by: PRIMARY KEY (id) NOT ENFORCED")
            .at(encoding.place.0));
    }
    if encoding.encode == Encode::Bytes {
        let is_filled =
            |column: usize| source.metadata.iter().any(|one| one.column == column) || source.computed.iter().any(|one| one.column == column);
        let mut own = source.columns.iter().enumerate().filter(|(column, _)| !is_filled(*column)).map(|(_, column)| column);
        if let (Some(_), Some(second)) = (own.next(), own.next()) {
            return Err(Refusal::new("the bytes of a record are one column with ENCODE BYTES, and this is the second")
                .help(format!("leave it out, or fill it from beside the bytes: {} {} METADATA FROM 'key'", second.name, second.data_type))
                .at(second.name.span));
        }
    }
    Ok(())
}

pub(crate) fn sink(sink: &CreateSink, from: &ViewDef, plan: &Plan, (connectors, secrets): (&dyn Connectors, &Secrets)) -> Result<SinkDef> {
    let bare = bare_encoding(&sink.options, Format::Debezium, connectors);
    let Some(encoding) = sink.encoding.as_ref().or(bare.as_ref()) else {
        return Err(Refusal::new("a sink needs to say how its bytes are written").help("FORMAT DEBEZIUM ENCODE JSON").at(sink.name.span));
    };
    let (connector, options) = connector_and_options(&sink.name, &sink.options, encoding, secrets)?;
    let key = sink_key(sink, from, plan, encoding)?;
    let def = SinkDef {
        name: normal_name(&sink.name),
        node: from.node,
        from: from.name.clone(),
        schema: from.schema.clone(),
        connector,
        options,
        format: encoding.format,
        encode: encoding.encode,
        key,
    };
    connectors.check_sink(&def).map_err(|error| option_refusal(secrets.hidden_in(error), &sink.name, &sink.options, encoding))?;
    if encoding.format == Format::Plain && !plan.node(from.node).append_only {
        return Err(Refusal::new(format!("rows of {} are retracted when they change, which FORMAT PLAIN cannot write", from.name))
            .help("FORMAT DEBEZIUM ENCODE JSON")
            .at(sink.name.span));
    }
    Ok(def)
}

/// What the sink says its rows are known by, else what the view's plan knows.
fn sink_key(sink: &CreateSink, from: &ViewDef, plan: &Plan, encoding: &Encoding) -> Result<Vec<usize>> {
    let column = |ident: &Ident| {
        let name = normal_name(ident);
        from.schema.index_of(&name).map_err(|_| {
            let refusal = Refusal::new(format!("{} has no column {name}", from.name)).at(ident.span);
            match nearest(&name, from.schema.fields().iter().map(|field| field.name().as_str())) {
                Some(known) => refusal.help(format!("did you mean {known}?")),
                None => refusal,
            }
        })
    };
    if !sink.key.is_empty() || encoding.format != Format::Upsert {
        return sink.key.iter().map(column).collect();
    }
    unique_key(plan, from.node).ok_or_else(|| {
        Refusal::new(format!("FORMAT UPSERT writes the row of each key, and {} does not say what the key is", sink.name))
            .help(format!("CREATE SINK {} FROM {} KEY (column, …) WITH (…)", sink.name, sink.from))
            .at(encoding.place.0)
    })
}

/// Columns of which no two rows of the node are equal, if its plan tells. Never empty.
fn unique_key(plan: &Plan, id: NodeId) -> Option<Vec<usize>> {
    let node = plan.node(id);
    match &node.op {
        Op::Aggregate { keys, .. } => Some((0..keys.len()).collect()).filter(|key: &Vec<usize>| !key.is_empty()),
        Op::Upsert { key } => Some(key.clone()),
        Op::Feature { .. } => {
            let entity = plan.views.iter().find(|view| view.node == id)?.entity.len();
            Some((0..entity).collect())
        }
        // These keep the columns of their first input in front.
        Op::Filter { .. }
        | Op::TemporalFilter { .. }
        | Op::Lookup { .. }
        | Op::Predict { .. }
        | Op::Session { .. }
        | Op::Arrival
        | Op::Gate { .. }
        | Op::EmitOnClose { .. }
        | Op::EmitEvery { .. } => unique_key(plan, node.inputs[0]),
        Op::Join { kind, .. } if !kind.shows_right() => unique_key(plan, node.inputs[0]),
        Op::SetOperation { operation: SetOperation::Intersect | SetOperation::Except } => Some((0..node.schema.fields().len()).collect()),
        Op::SetOperation { .. } => unique_key(plan, node.inputs[0]),
        Op::Project { exprs } => {
            let place = |wanted: &usize| exprs.iter().position(|expr| expr.as_column() == Some(*wanted));
            unique_key(plan, node.inputs[0])?.iter().map(place).collect()
        }
        Op::Windows { .. } => {
            let mut key = unique_key(plan, node.inputs[0])?;
            key.extend(node.schema.fields().len() - 2..node.schema.fields().len());
            Some(key)
        }
        Op::Recursive { distinct: true, .. } => Some((0..node.schema.fields().len()).collect()),
        Op::Values { .. } | Op::Unnest { .. } => None,
        // The one row there is.
        Op::SingleRow => Some((0..node.schema.fields().len()).collect()),
        Op::Top { partition, rank: RankKind::RowNumber, offset: 0, limit: 1, .. } => Some(partition.clone()).filter(|key| !key.is_empty()),
        Op::Over { .. } | Op::Asof { .. } => unique_key(plan, node.inputs[0]),
        Op::Source { .. }
        | Op::Join { .. }
        | Op::LookupJoin { .. }
        | Op::Top { .. }
        | Op::Union
        | Op::Drift { .. }
        | Op::Recursive { .. }
        | Op::Argument { .. } => None,
    }
}

/// The list of features under one name.
pub(crate) fn service(service: &CreateFeatureService, plan: &Plan, catalog: &Catalog) -> Result<ServiceDef> {
    let mut built =
        ServiceBuilder { plan, request: fields_of(&service.request, catalog)?, parts: Vec::new(), output: Vec::new(), fields: Vec::new() };
    for item in &service.items {
        built.add(item)?;
    }
    if built.fields.is_empty() {
        return Err(Refusal::new("a feature service needs at least one feature").at(service.name.span));
    }
    let ServiceBuilder { request, parts, output, fields, .. } = built;
    for (name, data_type) in parts.iter().flat_map(|part| &part.entity).map(|field| (field.name(), field.data_type())) {
        let other = |field: &&Field| field.name() == name && field.data_type() != data_type;
        if let Some(field) = parts.iter().flat_map(|part| &part.entity).chain(&request).find(other) {
            return Err(Refusal::new(format!("{name} is {data_type} in one part of the service and {} in another", field.data_type()))
                .help("give the views' entity columns one type, by CAST in a view below them")
                .at(service.name.span));
        }
    }
    Ok(ServiceDef { name: normal_name(&service.name), parts, request, output, schema: Arc::new(Schema::new(fields)) })
}

struct ServiceBuilder<'a> {
    plan: &'a Plan,
    request: Vec<Field>,
    parts: Vec<ServicePart>,
    output: Vec<ServiceColumn>,
    fields: Vec<Field>,
}

impl ServiceBuilder<'_> {
    fn add(&mut self, item: &ServiceItem) -> Result<()> {
        match item {
            ServiceItem::Request { column, alias } => {
                let name = normal_name(column);
                let Some(index) = self.request.iter().position(|field| *field.name() == name) else {
                    return Err(Refusal::new(format!("REQUEST declares no column {name}")).at(column.span));
                };
                let field = self.request[index].clone();
                self.push(ServiceColumn::Request { index }, field, alias.as_ref().unwrap_or(column), None)
            }
            ServiceItem::View(view) => {
                let def = self.feature_view(view)?.clone();
                let part = self.part(&def);
                for column in def.entity.len()..def.schema.fields().len() {
                    self.push(ServiceColumn::Feature { part, column }, def.schema.field(column).clone(), view, None)?;
                }
                Ok(())
            }
            ServiceItem::Feature { view, column, alias } => {
                let def = self.feature_view(view)?.clone();
                let name = normal_name(column);
                let features = &def.schema.fields()[def.entity.len()..];
                let Some(index) = features.iter().position(|field| *field.name() == name) else {
                    let refusal = Refusal::new(format!("the feature view {} has no feature {name}", def.name)).at(column.span);
                    return Err(match nearest(&name, features.iter().map(|field| field.name().as_str())) {
                        Some(known) => refusal.help(format!("did you mean {known}?")),
                        None => refusal,
                    });
                };
                let part = self.part(&def);
                let column_number = def.entity.len() + index;
                self.push(ServiceColumn::Feature { part, column: column_number }, features[index].as_ref().clone(), column, alias.as_ref())
            }
        }
    }

    fn feature_view(&self, name: &Ident) -> Result<&ViewDef> {
        let wanted = normal_name(name);
        match self.plan.view(&wanted) {
            Some(view) if view.kind == ViewKind::Feature => Ok(view),
            Some(_) => Err(Refusal::new(format!("{wanted} is no feature view"))
                .help("a service is made of feature views: CREATE FEATURE VIEW …")
                .at(name.span)),
            None => {
                let known = self.plan.views.iter().filter(|view| view.kind == ViewKind::Feature).map(|view| view.name.as_str());
                let known = known.chain(self.request.iter().map(|field| field.name().as_str()));
                let refusal = Refusal::new(format!("there is no feature view or REQUEST column named {wanted}")).at(name.span);
                Err(match nearest(&wanted, known) {
                    Some(known) => refusal.help(format!("did you mean {known}?")),
                    None => refusal,
                })
            }
        }
    }

    fn part(&mut self, view: &ViewDef) -> usize {
        if let Some(part) = self.parts.iter().position(|part| part.view == view.name) {
            return part;
        }
        let entity = view.schema.fields()[..view.entity.len()].iter().map(|field| field.as_ref().clone()).collect();
        self.parts.push(ServicePart { view: view.name.clone(), entity });
        self.parts.len() - 1
    }

    fn push(&mut self, column: ServiceColumn, field: Field, place: &Ident, alias: Option<&Ident>) -> Result<()> {
        let name = match (alias, &column) {
            (Some(alias), _) => normal_name(alias),
            (None, ServiceColumn::Request { .. }) => normal_name(place),
            (None, ServiceColumn::Feature { .. }) => field.name().clone(),
        };
        if self.fields.iter().any(|known| *known.name() == name) {
            return Err(Refusal::new(format!("the service has two features named {name}"))
                .help(format!("list the features of one view singly and rename it: view.{name} AS other_{name}"))
                .at(place.span));
        }
        self.fields.push(field.with_name(name).with_nullable(true));
        self.output.push(column);
        Ok(())
    }
}

pub(crate) fn fields_of(columns: &[Column], catalog: &Catalog) -> Result<Vec<Field>> {
    fields_with(columns, catalog, storable)
}

/// Columns of sources and tables, which may be rows and lists, too.
pub(crate) fn nested_fields_of(columns: &[Column], catalog: &Catalog) -> Result<Vec<Field>> {
    fields_with(columns, catalog, nested)
}

fn nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| nested(field.data_type())),
        DataType::List(item) => nested(item.data_type()),
        plain => storable(plain),
    }
}

fn fields_with(columns: &[Column], catalog: &Catalog, known: impl Fn(&DataType) -> bool) -> Result<Vec<Field>> {
    let mut names = BTreeSet::new();
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        let name = normal_name(&column.name);
        if !names.insert(name.clone()) {
            return Err(Refusal::new(format!("two columns are called {name}")).at(column.name.span));
        }
        let data_type = data_type_of(column, catalog, &known)?;
        fields.push(Field::new(name, data_type, !column.not_null));
    }
    Ok(fields)
}

fn data_type_of(column: &Column, catalog: &Catalog, known: impl Fn(&DataType) -> bool) -> Result<DataType> {
    let unknown = |text: String| {
        Refusal::new(text)
            .help(
                "types are BOOLEAN, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), VARCHAR, BYTEA, DATE, TIMESTAMP, TIMESTAMP(3), TIMESTAMP(9)",
            )
            .at(column.data_type_place.0)
    };
    if matches!(column.data_type, SqlType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz)) {
        return Err(unknown("a TIMESTAMP is in UTC; time zones of columns are not supported yet".to_string()));
    }
    let definition = ColumnDef { name: column.name.clone(), data_type: column.data_type.clone(), options: Vec::new() };
    let planner = SqlToRel::new_with_options(catalog, parser_options());
    let schema = planner.build_schema(vec![definition]).map_err(|_| unknown(format!("{} is no type of Freshet", column.data_type)))?;
    match schema.field(0).data_type() {
        data_type if known(data_type) => Ok(data_type.clone()),
        _ => Err(unknown(format!("columns of type {} are not supported yet", column.data_type))),
    }
}

pub(crate) fn column_index(schema: &Schema, ident: &Ident) -> Result<usize> {
    let name = normal_name(ident);
    schema.index_of(&name).map_err(|_| {
        let refusal = Refusal::new(format!("the source has no column {name}")).at(ident.span);
        match nearest(&name, schema.fields().iter().map(|field| field.name().as_str())) {
            Some(known) => refusal.help(format!("did you mean {known}?")),
            None => refusal,
        }
    })
}

fn connector_and_options(
    name: &Ident,
    options: &[OptionEntry],
    encoding: &Encoding,
    secrets: &Secrets,
) -> Result<(String, BTreeMap<String, String>)> {
    let mut texts = BTreeMap::new();
    for option in options.iter().chain(&encoding.options) {
        if texts.insert(option.name.clone(), secrets.text(&option.value)?).is_some() {
            return Err(Refusal::new(format!("the option {} is set twice", option.name)).at(option.place.0));
        }
    }
    match texts.remove("connector") {
        Some(connector) => Ok((connector, texts)),
        None => Err(Refusal::new("the option connector is missing").help("WITH (connector = 'file', path = '…')").at(name.span)),
    }
}

/// At the option or the metadata column the connector complains about, else at the source's name.
fn source_refusal(error: OptionError, source: &CreateSource, encoding: &Encoding) -> Refusal {
    let wanted = error.option.as_deref().unwrap_or_default();
    let included = wanted.strip_prefix(OptionError::METADATA).and_then(|name| source.metadata.iter().find(|one| one.name.value == name));
    if let Some(included) = included {
        return Refusal::new(error.message).at(included.name.place.0);
    }
    let meant = limits::meant(wanted);
    let refusal = option_refusal(error, &source.name, &source.options, encoding);
    match meant {
        Some(known) => refusal.help(format!("did you mean {known}?")),
        None => refusal,
    }
}

/// At the option the connector complains about, else at the statement's name.
fn option_refusal(error: OptionError, name: &Ident, options: &[OptionEntry], encoding: &Encoding) -> Refusal {
    let entry = error.option.as_deref().and_then(|wanted| find_option(options, wanted).or_else(|| find_option(&encoding.options, wanted)));
    Refusal::new(error.message).at(entry.map_or(name.span, |entry| entry.place.0))
}
