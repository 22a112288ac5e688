//! `schema.registry` and its companions. In: WITH options. Out: an address and who asks, or the option that is wrong.

use std::collections::BTreeMap;

use freshet_core::OptionError;

use crate::options::wrong;

pub const REGISTRY_OPTIONS: [&str; 3] = ["schema.registry", "schema.registry.username", "schema.registry.password"];

#[derive(Clone, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Without a slash at its end.
    pub url: String,
    pub login: Option<(String, String)>,
}

impl std::fmt::Debug for RegistryOptions {
    /// The password stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryOptions").field("url", &self.url).finish_non_exhaustive()
    }
}

impl RegistryOptions {
    /// None: no registry is named.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Option<RegistryOptions>, OptionError> {
        let [url, username, password] = REGISTRY_OPTIONS.map(|name| options.get(name));
        let Some(url) = url else {
            return match REGISTRY_OPTIONS[1..].iter().find(|name| options.contains_key(**name)) {
                Some(name) => Err(wrong(name, format!("{name} needs schema.registry = 'http://…' beside it"))),
                None => Ok(None),
            };
        };
        let parsed = reqwest::Url::parse(url).ok().filter(|parsed| matches!(parsed.scheme(), "http" | "https") && parsed.has_host());
        let Some(parsed) = parsed else {
            return Err(wrong(REGISTRY_OPTIONS[0], format!("schema.registry is an address such as 'http://host:8081', not '{url}'")));
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong(REGISTRY_OPTIONS[0], "put the login into schema.registry.username and schema.registry.password, not into the address"));
        }
        let login = match (username, password) {
            (None, None) => None,
            (Some(username), password) => Some((username.clone(), password.cloned().unwrap_or_default())),
            (None, Some(_)) => return Err(wrong(REGISTRY_OPTIONS[2], "schema.registry.password needs schema.registry.username beside it")),
        };
        Ok(Some(RegistryOptions { url: url.trim_end_matches('/').to_string(), login }))
    }
}
