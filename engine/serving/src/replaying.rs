//! Dead letters that are to come in again, the same by Flight's action `freshet.replay` and by `POST /v1/dead-letters/{source}/replay`. In: JSON
//! that names records. Out: what has become of them, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use freshet_core::{Corrected, Error, OffsetRange, Replay, ReplayRequest, Replayed, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::HttpError;
use crate::http::HttpState;

/// The type of the Flight action.
pub const REPLAY_ACTION: &str = "freshet.replay";

/// Which dead letters, as clients say it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayAsk {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Both ends included; none: anywhere.
    pub offsets: Vec<RangeAsk>,
    /// A part of the reason.
    pub reason: Option<String>,
    /// Records as they should have been; only these come in then.
    pub corrected: Vec<CorrectedAsk>,
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeAsk {
    pub partition: u32,
    pub from: u64,
    pub to: u64,
}

/// Its bytes as text, or in hexadecimal digits where they are none. Other members, as an export has them, say nothing here.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorrectedAsk {
    #[serde(default)]
    pub partition: u32,
    pub offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_hex: Option<String>,
}

impl ReplayAsk {
    /// Errors: Invalid, naming the member.
    pub fn request(self) -> Result<ReplayRequest> {
        let offsets = self.offsets.into_iter().map(|RangeAsk { partition, from, to }| OffsetRange { partition, from, to }).collect();
        let corrected = self.corrected.into_iter().map(CorrectedAsk::record).collect::<Result<Vec<_>>>()?;
        Ok(ReplayRequest { source: self.source, offsets, reason: self.reason, corrected, dry_run: self.dry_run })
    }
}

impl CorrectedAsk {
    fn record(self) -> Result<Corrected> {
        let CorrectedAsk { partition, offset, raw, raw_hex } = self;
        let wrong = |what: &str| Error::invalid(format!("partition {partition}, offset {offset}: {what}"));
        let raw = match (raw, raw_hex) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(digits)) => from_hexadecimal(&digits).ok_or_else(|| wrong("raw_hex is no even number of hexadecimal digits"))?,
            _ => return Err(wrong("a corrected record has raw (text) or raw_hex (hexadecimal digits)")),
        };
        Ok(Corrected { partition, offset, raw })
    }
}

/// None: there is something else, or half a byte.
pub fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Waits for the pipeline's next tick, on a thread of its own. Errors: those of [`Replay`].
pub async fn replay(replay: Option<Arc<dyn Replay>>, ask: ReplayAsk) -> Result<Value> {
    let request = ask.request()?;
    let replay = replay.ok_or_else(|| Error::invalid("dead letters cannot come in again here"))?;
    let source = request.source.clone();
    let running = tokio::task::spawn_blocking(move || replay.replay(&request));
    let replayed = running.await.map_err(|error| Error::internal(format!("a replay did not end: {error}")))??;
    Ok(replayed_json(&source, &replayed))
}

/// As [`replay`], for an action's body.
pub async fn act(to: Option<Arc<dyn Replay>>, body: &[u8]) -> Result<Vec<u8>> {
    Ok(replay(to, parsed(body)?).await?.to_string().into_bytes())
}

/// As [`replay`], by HTTP. The body may be empty: all dead letters of the source then.
pub async fn post(
    State(state): State<HttpState>,
    Path(source): Path<String>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> std::result::Result<Json<Value>, HttpError> {
    let body = body.map_err(|rejection| HttpError::new(rejection.status(), "invalid", rejection.body_text()))?;
    let ask = if body.is_empty() { ReplayAsk::default() } else { parsed(&body)? };
    if !ask.source.is_empty() && ask.source != source {
        return Err(Error::invalid(format!("the path names source {source}, the body {}", ask.source)).into());
    }
    Ok(Json(replay(state.doors.replay(), ReplayAsk { source, ..ask }).await?))
}

fn parsed(body: &[u8]) -> Result<ReplayAsk> {
    serde_json::from_slice(body).map_err(|error| {
        Error::invalid(format!(
            "a replay is {{\"offsets\": [{{\"partition\", \"from\", \"to\"}}], \"reason\", \"corrected\": [{{\"partition\", \"offset\", \"raw\"}}], \
             \"dry_run\"}}: {error}"
        ))
    })
}

fn replayed_json(source: &str, replayed: &Replayed) -> Value {
    let refused = replayed
        .refused
        .iter()
        .map(|record| json!({ "partition": record.partition, "offset": record.offset, "field": record.field, "reason": record.reason }));
    json!({
        "source": source, "selected": replayed.selected, "replayed": replayed.replayed, "epoch": replayed.epoch.map(|epoch| epoch.0),
        "refused": refused.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrected_records_are_text_or_hexadecimal_digits() {
        let body =
            br#"{"source":"s","corrected":[{"offset":7,"raw":"{}","reason":"old"},{"partition":2,"offset":8,"raw_hex":"00fF"}],"dry_run":true}"#;
        let request = parsed(body).unwrap().request().unwrap();
        let raws: Vec<(u32, u64, &[u8])> = request.corrected.iter().map(|one| (one.partition, one.offset, one.raw.as_slice())).collect();
        assert_eq!(raws, [(0, 7, &b"{}"[..]), (2, 8, &[0, 255])]);
        assert!(request.dry_run && request.offsets.is_empty());
        for (body, words) in [
            (r#"{"corrected":[{"offset":1,"raw_hex":"0"}]}"#, "offset 1: raw_hex is no even number"),
            (r#"{"corrected":[{"offset":1}]}"#, "has raw (text) or raw_hex"),
        ] {
            assert!(parsed(body.as_bytes()).unwrap().request().unwrap_err().message.contains(words), "{body}");
        }
        assert!(parsed(b"{\"offset\":1}").unwrap_err().message.contains("unknown field"));
    }
}
