//! `${NAME}` and `${NAME:-default}` inside string literals. In: a literal's value. Out: the value with every variable filled in.

use std::collections::BTreeMap;

use crate::error::nearest;

/// What is wrong, and how many characters of the value stand before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableError {
    pub offset: usize,
    pub message: String,
    pub help: Option<String>,
}

/// A variable's value is not searched for variables again. Errors: an undefined variable, a name or a brace that is missing.
pub fn fill(value: &str, variables: &BTreeMap<String, String>) -> Result<String, VariableError> {
    let mut filled = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = rest.find("${") {
        filled.push_str(&rest[..start]);
        let offset = value[..value.len() - rest.len() + start].chars().count();
        let fail = |message: String, help: Option<String>| VariableError { offset, message, help };
        let body = &rest[start + 2..];
        let Some(end) = body.find('}') else {
            return Err(fail("the variable is not closed".into(), Some("end it with }".into())));
        };
        let (name, default) = match body[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&body[..end], None),
        };
        if !is_name(name) {
            return Err(fail(
                format!("'{name}' is no name of a variable"),
                Some("names have letters, digits and _: ${NAME} or ${NAME:-default}".into()),
            ));
        }
        match variables.get(name).map(String::as_str).or(default) {
            Some(text) => filled.push_str(text),
            None => {
                let close =
                    nearest(name, variables.keys().map(String::as_str)).map(|known| format!("did you mean {known}? else ")).unwrap_or_default();
                let help = format!("{close}give it with --var {name}=VALUE, or a default: ${{{name}:-default}}");
                return Err(fail(format!("variable {name} is not defined"), Some(help)));
            }
        }
        rest = &body[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        BTreeMap::from([("data".to_string(), "/d/${x}".to_string())])
    }

    #[test]
    fn filled_once_and_defaults_stand_in() {
        assert_eq!(fill("${data}/a.csv", &variables()).unwrap(), "/d/${x}/a.csv");
        assert_eq!(fill("${none:-}${out:-b c}$1", &variables()).unwrap(), "b c$1");
    }

    #[test]
    fn undefined_variable_is_an_error_where_it_stands() {
        let error = fill("é ${dta}", &variables()).unwrap_err();
        assert_eq!(error.offset, 2);
        assert!(error.help.unwrap().starts_with("did you mean data?"));
        assert_eq!(fill("a${b", &variables()).unwrap_err().offset, 1);
        assert!(fill("${}", &variables()).is_err());
    }
}
