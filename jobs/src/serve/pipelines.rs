//! All pipelines of a server. In: what operators ask for by name. Out: what they are shown, or why not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Result;
use tonic::Status;

use crate::serve::generation::Checked;
use crate::serve::keeper::{Common, Handle, Shown};
use crate::serve::machine::{Desired, Event, Phase, Record};
use crate::serve::order::Submission;
use crate::serve::process;

/// Pipelines of one server: each is a process with threads and memory of its own.
const PIPELINES_MAX: usize = 256;

pub struct Pipelines {
    common: Arc<Common>,
    allow_commands: bool,
    /// Where drafts of submissions lie while they are checked.
    drafts: PathBuf,
    all: RwLock<BTreeMap<String, Arc<Handle>>>,
    /// One change of the list at a time.
    changing: tokio::sync::Mutex<()>,
}

/// Why a request is refused.
#[derive(Debug)]
pub enum Refusal {
    /// Fix the request.
    Invalid(String),
    Unknown(String),
    /// The pipeline is not in a state for that.
    Conflict(String),
    Forbidden(String),
    Failed(String),
}

impl Pipelines {
    /// Starts every pipeline of the catalog as the operators left it. Errors: the catalog cannot be read.
    pub fn open(common: Arc<Common>, allow_commands: bool, drafts: PathBuf) -> Result<Pipelines> {
        let records = common.catalog.load()?;
        let handles = records.into_iter().map(|record| (record.submission.name.clone(), Arc::new(Handle::start(record, common.clone()))));
        let all = RwLock::new(handles.collect());
        Ok(Pipelines { common, allow_commands, drafts, all, changing: tokio::sync::Mutex::new(()) })
    }

    pub fn shown(&self) -> Vec<Shown> {
        self.handles().values().map(|handle| handle.shown()).collect()
    }

    pub fn one(&self, name: &str) -> Result<Shown, Refusal> {
        self.handle(name).map(|handle| handle.shown())
    }

    /// Compiles it first; what does not compile changes nothing. The warnings of the compiler come back.
    pub async fn submit(&self, submission: Submission) -> Result<(Shown, Vec<String>), Refusal> {
        submission.check().map_err(|error| Refusal::Invalid(format!("{error:#}")))?;
        let _one_at_a_time = self.changing.lock().await;
        let name = submission.name.clone();
        if let Some(taken) = self.handles().get(&name) {
            return Err(Refusal::Conflict(taken.differs(&submission)));
        }
        if self.handles().len() >= PIPELINES_MAX {
            return Err(Refusal::Conflict(format!("there are {PIPELINES_MAX} pipelines already; drop one first")));
        }
        let checked = process::check(&submission, &self.drafts).await.map_err(|error| Refusal::Failed(format!("{error:#}")))?;
        let Checked { error, warnings, commands } = checked;
        if let Some(error) = error {
            return Err(Refusal::Invalid(error));
        }
        if let (Some(job), false) = (commands.first(), self.allow_commands) {
            return Err(Refusal::Forbidden(format!(
                "retraining job {job} runs a command on this machine; start the server with --allow-commands if whoever can reach it may do that"
            )));
        }
        let record = Record {
            submission,
            desired: Desired::Running,
            generation: 0,
            restarts: 0,
            skips: Vec::new(),
            halt: None,
            crashes: Vec::new(),
            flight: None,
            http: None,
        };
        // A server that died while it dropped a pipeline of that name may have left its state behind.
        let cleared = self.common.catalog.remove(&name).and_then(|()| self.common.catalog.save(&record));
        cleared.map_err(|error| Refusal::Failed(format!("{error:#}")))?;
        let handle = Arc::new(Handle::start(record, self.common.clone()));
        let shown = handle.shown();
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(name, handle);
        Ok((shown, warnings))
    }

    /// Errors: why that cannot be.
    pub async fn ask(&self, name: &str, event: Event) -> Result<Shown, Refusal> {
        let handle = self.handle(name)?;
        handle.ask(event).await.map_err(|why| Refusal::Conflict(format!("pipeline {name}: {why}")))?;
        Ok(handle.shown())
    }

    /// Ends the pipeline and forgets it with its state.
    pub async fn remove(&self, name: &str) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing.lock().await;
        let handle = self.handle(name)?;
        handle.leave().await;
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.common.catalog.remove(name).map_err(|error| Refusal::Failed(format!("{error:#}")))
    }

    /// Ends every child; what the operators want stays in the catalog.
    pub async fn leave(&self) {
        let _no_more_changes = self.changing.lock().await;
        futures::future::join_all(self.handles().values().map(|handle| handle.leave())).await;
    }

    /// Where the pipeline's own Flight listens; without a name, that of the only one.
    pub fn flight_of(&self, name: Option<&str>) -> Result<SocketAddr, Status> {
        let shown = match name {
            Some(name) => self.one(name).map_err(|refusal| Status::not_found(refusal.text()))?,
            None => self.only().map_err(Status::invalid_argument)?,
        };
        shown.flight.ok_or_else(|| {
            let reason = shown.reason.map_or_else(String::new, |reason| format!(": {reason}"));
            Status::unavailable(format!("pipeline {} is {} and does not answer{reason}", shown.name, shown.state.name()))
        })
    }

    /// The pipeline of a call that names none.
    fn only(&self) -> Result<Shown, String> {
        let mut answering: Vec<Shown> = self.shown().into_iter().filter(|shown| shown.state != Phase::Stopped).collect();
        let names: Vec<&str> = answering.iter().map(|shown| shown.name.as_str()).collect();
        match names.as_slice() {
            [] => Err("no pipeline runs; submit one with freshet submit NAME PATH".to_string()),
            [_] => Ok(answering.remove(0)),
            several => {
                Err(format!("several pipelines run: {}; name one with --pipeline, or in the header {}", several.join(", "), super::proxy::HEADER))
            }
        }
    }

    pub fn flights(&self) -> Vec<SocketAddr> {
        self.shown().into_iter().filter_map(|shown| shown.flight).collect()
    }

    fn handle(&self, name: &str) -> Result<Arc<Handle>, Refusal> {
        let handles = self.handles();
        handles.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = handles.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there is none yet".to_string() } else { format!("known: {}", known.join(", ")) };
            Refusal::Unknown(format!("there is no pipeline {name}; {known}"))
        })
    }

    fn handles(&self) -> BTreeMap<String, Arc<Handle>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Refusal {
    pub fn text(&self) -> &str {
        match self {
            Refusal::Invalid(text) | Refusal::Unknown(text) | Refusal::Conflict(text) | Refusal::Forbidden(text) | Refusal::Failed(text) => text,
        }
    }
}
