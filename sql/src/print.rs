//! Prints every statement back as SQL in one canonical spelling. Parsing the result gives the same statement.

use std::fmt::{self, Display, Formatter};

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart, TableFactor, TableVersion, VisitMut, VisitorMut};

use crate::ast::*;

/// SQL's single quotes: doubled inside.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// sqlparser prints a table's alias before its version and then cannot read it; here the version comes first, and a service's table is
/// FEATURES(service) again.
pub fn query_text(query: &Query) -> String {
    let mut query = query.clone();
    let _ = VisitMut::visit(&mut query, &mut TableSpelling);
    query.to_string()
}

/// Replaces what sqlparser would misprint by names that print as the right text; good for printing only.
struct TableSpelling;

impl VisitorMut for TableSpelling {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, version, .. } = factor else { return ControlFlow::Continue(()) };
        if let [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(service)] = &name.0[..]
            && normal_name(schema) == "features"
        {
            *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(format!("FEATURES({service})")))]);
        }
        if let Some(TableVersion::ForSystemTimeAsOf(time)) = version
            && let Some(alias) = alias.take()
        {
            *time = Expr::Identifier(Ident::new(format!("{time} {alias}")));
        }
        ControlFlow::Continue(())
    }
}

impl Display for Stmt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Stmt::Set(set) => write!(f, "SET {} = {}", set.name, set.value),
            Stmt::CreateSecret(secret) => {
                let (kind, place) = match &secret.from {
                    SecretFrom::Env(name) => ("ENV", name),
                    SecretFrom::File(path) => ("FILE", path),
                };
                write!(f, "CREATE SECRET {}{} FROM {kind} {}", if_not_exists(secret.if_not_exists), secret.name, quoted(place))
            }
            Stmt::CreateFunction(function) => {
                write!(f, "CREATE FUNCTION {}{} AS {}", if_not_exists(function.if_not_exists), function.name, quoted(&function.class))
            }
            Stmt::CreateSource(source) => source.fmt(f),
            Stmt::CreateView(view) => {
                let replace = if view.or_replace { "OR REPLACE " } else { "" };
                write!(f, "CREATE {replace}VIEW {}{} AS\n{}", if_not_exists(view.if_not_exists), view.name, query_text(&view.query))
            }
            Stmt::CreateMaterializedView(view) => {
                write!(f, "CREATE MATERIALIZED VIEW {}{} AS\n{}", if_not_exists(view.if_not_exists), view.name, query_text(&view.query))?;
                match &view.emit {
                    Emit::OnChange => Ok(()),
                    Emit::OnWindowClose(_) => f.write_str("\nEMIT ON WINDOW CLOSE"),
                    Emit::Every(every) => write!(f, "\nEMIT EVERY {every}"),
                }
            }
            Stmt::CreateFeatureView(view) => view.fmt(f),
            Stmt::CreateFeatureService(service) => service.fmt(f),
            Stmt::CreateSink(sink) => sink.fmt(f),
            Stmt::CreateModel(model) => model.fmt(f),
            Stmt::CreateTrainingSet(set) => set.fmt(f),
            Stmt::CreateDriftMonitor(monitor) => monitor.fmt(f),
            Stmt::CreateRetrainingJob(job) => job.fmt(f),
            Stmt::Write(write) => write.statement.fmt(f),
            Stmt::Drop(Drop { kind, name, if_exists, cascade }) => {
                write!(f, "DROP {kind} {}{name}{}", if *if_exists { "IF EXISTS " } else { "" }, if *cascade { " CASCADE" } else { "" })
            }
            Stmt::Flush => f.write_str("FLUSH"),
            Stmt::Explain(explain) => explain.fmt(f),
            Stmt::Select(query) => f.write_str(&query_text(query)),
        }
    }
}

impl Display for CreateSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let what = if self.role == Role::Source { "SOURCE" } else { "TABLE" };
        write!(f, "CREATE {what} {}{}", if_not_exists(self.if_not_exists), self.name)?;
        let filled = |column: usize| self.metadata.iter().find(|included| included.column == column);
        let value = |values: &'_ [ColumnValue], column: usize| values.iter().find(|value| value.column == column).cloned();
        let element = |(index, column): (usize, &Column)| match (filled(index), value(&self.computed, index), value(&self.defaults, index)) {
            (Some(included), _, _) => format!("{column} METADATA FROM {}", quoted(&included.name.value)),
            (_, Some(ColumnValue { expr, untyped: true, .. }), _) => format!("{} AS {expr}", column.name),
            (_, Some(ColumnValue { expr, .. }), _) => format!("{column} GENERATED ALWAYS AS ({expr}) STORED"),
            (_, _, Some(ColumnValue { expr, .. })) => format!("{column} DEFAULT {expr}"),
            _ => column.to_string(),
        };
        let mut elements: Vec<String> = self.columns.iter().enumerate().map(element).collect();
        if !self.primary_key.is_empty() {
            let enforced = if self.role == Role::Stored { "" } else { " NOT ENFORCED" };
            elements.push(format!("PRIMARY KEY ({}){enforced}", joined(&self.primary_key)));
        }
        elements.extend(self.watermark.as_ref().map(Watermark::to_string));
        elements.extend(self.lateness.as_ref().map(|lateness| format!("LATENESS {lateness}")));
        elements.extend(self.arrival.as_ref().map(|column| format!("ARRIVAL FOR {column}")));
        if !elements.is_empty() {
            write!(f, " (\n  {}\n)", elements.join(",\n  "))?;
        }
        let mut options = self.options.clone();
        if self.role == Role::Sink && self.query.is_none() {
            let place = Place(self.name.span);
            options.push(OptionEntry { name: "type".into(), value: OptionValue::Text("sink".into()), place, value_place: place });
        }
        write_connection(f, &options, self.encoding.as_ref())?;
        match &self.query {
            Some(query) => write!(f, " AS\n{}", query_text(query)),
            None => Ok(()),
        }
    }
}

impl Display for Column {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.name, self.data_type, if self.not_null { " NOT NULL" } else { "" })
    }
}

impl Display for Watermark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "WATERMARK FOR {}", self.column)?;
        match &self.delay {
            Some(delay) => write!(f, " AS {} - {delay}", self.column),
            None => Ok(()),
        }
    }
}

impl Display for Encoding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "FORMAT {} ENCODE {}", format_word(self.format), encode_word(self.encode))?;
        if self.options.is_empty() { Ok(()) } else { write!(f, " ({})", joined(&self.options)) }
    }
}

impl Display for CreateFeatureView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE FEATURE VIEW {}{}", if_not_exists(self.if_not_exists), self.name)?;
        write!(f, "\n  ENTITY ({}) TIMESTAMP {}", joined(&self.entity), self.timestamp)?;
        if let Some(ttl) = &self.ttl {
            write!(f, "\n  TTL {ttl}")?;
        }
        if !self.windows.is_empty() {
            let windows: Vec<String> = self.windows.iter().map(|window| quoted(&window.text())).collect();
            write!(f, "\n  WINDOWS ({})", windows.join(", "))?;
        }
        if let Some(hop) = &self.hop {
            write!(f, "\n  HOP {hop}")?;
        }
        write_options(f, "\n  ", &self.options)?;
        write!(f, " AS\n{}", query_text(&self.query))
    }
}

impl Display for CreateFeatureService {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE FEATURE SERVICE {}{}", if_not_exists(self.if_not_exists), self.name)?;
        if !self.request.is_empty() {
            write!(f, " REQUEST ({})", joined(&self.request))?;
        }
        write!(f, " AS (\n  {}\n)", self.items.iter().map(ServiceItem::to_string).collect::<Vec<_>>().join(",\n  "))
    }
}

impl Display for ServiceItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let alias = match self {
            ServiceItem::View(view) => return view.fmt(f),
            ServiceItem::Feature { view, column, alias } => {
                write!(f, "{view}.{column}")?;
                alias
            }
            ServiceItem::Request { column, alias } => {
                column.fmt(f)?;
                alias
            }
        };
        match alias {
            Some(alias) => write!(f, " AS {alias}"),
            None => Ok(()),
        }
    }
}

impl Display for CreateSink {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE SINK {}{} FROM {}", if_not_exists(self.if_not_exists), self.name, self.from)?;
        if !self.key.is_empty() {
            write!(f, " KEY ({})", joined(&self.key))?;
        }
        write_connection(f, &self.options, self.encoding.as_ref())
    }
}

impl Display for CreateModel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE MODEL {}{} INPUT ", if_not_exists(self.if_not_exists), self.name)?;
        match &self.input {
            ModelInput::Features(service) => write!(f, "FEATURES {service}")?,
            ModelInput::Columns(columns) => write!(f, "({})", joined(columns))?,
        }
        write!(f, " OUTPUT ({})", joined(&self.outputs))?;
        if let Some(from) = &self.from {
            write!(f, "\n  FROM {}", quoted(&from.value))?;
        }
        write_options(f, "\n  ", &self.options)
    }
}

impl Display for CreateTrainingSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE TRAINING SET {}{}", if_not_exists(self.if_not_exists), self.name)?;
        write!(f, "\n  ID ({}) TIME ({}) LABEL ({})", self.id, self.time, self.label)?;
        write_options(f, "\n  ", &self.options)?;
        write!(f, " AS\n{}", query_text(&self.query))
    }
}

impl Display for CreateDriftMonitor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE DRIFT MONITOR {}{}", if_not_exists(self.if_not_exists), self.name)?;
        write!(f, "\n  ON {} ({}) TIME ({})", self.view, joined(&self.columns), self.time)?;
        let methods: Vec<&str> = self.methods.iter().map(|method| method.sql()).collect();
        write!(f, "\n  USING {} REFERENCE MODEL {}", methods.join(", "), self.model)?;
        write!(f, "\n  WINDOW {} EVERY {}", self.window, self.every)?;
        write_clause(f, " MIN ROWS", self.rows_min.as_ref())?;
        for (index, condition) in self.conditions.iter().enumerate() {
            write!(f, "{} {condition}", if index == 0 { "\n  DRIFTED WHEN" } else { " OR" })?;
        }
        Ok(())
    }
}

impl Display for DriftedWhen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let than = if self.inclusive { ">=" } else { ">" };
        write!(f, "{}({}) {than} {} FOR {} EVALUATIONS", self.method.sql(), self.column, self.threshold, self.evaluations)
    }
}

impl Display for CreateRetrainingJob {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CREATE RETRAINING JOB {}{} FOR {}", if_not_exists(self.if_not_exists), self.name, self.model)?;
        write!(f, "\n  TRAINING SET {} LAST {} HOLDOUT LAST {}", self.training_set, self.last, self.holdout)?;
        write_clause(f, " GAP", self.gap.as_ref())?;
        write_clause(f, " DELAY", self.delay.as_ref())?;
        write_clause(f, " MIN ROWS", self.rows_min.as_ref())?;
        write!(f, "\n  RUN COMMAND {}", quoted(&self.command.value))?;
        write_options(f, " ", &self.options)?;
        if let Some(first) = &self.first_at {
            write!(f, "\n  FIRST AT TIMESTAMP {}", quoted(&first.text))?;
        }
        let triggers: Vec<String> = self.triggers.iter().map(Trigger::to_string).collect();
        write!(f, "\n  WHEN {}", triggers.join(" OR "))?;
        write_clause(f, "\n  COOLDOWN", self.cooldown.as_ref())?;
        if let Some(Validate { metric, margin, .. }) = &self.validation {
            write!(f, "\n  VALIDATE {} ON HOLDOUT AGAINST champion MARGIN {margin}", metric.sql())?;
        }
        f.write_str("\n  ROLLOUT IMMEDIATE")
    }
}

impl Display for Trigger {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Drift(monitor) => write!(f, "DRIFT {monitor}"),
            Trigger::Every(length) => write!(f, "EVERY {length} SINCE LAST RUN"),
        }
    }
}

impl Display for Explain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "EXPLAIN ({}) ", self.what)?;
        match &self.subject {
            ExplainSubject::Name(name) => name.fmt(f),
            ExplainSubject::Statement(statement) => statement.fmt(f),
        }
    }
}

impl Display for ExplainKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExplainKind::Ast => "AST",
            ExplainKind::Plan => "PLAN",
            ExplainKind::Dataflow => "DATAFLOW",
            ExplainKind::State => "STATE",
        })
    }
}

impl Display for OptionEntry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plain = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
                && part.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        };
        if self.name.split('.').all(plain) {
            write!(f, "{} = {}", self.name, self.value)
        } else {
            write!(f, "{} = {}", quoted(&self.name), self.value)
        }
    }
}

impl Display for OptionValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::Text(text) => f.write_str(&quoted(text)),
            OptionValue::Number(number) => f.write_str(number),
            OptionValue::Boolean(value) => f.write_str(if *value { "true" } else { "false" }),
            OptionValue::Word(word) => f.write_str(word),
            OptionValue::Duration(duration) => duration.fmt(f),
            OptionValue::Secret(name) => write!(f, "SECRET {name}"),
        }
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "INTERVAL {}", quoted(&self.text()))
    }
}

impl Display for Subscribe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SUBSCRIBE TO {} WITH (SNAPSHOT = {}, PROGRESS = {})", self.view, self.snapshot, self.progress)?;
        self.as_of.map_or(Ok(()), |epoch| write!(f, " AS OF {epoch}"))?;
        self.up_to.map_or(Ok(()), |epoch| write!(f, " UP TO {epoch}"))
    }
}

/// As FORMAT spells it.
pub fn format_word(format: Format) -> &'static str {
    match format {
        Format::Plain => "PLAIN",
        Format::Upsert => "UPSERT",
        Format::Debezium => "DEBEZIUM",
    }
}

/// As ENCODE spells it.
pub fn encode_word(encode: Encode) -> &'static str {
    match encode {
        Encode::Json => "JSON",
        Encode::Csv => "CSV",
        Encode::Parquet => "PARQUET",
        Encode::Avro => "AVRO",
        Encode::Protobuf => "PROTOBUF",
        Encode::Bytes => "BYTES",
    }
}

fn write_connection(f: &mut Formatter<'_>, options: &[OptionEntry], encoding: Option<&Encoding>) -> fmt::Result {
    write_options(f, " ", options)?;
    match encoding {
        Some(encoding) => write!(f, " {encoding}"),
        None => Ok(()),
    }
}

/// `WITH (…)` behind `before`, if there are options.
fn write_options(f: &mut Formatter<'_>, before: &str, options: &[OptionEntry]) -> fmt::Result {
    if options.is_empty() { Ok(()) } else { write!(f, "{before}WITH ({})", joined(options)) }
}

fn write_clause(f: &mut Formatter<'_>, words: &str, value: Option<&impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, "{words} {value}"),
        None => Ok(()),
    }
}

fn if_not_exists(given: bool) -> &'static str {
    if given { "IF NOT EXISTS " } else { "" }
}

fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
