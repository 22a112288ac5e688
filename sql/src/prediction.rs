//! PREDICT and MODEL_VERSION as plan nodes. In: a plan with calls in its expressions. Out: a node below each such projection or filter,
//! which no rule moves: the version that scores a row depends on the epoch at which the row enters there (C1b).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as PlanResult, TableReference, exec_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    UserDefinedLogicalNodeCore, Volatility,
};
use freshet_core::{ModelDef, PredictOutput, PredictRoute};

use crate::context::Catalog;
use crate::now::{mentions_now, readable};
use crate::refusal::{Refusal, Result};

const SCORE: &str = "predict$";
const VERSION: &str = "model_version$";

/// The name under which a call is planned: `predict$0$live`, `model_version$2$challenger`, `predict$1$3`.
pub(crate) fn function_of(model: usize, route: PredictRoute, output: PredictOutput) -> String {
    let prefix = if output == PredictOutput::Score { SCORE } else { VERSION };
    match route {
        PredictRoute::Live => format!("{prefix}{model}$live"),
        PredictRoute::Challenger => format!("{prefix}{model}$challenger"),
        PredictRoute::Version(version) => format!("{prefix}{model}${version}"),
    }
}

/// The function of such a name. None: it is another's.
pub(crate) fn function_named(name: &str, models: &[ModelDef]) -> Option<ScalarUDF> {
    let (output, rest) = match (name.strip_prefix(SCORE), name.strip_prefix(VERSION)) {
        (Some(rest), _) => (PredictOutput::Score, rest),
        (None, Some(rest)) => (PredictOutput::Version, rest),
        (None, None) => return None,
    };
    let (model, route) = rest.split_once('$')?;
    let model: usize = model.parse().ok()?;
    let route = match route {
        "live" => PredictRoute::Live,
        "challenger" => PredictRoute::Challenger,
        version => PredictRoute::Version(version.parse().ok()?),
    };
    let def = models.get(model)?.clone();
    let data_type = match (output, def.outputs.as_slice()) {
        (PredictOutput::Version, _) => DataType::Int64,
        (PredictOutput::Score, [output]) => output.data_type().clone(),
        (PredictOutput::Score, outputs) => DataType::Struct(outputs.iter().cloned().collect::<Fields>()),
    };
    let signature = match output {
        PredictOutput::Score => Signature::user_defined(Volatility::Stable),
        PredictOutput::Version => Signature::nullary(Volatility::Stable),
    };
    Some(ScalarUDF::from(PredictFunction { name: name.to_string(), signature, data_type, model, def, route, output }))
}

/// A call while the query around it is planned; it is never executed.
#[derive(Debug, Clone)]
struct PredictFunction {
    name: String,
    signature: Signature,
    data_type: DataType,
    model: usize,
    def: ModelDef,
    route: PredictRoute,
    output: PredictOutput,
}

impl PredictFunction {
    fn shown(&self) -> &str {
        match (self.output, self.def.outputs.as_slice()) {
            (PredictOutput::Version, _) => "model_version",
            (PredictOutput::Score, [output]) => output.name(),
            (PredictOutput::Score, _) => &self.def.name,
        }
    }
}

impl PartialEq for PredictFunction {
    fn eq(&self, other: &PredictFunction) -> bool {
        self.name == other.name
    }
}

impl Eq for PredictFunction {}

impl Hash for PredictFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for PredictFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(self.data_type.clone())
    }

    /// Types are judged where the refusal can say which argument is meant.
    fn coerce_types(&self, arguments: &[DataType]) -> PlanResult<Vec<DataType>> {
        Ok(arguments.to_vec())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        exec_err!("{} was not planned as an operator", self.name)
    }
}

fn call_in(expr: &Expr) -> Option<(&PredictFunction, &[Expr])> {
    match expr {
        Expr::ScalarFunction(function) => function.func.inner().downcast_ref::<PredictFunction>().map(|found| (found, function.args.as_slice())),
        _ => None,
    }
}

/// True if the expression holds a call that no node computes yet.
pub(crate) fn mentions_prediction(expr: &Expr) -> bool {
    expr.exists(|part| Ok(call_in(part).is_some())).unwrap_or(false)
}

/// One call of a node; its column is qualified by the call's whole text, so that equal calls are one and no user can name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PlannedCall {
    pub model: usize,
    pub route: PredictRoute,
    pub output: PredictOutput,
    /// How many of the node's arguments are its own.
    pub arguments: usize,
    /// What the plan calls the column.
    pub shown: String,
    column: Column,
    field: FieldRef,
}

/// Rows with the predictions of some calls beside them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Prediction {
    pub calls: Vec<PlannedCall>,
    /// Of all calls, one behind the other, each in the type of its input.
    pub arguments: Vec<Expr>,
    pub input: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl Prediction {
    fn new(calls: Vec<PlannedCall>, arguments: Vec<Expr>, input: Arc<LogicalPlan>) -> PlanResult<Prediction> {
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        fields.extend(calls.iter().map(|call| (call.column.relation.clone(), call.field.clone())));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Prediction { calls, arguments, input, schema })
    }
}

impl PartialOrd for Prediction {
    fn partial_cmp(&self, _: &Prediction) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for Prediction {
    fn name(&self) -> &str {
        "Prediction"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.arguments.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls: Vec<String> = self.calls.iter().map(|call| call.column.flat_name()).collect();
        write!(f, "Prediction: {}", calls.join(", "))
    }

    fn with_exprs_and_inputs(&self, arguments: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> PlanResult<Prediction> {
        let input = inputs.pop().expect("a prediction has one input");
        Prediction::new(self.calls.clone(), arguments, Arc::new(input))
    }

    /// All of them: without the column that tells two rows apart, a retraction could take the other one's prediction (C5).
    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

/// The plan with a node for every call.
pub(crate) fn place_predictions(plan: LogicalPlan, catalog: &Catalog) -> Result<LogicalPlan> {
    let mut refusal = None;
    let placed = plan.transform_up_with_subqueries(|node| match placed_below(&node, catalog) {
        Ok(Some(changed)) => Ok(Transformed::yes(changed)),
        Ok(None) => Ok(Transformed::no(node)),
        Err(found) => {
            refusal = Some(found);
            Ok(Transformed::new(node, false, TreeNodeRecursion::Stop))
        }
    });
    match refusal {
        Some(refusal) => Err(refusal),
        None => Ok(placed.data()?),
    }
}

fn placed_below(node: &LogicalPlan, catalog: &Catalog) -> Result<Option<LogicalPlan>> {
    let Some(found) = node.expressions().into_iter().find(mentions_prediction) else { return Ok(None) };
    match node {
        LogicalPlan::Projection(projection) => {
            let preserver = NamePreserver::new_for_projection();
            let names: Vec<_> = projection.expr.iter().map(|expr| preserver.save(expr)).collect();
            let (exprs, input) = computed(projection.expr.clone(), projection.input.clone(), catalog)?;
            let exprs = exprs.into_iter().zip(names).map(|(expr, name)| name.restore(expr)).collect();
            Ok(Some(LogicalPlan::Projection(Projection::try_new(exprs, input)?)))
        }
        LogicalPlan::Filter(filter) => {
            // Other conditions are tested first: they may join, and no row that they drop needs a score. One about now() decides when a
            // row comes out, and so which version would score it: it stays above.
            let stays = |conjunct: &&Expr| mentions_prediction(conjunct) || mentions_now(conjunct);
            let (above, below): (Vec<&Expr>, Vec<&Expr>) = split_conjunction(&filter.predicate).into_iter().partition(stays);
            let mut input = filter.input.clone();
            if let Some(below) = conjunction(below.into_iter().cloned()) {
                input = Arc::new(LogicalPlan::Filter(Filter::try_new(below, input)?));
            }
            let (exprs, input) = computed(above.into_iter().cloned().collect(), input, catalog)?;
            let predicate = conjunction(exprs).expect("a condition is about a prediction");
            Ok(Some(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
        }
        _ => Err(Refusal::new("a prediction stands where no operator can compute it")
            .help("put it into a view below: CREATE VIEW scored AS SELECT …, PREDICT(model, …) AS score FROM …")
            .at_expr(&found)),
    }
}

/// The expressions with columns for their calls, and the input with those columns. A call within a call is computed first.
fn computed(mut exprs: Vec<Expr>, mut input: Arc<LogicalPlan>, catalog: &Catalog) -> Result<(Vec<Expr>, Arc<LogicalPlan>)> {
    loop {
        let mut found: Vec<Expr> = Vec::new();
        for expr in &exprs {
            expr.apply(|part| {
                let innermost = call_in(part).is_some_and(|(_, arguments)| !arguments.iter().any(mentions_prediction));
                if innermost && !found.contains(part) {
                    found.push(part.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        if found.is_empty() {
            return Ok((exprs, input));
        }
        let (mut calls, mut arguments) = (Vec::new(), Vec::new());
        for call in &found {
            // A filter below has computed it.
            if input.schema().index_of_column(&column_of(call)).is_ok() {
                continue;
            }
            let (planned, values) = planned(call, input.schema(), catalog)?;
            calls.push(planned);
            arguments.extend(values);
        }
        if !calls.is_empty() {
            let node = Prediction::new(calls, arguments, input)?;
            input = Arc::new(LogicalPlan::Extension(Extension { node: Arc::new(node) }));
        }
        for expr in &mut exprs {
            let known = |part: Expr| if found.contains(&part) { Transformed::yes(Expr::Column(column_of(&part))) } else { Transformed::no(part) };
            *expr = std::mem::take(expr).transform_up(|part| Ok(known(part))).data()?;
        }
    }
}

fn column_of(call: &Expr) -> Column {
    let name = call_in(call).map_or("", |(function, _)| function.shown());
    Column::new(Some(TableReference::bare(call.schema_name().to_string())), format!("{name}$"))
}

fn planned(call: &Expr, schema: &DFSchema, catalog: &Catalog) -> Result<(PlannedCall, Vec<Expr>)> {
    let (function, arguments) = call_in(call).expect("only calls are planned");
    let def = catalog.models().get(function.model).unwrap_or(&function.def);
    let values = def.inputs.iter().zip(arguments).map(|(input, argument)| in_type(argument, input, def, schema)).collect::<Result<Vec<_>>>()?;
    let values = if function.output == PredictOutput::Version { Vec::new() } else { values };
    let column = column_of(call);
    let planned = PlannedCall {
        model: function.model,
        route: function.route,
        output: function.output,
        arguments: values.len(),
        shown: function.shown().to_string(),
        field: Arc::new(Field::new(&column.name, function.data_type.clone(), true)),
        column,
    };
    Ok((planned, values))
}

/// Numbers and booleans are brought to the input's type; nothing else is.
fn in_type(argument: &Expr, input: &Field, model: &ModelDef, schema: &DFSchema) -> Result<Expr> {
    let wanted = input.data_type();
    let found = argument.get_type(schema)?;
    let counts = |data_type: &DataType| data_type.is_numeric() || matches!(data_type, DataType::Boolean | DataType::Null);
    if found == *wanted {
        return Ok(argument.clone());
    }
    if !counts(&found) || !counts(wanted) {
        return Err(Refusal::new(format!("{} takes {} as {wanted}, and {} is {found}", model.name, input.name(), readable(argument)))
            .help(format!("CAST({} AS …), or give another column", readable(argument)))
            .at_expr(argument));
    }
    if narrows(&found, wanted) {
        return Err(Refusal::new(format!(
            "{} takes {} as {wanted}, and {} is {found}: values would be cut or fail",
            model.name,
            input.name(),
            readable(argument)
        ))
        .help(format!("declare the input as {found}, or say CAST({} AS …) yourself", readable(argument)))
        .at_expr(argument));
    }
    Ok(argument.clone().cast_to(wanted, schema)?)
}

/// Whether a value of one type may not fit the other. Rounding a float or an integer to a float is what models expect.
fn narrows(found: &DataType, wanted: &DataType) -> bool {
    if !wanted.is_integer() && *wanted != DataType::Boolean {
        return false;
    }
    match found {
        DataType::Null | DataType::Boolean => false,
        found if found.is_integer() => {
            let bytes = |data_type: &DataType| data_type.primitive_width().unwrap_or(0);
            *wanted == DataType::Boolean || bytes(found) > bytes(wanted) || found.is_unsigned_integer() != wanted.is_unsigned_integer()
        }
        _ => true,
    }
}
