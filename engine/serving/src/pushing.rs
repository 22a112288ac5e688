//! Rows of clients on their way into the pipeline, the same for DoPut, Flight SQL ingest and HTTP. In: a source's name and rows. Out: where
//! they stand, as every answer says it.

use std::sync::Arc;

use freshet_core::{Error, Ingress, PushSource, Pushed, Replay, Result};
use serde_json::{Value, json};

/// The pipeline's push sources, or none, and the way back for dead letters.
#[derive(Clone, Default)]
pub struct Doors {
    ingress: Option<Arc<dyn Ingress>>,
    replay: Option<Arc<dyn Replay>>,
}

impl Doors {
    pub fn new(ingress: Option<Arc<dyn Ingress>>, replay: Option<Arc<dyn Replay>>) -> Doors {
        Doors { ingress, replay }
    }

    /// Where dead letters come in again.
    pub fn replay(&self) -> Option<Arc<dyn Replay>> {
        self.replay.clone()
    }

    pub fn sources(&self) -> Vec<PushSource> {
        self.ingress.as_ref().map_or_else(Vec::new, |ingress| ingress.sources())
    }

    pub fn are_none(&self) -> bool {
        self.sources().is_empty()
    }

    /// Errors: Invalid, naming the sources there are; Unavailable where none is open for now.
    pub fn open(&self, source: &str) -> Result<(Arc<dyn Ingress>, PushSource)> {
        let mut sources = self.sources();
        let known: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
        let found = sources.iter().position(|known| known.name == source).map(|index| sources.swap_remove(index));
        match (&self.ingress, found) {
            (Some(ingress), Some(found)) => Ok((ingress.clone(), found)),
            (ingress, _) => {
                if let Some(away) = ingress.as_ref().and_then(|ingress| ingress.away()) {
                    return Err(away);
                }
                let known = if known.is_empty() { "none; CREATE SOURCE … WITH (connector = 'push')".to_string() } else { known.join(", ") };
                Err(Error::invalid(format!("there is no push source {source}; known: {known}")))
            }
        }
    }
}

/// What a client is told. `durable`: whether the rows survive the end of the process already.
pub fn pushed_json(source: &str, pushed: &Pushed) -> Value {
    json!({
        "source": source, "partition": pushed.partition, "position": pushed.position, "records": pushed.records,
        "dead_letters": pushed.dead_letters, "duplicate": pushed.duplicate, "durable": false,
    })
}
