//! AST → AST: `count(a, b)` and `count(DISTINCT a, b)` count one value, a struct that is NULL where one of its parts is.
//!
//! DataFusion plans a count of several columns and cannot run it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query, Value,
    visit_expressions_mut,
};

use crate::fold::normal;

/// Rewrites every such count of the query.
pub(crate) fn one_argument(query: &mut Query) {
    let _ = visit_expressions_mut(query, |expr| {
        if let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr
            && list.args.len() > 1
            && name.0.len() == 1
            && name.0[0].as_ident().is_some_and(|name| normal(name) == "count")
            && let Some(columns) = columns_of(list)
        {
            let argument = FunctionArgExpr::Expr(together(columns));
            list.args = vec![FunctionArg::Unnamed(argument)];
        }
        ControlFlow::<()>::Continue(())
    });
}

fn columns_of(list: &FunctionArgumentList) -> Option<Vec<Expr>> {
    list.args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect()
}

/// `CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN struct(a, b) END`
fn together(columns: Vec<Expr>) -> Expr {
    let known = columns.iter().map(|column| Expr::IsNotNull(Box::new(column.clone())));
    let and = |left, right| Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) };
    let condition = known.reduce(and).unwrap_or_else(|| Expr::Value(Value::Null.into()));
    let args = columns.into_iter().map(|column| FunctionArg::Unnamed(FunctionArgExpr::Expr(column))).collect();
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    let all = Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("struct")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    });
    let conditions = vec![CaseWhen { condition, result: all }];
    Expr::Case { case_token: AttachedToken::empty(), end_token: AttachedToken::empty(), operand: None, conditions, else_result: None }
}
