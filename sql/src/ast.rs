//! What a script says: one type per statement, in one canonical form, with the place of every part. Queries are sqlparser's.
//!
//! In: the parser. Out: planning, EXPLAIN AST. Every statement prints itself as SQL, and parsing what it printed gives the same
//! statement. Places never take part in comparisons.

use std::fmt;

use datafusion::sql::sqlparser::tokenizer::Location;
pub use datafusion::sql::sqlparser::{
    ast::{DataType, Expr, FromTable, Ident, Insert, ObjectName, OnConflict, OnInsert, Query, SelectItem, Statement as SqlStatement, TableFactor},
    tokenizer::Span,
};
pub use freshet_core::{DriftMethod, Encode, Format, Metric, SecretFrom};

/// Where something stands in the script. Equal to every other place, so that statements compare by meaning.
#[derive(Debug, Clone, Copy)]
pub struct Place(pub Span);

impl Place {
    pub fn start(&self) -> Location {
        self.0.start
    }
}

impl PartialEq for Place {
    fn eq(&self, _other: &Place) -> bool {
        true
    }
}

/// One statement with the text it was written as: shown to people instead of the printed form.
#[derive(Debug, Clone)]
pub struct Statement {
    pub body: Stmt,
    pub place: Place,
    /// The user's own text, variables not filled in, without the closing semicolon.
    pub text: String,
}

impl PartialEq for Statement {
    fn eq(&self, other: &Statement) -> bool {
        self.body == other.body
    }
}

/// Each kind of statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Stmt {
    Set(Set),
    CreateSecret(CreateSecret),
    CreateFunction(CreateFunction),
    CreateSource(CreateSource),
    CreateView(CreateView),
    CreateMaterializedView(CreateMaterializedView),
    CreateFeatureView(CreateFeatureView),
    CreateFeatureService(CreateFeatureService),
    CreateSink(CreateSink),
    CreateModel(CreateModel),
    CreateTrainingSet(CreateTrainingSet),
    CreateDriftMonitor(CreateDriftMonitor),
    CreateRetrainingJob(Box<CreateRetrainingJob>),
    /// INSERT, UPDATE, DELETE.
    Write(Box<Write>),
    Drop(Drop),
    Flush,
    Explain(Explain),
    Select(Box<Query>),
}

/// `SUBSCRIBE TO view`; no statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// As readers know it: `totals`, `dead_letters(rides)`.
    pub view: String,
    /// Begin with the content.
    pub snapshot: bool,
    /// Say how far it is although nothing has changed.
    pub progress: bool,
    /// Milliseconds since 1970.
    pub as_of: Option<u64>,
    pub up_to: Option<u64>,
}

/// `SET clock = 'event'`.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    pub name: Ident,
    pub value: OptionValue,
    pub value_place: Place,
}

/// `CREATE SECRET name FROM ENV 'VARIABLE' | FROM FILE 'path'`: a value that no script holds.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSecret {
    pub name: Ident,
    pub if_not_exists: bool,
    pub from: SecretFrom,
    /// Of the variable or path.
    pub place: Place,
}

/// INSERT, UPDATE or DELETE of one table, as sqlparser reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub table: Ident,
    pub statement: SqlStatement,
}

impl Write {
    /// The query of an INSERT and the columns it names; None for UPDATE and DELETE.
    pub fn inserted(&self) -> Option<(&Query, &[ObjectName])> {
        match &self.statement {
            SqlStatement::Insert(Insert { source: Some(query), columns, .. }) => Some((query.as_ref(), columns.as_slice())),
            _ => None,
        }
    }

    /// ON CONFLICT of an INSERT.
    pub fn conflict(&self) -> Option<&OnConflict> {
        match &self.statement {
            SqlStatement::Insert(Insert { on: Some(OnInsert::OnConflict(conflict)), .. }) => Some(conflict),
            _ => None,
        }
    }

    /// What RETURNING asks for.
    pub fn returning(&self) -> Option<&[SelectItem]> {
        match &self.statement {
            SqlStatement::Insert(insert) => insert.returning.as_deref(),
            SqlStatement::Update(update) => update.returning.as_deref(),
            SqlStatement::Delete(delete) => delete.returning.as_deref(),
            _ => None,
        }
    }

    /// What the statement calls its table.
    pub fn alias(&self) -> Ident {
        let of = |relation: &TableFactor| match relation {
            TableFactor::Table { alias: Some(alias), .. } => Some(alias.name.clone()),
            _ => None,
        };
        let alias = match &self.statement {
            SqlStatement::Insert(insert) => insert.table_alias.as_ref().map(|alias| alias.alias.clone()),
            SqlStatement::Update(update) => of(&update.table.relation),
            SqlStatement::Delete(delete) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
                from.first().and_then(|from| of(&from.relation))
            }
            _ => None,
        };
        alias.unwrap_or_else(|| self.table.clone())
    }

    /// Whether the rows of its own table are needed to do it.
    pub fn reads_itself(&self) -> bool {
        let own = normal_name(&self.table);
        self.conflict().is_some() || self.inserted().is_none_or(|(query, _)| crate::tables::relations_in(query).contains(&own))
    }

    pub fn verb(&self) -> &'static str {
        match &self.statement {
            SqlStatement::Insert(_) => "INSERT",
            SqlStatement::Update(_) => "UPDATE",
            _ => "DELETE",
        }
    }
}

/// `DROP kind [IF EXISTS] name [CASCADE]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Drop {
    /// Upper case: `SOURCE`, `MATERIALIZED VIEW`, ….
    pub kind: &'static str,
    pub name: Ident,
    pub if_exists: bool,
    pub cascade: bool,
}

/// What a `CREATE SOURCE` or `CREATE TABLE` declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// `CREATE SOURCE`, and `CREATE TABLE … WITH (connector = …, type = 'source')`, which means the same.
    #[default]
    Source,
    /// `CREATE TABLE … WITH (connector = …)`: a sink if the script has an INSERT INTO it, else a source.
    Either,
    /// `CREATE TABLE … WITH (connector = …, type = 'sink')`: what INSERT INTO writes to.
    Sink,
    /// `CREATE TABLE` without connector: rows of statements are kept, those of a stream pass by.
    Stored,
}

/// `c AS e`, `c TYPE GENERATED ALWAYS AS (e) STORED`; also the default of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnValue {
    /// Index of the column.
    pub column: usize,
    pub expr: Expr,
    /// `c AS e`: the type is that of the expression, and the column's declared one means nothing.
    pub untyped: bool,
}

/// `CREATE SOURCE` and `CREATE TABLE`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSource {
    pub name: Ident,
    pub if_not_exists: bool,
    pub role: Role,
    pub columns: Vec<Column>,
    /// Those of `columns` that the record's surroundings fill, in their order: `METADATA FROM '…'` and `INCLUDE …`.
    pub metadata: Vec<Included>,
    /// `PRIMARY KEY (…) NOT ENFORCED`: what FORMAT UPSERT replaces by, else never relied upon. Empty: none.
    pub primary_key: Vec<Ident>,
    pub watermark: Option<Watermark>,
    pub lateness: Option<Duration>,
    pub arrival: Option<Ident>,
    pub computed: Vec<ColumnValue>,
    /// `DEFAULT e`, of stored tables only.
    pub defaults: Vec<ColumnValue>,
    pub options: Vec<OptionEntry>,
    pub encoding: Option<Encoding>,
    /// `CREATE TABLE … AS query`.
    pub query: Option<Box<Query>>,
}

/// A column with its declared type.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: Ident,
    pub data_type: DataType,
    pub data_type_place: Place,
    pub not_null: bool,
}

/// `METADATA [FROM 'name']` of a column; INCLUDE declares the column as well.
#[derive(Debug, Clone, PartialEq)]
pub struct Included {
    /// Index of the column.
    pub column: usize,
    /// As [`freshet_core::MetadataColumn`] spells it: `timestamp`, `header.trace`, `level.2`.
    pub name: Text,
}

/// `WATERMARK FOR column [AS column - delay]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Watermark {
    pub column: Ident,
    pub delay: Option<Duration>,
}

/// `FORMAT … ENCODE … [(options)]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoding {
    pub format: Format,
    pub encode: Encode,
    pub options: Vec<OptionEntry>,
    pub place: Place,
}

/// `CREATE FUNCTION name AS 'class'`: names a class that is not there; a function of that name is ours.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateFunction {
    pub name: Ident,
    pub if_not_exists: bool,
    pub class: String,
}

/// `CREATE [OR REPLACE] VIEW [IF NOT EXISTS]`: a name for a query.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateView {
    pub name: Ident,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub query: Box<Query>,
}

/// `CREATE MATERIALIZED VIEW [IF NOT EXISTS]`: a maintained query.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateMaterializedView {
    pub name: Ident,
    pub if_not_exists: bool,
    pub query: Box<Query>,
    pub emit: Emit,
}

/// When a view shows what has changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Emit {
    /// At once; nothing is written, or `EMIT ON CHANGE`.
    #[default]
    OnChange,
    /// `EMIT ON WINDOW CLOSE`: rows once, when their window closes.
    OnWindowClose(Place),
    /// `EMIT EVERY INTERVAL '…'`: at its multiples since 1970.
    Every(Duration),
}

/// `CREATE FEATURE VIEW … ENTITY (…) TIMESTAMP c [TTL …] [WINDOWS (…)] [HOP …] [WITH (…)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateFeatureView {
    pub name: Ident,
    pub if_not_exists: bool,
    pub entity: Vec<Ident>,
    pub timestamp: Ident,
    pub ttl: Option<Duration>,
    /// Empty: no WINDOWS clause.
    pub windows: Vec<Duration>,
    pub hop: Option<Duration>,
    /// Of these names only: include_now, history. A bare name is `= true`.
    pub options: Vec<OptionEntry>,
    pub query: Box<Query>,
}

impl CreateFeatureView {
    /// T1: events at the instant itself count.
    pub fn include_now(&self) -> bool {
        find_option(&self.options, "include_now").is_some_and(|option| option.value == OptionValue::Boolean(true))
    }
}

/// `CREATE FEATURE SERVICE name [REQUEST (column type, …)] AS (item, …)`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateFeatureService {
    pub name: Ident,
    pub if_not_exists: bool,
    pub request: Vec<Column>,
    pub items: Vec<ServiceItem>,
}

/// One item of a service's list. A bare name that REQUEST declares is a request column, any other is a view.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceItem {
    View(Ident),
    Feature { view: Ident, column: Ident, alias: Option<Ident> },
    Request { column: Ident, alias: Option<Ident> },
}

impl ServiceItem {
    pub fn place(&self) -> Place {
        match self {
            ServiceItem::View(name) | ServiceItem::Feature { view: name, .. } | ServiceItem::Request { column: name, .. } => Place(name.span),
        }
    }
}

/// `CREATE SINK name FROM view [KEY (…)] WITH (…) FORMAT … ENCODE …`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSink {
    pub name: Ident,
    pub if_not_exists: bool,
    pub from: Ident,
    /// `KEY (…)`, or the option primary_key. Empty: neither.
    pub key: Vec<Ident>,
    pub options: Vec<OptionEntry>,
    pub encoding: Option<Encoding>,
}

/// `CREATE MODEL name INPUT … OUTPUT (column type, …) [FROM 'file'] [WITH (…)]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateModel {
    pub name: Ident,
    pub if_not_exists: bool,
    pub input: ModelInput,
    pub outputs: Vec<Column>,
    /// The file of version 1, relative to the pipeline's folder.
    pub from: Option<Text>,
    /// Of these names only: device, missing, on_version_change; with values that this build takes.
    pub options: Vec<OptionEntry>,
}

/// What a model takes, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelInput {
    /// The output list of a feature service.
    Features(Ident),
    Columns(Vec<Column>),
}

/// A string with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    pub value: String,
    pub place: Place,
}

/// `CREATE TRAINING SET name ID (c) TIME (c) LABEL (c) [WITH (mode = …)] AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTrainingSet {
    pub name: Ident,
    pub if_not_exists: bool,
    pub id: Ident,
    pub time: Ident,
    pub label: Ident,
    /// Of the name mode only, `'as_served'` or `'event_time'`.
    pub options: Vec<OptionEntry>,
    pub query: Box<Query>,
}

impl CreateTrainingSet {
    /// T4; `as_served` unless told otherwise.
    pub fn mode(&self) -> freshet_core::TrainingMode {
        match find_option(&self.options, "mode") {
            Some(option) if option.value.text().eq_ignore_ascii_case("event_time") => freshet_core::TrainingMode::EventTime,
            _ => freshet_core::TrainingMode::AsServed,
        }
    }
}

/// `CREATE DRIFT MONITOR name ON view (c, …) TIME (c) USING … REFERENCE MODEL m WINDOW i EVERY i [MIN ROWS n] [DRIFTED WHEN …]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateDriftMonitor {
    pub name: Ident,
    pub if_not_exists: bool,
    pub view: Ident,
    pub columns: Vec<Ident>,
    pub time: Ident,
    pub methods: Vec<DriftMethod>,
    pub model: Ident,
    /// A multiple of `every`, which is not zero.
    pub window: Duration,
    pub every: Duration,
    pub rows_min: Option<u64>,
    /// At most one per method and column, which are the monitor's.
    pub conditions: Vec<DriftedWhen>,
}

/// `method(column) > threshold [FOR n EVALUATIONS]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftedWhen {
    pub method: DriftMethod,
    pub column: Ident,
    /// `>=` instead of `>`.
    pub inclusive: bool,
    /// Finite.
    pub threshold: f64,
    /// At least 1, which is also what its absence means.
    pub evaluations: u32,
}

/// `CREATE RETRAINING JOB name FOR model TRAINING SET set … RUN COMMAND '…' … WHEN … ROLLOUT IMMEDIATE`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRetrainingJob {
    pub name: Ident,
    pub if_not_exists: bool,
    pub model: Ident,
    pub training_set: Ident,
    /// Longer than HOLDOUT and GAP together.
    pub last: Duration,
    pub holdout: Duration,
    pub gap: Option<Duration>,
    pub delay: Option<Duration>,
    pub rows_min: Option<u64>,
    pub command: Text,
    /// Of these names only: timeout, heartbeat; lengths of time above zero.
    pub options: Vec<OptionEntry>,
    pub first_at: Option<Instant>,
    /// At least one.
    pub triggers: Vec<Trigger>,
    pub cooldown: Option<Duration>,
    pub validation: Option<Validate>,
}

/// `TIMESTAMP '…'`.
#[derive(Debug, Clone, PartialEq)]
pub struct Instant {
    /// As written.
    pub text: String,
    /// Since 1970, UTC; finer than a millisecond is rounded up.
    pub ms: u64,
}

/// What starts a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// `DRIFT monitor`.
    Drift(Ident),
    /// `EVERY i SINCE LAST RUN`.
    Every(Duration),
}

/// `VALIDATE metric ON HOLDOUT AGAINST champion [MARGIN x]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Validate {
    pub metric: Metric,
    /// Finite; 0 where the text has none.
    pub margin: f64,
    pub place: Place,
}

/// `EXPLAIN [(AST | PLAN | DATAFLOW | STATE)] statement-or-name`.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub what: ExplainKind,
    pub subject: ExplainSubject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExplainKind {
    Ast,
    #[default]
    Plan,
    Dataflow,
    State,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExplainSubject {
    Name(Ident),
    Statement(Box<Statement>),
}

/// `name = value` of WITH, FORMAT … ENCODE …, and of a feature view.
#[derive(Debug, Clone, PartialEq)]
pub struct OptionEntry {
    /// Lower case; parts joined by dots.
    pub name: String,
    pub value: OptionValue,
    /// Of the name.
    pub place: Place,
    pub value_place: Place,
}

/// What an option is set to.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    Text(String),
    /// As written, sign included.
    Number(String),
    Boolean(bool),
    Word(String),
    Duration(Duration),
    /// `SECRET name`.
    Secret(Ident),
}

impl OptionValue {
    /// The value as the string a connector receives: no quotes, booleans as true and false, durations as '5 minutes'.
    pub fn text(&self) -> String {
        match self {
            OptionValue::Text(text) | OptionValue::Number(text) | OptionValue::Word(text) => text.clone(),
            OptionValue::Boolean(value) => value.to_string(),
            OptionValue::Duration(duration) => duration.text(),
            // Never the value: whoever may know it asks for it by this name.
            OptionValue::Secret(name) => format!("SECRET {name}"),
        }
    }
}

/// The option of this (lower case) name.
pub fn find_option<'a>(options: &'a [OptionEntry], name: &str) -> Option<&'a OptionEntry> {
    options.iter().find(|option| option.name == name)
}

/// A length of time in fixed units, as the user wrote it. At least one part.
#[derive(Debug, Clone, PartialEq)]
pub struct Duration {
    pub parts: Vec<(u64, Unit)>,
    pub place: Place,
}

/// A unit of fixed length: a day is 24 hours (T22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
}

impl Unit {
    pub fn ms(self) -> u64 {
        match self {
            Unit::Millisecond => 1,
            Unit::Second => 1_000,
            Unit::Minute => 60_000,
            Unit::Hour => 3_600_000,
            Unit::Day => 86_400_000,
            Unit::Week => 7 * 86_400_000,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Unit::Millisecond => "millisecond",
            Unit::Second => "second",
            Unit::Minute => "minute",
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
        }
    }

    /// Ends the name of a windowed feature: 7 days is `_7d`.
    pub fn suffix(self) -> &'static str {
        match self {
            Unit::Millisecond => "ms",
            Unit::Second => "s",
            Unit::Minute => "m",
            Unit::Hour => "h",
            Unit::Day => "d",
            Unit::Week => "w",
        }
    }
}

impl Duration {
    /// In milliseconds. The parser has checked that it fits an i64.
    pub fn ms(&self) -> u64 {
        self.parts.iter().map(|(amount, unit)| amount * unit.ms()).sum()
    }

    /// `1 hour`, `24 hours`, `1 hour 30 minutes`.
    pub fn text(&self) -> String {
        let part = |(amount, unit): &(u64, Unit)| format!("{amount} {}{}", unit.name(), if *amount == 1 { "" } else { "s" });
        self.parts.iter().map(part).collect::<Vec<_>>().join(" ")
    }

    /// What WINDOWS appends to a feature's name after `_`: `24h`, `7d`, `1h30m`.
    pub fn suffix(&self) -> String {
        self.parts.iter().map(|(amount, unit)| format!("{amount}{}", unit.suffix())).collect()
    }
}

/// A name as the catalog knows it: lower case unless quoted.
pub fn normal_name(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

impl Stmt {
    /// The statement's first words, as messages name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Stmt::Set(_) => "SET",
            Stmt::CreateSecret(_) => "CREATE SECRET",
            Stmt::CreateFunction(_) => "CREATE FUNCTION",
            Stmt::CreateSource(CreateSource { role: Role::Source, .. }) => "CREATE SOURCE",
            Stmt::CreateSource(_) => "CREATE TABLE",
            Stmt::Write(write) => write.verb(),
            Stmt::Drop(_) => "DROP",
            Stmt::Flush => "FLUSH",
            Stmt::CreateView(_) => "CREATE VIEW",
            Stmt::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
            Stmt::CreateFeatureView(_) => "CREATE FEATURE VIEW",
            Stmt::CreateFeatureService(_) => "CREATE FEATURE SERVICE",
            Stmt::CreateSink(_) => "CREATE SINK",
            Stmt::CreateModel(_) => "CREATE MODEL",
            Stmt::CreateTrainingSet(_) => "CREATE TRAINING SET",
            Stmt::CreateDriftMonitor(_) => "CREATE DRIFT MONITOR",
            Stmt::CreateRetrainingJob(_) => "CREATE RETRAINING JOB",
            Stmt::Explain(_) => "EXPLAIN",
            Stmt::Select(_) => "SELECT",
        }
    }

    /// The name it declares.
    pub fn declares(&self) -> Option<&Ident> {
        match self {
            Stmt::CreateSecret(CreateSecret { name, .. })
            | Stmt::CreateSource(CreateSource { name, .. })
            | Stmt::CreateView(CreateView { name, .. })
            | Stmt::CreateMaterializedView(CreateMaterializedView { name, .. })
            | Stmt::CreateFeatureView(CreateFeatureView { name, .. })
            | Stmt::CreateFeatureService(CreateFeatureService { name, .. })
            | Stmt::CreateSink(CreateSink { name, .. })
            | Stmt::CreateModel(CreateModel { name, .. })
            | Stmt::CreateTrainingSet(CreateTrainingSet { name, .. })
            | Stmt::CreateDriftMonitor(CreateDriftMonitor { name, .. }) => Some(name),
            Stmt::CreateRetrainingJob(job) => Some(&job.name),
            Stmt::Set(_) | Stmt::CreateFunction(_) | Stmt::Explain(_) | Stmt::Select(_) | Stmt::Write(_) | Stmt::Drop(_) | Stmt::Flush => None,
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}
