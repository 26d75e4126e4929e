//! `POST /speed` (system 2): one speed event, appended to `speed-events` keyed by its sensor.
//!
//! **Owns** the request and response shapes. **May not know** tokens: whoever mounts this router
//! puts the authentication in front. The 202 leaves after the event is durable; 400 means that the
//! body is no JSON object, 422 that a field is absent or out of bounds.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use holdfast_storage::log::{Log, Record};
use holdfast_storage::telemetry::SPEED_KIND;
use serde_json::json;

use super::RouteRight;
use super::telemetry::{Refusal, client_of, now_ms, partition_of, whole};
use crate::auth::{Operation, Principal};
use crate::pipelines::telemetry::SPEED_TOPIC;
use crate::pipelines::telemetry::record::{header, text_header};
use crate::pipelines::telemetry::speed::{self, SpeedError};
use crate::pipelines::telemetry::timestamps::rfc3339;

/// Largest body of `POST /speed`.
pub const SPEED_BODY_BYTES_MAX: usize = 16 * 1024;

/// What access rules are asked for the route.
pub const RIGHT: RouteRight = RouteRight {
    path: "/speed",
    operation: Operation::Write,
    topic: SPEED_TOPIC,
};

/// What the endpoint needs; clones share it.
#[derive(Clone)]
pub struct SpeedState {
    log: Log,
}

impl SpeedState {
    pub fn new(log: Log) -> SpeedState {
        SpeedState { log }
    }
}

/// The route, without authentication.
pub fn router(state: SpeedState) -> Router {
    Router::new()
        .route(
            "/speed",
            post(accept).layer(DefaultBodyLimit::max(SPEED_BODY_BYTES_MAX)),
        )
        .with_state(state)
}

async fn accept(
    State(state): State<SpeedState>,
    principal: Option<Extension<Principal>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = whole(body, SPEED_BODY_BYTES_MAX)?;
    let now_ms = now_ms();
    let reading = match speed::judge(&body, now_ms) {
        Ok(reading) => reading,
        Err(SpeedError::NotAnObject(cause)) => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("the body is not a speed event: {cause}"),
            ));
        }
        Err(SpeedError::Fields(fields)) => {
            let sentence = fields.values().cloned().collect::<Vec<_>>().join("; ");
            let answer = Json(json!({ "error": sentence, "fields": fields }));
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, answer).into_response());
        }
    };
    let key = Bytes::from(reading.sensor_id);
    let record = Record {
        timestamp_ms: now_ms,
        value: Some(body),
        headers: vec![
            text_header(header::KIND, SPEED_KIND),
            text_header(header::RECEIVED_AT, rfc3339(now_ms).unwrap_or_default()),
            text_header(header::HTTP_CLIENT, client_of(principal.as_ref())),
        ],
        key: Some(key.clone()),
    };
    let partition = partition_of(&state.log, SPEED_TOPIC, Some(&key))?;
    state.log.append(&partition, &[record]).await?.await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "status": "accepted" }))).into_response())
}
