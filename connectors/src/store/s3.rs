//! How to reach a bucket. In: `s3.*` options, else the `AWS_*` variables of the environment, else the machine's role. Out: a client.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_core::{Error, OptionError, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};

use crate::options::wrong;

pub const OPTIONS: [&str; 14] = [
    "s3.endpoint",
    "s3.region",
    "s3.access_key",
    "s3.secret_key",
    "s3.session_token",
    "s3.path_style",
    "s3.allow_http",
    // As peers spell them.
    "s3.endpoint_url",
    "s3.region_name",
    "s3.credentials.access",
    "s3.credentials.secret",
    "s3.access-key",
    "s3.secret-key",
    "s3.path.style.access",
];

/// A request that takes longer has failed: 30 s for 4 MiB is slower than any store that can be read from.
const REQUEST_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// What a client tries by itself before it says that the store is away: enough for one lost connection.
const RETRIES_MAX: usize = 2;

/// Checked options; never printed, because there are keys in it.
#[derive(Clone, Default)]
pub struct S3 {
    endpoint: Option<String>,
    region: Option<String>,
    keys: Option<(String, String)>,
    token: Option<String>,
    path_style: Option<bool>,
    allow_http: Option<bool>,
}

impl S3 {
    /// Errors: the option that is wrong; a secret is never in it.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<S3, OptionError> {
        let find = |names: &[&'static str]| names.iter().find_map(|name| options.get(*name).map(|value| (*name, value.clone())));
        let text = |names: &[&'static str]| match find(names) {
            Some((name, value)) if value.is_empty() => Err(wrong(name, format!("{name} is empty; leave it out to take what the environment says"))),
            found => Ok(found.map(|(_, value)| value)),
        };
        let flag = |names: &[&'static str]| match find(names) {
            None => Ok(None),
            Some((name, value)) => match value.to_ascii_lowercase().as_str() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(wrong(name, format!("{name} must be 'true' or 'false', found '{value}'"))),
            },
        };
        let endpoint = text(&["s3.endpoint", "s3.endpoint_url"])?;
        let allow_http = flag(&["s3.allow_http"])?;
        if let Some(endpoint) = &endpoint {
            check_endpoint(endpoint, allow_http == Some(true))?;
        }
        let access = ["s3.access_key", "s3.access-key", "s3.credentials.access"];
        let secret = ["s3.secret_key", "s3.secret-key", "s3.credentials.secret"];
        let keys = match (text(&access)?, text(&secret)?) {
            (Some(access), Some(secret)) => Some((access, secret)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong(access[0], "s3.access_key needs s3.secret_key beside it, for example s3.secret_key = SECRET name")),
            (None, Some(_)) => return Err(wrong(secret[0], "s3.secret_key needs s3.access_key beside it")),
        };
        let path_style = flag(&["s3.path_style", "s3.path.style.access"])?;
        Ok(S3 { endpoint, region: text(&["s3.region", "s3.region_name"])?, keys, token: text(&["s3.session_token"])?, path_style, allow_http })
    }

    /// Contacts nobody. Errors: Invalid.
    pub fn client(&self, bucket: &str) -> Result<AmazonS3> {
        let backoff = BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_millis(500), base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: 2 * CONNECT_MAX };
        let mut builder = AmazonS3Builder::from_env()
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), format!("{} s", REQUEST_MAX.as_secs()))
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), format!("{} s", CONNECT_MAX.as_secs()))
            .with_retry(retry)
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some((access, secret)) = &self.keys {
            builder = builder.with_access_key_id(access).with_secret_access_key(secret);
        }
        if let Some(token) = &self.token {
            builder = builder.with_token(token);
        }
        if let Some(allow_http) = self.allow_http {
            builder = builder.with_allow_http(allow_http);
        }
        if let Some(path_style) = self.path_style {
            builder = builder.with_virtual_hosted_style_request(!path_style);
        }
        builder.build().map_err(|error| Error::invalid(format!("s3://{bucket}: {error}")))
    }
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), OptionError> {
    match endpoint.split_once("://") {
        Some(("https", host)) if !host.is_empty() => Ok(()),
        Some(("http", host)) if !host.is_empty() && allow_http => Ok(()),
        Some(("http", host)) if !host.is_empty() => {
            Err(wrong("s3.endpoint", "s3.endpoint is http, which shows what is read to the network; use https, or say s3.allow_http = 'true'"))
        }
        _ => Err(wrong("s3.endpoint", format!("s3.endpoint must be a URL such as 'https://s3.example.com', found '{endpoint}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<S3, OptionError> {
        S3::parse(&pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn options_are_checked_and_peers_spellings_are_known() {
        let s3 = parse(&[("s3.credentials.access", "a"), ("s3.secret-key", "b"), ("s3.region_name", "eu-west-1"), ("s3.path.style.access", "TRUE")]);
        let s3 = s3.ok().unwrap();
        assert_eq!((s3.keys, s3.region, s3.path_style), (Some(("a".into(), "b".into())), Some("eu-west-1".into()), Some(true)));
        let error = |pairs: &[(&str, &str)]| {
            let error = parse(pairs).err().unwrap();
            (error.option.unwrap(), error.message)
        };
        assert_eq!(error(&[("s3.access_key", "a")]).0, "s3.access_key");
        assert_eq!(error(&[("s3.secret_key", "geheim")]), ("s3.secret_key".into(), "s3.secret_key needs s3.access_key beside it".into()));
        assert!(error(&[("s3.endpoint", "http://127.0.0.1:9000")]).1.contains("s3.allow_http = 'true'"));
        assert!(error(&[("s3.endpoint", "127.0.0.1:9000")]).1.contains("must be a URL"));
        assert!(error(&[("s3.allow_http", "yes")]).1.contains("'true' or 'false'"));
        assert!(parse(&[("s3.endpoint", "http://127.0.0.1:9000"), ("s3.allow_http", "true")]).is_ok());
    }
}
