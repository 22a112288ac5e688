//! Integers that do not wrap (C4, T21) where DataFusion computes what a client asks or writes. In: a plan that it can run. Out: the same, in which
//! +, − and × of integers fail where they are out of range, and a sum of integers is added up in 38 digits.

use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::optimise::analyse;

/// The type integers are added up in: of the rows of any table, a sum fits.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// Errors: types that do not fit, as the analyser says.
pub(crate) fn checked(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = analyse(plan, &ConfigOptions::new())?;
    plan.transform_up_with_subqueries(|node| {
        let inputs = node.inputs();
        let mut schema = DFSchema::empty();
        inputs.iter().for_each(|input| schema.merge(input.schema()));
        let before = node.schema().clone();
        let names = NamePreserver::new(&node);
        let mut widened = false;
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|part| {
                let part = checked_arithmetic(part, &schema)?;
                let sum = wide_sum(part.data, &schema)?;
                widened |= sum.transformed;
                Ok(Transformed::new(sum.data, part.transformed || sum.transformed, sum.tnr))
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        if !node.transformed {
            return Ok(node);
        }
        let plan = node.data.recompute_schema()?;
        if !widened {
            return Ok(Transformed::yes(plan));
        }
        // What stands above knows the columns by their former types.
        let former = before.iter().zip(plan.schema().columns()).map(|((qualifier, field), column)| {
            let changed = plan.schema().qualified_field_from_column(&column)?.1.data_type() != field.data_type();
            let column = Expr::Column(column);
            let column = if changed { Expr::Cast(Cast::new(Box::new(column), field.data_type().clone())) } else { column };
            Ok(column.alias_qualified(qualifier.cloned(), field.name()))
        });
        let former = former.collect::<Result<Vec<Expr>>>()?;
        Ok(Transformed::yes(LogicalPlanBuilder::from(plan).project(former)?.build()?))
    })
    .data()
}

fn checked_arithmetic(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_integer = |expr: &Expr| Ok::<_, datafusion::common::DataFusionError>(expr.get_type(schema)?.is_integer());
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply), right })
            if is_integer(&left)? && left.get_type(schema)? == right.get_type(schema)? =>
        {
            Transformed::yes(call(op, *left, *right))
        }
        Expr::Negative(inner) if inner.get_type(schema)?.is_signed_integer() => {
            let zero = Expr::Literal(ScalarValue::new_zero(&inner.get_type(schema)?)?, None);
            Transformed::yes(call(Operator::Minus, zero, *inner))
        }
        other => Transformed::no(other),
    })
}

fn wide_sum(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let of_integers = |name: &str, arguments: &[Expr]| -> Result<bool> {
        Ok(name == "sum" && arguments.first().map(|argument| argument.get_type(schema)).transpose()?.is_some_and(|found| found.is_integer()))
    };
    let wide = |arguments: Vec<Expr>| arguments.into_iter().map(|argument| Expr::Cast(Cast::new(Box::new(argument), WIDE))).collect();
    Ok(match expr {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) if of_integers(func.name(), &params.args)? => {
            params.args = wide(params.args);
            Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }))
        }
        Expr::WindowFunction(call) if of_integers(call.fun.name(), &call.params.args)? => {
            let WindowFunction { fun, mut params } = *call;
            params.args = wide(params.args);
            Transformed::yes(Expr::WindowFunction(Box::new(WindowFunction { fun, params })))
        }
        other => Transformed::no(other),
    })
}

fn call(op: Operator, left: Expr, right: Expr) -> Expr {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> =
        LazyLock::new(|| [Operator::Plus, Operator::Minus, Operator::Multiply].map(|op| Arc::new(Checked::new(op).into())));
    let index = match op {
        Operator::Plus => 0,
        Operator::Minus => 1,
        _ => 2,
    };
    Expr::ScalarFunction(ScalarFunction::new_udf(FUNCTIONS[index].clone(), vec![left, right]))
}

/// An operation of two integers of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl Checked {
    fn new(op: Operator) -> Checked {
        Checked { op, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "checked +",
            Operator::Minus => "checked -",
            _ => "checked *",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sides = ColumnarValue::values_to_arrays(&args.args)?;
        let (left, right): (&ArrayRef, &ArrayRef) = (&sides[0], &sides[1]);
        let found = match self.op {
            Operator::Plus => numeric::add(left, right),
            Operator::Minus => numeric::sub(left, right),
            _ => numeric::mul(left, right),
        };
        Ok(ColumnarValue::Array(found?))
    }
}
