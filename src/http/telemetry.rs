//! The telemetry endpoints of the HTTP door (system 3): `POST /ingest`, `GET /topics/summary`,
//! `GET /invalid/recent`.
//!
//! **Owns** their request and response shapes. **May not know** tokens: whoever mounts this router
//! puts the authentication in front and leaves the [`Principal`] in the request's extensions.
//!
//! `/ingest` answers with the verdicts of the pipeline's own validator and appends every record to
//! `telemetry.raw`, rejected ones included; the pipeline remains the authority on what is stored.
//! The answer leaves after everything is durable. A body that is no batch at all is refused with
//! 400 and kept in `telemetry.dlq`.

mod batch;
mod recent;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_storage::log::{AppendError, Log, Partition, Record};
use holdfast_storage::telemetry::{RecordKey, SeenRecords, StoreError, TelemetryReader};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinError;

use super::RouteRight;
use crate::auth::{Operation, Principal};
use crate::pipelines::telemetry::record::{self, header, text_header};
use crate::pipelines::telemetry::rules::{self, code};
use crate::pipelines::telemetry::{CLEANED_TOPIC, DLQ_TOPIC, RAW_TOPIC};
use crate::pipelines::telemetry::{Handle, Rules, TelemetryConfig};
use batch::{BodyError, Judgement};
use recent::RecentRecords;

/// Largest body of `POST /ingest`.
pub const INGEST_BODY_BYTES_MAX: usize = 4 << 20;
/// Most records of one `POST /ingest`.
pub const INGEST_RECORDS_MAX: usize = 10_000;
/// What access rules are asked for the routes.
pub const RIGHTS: [RouteRight; 3] = [
    RouteRight {
        path: "/ingest",
        operation: Operation::Write,
        topic: RAW_TOPIC,
    },
    RouteRight {
        path: "/topics/summary",
        operation: Operation::Read,
        topic: CLEANED_TOPIC,
    },
    RouteRight {
        path: "/invalid/recent",
        operation: Operation::Read,
        topic: DLQ_TOPIC,
    },
];
/// Rejected records of a page where the client names no number.
const INVALID_LIMIT_DEFAULT: usize = 50;

/// What the endpoints need; clones share it.
#[derive(Clone)]
pub struct TelemetryState {
    log: Log,
    rules: Arc<Rules>,
    store: Option<Store>,
    recent: Arc<RecentRecords>,
}

/// What a running pipeline lends.
#[derive(Clone)]
struct Store {
    reader: TelemetryReader,
    seen: SeenRecords,
}

impl TelemetryState {
    /// Over the log and a running pipeline.
    pub fn new(log: Log, pipeline: &Handle) -> TelemetryState {
        let store = Store {
            reader: pipeline.reader(),
            seen: pipeline.seen(),
        };
        TelemetryState {
            log,
            rules: pipeline.rules(),
            store: Some(store),
            recent: Arc::default(),
        }
    }

    /// Where the pipeline is switched off: `/ingest` judges and appends for whoever takes its place,
    /// and the questions about the store are answered with 503.
    pub fn without_pipeline(log: Log, config: &TelemetryConfig) -> TelemetryState {
        TelemetryState {
            log,
            rules: Arc::new(Rules::new(config)),
            store: None,
            recent: Arc::default(),
        }
    }

    fn reader(&self) -> Result<TelemetryReader, Refusal> {
        let store = self.store.as_ref().ok_or_else(|| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the telemetry pipeline is switched off on this node",
            )
        })?;
        Ok(store.reader.clone())
    }

    fn seen(&self, key: RecordKey) -> bool {
        self.store
            .as_ref()
            .is_some_and(|store| store.seen.contains(key))
    }
}

/// The routes, without authentication.
pub fn router(state: TelemetryState) -> Router {
    Router::new()
        .route(
            "/ingest",
            post(ingest).layer(DefaultBodyLimit::max(INGEST_BODY_BYTES_MAX)),
        )
        .route("/topics/summary", get(topics_summary))
        .route("/invalid/recent", get(invalid_recent))
        .with_state(state)
}

/// An answer that is no success: a status and one sentence.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    sentence: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Refusal {
        Refusal {
            status,
            sentence: sentence.into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.sentence }))).into_response()
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        tracing::error!(%error, "an HTTP request could not be appended to the log");
        match error {
            AppendError::Storage(_) => Refusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "the log cannot store anything at present",
            ),
            AppendError::TooLarge { .. } => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            _ => Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the log takes no records at present",
            ),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        tracing::error!(%error, "the telemetry store could not be read");
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the telemetry store cannot be read at present",
        )
    }
}

/// The body, or why it did not arrive whole.
pub(super) fn whole(
    body: Result<Bytes, BytesRejection>,
    bytes_max: usize,
) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body exceeds {bytes_max} bytes"),
        ),
        status => Refusal::new(status, rejection.body_text()),
    })
}

/// Who sent the request, as a header of its records.
pub(super) fn client_of(principal: Option<&Extension<Principal>>) -> String {
    let named = principal.filter(|principal| !principal.is_anonymous());
    named
        .map_or("anonymous", |principal| principal.name())
        .to_owned()
}

/// A partition of a topic that its pipeline made at start.
pub(super) fn partition_of(
    log: &Log,
    topic: &str,
    key: Option<&[u8]>,
) -> Result<Arc<Partition>, Refusal> {
    let topic = log.topic(topic).ok_or_else(|| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("topic {topic} does not exist at present"),
        )
    })?;
    Ok(Arc::clone(topic.partition_for(key)))
}

pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

async fn ingest(
    State(state): State<TelemetryState>,
    principal: Option<Extension<Principal>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = whole(body, INGEST_BODY_BYTES_MAX)?;
    let client = client_of(principal.as_ref());
    let now_ms = now_ms();
    let judgement = match judge(&state, body.clone(), client.clone(), now_ms).await? {
        Ok(judgement) => judgement,
        Err(BodyError::TooMany(records)) => {
            let sentence =
                format!("{records} records exceed the {INGEST_RECORDS_MAX} of one batch");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence));
        }
        Err(BodyError::Malformed(sentence)) => {
            keep_malformed(&state, body, &client, &sentence, now_ms).await?;
            return Err(Refusal::new(StatusCode::BAD_REQUEST, sentence));
        }
    };
    let Judgement {
        records,
        answer,
        reserved,
    } = judgement;
    let appended = append(&state, records).await;
    if appended.is_err() {
        // What is not in the log was not seen: the client's retry is no duplicate.
        state.recent.forget(&reserved);
    }
    appended?;
    Ok(Json(answer).into_response())
}

/// A large batch costs tens of milliseconds: not on a thread that serves sockets.
async fn judge(
    state: &TelemetryState,
    body: Bytes,
    client: String,
    now_ms: i64,
) -> Result<Result<Judgement, BodyError>, Refusal> {
    let state = state.clone();
    joined(tokio::task::spawn_blocking(move || batch::judge(&state, &body, &client, now_ms)).await)
}

async fn append(state: &TelemetryState, records: Vec<Record>) -> Result<(), Refusal> {
    if records.is_empty() {
        return Ok(());
    }
    let mut placed = Vec::with_capacity(records.len());
    for record in records {
        placed.push((
            partition_of(&state.log, RAW_TOPIC, record.key.as_deref())?,
            record,
        ));
    }
    state.log.append_all(placed).await?.await?;
    Ok(())
}

/// The original bytes of a body that is no batch, with the reason.
async fn keep_malformed(
    state: &TelemetryState,
    body: Bytes,
    client: &str,
    sentence: &str,
    now_ms: i64,
) -> Result<(), Refusal> {
    let original = Record {
        timestamp_ms: now_ms,
        key: None,
        value: Some(body),
        headers: vec![text_header(header::HTTP_CLIENT, client)],
    };
    let errors = [rules::error(code::MALFORMED_BODY, sentence)];
    let dead = record::dead_letter(&original, &errors, Vec::new(), now_ms);
    let partition = partition_of(&state.log, DLQ_TOPIC, None)?;
    state.log.append(&partition, &[dead]).await?.await?;
    Ok(())
}

async fn topics_summary(State(state): State<TelemetryState>) -> Result<Response, Refusal> {
    let reader = state.reader()?;
    let summary = blocking(move || reader.topics_summary()).await?;
    Ok(Json(summary).into_response())
}

#[derive(Deserialize)]
struct InvalidQuery {
    limit: Option<usize>,
    before: Option<i64>,
}

async fn invalid_recent(
    State(state): State<TelemetryState>,
    query: Result<Query<InvalidQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) =
        query.map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    let reader = state.reader()?;
    let limit = query.limit.unwrap_or(INVALID_LIMIT_DEFAULT);
    let page = blocking(move || reader.invalid_recent(limit, query.before)).await?;
    Ok(Json(page).into_response())
}

async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    Ok(joined(tokio::task::spawn_blocking(ask).await)??)
}

fn joined<T>(ended: Result<T, JoinError>) -> Result<T, Refusal> {
    ended.map_err(|error| {
        tracing::error!(%error, "a blocking part of an HTTP request ended abnormally");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed")
    })
}

#[cfg(test)]
mod tests;
