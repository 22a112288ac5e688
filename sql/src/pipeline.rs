//! A pipeline while its statements are applied one by one: the catalog queries are planned against, and the plan they grow.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::ast::{Ident, Query, Spanned};
use freshet_core::{ClockKind, Connectors, DriftSpec, FeatureSpec, Format, Node, NodeId, Op, Plan, SourceDef, TABLE_LIVE, ViewDef, ViewKind};

use crate::ast::{
    CreateDriftMonitor, CreateFeatureView, CreateFunction, CreateModel, CreateRetrainingJob, CreateSecret, CreateSink, CreateSource,
    CreateTrainingSet, Emit, Role, Set, Statement, Stmt, find_option, normal_name,
};
use crate::bind::{placed, plan_maintained, plan_maintained_as, plan_query};
use crate::check::check_maintained;
use crate::compile::Settings;
use crate::context::{Catalog, Functions, Relation};
use crate::error::nearest;
use crate::lower::{FeatureQuery, Lowering};
use crate::predict::refuse_predictions;
use crate::refusal::{Refusal, Result};
use crate::secrets::Secrets;
use crate::served::AskedAt;
use crate::tables::{SinkTable, Stored, Survey};
use crate::training::{TrainingSet, TrainingSets};
use crate::windowing::{emit_on_close, marked_as, with_event_time};
use crate::windows::{TIME_COLUMN, expand};
use crate::{define, model, monitor, part, retraining};

const DAY_MS: u64 = 86_400_000;
/// Every byte may become three in a folder's name, which has 255, and a run's has its instant too.
const FOLDER_NAME_BYTES_MAX: usize = 64;
const SETTINGS: [&str; 2] = ["clock", "workers"];

#[derive(Debug, Clone)]
pub(crate) struct Pipeline<'a> {
    pub connectors: &'a dyn Connectors,
    pub catalog: Catalog,
    pub plan: Plan,
    /// Sources, materialised views and feature views by name.
    pub relations: BTreeMap<String, NodeId>,
    /// Names of CREATE VIEW, which have no node.
    inlined: BTreeSet<String>,
    settings: Settings,
    training: BTreeMap<String, TrainingSet>,
    warnings: Vec<Refusal>,
    pub secrets: Secrets,
    pub survey: Survey,
    /// Tables without connector, by name.
    pub stored: BTreeMap<String, Stored>,
    /// Tables that INSERT INTO leads out of the pipeline.
    pub sink_tables: BTreeMap<String, SinkTable>,
    /// Statements are applied once more, after a DROP: what they wrote is known.
    pub replaying: bool,
}

impl<'a> Pipeline<'a> {
    pub fn new(connectors: &'a dyn Connectors) -> Pipeline<'a> {
        Pipeline {
            connectors,
            catalog: Catalog::default(),
            plan: Plan::default(),
            relations: BTreeMap::new(),
            inlined: BTreeSet::new(),
            settings: Settings::default(),
            training: BTreeMap::new(),
            warnings: Vec::new(),
            secrets: Secrets::default(),
            survey: Survey::default(),
            stored: BTreeMap::new(),
            sink_tables: BTreeMap::new(),
            replaying: false,
        }
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    pub fn warn(&mut self, warning: Refusal) {
        self.warnings.push(warning);
    }

    pub fn take_warnings(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.warnings)
    }

    /// Everything but EXPLAIN.
    pub fn apply(&mut self, statement: &Statement) -> Result<()> {
        Pipeline::check_name(statement)?;
        match &statement.body {
            Stmt::Set(set) => self.set(set),
            Stmt::CreateSecret(secret) => self.create_secret(secret),
            Stmt::CreateFunction(function) => self.create_function(function),
            Stmt::CreateSource(source) => self.create_source(source),
            Stmt::CreateView(view) => {
                if view.if_not_exists && !self.is_new(&view.name, true)? {
                    return Ok(());
                }
                self.create_view(&view.name, view.or_replace, &view.query)
            }
            Stmt::CreateMaterializedView(view) => {
                if self.is_new(&view.name, view.if_not_exists)? {
                    self.create_materialized_view(&view.name, &view.query, &view.emit)?;
                    self.warnings.extend(unordered(&view.name, &view.query));
                }
                Ok(())
            }
            Stmt::CreateFeatureView(view) => self.create_feature_view(view),
            Stmt::CreateFeatureService(service) => {
                let name = normal_name(&service.name);
                if self.plan.service(&name).is_some() {
                    return exists(&service.name, service.if_not_exists, "feature service");
                }
                let def = define::service(service, &self.plan, &self.catalog)?;
                self.catalog.add_service(def.clone());
                self.plan.services.push(def);
                Ok(())
            }
            Stmt::CreateSink(sink) => self.create_sink(sink),
            Stmt::CreateModel(model) => self.create_model(model),
            Stmt::CreateTrainingSet(set) => self.create_training_set(set),
            Stmt::CreateDriftMonitor(monitor) => self.create_drift_monitor(monitor),
            Stmt::CreateRetrainingJob(job) => self.create_retraining_job(job),
            Stmt::Write(write) => self.write(write),
            // What a script writes is there before anything is read.
            Stmt::Flush => Ok(()),
            // It takes statements back, which whoever has all of them does.
            Stmt::Drop(dropped) => Err(Refusal::new("DROP has no plan to explain").at(dropped.name.span)),
            Stmt::Select(query) => crate::query::check(query, &self.plan),
            Stmt::Explain(_) => unreachable!("EXPLAIN changes no pipeline"),
        }
    }

    /// Functions are ours: a class is not loaded. Errors: there is none of this name.
    fn create_function(&mut self, function: &CreateFunction) -> Result<()> {
        let name = normal_name(&function.name);
        if !Functions::get().has(&name) {
            return Err(Refusal::new(format!("there is no function {name}, and classes are not loaded"))
                .help("write the expression into a view and select from that")
                .at(function.name.span));
        }
        let notice = format!("{} is not loaded: {name} is the function of that name here", function.class);
        self.warnings.push(Refusal::new(notice).at(function.name.span));
        Ok(())
    }

    /// What the plans of training sets are made of.
    pub fn training_sets(&self) -> TrainingSets {
        let plan = Plan { clock: self.settings.clock, ..self.plan.clone() };
        TrainingSets { plan, relations: self.relations.clone(), sets: self.training.clone() }
    }

    /// The plan of everything that was applied, without nodes that nothing reads.
    pub fn finish(mut self) -> Plan {
        self.plan.clock = self.settings.clock;
        self.fill_tables();
        sort_sources(&mut self.plan);
        let roots: Vec<NodeId> =
            (0..self.plan.nodes.len() as u32).map(NodeId).filter(|id| matches!(self.plan.node(*id).op, Op::Source { .. })).collect();
        prune(self.plan, &roots)
    }

    /// The pipeline of these statements, some of its own, with the rows that its tables hold: what comes of a DROP.
    pub fn again(self, statements: &[Statement]) -> Result<Pipeline<'a>> {
        let mut rebuilt = Pipeline { survey: self.survey.clone(), replaying: true, ..Pipeline::new(self.connectors) };
        for statement in statements.iter().filter(|statement| !matches!(statement.body, Stmt::Explain(_))) {
            rebuilt.apply(statement)?;
        }
        for (name, table) in &mut rebuilt.stored {
            if let Some(before) = self.stored.get(name) {
                table.content = before.content.clone();
            }
        }
        rebuilt.warnings.clear();
        Ok(Pipeline { replaying: false, ..rebuilt })
    }

    /// Gives the sources of stored tables the rows that statements left in them.
    pub fn fill_tables(&mut self) {
        for source in &mut self.plan.sources {
            if let Some(table) = self.stored.get(&source.name).filter(|_| source.is_table()) {
                source.rows = table.content.batches().expect("rows of the table's own types");
                if self.settings.clock == ClockKind::Event {
                    source.options.remove(TABLE_LIVE);
                }
            }
        }
    }

    fn set(&mut self, set: &Set) -> Result<()> {
        let value = set.value.text();
        let wrong = |help: &str| Err(Refusal::new(format!("{} cannot be {value}", set.name)).help(help).at(set.value_place.0));
        match normal_name(&set.name).as_str() {
            "clock" => match value.to_lowercase().as_str() {
                "wall" => self.settings.clock = ClockKind::Wall,
                "event" => self.settings.clock = ClockKind::Event,
                _ => return wrong("clock is 'wall' or 'event'"),
            },
            "workers" => match value.parse::<usize>() {
                Ok(workers @ 1..=1024) => self.settings.workers = Some(workers),
                _ => return wrong("workers is a number from 1 to 1024"),
            },
            other => {
                let refusal = Refusal::new(format!("there is no setting {other}")).at(set.name.span);
                return Err(match nearest(other, SETTINGS) {
                    Some(known) => refusal.help(format!("did you mean {known}?")),
                    None => refusal.help("the settings are clock and workers"),
                });
            }
        }
        Ok(())
    }

    /// Names that would be confused with what Freshet itself names, or that no folder can have.
    fn check_name(statement: &Statement) -> Result<()> {
        let Some(ident) = statement.body.declares() else { return Ok(()) };
        let name = normal_name(ident);
        let system = ["errors", "dead_letters", "late", "runs", "versions"].iter().any(|table| name.starts_with(&format!("{table}(")));
        if system && name.ends_with(')') {
            return Err(Refusal::new(format!("{name} is what Freshet calls a table of its own")).help("choose another name").at(ident.span));
        }
        let names_a_folder = matches!(statement.body, Stmt::CreateModel(_) | Stmt::CreateRetrainingJob(_));
        if names_a_folder && !(1..=FOLDER_NAME_BYTES_MAX).contains(&name.len()) {
            let message =
                format!("the name of a model or job has 1 to {FOLDER_NAME_BYTES_MAX} bytes, since it names a folder; this one has {}", name.len());
            return Err(Refusal::new(message).help("choose a shorter name").at(ident.span));
        }
        Ok(())
    }

    /// True if the name is free, false if IF NOT EXISTS makes the statement do nothing.
    fn is_new(&self, name: &Ident, if_not_exists: bool) -> Result<bool> {
        let known = normal_name(name);
        if self.plan.training_sets.iter().any(|set| set.name == known) {
            return exists(name, if_not_exists, "training set").map(|()| false);
        }
        let known_here = self.relations.contains_key(&known) || self.stored.contains_key(&known) || self.sink_tables.contains_key(&known);
        if !known_here && !self.inlined.contains(&known) {
            return Ok(true);
        }
        exists(name, if_not_exists, "source or view").map(|()| false)
    }

    fn create_secret(&mut self, secret: &CreateSecret) -> Result<()> {
        if self.secrets.knows(&normal_name(&secret.name)) {
            return exists(&secret.name, secret.if_not_exists, "secret");
        }
        self.secrets.create(secret, self.connectors)
    }

    fn create_source(&mut self, source: &CreateSource) -> Result<()> {
        if !self.is_new(&source.name, source.if_not_exists)? {
            return Ok(());
        }
        match source.role {
            Role::Stored => return self.create_table(source),
            Role::Sink => return self.create_sink_table(source),
            Role::Either if self.survey.written.contains(&normal_name(&source.name)) => return self.create_sink_table(source),
            Role::Either | Role::Source => {}
        }
        if let Some(option) = find_option(&source.options, "partition.by") {
            return Err(Refusal::new(format!("{} is a source, as nothing is inserted into it, and a source is not partitioned", source.name))
                .help("leave it out; the path may have wildcards for folders: path = 'lake/day=*/*.json'")
                .at(option.place.0));
        }
        let def = define::source(source, &self.catalog, (self.connectors, &self.secrets))?;
        self.catalog.add(&def.name, Relation::stored(with_event_time(&def.schema, def.event_time)));
        self.push_source(&def);
        Ok(())
    }

    /// The node of a source's rows, which is known by its name from now on.
    pub fn push_source(&mut self, def: &SourceDef) -> NodeId {
        let append_only = def.format == Format::Plain;
        let op = Op::Source { source: self.plan.sources.len() };
        let mut node = self.plan.push(Node { op, inputs: Vec::new(), schema: def.schema.clone(), append_only });
        if def.format == Format::Upsert {
            let op = Op::Upsert { key: def.key.clone() };
            node = self.plan.push(Node { op, inputs: vec![node], schema: def.schema.clone(), append_only: false });
        }
        self.relations.insert(def.name.clone(), node);
        self.plan.sources.push(def.clone());
        node
    }

    fn create_view(&mut self, name: &Ident, or_replace: bool, query: &Query) -> Result<()> {
        let known = normal_name(name);
        if !(or_replace && self.inlined.contains(&known)) {
            self.is_new(name, false)?;
        }
        check_maintained(query, &self.catalog)?;
        let plan = plan_query(query, &self.catalog)?;
        // Planned to the end and thrown away, so that its errors show here and not where it is used.
        let optimised = plan_maintained(query, &self.catalog)?;
        let mut draft = self.plan.clone();
        self.lowering(&mut draft).lower(&optimised).map_err(|refusal| placed(refusal, query))?;
        self.catalog.add(&known, Relation::inlined(plan));
        self.inlined.insert(known);
        Ok(())
    }

    fn create_materialized_view(&mut self, name: &Ident, query: &Query, emit: &Emit) -> Result<NodeId> {
        let known = normal_name(name);
        let plan = match emit {
            Emit::OnWindowClose(place) => {
                let close = |plan| emit_on_close(plan, &known).map_err(|refusal| refusal.at(place.0));
                plan_maintained_as(query, &self.catalog, close)?
            }
            Emit::OnChange | Emit::Every(_) => plan_maintained(query, &self.catalog)?,
        };
        let mut grown = self.plan.clone();
        let mut lowering = self.lowering(&mut grown);
        let node = lowering.lower(&plan).and_then(|node| lowering.output(node, plan.schema())).map_err(|refusal| placed(refusal, query))?;
        let node = match emit {
            Emit::Every(every) => lowering.emit_every(node, every.ms()),
            Emit::OnChange | Emit::OnWindowClose(_) => node,
        };
        self.plan = grown;
        self.add_view(known.clone(), node, ViewKind::Materialized, Vec::new());
        self.catalog.add(&known, Relation::stored(marked_as(&self.plan.node(node).schema, plan.schema())));
        Ok(node)
    }

    fn create_feature_view(&mut self, view: &CreateFeatureView) -> Result<()> {
        if !self.is_new(&view.name, view.if_not_exists)? {
            return Ok(());
        }
        if let Some(hop) = &view.hop
            && (hop.ms() == 0 || !DAY_MS.is_multiple_of(hop.ms()))
        {
            return Err(Refusal::new("a HOP divides a day").help("choose '1 minute', '5 minutes', '1 hour', …").at(hop.place.0));
        }
        if let Some(window) = view.windows.iter().find(|window| window.ms() == 0) {
            return Err(Refusal::new("a window of length zero is always empty").at(window.place.0));
        }
        refuse_predictions(&view.query, "cannot stand in a feature view, whose values are features")?;
        let expanded = expand(view)?;
        let plan = plan_maintained(&expanded.query, &self.catalog)?;
        let entity: Vec<String> = view.entity.iter().map(normal_name).collect();
        let query = FeatureQuery {
            plan: &plan,
            entity: &entity,
            time: TIME_COLUMN,
            grouped: expanded.grouped,
            ttl_ms: view.ttl.as_ref().map(|ttl| ttl.ms()),
            hop_ms: view.hop.as_ref().map(|hop| hop.ms()),
            include_now: view.include_now(),
        };
        let mut grown = self.plan.clone();
        let node = self.lowering(&mut grown).feature_view(&query).map_err(|refusal| self.in_feature_view(refusal, view))?;
        self.plan = grown;
        self.warn_of_ttl(view, node);
        self.add_view(normal_name(&view.name), node, ViewKind::Feature, entity);
        Ok(())
    }

    /// A refusal about the entity points at ENTITY, any other into the query.
    fn in_feature_view(&self, refusal: Refusal, view: &CreateFeatureView) -> Refusal {
        let about = view.entity.iter().find(|entity| refusal.message.starts_with(&format!("the entity {} ", normal_name(entity))));
        match about {
            Some(entity) => refusal.at(entity.span),
            None if refusal.message.starts_with("the TIMESTAMP") => refusal.at(view.timestamp.span),
            None => placed(refusal, &view.query),
        }
    }

    /// T10: a TTL shorter than a window wins, and the user should know.
    fn warn_of_ttl(&mut self, view: &CreateFeatureView, node: NodeId) {
        let (Some(ttl), Op::Feature { spec: FeatureSpec::Rolling(spec), .. }) = (&view.ttl, &self.plan.node(node).op) else { return };
        let longest = spec.aggregates.iter().filter_map(|aggregate| aggregate.window.lower).map(|edge| edge.offset_ms.unsigned_abs()).max();
        if longest.is_some_and(|longest| ttl.ms() > 0 && ttl.ms() < longest) {
            let warning = Refusal::new(format!("the TTL of {} is shorter than a window and wins: older entities read as stale", ttl.text()));
            self.warnings.push(warning.at(ttl.place.0));
        }
    }

    fn create_sink(&mut self, sink: &CreateSink) -> Result<()> {
        let name = normal_name(&sink.name);
        if self.plan.sinks.iter().any(|known| known.name == name) {
            return exists(&sink.name, sink.if_not_exists, "sink");
        }
        let from = normal_name(&sink.from);
        let Some(view) = self.plan.view(&from).cloned() else {
            return Err(self.not_a_view(&sink.from));
        };
        let def = define::sink(sink, &view, &self.plan, (self.connectors, &self.secrets))?;
        let mut plan = std::mem::take(&mut self.plan);
        self.lowering(&mut plan).read_as_stream(view.node);
        self.plan = plan;
        self.plan.sinks.push(def);
        Ok(())
    }

    fn create_model(&mut self, model: &CreateModel) -> Result<()> {
        let name = normal_name(&model.name);
        if self.plan.models.iter().any(|known| known.name == name) {
            return exists(&model.name, model.if_not_exists, "model");
        }
        let def = model::define(model, &self.plan, &self.catalog)?;
        self.catalog.add_model(def.clone());
        self.plan.models.push(def);
        Ok(())
    }

    fn create_training_set(&mut self, set: &CreateTrainingSet) -> Result<()> {
        if !self.is_new(&set.name, set.if_not_exists)? {
            return Ok(());
        }
        let mut planned = TrainingSet::new(set, &self.catalog);
        let schema = planned.check(&self.plan, &self.relations)?;
        self.warnings.extend(planned.asked_at().iter().filter_map(AskedAt::warning));
        let def = retraining::training_set(set, schema)?;
        self.training.insert(def.name.clone(), planned);
        self.plan.training_sets.push(def);
        Ok(())
    }

    fn create_drift_monitor(&mut self, monitor: &CreateDriftMonitor) -> Result<()> {
        if !self.is_new(&monitor.name, monitor.if_not_exists)? {
            return Ok(());
        }
        let Some(view) = self.plan.view(&normal_name(&monitor.view)).cloned() else {
            return Err(self.not_a_view(&monitor.view));
        };
        let spec = monitor::define(monitor, &view, &self.plan)?;
        let references = &mut self.plan.models[spec.model].references;
        references.extend(spec.names.iter().cloned());
        references.sort_unstable();
        references.dedup();
        // An evaluation is a fact about its instant: it is never taken back.
        let node = Node { op: Op::Drift { spec }, inputs: vec![view.node], schema: DriftSpec::schema(), append_only: true };
        let node = self.plan.push(node);
        self.add_view(normal_name(&monitor.name), node, ViewKind::Materialized, Vec::new());
        Ok(())
    }

    fn create_retraining_job(&mut self, job: &CreateRetrainingJob) -> Result<()> {
        let name = normal_name(&job.name);
        if self.plan.retraining.iter().any(|known| known.name == name) {
            return exists(&job.name, job.if_not_exists, "retraining job");
        }
        let def = retraining::job(job, &self.plan)?;
        self.plan.retraining.push(def);
        Ok(())
    }

    fn not_a_view(&self, name: &Ident) -> Refusal {
        let wanted = normal_name(name);
        if self.inlined.contains(&wanted) {
            return Refusal::new(format!("{wanted} is only a name for a query"))
                .help(format!("CREATE MATERIALIZED VIEW {wanted} AS …"))
                .at(name.span);
        }
        if self.relations.contains_key(&wanted) {
            return Refusal::new(format!("{wanted} is a source"))
                .help(format!("CREATE MATERIALIZED VIEW copy AS SELECT * FROM {wanted}"))
                .at(name.span);
        }
        let refusal = Refusal::new(format!("there is no view named {wanted}")).at(name.span);
        match nearest(&wanted, self.plan.views.iter().map(|view| view.name.as_str())) {
            Some(known) => refusal.help(format!("did you mean {known}?")),
            None => refusal,
        }
    }

    /// For EXPLAIN of a query that has no name.
    pub fn explain_query(mut self, query: &Query) -> Result<Plan> {
        let name = Ident { value: "query".into(), quote_style: None, span: query.span() };
        self.plan.views.clear();
        self.plan.sinks.clear();
        self.create_materialized_view(&name, query, &Emit::OnChange)?;
        sort_sources(&mut self.plan);
        Ok(part::retain(prune(self.plan, &[]), &BTreeSet::new(), &BTreeSet::new()))
    }

    fn add_view(&mut self, name: String, node: NodeId, kind: ViewKind, entity: Vec<String>) {
        let schema = self.plan.node(node).schema.clone();
        self.catalog.add(&name, Relation::stored(schema.clone()));
        self.relations.insert(name.clone(), node);
        self.plan.views.push(ViewDef { name, node, kind, schema, entity });
    }

    pub fn lowering<'b>(&'b self, plan: &'b mut Plan) -> Lowering<'b> {
        Lowering { plan, relations: &self.relations, services: &self.catalog.services, asked: Vec::new(), body: None }
    }
}

/// A view keeps rows in no order: an ORDER BY without LIMIT is a wish about how they are shown.
fn unordered(name: &Ident, query: &Query) -> Option<Refusal> {
    let order = query.order_by.as_ref().filter(|_| query.limit_clause.is_none() && query.fetch.is_none())?;
    let notice = Refusal::new(format!("the rows of {} are kept in no order", normal_name(name)));
    Some(notice.help(format!("order them when you read: SELECT … FROM {} ORDER BY …; or add a LIMIT", normal_name(name))).at(order.span()))
}

fn exists(name: &Ident, if_not_exists: bool, what: &str) -> Result<()> {
    if if_not_exists {
        return Ok(());
    }
    Err(Refusal::new(format!("there is a {what} named {} already", normal_name(name))).help("choose another name").at(name.span))
}

/// Sources stand in name order: a source's index is its rank in the order of positions.
pub(crate) fn sort_sources(plan: &mut Plan) {
    let mut order: Vec<usize> = (0..plan.sources.len()).collect();
    order.sort_by(|a, b| plan.sources[*a].name.cmp(&plan.sources[*b].name));
    plan.sources = order.iter().map(|index| plan.sources[*index].clone()).collect();
    for node in &mut plan.nodes {
        if let Op::Source { source } = &mut node.op {
            *source = order.iter().position(|old| old == source).expect("the order has every source");
        }
    }
}

/// The plan without the nodes that no view, no sink and no root needs.
pub(crate) fn prune(mut plan: Plan, roots: &[NodeId]) -> Plan {
    let mut needed = vec![false; plan.nodes.len()];
    let ends = plan.views.iter().map(|view| view.node).chain(plan.sinks.iter().map(|sink| sink.node)).chain(roots.iter().copied());
    ends.for_each(|id| needed[id.index()] = true);
    for index in (0..plan.nodes.len()).rev() {
        if needed[index] {
            plan.nodes[index].inputs.iter().for_each(|input| needed[input.index()] = true);
        }
    }
    let mut renamed = vec![NodeId(0); plan.nodes.len()];
    let mut kept = Vec::new();
    for (index, mut node) in std::mem::take(&mut plan.nodes).into_iter().enumerate() {
        if needed[index] {
            node.inputs.iter_mut().for_each(|input| *input = renamed[input.index()]);
            renamed[index] = NodeId(kept.len() as u32);
            kept.push(node);
        }
    }
    plan.nodes = kept;
    plan.views.iter_mut().for_each(|view| view.node = renamed[view.node.index()]);
    plan.sinks.iter_mut().for_each(|sink| sink.node = renamed[sink.node.index()]);
    plan
}
