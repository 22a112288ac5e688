//! `POST /get-online-features`, as Feast's feature server answers it. In: a feature service and lists of entities. Out: for each feature its
//! values, statuses and event times in the order of the entities, and the one point (q, s) all of them were read at.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use freshet_core::Error;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::ask::{FeaturesAsk, Mode, mode_name};
use crate::columns::{from_json, to_json};
use crate::error::HttpError;
use crate::http::HttpState;
use crate::http::status::event_date;
use crate::limits::HTTP_BODY_BYTES_MAX;
use crate::lookup::{LookupAnswer, LookupService};
use crate::positions::Positions;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlineRequest {
    feature_service: Option<String>,
    /// Feast's other form, which names features one by one.
    features: Option<Value>,
    #[serde(default)]
    entities: Map<String, Value>,
    /// Feast's place for request columns.
    #[serde(default)]
    request_context: Map<String, Value>,
    /// Accepted for Feast's clients; output names are unique already.
    #[serde(default)]
    #[allow(dead_code)]
    full_feature_names: bool,
    mode: Option<Mode>,
    as_of: Option<u64>,
    /// What the client has written and wants to see.
    #[serde(default)]
    min_position: Positions,
    /// How far a fresh answer may be behind.
    max_staleness_ms: Option<u64>,
}

pub async fn get_online_features(State(state): State<HttpState>, body: Result<Bytes, BytesRejection>) -> Result<Json<Value>, HttpError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid", format!("the body has at most {HTTP_BODY_BYTES_MAX} bytes; split the request"))
        }
        status => HttpError::new(status, "invalid", rejection.body_text()),
    })?;
    let request: OnlineRequest = serde_json::from_slice(&body).map_err(|error| Error::invalid(format!("the request is not understood: {error}")))?;
    if request.features.is_some() {
        return Err(Error::invalid("name a feature_service instead of single features").into());
    }
    let name = request.feature_service.ok_or_else(|| Error::invalid("feature_service is missing"))?;
    let service = state.lookups.service(&name)?;
    let ask = FeaturesAsk {
        mode: request.mode,
        as_of: request.as_of,
        min_position: request.min_position,
        max_staleness_ms: request.max_staleness_ms,
        ..FeaturesAsk::of(&name)
    };
    let mut given = request.entities;
    given.extend(request.request_context);
    let rows = from_json(&given, &service.input)?;
    let mode = ask.read_mode()?;
    state.lookups.wait_for(&ask.min_position, ask.max_staleness_ms, &service).await?;
    let answer = state.lookups.answer(&service, &rows, mode, false)?;
    Ok(Json(feast_json(&service, &given, rows.num_rows(), &answer)?))
}

/// Entities first, then the output list, as Feast orders them.
fn feast_json(service: &LookupService, given: &Map<String, Value>, rows: usize, answer: &LookupAnswer) -> Result<Value, Error> {
    let output = &answer.rows;
    let mut names = Vec::new();
    let mut results = Vec::new();
    for field in service.input.fields().iter().filter(|field| output.column_by_name(field.name()).is_none()) {
        let values = match given.get(field.name()) {
            Some(Value::Array(list)) => list.clone(),
            Some(single) => vec![single.clone()],
            None => Vec::new(),
        };
        let statuses: Vec<&str> = values.iter().map(|value| if value.is_null() { "NULL_VALUE" } else { "PRESENT" }).collect();
        results.push(json!({ "values": values, "statuses": statuses, "event_timestamps": vec![Value::Null; rows] }));
        names.push(field.name().clone());
    }
    for (index, field) in service.output.fields().iter().enumerate() {
        let statuses: Vec<&str> = answer.detail.statuses[index].iter().map(|status| status.name()).collect();
        let times: Vec<Option<String>> = answer.detail.event_times[index].iter().map(|time| time.map(event_date)).collect();
        results.push(json!({ "values": to_json(output.column(index))?, "statuses": statuses, "event_timestamps": times }));
        names.push(field.name().clone());
    }
    let point = answer.detail.point;
    Ok(json!({
        "metadata": {
            "feature_names": names, "mode": mode_name(answer.mode), "q": point.q.0, "s": point.s.0,
            "lag_ms": answer.lag_ms, "durable_epoch": answer.detail.durable_epoch.map(|epoch| epoch.0),
        },
        "results": results,
    }))
}
