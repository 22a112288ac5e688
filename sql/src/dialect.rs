//! The dialect: sqlparser's generic one plus what our users type. Only trait methods, no fork.

use std::any::TypeId;

use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// PostgreSQL's SELECT with back-ticks, table versions and our clause words.
#[derive(Debug, Default)]
pub struct FreshetDialect;

macro_rules! supported {
    ($($feature:ident)*) => { $(fn $feature(&self) -> bool { true })* };
}

impl Dialect for FreshetDialect {
    /// sqlparser asks "is this the generic dialect or …" in many places; the answer is yes.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, letter: char) -> bool {
        letter == '"' || letter == '`'
    }

    fn is_identifier_start(&self, letter: char) -> bool {
        letter.is_alphabetic() || letter == '_'
    }

    fn is_identifier_part(&self, letter: char) -> bool {
        letter.is_alphanumeric() || letter == '_' || letter == '$'
    }

    supported! {
        supports_table_versioning supports_filter_during_aggregation supports_group_by_expr supports_group_by_with_modifier
        supports_window_function_null_treatment_arg supports_window_clause_named_window_reference supports_parens_around_table_factor
        supports_values_as_table_factor supports_select_wildcard_except supports_select_wildcard_exclude supports_select_wildcard_replace
        supports_nested_comments supports_string_escape_constant supports_array_typedef_with_brackets supports_struct_literal
        supports_dictionary_syntax supports_named_fn_args_with_assignment_operator
        allow_extract_custom allow_extract_single_quotes supports_data_type_signed_suffix supports_bitwise_shift_operators
        supports_boolean_literals supports_insert_table_alias
    }

    /// `j ->> 'k' = 'x'` compares what is found. sqlparser lets `=` bind tighter than the arrows, PostgreSQL does not.
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        let is_arrow = matches!(parser.peek_token_ref().token, Token::Arrow | Token::LongArrow | Token::HashArrow | Token::HashLongArrow);
        // Above + and ||, below a cast of the key.
        is_arrow.then(|| Ok(self.prec_value(Precedence::MulDivModOp) + 1))
    }

    /// `FROM WHERE` is a mistake, not a table called WHERE.
    fn is_table_factor(&self, keyword: &Keyword, _parser: &mut Parser) -> bool {
        use Keyword::*;
        !matches!(keyword, WHERE | GROUP | HAVING | ORDER | SELECT | FROM | JOIN | ON | USING | LIMIT | UNION)
    }

    /// `FROM t EMIT ON …` and `JOIN x AS OF …`: these words end the table instead of naming it.
    fn is_table_factor_alias(&self, explicit: bool, keyword: &Keyword, parser: &mut Parser) -> bool {
        if explicit {
            return !matches!(keyword, Keyword::OF);
        }
        // The candidate has been consumed already, so it is the parser's current token.
        let emit = match &parser.get_current_token().token {
            Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case("EMIT"),
            _ => false,
        };
        !emit && self.is_table_alias(keyword, parser)
    }
}
