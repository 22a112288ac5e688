//! The command line. In: arguments. Out: one of the commands, and its exit code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use freshet_core::Epoch;

use crate::config::{Config, Layer, log_filter};
use crate::dead_letters;
use crate::exit::{Failure, Outcome, exit_code};
use crate::explain::{ExplainOptions, Stage};
use crate::features::FeaturesOptions;
use crate::models::ModelsOptions;
use crate::node::RunOptions;
use crate::rows::RowFormat;
use crate::serve::{self, Offsets, SubmitOptions, Verb};
use crate::shell::SqlOptions;
use crate::training_set::{ExportFormat, ExportOptions, instant};

const ADDRESS: &str = "grpc://127.0.0.1:8815";
const SERVER: &str = "http://127.0.0.1:8816";

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
    /// Run a server of pipelines, each in processes of its own
    Serve(ServeArgs),
    /// Hand a pipeline to a server, which runs it from now on
    Submit(SubmitArgs),
    /// The pipelines of a server and how they fare
    Pipelines(PipelinesArgs),
    /// End a pipeline of a server with a checkpoint; it stays in the catalog
    Stop(ChangeArgs),
    /// Let a pipeline of a server write a checkpoint and read no further; what was true then is still answered
    Pause(ChangeArgs),
    /// Let a pipeline of a server go on from its checkpoint
    Resume(ResumeArgs),
    /// End a pipeline of a server and delete its state
    Drop(PipelineArgs),
    /// One generation of a pipeline, as the server starts it
    #[command(hide = true)]
    Generation(GenerationArgs),
    /// Ask a running pipeline in SQL
    Sql(SqlArgs),
    /// Look up features of a running pipeline
    #[command(subcommand)]
    Features(FeaturesCommand),
    /// Records that could not be read, and how they come in again
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
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
struct ServeArgs {
    /// Take pipelines with RUN COMMAND, which run programs of their submitter on this machine
    #[arg(long)]
    allow_commands: bool,
    /// A pipeline that has input and does not get on for so long is started again
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    stuck_after: u64,
    /// Settings file [default: freshet.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the catalog, checkpoints and logs are kept [default: ./.freshet]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where Arrow Flight listens; port 0 takes a free one [default: 127.0.0.1:8815]
    #[arg(long, value_name = "ADDR")]
    flight: Option<SocketAddr>,
    /// Where HTTP listens; port 0 takes a free one [default: 127.0.0.1:8816]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// The shared library of ONNX Runtime, for pipelines with models [default: the one of Python's onnxruntime package]
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

#[derive(Args)]
struct SubmitArgs {
    /// What the pipeline is to be called: letters, digits, _ and -
    name: String,
    /// .sql files and pipeline folders; together they are one script, which is copied. Paths in it begin here
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Fills ${NAME} in the script's string literals
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Worker threads [default: SET workers of the script, else 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Slows a replay down to this rate
    #[arg(long, value_name = "N")]
    events_per_second: Option<u64>,
    /// Memory its process may take, for example 800MiB or 2GiB; one that takes more is ended and started again [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = serve::parse_bytes)]
    memory: Option<u64>,
    /// Return at once, not when it answers
    #[arg(long)]
    no_wait: bool,
    /// Where the server's HTTP listens
    #[arg(long, default_value = SERVER)]
    server: String,
}

#[derive(Args)]
struct PipelinesArgs {
    /// Only this one
    name: Option<String>,
    /// Where the server's HTTP listens
    #[arg(long, default_value = SERVER)]
    server: String,
    #[arg(long, value_enum, default_value = "table")]
    format: RowFormat,
}

#[derive(Args)]
struct PipelineArgs {
    /// The pipeline
    name: String,
    /// Where the server's HTTP listens
    #[arg(long, default_value = SERVER)]
    server: String,
}

#[derive(Args)]
struct ChangeArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Return at once, not when it is done
    #[arg(long)]
    no_wait: bool,
}

#[derive(Args)]
struct ResumeArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Records that are not computed but become dead letters; may be given several times
    #[arg(long = "skip-offsets", value_name = "SOURCE:PARTITION:FROM-TO")]
    skips: Vec<Offsets>,
}

#[derive(Args)]
struct GenerationArgs {
    /// Only compile a submission
    #[arg(long)]
    check: bool,
    order: PathBuf,
}

#[derive(Args)]
struct SqlArgs {
    /// The statement; without one they are read from --file or standard input
    query: Option<String>,
    /// Where the pipeline's Flight listens
    #[arg(long, default_value = ADDRESS)]
    address: String,
    /// The pipeline of a server that runs several
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
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
    /// The pipeline of a server that runs several
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
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
enum DeadLettersCommand {
    /// One row per record, oldest first
    List(ListArgs),
    /// Let records come in again, as they were or corrected; those that can be read now are dead letters no more
    Replay(ReplayArgs),
    /// Write records as JSON lines, to be corrected and given to replay --from
    Export(ExportLettersArgs),
}

#[derive(Args)]
struct LettersPlace {
    /// Where the pipeline's Flight listens
    #[arg(long, default_value = ADDRESS)]
    address: String,
    /// The pipeline of a server that runs several
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
}

#[derive(Args)]
struct LettersPick {
    /// Only these, both ends included; may be given several times
    #[arg(long, value_name = "PARTITION:FROM-TO")]
    offsets: Vec<dead_letters::Range>,
    /// Only those whose reason contains this
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Args)]
struct ListArgs {
    /// The source [default: all]
    source: Option<String>,
    #[command(flatten)]
    pick: LettersPick,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,
    #[arg(long, value_enum, default_value = "table")]
    format: RowFormat,
    #[command(flatten)]
    place: LettersPlace,
}

#[derive(Args)]
struct ReplayArgs {
    /// The source
    source: String,
    #[command(flatten)]
    pick: LettersPick,
    /// Corrected records as JSON lines {"partition": 0, "offset": 7, "raw": "…"}; only these come in
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Only tell what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: LettersPlace,
}

#[derive(Args)]
struct ExportLettersArgs {
    /// The source
    source: String,
    #[command(flatten)]
    pick: LettersPick,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    place: LettersPlace,
}

impl From<LettersPlace> for dead_letters::Place {
    fn from(LettersPlace { address, pipeline }: LettersPlace) -> dead_letters::Place {
        dead_letters::Place { address, pipeline }
    }
}

impl From<LettersPick> for dead_letters::Pick {
    fn from(LettersPick { offsets, reason }: LettersPick) -> dead_letters::Pick {
        dead_letters::Pick { offsets, reason }
    }
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
            crate::node::run(RunOptions { paths, variables, keep, progress, watch, config, link: None })
        }
        Command::Serve(arguments) => start_server(arguments),
        Command::Submit(SubmitArgs { name, paths, variables, workers, events_per_second, memory, no_wait, server }) => {
            serve::submit(SubmitOptions { server, name, paths, variables, workers, events_per_second, memory_bytes: memory, no_wait })
        }
        Command::Pipelines(PipelinesArgs { name, server, format }) => serve::pipelines(&server, name.as_deref(), format),
        Command::Stop(ChangeArgs { pipeline, no_wait }) => serve::change(&pipeline.server, &pipeline.name, Verb::Stop, no_wait),
        Command::Pause(ChangeArgs { pipeline, no_wait }) => serve::change(&pipeline.server, &pipeline.name, Verb::Pause, no_wait),
        Command::Resume(ResumeArgs { change: ChangeArgs { pipeline, no_wait }, skips }) => {
            serve::change(&pipeline.server, &pipeline.name, Verb::Resume(skips), no_wait)
        }
        Command::Drop(PipelineArgs { name, server }) => serve::drop_pipeline(&server, &name),
        Command::Generation(GenerationArgs { check: true, order }) => serve::check(&order),
        Command::Generation(GenerationArgs { check: false, order }) => serve::run_generation(&order),
        Command::Sql(SqlArgs { query, address, pipeline, file, format }) => crate::shell::run(SqlOptions { query, address, pipeline, file, format }),
        Command::Features(FeaturesCommand::Get(FeaturesArgs { service, keys, address, pipeline, mode, as_of, format })) => {
            crate::features::get(FeaturesOptions { service, keys, address, pipeline, mode, as_of, format })
        }
        Command::DeadLetters(command) => dead_letters_of(command),
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

fn dead_letters_of(command: DeadLettersCommand) -> Outcome {
    match command {
        DeadLettersCommand::List(ListArgs { source, pick, limit, format, place }) => {
            dead_letters::list(&dead_letters::ListOptions { place: place.into(), source, pick: pick.into(), format, limit })
        }
        DeadLettersCommand::Replay(ReplayArgs { source, pick, from, dry_run, place }) => {
            dead_letters::replay(&dead_letters::ReplayOptions { place: place.into(), source, pick: pick.into(), from, dry_run })
        }
        DeadLettersCommand::Export(ExportLettersArgs { source, pick, out, place }) => {
            dead_letters::export(&dead_letters::ExportOptions { place: place.into(), source, pick: pick.into(), out })
        }
    }
}

fn start_server(arguments: ServeArgs) -> Outcome {
    let ServeArgs { allow_commands, stuck_after, config, data_dir, flight, http, onnxruntime } = arguments;
    let flags = Layer { data_dir, flight, http, onnxruntime, ..Layer::default() };
    let config = Config::load(config.as_deref(), flags).map_err(Failure::wrong)?;
    serve::serve(serve::options(config, allow_commands, stuck_after)?)
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
