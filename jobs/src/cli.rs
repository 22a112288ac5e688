//! The command line. In: arguments. Out: one of the commands, and its exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use freshet_core::Epoch;

use crate::config::{Config, Layer, log_filter};
use crate::exit::{Failure, Outcome, exit_code};
use crate::explain::{ExplainOptions, Stage};
use crate::features::FeaturesOptions;
use crate::models::ModelsOptions;
use crate::node::RunOptions;
use crate::rows::RowFormat;
use crate::shell::SqlOptions;
use crate::training_set::{ExportFormat, ExportOptions, instant};

const ADDRESS: &str = "grpc://127.0.0.1:8815";

/// A streaming engine for the machine-learning loop: features, declared once in SQL, served while they change.
#[derive(Parser)]
#[command(name = "freshet", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline in this process and serve it
    Run(RunArgs),
    /// Ask a running pipeline in SQL
    Sql(SqlArgs),
    /// Look up features of a running pipeline
    #[command(subcommand)]
    Features(FeaturesCommand),
    /// Training sets of a pipeline
    #[command(subcommand)]
    TrainingSet(TrainingSetCommand),
    /// Versions of models and where they come from
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Show what a pipeline becomes
    Explain(ExplainArgs),
    /// Run sqllogictest files and pipeline fixtures in an embedded engine
    Test(TestArgs),
}

#[derive(Args)]
struct RunArgs {
    /// .sql files and pipeline folders; together they are one script
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Fills ${NAME} in the script's string literals
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Keep the addresses up after bounded sources have ended
    #[arg(long)]
    keep: bool,
    /// Show progress even if stderr is no terminal
    #[arg(long)]
    progress: bool,
    /// A query whose row the progress line ends with
    #[arg(long, value_name = "SQL")]
    watch: Option<String>,
    /// Settings file [default: freshet.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Layer,
}

#[derive(Args)]
struct SqlArgs {
    /// The statement; without one they are read from --file or standard input
    query: Option<String>,
    /// Where the pipeline's Flight listens
    #[arg(long, default_value = ADDRESS)]
    address: String,
    /// Read statements from this file
    #[arg(short, long, conflicts_with = "query", value_name = "FILE")]
    file: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "table")]
    format: RowFormat,
}

#[derive(Subcommand)]
enum FeaturesCommand {
    /// Features of one entity, or of several
    Get(FeaturesArgs),
}

#[derive(Args)]
struct FeaturesArgs {
    /// The feature service
    service: String,
    /// Entity and request columns of one row, as NAME=VALUE,…; again for another row. An empty value is NULL
    #[arg(long, required = true, value_name = "NAME=VALUE,…")]
    keys: Vec<String>,
    /// Where the pipeline's Flight listens
    #[arg(long, default_value = ADDRESS)]
    address: String,
    /// fresh, consistent or request_time
    #[arg(long, conflicts_with = "as_of")]
    mode: Option<String>,
    /// Read at this epoch, in milliseconds since 1970
    #[arg(long, value_name = "EPOCH")]
    as_of: Option<u64>,
    #[arg(long, value_enum, default_value = "table")]
    format: RowFormat,
}

#[derive(Subcommand)]
enum TrainingSetCommand {
    /// Compute a training set from the input history and write it to a file, without a running pipeline
    Export(ExportArgs),
}

#[derive(Args)]
struct ExportArgs {
    /// The training set
    set: String,
    /// .sql files and pipeline folders; together they are one script
    #[arg(long = "pipeline", required = true, num_args = 1.., value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Fills ${NAME} in the script's string literals
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Rows with TIME from here on: '2013-02-01 05:00:00' or milliseconds since 1970
    #[arg(long, value_name = "TIMESTAMP", value_parser = instant)]
    from: Option<Epoch>,
    /// Rows with TIME below [default: all]
    #[arg(long, value_name = "TIMESTAMP", value_parser = instant)]
    until: Option<Epoch>,
    /// Only what arrived below is known, labels included [default: everything]
    #[arg(long, value_name = "TIMESTAMP", value_parser = instant)]
    as_of: Option<Epoch>,
    /// Worker threads [default: SET workers of the script, else 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    #[arg(long, value_enum, default_value = "parquet")]
    format: ExportFormat,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// One row per version
    List(ModelsArgs),
    /// Everything about one version
    Show {
        model: String,
        /// [default: the last one]
        version: Option<u32>,
        #[command(flatten)]
        place: ModelsArgs,
    },
}

#[derive(Args)]
struct ModelsArgs {
    /// The data directory of the pipeline
    #[arg(long, value_name = "DIR", default_value = ".freshet")]
    data_dir: PathBuf,
    #[arg(long, value_enum, default_value = "table")]
    format: RowFormat,
}

#[derive(Args)]
struct ExplainArgs {
    /// .sql files and pipeline folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How far the text has come
    #[arg(long, value_enum, default_value = "plan")]
    stage: Stage,
    /// Only this view, service or sink
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Fills ${NAME} in the script's string literals
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
}

#[derive(Args)]
struct TestArgs {
    /// .slt files, pipeline folders with input/ and expected/, or folders of these
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Parses the arguments and runs the command. A wrong command line exits with 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(log_filter()).unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    exit_code(dispatch(cli.command))
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Run(arguments) => {
            let config = Config::load(arguments.config.as_deref(), arguments.settings).map_err(Failure::wrong)?;
            let RunArgs { paths, variables, keep, progress, watch, .. } = arguments;
            crate::node::run(RunOptions { paths, variables, keep, progress, watch, config })
        }
        Command::Sql(SqlArgs { query, address, file, format }) => crate::shell::run(SqlOptions { query, address, file, format }),
        Command::Features(FeaturesCommand::Get(FeaturesArgs { service, keys, address, mode, as_of, format })) => {
            crate::features::get(FeaturesOptions { service, keys, address, mode, as_of, format })
        }
        Command::TrainingSet(TrainingSetCommand::Export(ExportArgs { set, paths, variables, from, until, as_of, workers, format, out })) => {
            crate::training_set::export(ExportOptions { set, paths, variables, from, until, as_of, workers, format, out })
        }
        Command::Models(ModelsCommand::List(ModelsArgs { data_dir, format })) => crate::models::list(&ModelsOptions { data_dir, format }),
        Command::Models(ModelsCommand::Show { model, version, place: ModelsArgs { data_dir, format } }) => {
            crate::models::show(&ModelsOptions { data_dir, format }, &model, version)
        }
        Command::Explain(ExplainArgs { paths, stage, view, variables }) => crate::explain::run(ExplainOptions { paths, stage, view, variables }),
        Command::Test(TestArgs { paths }) => crate::test::run(&paths),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
