//! Settings of a run. In: `freshet.toml` beside the working directory (or `--config`), the environment, flags; the later wins. Out: one
//! typed struct. No other file reads the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The file that is read if it is there.
const FILE: &str = "freshet.toml";

/// Every setting, unset where a layer says nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Worker threads [default: SET workers of the script, else 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Where checkpoints and recorded input are kept [default: ./.freshet]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where Arrow Flight listens; port 0 takes a free one [default: 127.0.0.1:8815]
    #[arg(long, value_name = "ADDR")]
    pub flight: Option<SocketAddr>,
    /// Where HTTP listens; port 0 takes a free one [default: 127.0.0.1:8816]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Slows a replay down to this rate
    #[arg(long, value_name = "N")]
    pub events_per_second: Option<u64>,
    /// The shared library of ONNX Runtime, for pipelines with models [default: the one of Python's onnxruntime package]
    #[arg(long, value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,
}

/// What a run uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// None: the script decides, else 1: more workers help only above what one core does (100,000 events/s and more).
    pub workers: Option<usize>,
    pub data_dir: PathBuf,
    /// 8815 is the port of Arrow Flight's own examples; HTTP is the next one.
    pub flight: SocketAddr,
    pub http: SocketAddr,
    pub events_per_second: Option<u64>,
    /// None: it is searched for when a plan has models (`onnx.rs`).
    pub onnxruntime: Option<PathBuf>,
    /// Whose onnxruntime package is asked: FRESHET_PYTHON, else the one on the PATH.
    pub python: PathBuf,
}

impl Config {
    /// File, then environment, then flags. Errors name the file or variable and what is wrong in it.
    pub fn load(file: Option<&Path>, flags: Layer) -> Result<Config> {
        Config::complete(read_file(file)?, flags)
    }

    /// Environment, then flags: a child of the server runs in the folder of somebody else's pipeline and minds no file there.
    pub fn without_file(flags: Layer) -> Result<Config> {
        Config::complete(Layer::default(), flags)
    }

    fn complete(file: Layer, flags: Layer) -> Result<Config> {
        let mut config = Config::resolve(file, environment(environment_variable)?, flags)?;
        // The variable of ONNX Runtime's other users; ours wins.
        config.onnxruntime = config.onnxruntime.or_else(|| environment_variable("ORT_DYLIB_PATH").map(PathBuf::from));
        config.python = environment_variable("FRESHET_PYTHON").map_or(config.python, PathBuf::from);
        Ok(config)
    }

    fn resolve(file: Layer, environment: Layer, flags: Layer) -> Result<Config> {
        let all = flags.over(environment).over(file);
        if all.workers == Some(0) {
            bail!("workers must be at least 1");
        }
        if all.events_per_second == Some(0) {
            bail!("events_per_second must be at least 1");
        }
        Ok(Config {
            workers: all.workers,
            data_dir: all.data_dir.unwrap_or_else(|| PathBuf::from(".freshet")),
            flight: all.flight.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8815))),
            http: all.http.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8816))),
            events_per_second: all.events_per_second,
            onnxruntime: all.onnxruntime,
            python: PathBuf::from("python3"),
        })
    }
}

impl Layer {
    fn over(self, below: Layer) -> Layer {
        Layer {
            workers: self.workers.or(below.workers),
            data_dir: self.data_dir.or(below.data_dir),
            flight: self.flight.or(below.flight),
            http: self.http.or(below.http),
            events_per_second: self.events_per_second.or(below.events_per_second),
            onnxruntime: self.onnxruntime.or(below.onnxruntime),
        }
    }
}

fn read_file(named: Option<&Path>) -> Result<Layer> {
    let path = named.unwrap_or(Path::new(FILE));
    if named.is_none() && !path.is_file() {
        return Ok(Layer::default());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("configuration {}", path.display()))
}

fn environment(variable: impl Fn(&str) -> Option<String>) -> Result<Layer> {
    fn parsed<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let wrong = |text: &str, error: T::Err| anyhow::anyhow!("environment variable {name}={text}: {error}");
        text.map(|text| text.parse().map_err(|error| wrong(&text, error))).transpose()
    }
    Ok(Layer {
        workers: parsed("FRESHET_WORKERS", variable("FRESHET_WORKERS"))?,
        data_dir: variable("FRESHET_DATA_DIR").map(PathBuf::from),
        flight: parsed("FRESHET_FLIGHT", variable("FRESHET_FLIGHT"))?,
        http: parsed("FRESHET_HTTP", variable("FRESHET_HTTP"))?,
        events_per_second: parsed("FRESHET_EVENTS_PER_SECOND", variable("FRESHET_EVENTS_PER_SECOND"))?,
        onnxruntime: variable("FRESHET_ONNXRUNTIME").map(PathBuf::from),
    })
}

#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The fault that a test wants of a child of the server (`serve/fault.rs`).
pub fn fault() -> Option<String> {
    environment_variable("FRESHET_FAULT")
}

/// How much is logged: RUST_LOG's syntax in FRESHET_LOG. Warnings by default.
pub fn log_filter() -> String {
    environment_variable("FRESHET_LOG").unwrap_or_else(|| "warn".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_environment_over_file() {
        let layer = |workers, rate| Layer { workers, events_per_second: rate, ..Layer::default() };
        let config = Config::resolve(layer(Some(1), Some(10)), layer(Some(2), Some(20)), layer(Some(3), None)).unwrap();
        assert_eq!((config.workers, config.events_per_second), (Some(3), Some(20)));
        assert_eq!(config.flight.to_string(), "127.0.0.1:8815");
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let wrong = environment(|name| (name == "FRESHET_WORKERS").then(|| "many".to_string())).unwrap_err();
        assert!(wrong.to_string().starts_with("environment variable FRESHET_WORKERS=many"), "{wrong}");
        assert!(toml::from_str::<Layer>("wrokers = 2").unwrap_err().to_string().contains("unknown field `wrokers`"));
        assert!(Config::resolve(Layer { workers: Some(0), ..Layer::default() }, Layer::default(), Layer::default()).is_err());
    }
}
