//! Flink's functions as DataFusion knows functions. In: types and values of arguments. Out: types, rewrites and columns; NULL where an argument is.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::kernels::numeric::rem;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::functions::datetime::to_char;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::dates::{DatePattern, Part, date_format, part_of};
use super::texts::{count_char, pattern, regexp_extract, split_index};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// DATE_FORMAT(time, 'yyyy-MM-dd'); with a % in its pattern it is DataFusion's to_char.
    DateFormat,
    /// HOUR(time) and the like.
    Part(Part),
    /// MOD(a, b) is a % b.
    Mod,
    /// SPLIT_INDEX(text, delimiter, index from 0); NULL beyond the last piece.
    SplitIndex,
    /// REGEXP_EXTRACT(text, pattern[, group]); group 0, the default, is the whole match; NULL without a match.
    RegexpExtract,
    /// COUNT_CHAR(text, letter): how often the letter is there.
    CountChar,
}

const FUNCTIONS: [(&str, Kind); 11] = [
    ("date_format", Kind::DateFormat),
    ("year", Kind::Part(Part::Year)),
    ("month", Kind::Part(Part::Month)),
    ("dayofmonth", Kind::Part(Part::Day)),
    ("hour", Kind::Part(Part::Hour)),
    ("minute", Kind::Part(Part::Minute)),
    ("second", Kind::Part(Part::Second)),
    ("mod", Kind::Mod),
    ("split_index", Kind::SplitIndex),
    ("regexp_extract", Kind::RegexpExtract),
    ("count_char", Kind::CountChar),
];

/// All of them.
pub(crate) fn functions() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.into_iter().map(|(name, kind)| ScalarUDF::from(FlinkFunction { name, kind, signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FlinkFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl FlinkFunction {
    /// What the arguments are turned into. Errors: too few, too many, or none of the types it takes.
    fn types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let usage = match self.kind {
            Kind::DateFormat => "date_format(time, 'yyyy-MM-dd')",
            Kind::Part(_) => "of one time",
            Kind::Mod => "mod(number, number)",
            Kind::SplitIndex => "split_index(text, delimiter, index from 0)",
            Kind::RegexpExtract => "regexp_extract(text, pattern, group)",
            Kind::CountChar => "count_char(text, letter)",
        };
        let count = match self.kind {
            Kind::Part(_) => 1..=1,
            Kind::SplitIndex => 3..=3,
            Kind::RegexpExtract => 2..=3,
            _ => 2..=2,
        };
        let wrong = |index: usize| plan_err!("{} does not take {} as its argument {}; it is {usage}", self.name, given[index], index + 1);
        if !count.contains(&given.len()) {
            return plan_err!("{} does not take {} arguments; it is {usage}", self.name, given.len());
        }
        let mut types = given.to_vec();
        for (index, data_type) in types.iter_mut().enumerate() {
            let is_null = *data_type == DataType::Null;
            let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) || is_null;
            *data_type = match (self.kind, index) {
                (Kind::Mod, _) => continue,
                (Kind::DateFormat | Kind::Part(_), 0) => match data_type {
                    DataType::Timestamp(unit, None) => DataType::Timestamp(*unit, None),
                    DataType::Date32 | DataType::Null => DataType::Timestamp(TimeUnit::Millisecond, None),
                    DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => DataType::Timestamp(TimeUnit::Microsecond, None),
                    _ => return wrong(index),
                },
                (_, 2) if data_type.is_integer() || is_null => DataType::Int64,
                (_, 2) => return wrong(index),
                _ if is_text => DataType::Utf8,
                _ => return wrong(index),
            };
        }
        if self.kind == Kind::Mod {
            let (left, right) = BinaryTypeCoercer::new(&given[0], &Operator::Modulo, &given[1]).get_input_types()?;
            return Ok(vec![left, right]);
        }
        Ok(types)
    }

    fn checks(&self, constant: Option<&ScalarValue>) -> Result<()> {
        let Some(ScalarValue::Utf8(Some(text))) = constant else { return Ok(()) };
        match self.kind {
            Kind::DateFormat if text.contains('%') => Ok(()),
            Kind::DateFormat => DatePattern::parse(text).map(drop),
            Kind::RegexpExtract => pattern(text).map(drop),
            _ => Ok(()),
        }
    }
}

impl ScalarUDFImpl for FlinkFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        self.types(given)
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::DateFormat | Kind::SplitIndex | Kind::RegexpExtract => DataType::Utf8,
            Kind::Part(_) | Kind::CountChar => DataType::Int64,
            Kind::Mod => BinaryTypeCoercer::new(&given[0], &Operator::Modulo, &given[1]).get_result_type()?,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.checks(args.scalar_arguments.get(1).copied().flatten())?;
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name, self.return_type(&types)?, true)))
    }

    fn simplify(&self, mut args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match (self.kind, args.get(1)) {
            (Kind::DateFormat, Some(Expr::Literal(ScalarValue::Utf8(Some(text)), _))) if text.contains('%') => {
                Ok(ExprSimplifyResult::Simplified(to_char().call(args)))
            }
            (Kind::Mod, Some(_)) => {
                let right = args.swap_remove(1);
                let division = BinaryExpr::new(Box::new(args.swap_remove(0)), Operator::Modulo, Box::new(right));
                Ok(ExprSimplifyResult::Simplified(Expr::BinaryExpr(division)))
            }
            _ => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let column: ArrayRef = match (self.kind, columns.as_slice()) {
            (Kind::DateFormat, [times, patterns]) => date_format(times, patterns)?,
            (Kind::Part(part), [times]) => part_of(part, times)?,
            (Kind::Mod, [left, right]) => rem(left, right)?,
            (Kind::SplitIndex, [texts, delimiters, indexes]) => split_index(texts, delimiters, indexes),
            (Kind::RegexpExtract, [texts, patterns]) => regexp_extract(texts, patterns, None)?,
            (Kind::RegexpExtract, [texts, patterns, groups]) => regexp_extract(texts, patterns, Some(groups))?,
            (Kind::CountChar, [texts, letters]) => count_char(texts, letters),
            _ => return plan_err!("{} was planned with another number of arguments", self.name),
        };
        Ok(ColumnarValue::Array(column))
    }
}
