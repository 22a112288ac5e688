//! What names mean while a query is planned. In: relations, services and DataFusion's functions. Out: a `ContextProvider`, without a session.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, TableReference, exec_err, plan_err};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, HigherOrderUDF, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableSource,
    Volatility, WindowUDF,
};
use datafusion::sql::sqlparser::ast;
use freshet_core::{ModelDef, ServiceDef, TrainingMode};

use crate::error::nearest;
use crate::flink;
use crate::interval;
use crate::json::{self, JsonOperators};
use crate::prediction::function_named;
use crate::quality;
use crate::relation::LookupPlanner;
use crate::temporal::TemporalPlanner;
use crate::windowing::{WindowPlanner, marker_functions, proctime_function};

/// The type of now() and of TIMESTAMP without a precision (C4b).
pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The schema that `FEATURES(service)` becomes a table of, so that services have names of their own.
pub(crate) const FEATURES_SCHEMA: &str = "features";

/// A source, a maintained view, or an inlined view, which brings its own plan.
///
/// It reports no constraints: a PRIMARY KEY is not enforced, and the optimiser would believe it.
#[derive(Debug)]
pub(crate) struct Relation {
    schema: SchemaRef,
    inlined: Option<LogicalPlan>,
}

impl Relation {
    pub fn stored(schema: SchemaRef) -> Relation {
        Relation { schema, inlined: None }
    }

    pub fn inlined(plan: LogicalPlan) -> Relation {
        Relation { schema: Arc::new(plan.schema().as_arrow().clone()), inlined: Some(plan) }
    }
}

impl TableSource for Relation {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        self.inlined.as_ref().map(Cow::Borrowed)
    }
}

/// Everything a query may name.
#[derive(Clone)]
pub(crate) struct Catalog {
    pub relations: BTreeMap<String, Arc<dyn TableSource>>,
    pub services: Arc<BTreeMap<String, ServiceDef>>,
    /// In the order of the plan's list.
    models: Arc<Vec<ModelDef>>,
    /// The query being planned is a training set's.
    pub training: Option<TrainingMode>,
    options: ConfigOptions,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("relations", &self.relations.keys()).field("services", &self.services.keys()).finish()
    }
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog::new(BTreeMap::new())
    }
}

impl Catalog {
    pub fn new(services: BTreeMap<String, ServiceDef>) -> Catalog {
        let services = Arc::new(services);
        let mut options = ConfigOptions::new();
        options.optimizer.skip_failed_rules = false;
        options.optimizer.filter_null_join_keys = false;
        // An incremental plan needs scalar subqueries as joins; that they have one row is checked when lowering.
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        let relation_planners = planners(&services, None);
        Catalog { relations: BTreeMap::new(), services, models: Arc::default(), training: None, options, relation_planners }
    }

    pub fn add(&mut self, name: &str, relation: Relation) {
        self.relations.insert(name.to_string(), Arc::new(relation));
    }

    pub fn add_service(&mut self, service: ServiceDef) {
        Arc::make_mut(&mut self.services).insert(service.name.clone(), service);
        self.relation_planners = planners(&self.services, self.training);
    }

    /// The same names, for the query of a training set.
    pub fn for_training(&self, mode: TrainingMode) -> Catalog {
        let relation_planners = planners(&self.services, Some(mode));
        Catalog { training: Some(mode), relation_planners, ..self.clone() }
    }

    /// Becomes the next model of the plan, too: a model is known by its index there.
    pub fn add_model(&mut self, model: ModelDef) {
        Arc::make_mut(&mut self.models).push(model);
    }

    pub fn models(&self) -> &[ModelDef] {
        &self.models
    }

    pub fn model(&self, name: &str) -> Option<(usize, &ModelDef)> {
        self.models.iter().enumerate().find(|(_, model)| model.name == name)
    }

    pub fn options(&self) -> &ConfigOptions {
        &self.options
    }
}

/// What stands in FROM and is no table.
fn planners(services: &Arc<BTreeMap<String, ServiceDef>>, training: Option<TrainingMode>) -> Vec<Arc<dyn RelationPlanner>> {
    vec![Arc::new(TemporalPlanner), Arc::new(WindowPlanner), Arc::new(LookupPlanner::new(services.clone(), training))]
}

/// DataFusion's functions by every name they answer to. Built once per process: it costs some 80 µs.
pub(crate) struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    pub aggregate: HashMap<String, Arc<AggregateUDF>>,
    pub window: HashMap<String, Arc<WindowUDF>>,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    pub fn get() -> &'static Functions {
        static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
        FUNCTIONS.get_or_init(Functions::build)
    }

    /// DataFusion's scalar function of this name.
    pub fn scalar(&self, name: &str) -> Arc<ScalarUDF> {
        Arc::clone(&self.scalar[name])
    }

    /// Whether there is a scalar function of this name.
    pub fn has(&self, name: &str) -> bool {
        self.scalar.contains_key(name)
    }

    fn build() -> Functions {
        fn names<'a>(name: &'a str, aliases: &'a [String]) -> impl Iterator<Item = String> + 'a {
            std::iter::once(name.to_string()).chain(aliases.iter().cloned())
        }
        let mut functions = Functions {
            scalar: HashMap::new(),
            aggregate: HashMap::new(),
            window: HashMap::new(),
            expr_planners: SessionStateDefaults::default_expr_planners(),
        };
        functions.expr_planners.push(Arc::new(JsonOperators));
        let own = std::iter::once(ScalarUDF::from(NowFunction::new())).chain(marker_functions()).chain([proctime_function()]);
        let own = own.chain(flink::functions()).chain(json::functions()).chain([interval::function()]).map(Arc::new);
        for function in SessionStateDefaults::default_scalar_functions().into_iter().chain(own) {
            functions.scalar.extend(names(function.name(), function.aliases()).map(|name| (name, function.clone())));
        }
        for function in SessionStateDefaults::default_aggregate_functions().into_iter().chain(quality::functions().map(Arc::new)) {
            functions.aggregate.extend(names(function.name(), function.aliases()).map(|name| (name, function.clone())));
        }
        for function in SessionStateDefaults::default_window_functions() {
            functions.window.extend(names(function.name(), function.aliases()).map(|name| (name, function.clone())));
        }
        functions
    }
}

/// now(): the logical instant being computed. It exists only while planning; what remains of it in a stream is a bug.
///
/// Stable, so that the optimiser neither folds nor drops it; microseconds, so that it compares with TIMESTAMP without a cast.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NowFunction {
    signature: Signature,
    aliases: Vec<String>,
}

impl NowFunction {
    fn new() -> NowFunction {
        NowFunction { signature: Signature::nullary(Volatility::Stable), aliases: vec!["current_timestamp".into(), "localtimestamp".into()] }
    }
}

impl ScalarUDFImpl for NowFunction {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(TIMESTAMP)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new("now()", TIMESTAMP, false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("now() has no value here: rows that a script inserts enter at epoch 0")
    }
}

/// TIMESTAMP is microseconds (C4b; DataFusion's is nanoseconds), JSON is text.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let data_type = match sql_type {
            ast::DataType::Timestamp(None, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => TIMESTAMP,
            ast::DataType::JSON => DataType::Utf8,
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let key = match name.schema() {
            Some(schema) => format!("{schema}.{}", name.table()),
            None => name.table().to_string(),
        };
        match self.relations.get(&key) {
            Some(relation) => Ok(relation.clone()),
            None if name.schema() == Some(FEATURES_SCHEMA) => plan_err!("there is no feature service named {}", name.table()),
            None => match nearest(&key, self.relations.keys().map(String::as_str)) {
                Some(known) => plan_err!("there is no source or view named {key}; did you mean {known}?"),
                None => plan_err!("there is no source or view named {key}"),
            },
        }
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &Functions::get().expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        Functions::get().scalar.get(name).cloned().or_else(|| function_named(name, &self.models).map(Arc::new))
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        Functions::get().aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        Functions::get().window.get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        sorted(Functions::get().scalar.keys())
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        sorted(Functions::get().aggregate.keys())
    }

    fn udwf_names(&self) -> Vec<String> {
        sorted(Functions::get().window.keys())
    }
}

/// In order, so that "did you mean" says the same in every process.
fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort_unstable();
    names
}
