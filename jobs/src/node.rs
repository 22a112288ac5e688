//! `freshet run`: compile, bind, start the engine, serve, wait, stop in reverse. In: scripts and settings. Out: an exit code.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use freshet_connectors::{BuiltIn, PipelineConnectors, Pushes};
use freshet_core::{Connectors, Control, Error, Reader};
use freshet_engine::{Engine, EngineConfig};
use freshet_serving::{Listeners, Queries, Server};
use freshet_sql::ast::Stmt;
use freshet_sql::{Program, compile};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::exit::{Failure, INTERRUPTED, Outcome, TERMINATED, fails_on_bad_data};
use crate::progress::{Progress, resumption, summary};
use crate::queries::PipelineQueries;
use crate::retrain::{Place, kill_trainers, open_control};
use crate::rows::{RowFormat, format_rows};
use crate::scripts::{Scripts, pipeline_folder, read_scripts, variables};
use crate::serve::{Link, Told};
use crate::watch::Watched;

/// DESIGN: exit within 10 s of a signal; the servers need a part of it.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(9);

/// How long rows that clients have pushed may take to be read at the end; a step takes milliseconds.
const PUSHED_READ_MAX: Duration = Duration::from_secs(2);

/// How long the waiting thread goes without looking whether it should stop.
const WATCH_EVERY: Duration = Duration::from_millis(50);

pub struct RunOptions {
    pub paths: Vec<PathBuf>,
    pub variables: Vec<String>,
    pub keep: bool,
    pub progress: bool,
    /// A query whose row ends the line of progress.
    pub watch: Option<String>,
    pub config: Config,
    /// The server whose child this process is.
    pub link: Option<Arc<Link>>,
}

/// Runs a pipeline in this process until it is done or asked to stop.
pub fn run(options: RunOptions) -> Outcome {
    let scripts = read_scripts(&options.paths).map_err(Failure::wrong)?;
    let variables = variables(&options.variables).map_err(Failure::wrong)?;
    run_scripts(&scripts, &variables, &options)
}

/// As `run`, with the scripts at hand.
pub fn run_scripts(scripts: &Scripts, variables: &BTreeMap<String, String>, options: &RunOptions) -> Outcome {
    let program = compile(&scripts.scripts, variables, &BuiltIn).map_err(Failure::wrong)?;
    program.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    program.explains.iter().filter(|_| options.link.is_none()).for_each(|explain| println!("-- {}\n{}", explain.title, explain.text));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime").map_err(Failure::failed)?;
    let folder = pipeline_folder(&scripts.scripts, variables);
    let outcome = runtime.block_on(serve(&scripts.name, folder, program, options));
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn serve(name: &str, folder: PathBuf, program: Program, options: &RunOptions) -> Outcome {
    // Handlers first: a signal during the start must not kill what is half done.
    let link = options.link.as_deref();
    let mut signals = Signals::open(link).map_err(Failure::failed)?;
    let listeners = bind(&options.config, link).await.map_err(Failure::wrong)?;
    let (flight, http) = (listeners.flight(), listeners.http());
    let strict = fails_on_bad_data(&program.plan);
    let selects = if link.is_none() { selects(&program) } else { Vec::new() };
    let tables = program.tables.clone();
    let started = Instant::now();
    let connectors = PipelineConnectors::new(Some(&options.config.data_dir));
    let pushes = connectors.pushes();
    if link.is_some_and(Link::only_serves) {
        pushes.stay_away("the pipeline takes no rows: it is paused, or cannot go on; try again once it has been resumed");
    }
    let engine = tokio::select! {
        started = start_engine(program, options, connectors, folder, format!("grpc://{flight}")) => started?,
        // Nothing has been promised yet; what the last life left stands.
        code = signals.next() => {
            eprintln!("stopped during the start");
            exit_at_once(code)
        }
    };
    let reader = engine.reader();
    let queries = Arc::new(PipelineQueries::new(reader.clone()).with_tables(tables, pushes.clone()));
    let watched = Watched::open(reader.as_ref(), queries.clone(), options.watch.as_deref()).map_err(Failure::wrong)?;
    let server = Server::start_with(listeners, name, reader.clone(), queries.clone(), Some(pushes.clone()), Some(engine.replayer()));
    match link {
        None => announce(&format!("Flight  grpc://{flight}\nHTTP    http://{http}")),
        Some(link) => link.ready(flight, http, reader.clone()),
    }
    if let Some(line) = resumption(&reader.status(), &options.config.data_dir) {
        eprintln!("{line}");
    }
    let watch = Watch::start(engine);
    let mut progress = Progress::new(options.progress, watched);
    let (engine, end) = supervise(watch, &mut signals, progress.as_mut(), &reader, &server, (options, &pushes), || {
        finished(&selects, queries.as_ref(), &reader, started)
    })
    .await?;
    if let Some(progress) = &progress {
        progress.end();
    }
    server.shutdown().await;
    if matches!(end, End::Signal(_)) {
        read_pushed(&pushes).await;
    }
    let stopped = stop_engine(engine, &mut signals).await;
    match end {
        End::Failed(error) => Err(Failure::run(error, strict)),
        End::Finished => stopped.map_err(|error| Failure::run(error, strict)).map(|()| 0),
        End::Signal(code) => stopped.map_err(|error| Failure::run(error, strict)).map(|()| code),
    }
}

/// A child of the server listens where the generation before did, or where there is room.
async fn bind(config: &Config, link: Option<&Link>) -> freshet_core::Result<Listeners> {
    match Listeners::bind(config.flight, config.http).await {
        Err(_) if link.is_some() => Listeners::bind(([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], 0).into()).await,
        bound => bound,
    }
}

/// What clients were told was taken must be in the last checkpoint.
async fn read_pushed(pushes: &Arc<Pushes>) {
    let pushes = pushes.clone();
    let drained = tokio::task::spawn_blocking(move || pushes.drain(PUSHED_READ_MAX)).await;
    if !drained.unwrap_or(false) {
        eprintln!("warning: rows that clients pushed were not read within {} s; they must be sent again", PUSHED_READ_MAX.as_secs());
    }
}

async fn start_engine(
    program: Program,
    options: &RunOptions,
    connectors: PipelineConnectors,
    folder: PathBuf,
    flight: String,
) -> Result<Engine, Failure> {
    let (program, config, link) = (Arc::new(program), options.config.clone(), options.link.clone());
    let workers = config.workers.or(program.settings.workers).unwrap_or(1);
    let mut settings =
        EngineConfig { workers, data_dir: Some(config.data_dir.clone()), events_per_second: config.events_per_second, ..EngineConfig::default() };
    let starting = tokio::task::spawn_blocking(move || {
        let connectors: Arc<dyn Connectors> = match &link {
            None => Arc::new(connectors),
            Some(link) => {
                link.wait_for_predecessor();
                Arc::new(link.prepare(&program.plan, &mut settings, Arc::new(connectors)).map_err(|error| Error::unavailable(format!("{error:#}")))?)
            }
        };
        let place = Place { data_dir: config.data_dir.clone(), folder, flight, workers };
        let control = control(&program, &config, &place)?;
        Engine::start_with(program.plan.clone(), settings, connectors.as_ref(), control)
    });
    starting.await.map_err(|error| Failure::failed(anyhow!("the engine did not start: {error}")))?.map_err(Failure::start)
}

/// The control plane of a program, for [`Engine::start_with`]; None if the program has no models. Errors: Invalid without ONNX Runtime,
/// Unavailable.
pub fn control(program: &Arc<Program>, config: &Config, place: &Place) -> freshet_core::Result<Option<Box<dyn Control>>> {
    if program.plan.models.is_empty() {
        return Ok(None);
    }
    // Only here: a pipeline without models needs no ONNX Runtime.
    let runtime = Arc::new(crate::onnx::runtime(config)?);
    open_control(program, runtime, place).map(Some)
}

/// Why the wait is over.
enum End {
    Finished,
    Failed(Error),
    Signal(u8),
}

/// Waits for the end of the sources, a failure or a signal, and shows progress meanwhile. With `keep` only the last two count.
async fn supervise(
    mut watch: Watch,
    signals: &mut Signals,
    mut progress: Option<&mut Progress>,
    reader: &Arc<dyn Reader>,
    server: &Server,
    (options, pushes): (&RunOptions, &Arc<Pushes>),
    on_finished: impl Fn() -> Result<(), Failure>,
) -> Result<(Engine, End), Failure> {
    let every = progress.as_ref().map_or(Duration::from_secs(3600), |progress| progress.every());
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            asked = signals.asked() => {
                let (engine, outcome) = watch.stop().await?;
                return match (asked, outcome) {
                    (Asked::End(code), _) => Ok((engine, End::Signal(code))),
                    (Asked::Pause, Err(error)) => Ok((engine, End::Failed(error))),
                    (Asked::Pause, Ok(())) => {
                        read_pushed(pushes).await;
                        pause(engine, signals, options).await
                    }
                };
            }
            ended = &mut watch.thread => {
                let (engine, outcome) = joined(ended)?;
                if let Err(error) = outcome {
                    return Ok((engine, End::Failed(error)));
                }
                if let Some(progress) = progress.as_deref_mut() {
                    progress.show(&reader.status(), server.events_per_second());
                    progress.end();
                }
                on_finished()?;
                if !options.keep {
                    return Ok((engine, End::Finished));
                }
                eprintln!("the sources have ended; the addresses stay up until Ctrl-C");
                return match signals.asked().await {
                    Asked::End(code) => Ok((engine, End::Signal(code))),
                    Asked::Pause => pause(engine, signals, options).await,
                };
            }
            _ = ticks.tick() => if let Some(progress) = progress.as_deref_mut() {
                progress.show(&reader.status(), server.events_per_second());
            },
        }
    }
}

/// Writes a checkpoint and reads no further; what was true then is answered until the end.
async fn pause(engine: Engine, signals: &mut Signals, options: &RunOptions) -> Result<(Engine, End), Failure> {
    let halting = tokio::task::spawn_blocking(move || {
        let outcome = engine.halt();
        (engine, outcome)
    });
    let (engine, outcome) = joined(halting.await)?;
    if let Err(error) = outcome {
        return Ok((engine, End::Failed(error)));
    }
    options.link.iter().for_each(|link| link.paused());
    let code = signals.next().await;
    Ok((engine, End::Signal(code)))
}

/// The SELECTs of the script, answered on stdout once all is complete, and the summary.
fn finished(selects: &[String], queries: &dyn Queries, reader: &Arc<dyn Reader>, started: Instant) -> Result<(), Failure> {
    eprint!("{}", summary(&reader.status(), started.elapsed()));
    for sql in selects {
        let answer = queries.run(sql, None, None).with_context(|| format!("answering {sql}")).map_err(Failure::failed)?;
        let text = format_rows(&answer.schema, &answer.batches, RowFormat::Table).map_err(Failure::failed)?;
        announce(&format!("{sql}\n{text}"));
    }
    Ok(())
}

fn selects(program: &Program) -> Vec<String> {
    let queries = program.statements.iter().filter(|statement| matches!(statement.body, Stmt::Select(_)));
    queries.map(|statement| statement.text.trim().to_string()).collect()
}

/// On stdout, at once.
pub fn announce(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever reads stdout may have gone; the pipeline goes on.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A thread that waits for the engine and gives it back.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Engine, Result<(), Error>)>,
}

impl Watch {
    fn start(engine: Engine) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = tokio::task::spawn_blocking(move || {
            loop {
                match engine.wait_timeout(WATCH_EVERY) {
                    Ok(false) if !stopped.load(Ordering::Relaxed) => {}
                    outcome => return (engine, outcome.map(|_| ())),
                }
            }
        });
        Watch { stop, thread }
    }

    async fn stop(self) -> Result<(Engine, Result<(), Error>), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        joined(self.thread.await)
    }
}

fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> Result<T, Failure> {
    ended.map_err(|error| Failure::failed(anyhow!("the engine could not be watched: {error}")))
}

/// Stops the sources, closes the open step, takes a checkpoint. A second signal, or too much time, ends the process at once: the last
/// checkpoint stands, and the next start goes on from there.
async fn stop_engine(engine: Engine, signals: &mut Signals) -> Result<(), Error> {
    let stopping = tokio::task::spawn_blocking(move || engine.shutdown());
    tokio::select! {
        stopped = tokio::time::timeout(ENGINE_STOP_MAX, stopping) => match stopped {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(Error::internal(format!("the engine did not stop cleanly: {error}"))),
            Err(_) => {
                eprintln!("error: the pipeline did not stop within {} s; the last checkpoint stands", ENGINE_STOP_MAX.as_secs());
                exit_at_once(crate::exit::FAILED)
            }
        },
        code = signals.next() => {
            eprintln!("stopped at once by a second signal; the last checkpoint stands");
            exit_at_once(code)
        }
    }
}

/// Without waiting for any thread; only the trainers end with the process, for nobody else would end them.
pub fn exit_at_once(code: u8) -> ! {
    kill_trainers();
    std::process::exit(i32::from(code))
}

/// SIGINT, SIGTERM, and the words of the server.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    told: Option<mpsc::Receiver<Told>>,
}

/// What somebody outside wants.
enum Asked {
    /// With this exit code.
    End(u8),
    Pause,
}

impl Signals {
    fn open(link: Option<&Link>) -> anyhow::Result<Signals> {
        let open = |kind| signal(kind).context("installing signal handlers");
        let told = link.and_then(Link::told);
        Ok(Signals { interrupt: open(SignalKind::interrupt())?, terminate: open(SignalKind::terminate())?, told })
    }

    async fn asked(&mut self) -> Asked {
        let told = async {
            match &mut self.told {
                Some(told) => told.recv().await.unwrap_or(Told::Stop),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End(INTERRUPTED),
            _ = self.terminate.recv() => Asked::End(TERMINATED),
            told = told => match told {
                Told::Stop => Asked::End(0),
                Told::Pause => Asked::Pause,
            },
        }
    }

    /// The exit code of the next signal to end.
    async fn next(&mut self) -> u8 {
        loop {
            if let Asked::End(code) = self.asked().await {
                return code;
            }
        }
    }
}
