//! Constants of statements that write, in the type of their column before they are a DOUBLE or text. In: INSERT … VALUES and the columns it fills. Out: the
//! same, with decimals of all their digits, and bytes where PostgreSQL's `'\x…'` says bytes.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{self, CastKind, ExactNumberInfo, Expr, SetExpr, UnaryOperator, Value, ValueWithSpan};

/// `types` are those of the columns that the statement fills, in its order.
pub(crate) fn spell_constants(query: &mut ast::Query, types: &[DataType]) {
    let SetExpr::Values(values) = query.body.as_mut() else { return };
    for (column, data_type) in types.iter().enumerate() {
        // All of a column or nothing: its values have one type.
        let mut cells: Vec<&mut Expr> = values.rows.iter_mut().filter_map(|row| row.content.get_mut(column)).collect();
        let spelled: Option<Vec<Expr>> = cells.iter().map(|cell| spelled(cell, data_type)).collect();
        for (cell, spelled) in cells.iter_mut().zip(spelled.into_iter().flatten()) {
            **cell = spelled;
        }
    }
}

fn spelled(cell: &Expr, data_type: &DataType) -> Option<Expr> {
    let value = match cell {
        Expr::Value(value) => value,
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => value,
            _ => return None,
        },
        _ => return None,
    };
    if value.value == Value::Null {
        return Some(cell.clone());
    }
    let with = |found: Value| Expr::Value(ValueWithSpan { value: found, span: value.span });
    match (&value.value, data_type) {
        (Value::Number(digits, _), DataType::Decimal128(precision, scale)) if !digits.contains(['e', 'E']) => {
            let sign = if matches!(cell, Expr::Value(_)) { "" } else { "-" };
            Some(Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(with(Value::SingleQuotedString(format!("{sign}{digits}")))),
                data_type: ast::DataType::Decimal(ExactNumberInfo::PrecisionAndScale(u64::from(*precision), i64::from(*scale))),
                array: false,
                format: None,
            })
        }
        (Value::SingleQuotedString(text), DataType::Binary) => {
            let escaped = text.strip_prefix("\\x").filter(|digits| digits.len() % 2 == 0 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let digits = escaped.map_or_else(|| text.bytes().map(|byte| format!("{byte:02x}")).collect(), str::to_lowercase);
            Some(with(Value::HexStringLiteral(digits)))
        }
        (Value::HexStringLiteral(_), DataType::Binary) => Some(cell.clone()),
        _ => None,
    }
}
