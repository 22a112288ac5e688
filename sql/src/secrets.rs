//! The values of CREATE SECRET while a pipeline is compiled. In: where they lie. Out: options for connectors; never text.

use std::collections::BTreeMap;
use std::fmt;

use datafusion::sql::sqlparser::ast::Ident;
use freshet_core::{Connectors, OptionError};

use crate::ast::{CreateSecret, OptionValue, normal_name};
use crate::refusal::{Refusal, Result};

#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(BTreeMap<String, Hidden>);

/// A value that does not print itself.
#[derive(Clone)]
struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Secrets {
    pub fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Errors: the place says which variable or file has no value.
    pub fn create(&mut self, secret: &CreateSecret, connectors: &dyn Connectors) -> Result<()> {
        let value = connectors.secret(&secret.from).map_err(|error| {
            let refusal = Refusal::new(format!("the secret {} has no value: {error}", secret.name));
            refusal.help("set it where Freshet is started; a script says only where it is").at(secret.place.0)
        })?;
        self.0.insert(normal_name(&secret.name), Hidden(value));
        Ok(())
    }

    /// What a connector is told. Errors: no such secret.
    pub fn text(&self, value: &OptionValue) -> Result<String> {
        match value {
            OptionValue::Secret(name) => self.value(name),
            other => Ok(other.text()),
        }
    }

    fn value(&self, name: &Ident) -> Result<String> {
        let wanted = normal_name(name);
        let Some(Hidden(value)) = self.0.get(&wanted) else {
            let refusal = Refusal::new(format!("there is no secret named {wanted}")).at(name.span);
            return Err(match self.0.is_empty() {
                true => refusal.help(format!("say before where its value is: CREATE SECRET {name} FROM ENV 'VARIABLE'")),
                false => refusal.nearest(&wanted, self.0.keys().map(String::as_str)),
            });
        };
        Ok(value.clone())
    }

    /// A connector may quote an option's value in its complaint; those of secrets become their names.
    pub fn hidden_in(&self, error: OptionError) -> OptionError {
        let mut message = error.message;
        for (name, Hidden(value)) in &self.0 {
            message = message.replace(value, &format!("SECRET {name}"));
        }
        OptionError { message, ..error }
    }
}
