//! The demo from start to end. In: the folder of prepared data. Out: a report; then the server stays until interrupted, or ends with `--exit`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::kafka::Kafka;
use super::report;
use super::server::Server;

struct Options {
    data: PathBuf,
    exit: bool,
    kafka: bool,
}

/// Replays the data of `--data FOLDER`. Errors: data or binary missing, or the run failed.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    for name in ["schedules", "departures", "arrivals", "weather"] {
        let file = options.data.join(format!("{name}.parquet"));
        ensure!(file.is_file(), "{} is missing; `./dev setup` writes it", file.display());
    }
    let binary = binary()?;
    let pipeline = root.join("pipelines/flight_delay");
    // Named before the server, so that the broker is there as long as somebody may read from it.
    let kafka = if options.kafka { Some(Kafka::start(root)?) } else { None };
    if let Some(kafka) = &kafka {
        kafka.fill(&binary, &pipeline, &options.data)?;
    }
    let mut server = Server::start(&binary, &pipeline, &options.data, kafka.as_ref().map(|kafka| kafka.brokers.as_str()))?;
    let replay = server.wait_until_finished()?;
    report::print(&server, &binary, &replay)?;
    if options.exit {
        return server.stop();
    }
    println!("\nThe server stays up. Ctrl-C ends it.");
    server.wait_until_ended()
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options { data: PathBuf::new(), exit: false, kafka: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--exit" => options.exit = true,
            "--kafka" => options.kafka = true,
            "--data" => options.data = rest.next().context("--data needs a folder")?.into(),
            other => bail!("unknown argument {other}; known are --data FOLDER, --kafka and --exit"),
        }
    }
    ensure!(!options.data.as_os_str().is_empty(), "--data FOLDER is needed: the folder prepare.py has written");
    Ok(options)
}

/// The binary of the same build as this tool.
fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("freshet");
    ensure!(path.is_file(), "{} is missing; build it with `cargo build --package freshet`", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        assert!(parse(&["--data", "x", "--exit"]).unwrap().exit);
        assert!(parse(&["--kafka", "--data", "x"]).unwrap().kafka);
        assert!(parse(&["--exit"]).is_err());
        assert!(parse(&["--data"]).is_err());
        assert!(parse(&["--data", "x", "--days"]).is_err());
    }
}
