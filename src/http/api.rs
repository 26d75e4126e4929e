//! What the node says about itself: `/health`, `/api/v1/topics`, `/api/v1/groups`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_storage::log::{Log, LogState};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::HealthSection;
use super::guard::Counters;
use crate::live::Live;
use crate::live::census::{self, GroupCensus, TopicCensus};

pub(super) struct Api {
    pub(super) log: Log,
    pub(super) live: Live,
    pub(super) sections: Vec<HealthSection>,
    pub(super) started: Instant,
    pub(super) counters: Arc<Counters>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) connections_max: usize,
}

/// 200 while every part works, else 503 with the same body.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let (log_ok, log) = log_health(&api.log);
    let mut ok = log_ok;
    let mut body = Map::new();
    for section in &api.sections {
        let (section_ok, value) = (section.probe)();
        ok &= section_ok;
        body.insert(section.name.to_owned(), value);
    }
    body.insert("status".into(), json!(if ok { "ok" } else { "failed" }));
    body.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    body.insert("cluster_id".into(), json!(api.log.cluster_id().to_string()));
    body.insert("leader_epoch".into(), json!(api.log.leader_epoch()));
    body.insert("uptime_s".into(), json!(api.started.elapsed().as_secs()));
    body.insert("log".into(), log);
    body.insert("http".into(), door_counters(&api));
    body.insert("live".into(), api.live.counters());
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Value::Object(body))).into_response()
}

fn log_health(log: &Log) -> (bool, Value) {
    let mut value = json!({ "state": census::state_name(&log.state()), "durability": "fsync" });
    if let (LogState::Failed { reason }, Some(fields)) = (log.state(), value.as_object_mut()) {
        fields.insert("reason".into(), json!(reason));
    }
    (log.state() == LogState::Accepting, value)
}

fn door_counters(api: &Api) -> Value {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &api.counters;
    json!({
        "connections": api.connections_max.saturating_sub(api.connections.available_permits()),
        "connections_max": api.connections_max,
        "connections_total": read(&counters.connections),
        "connections_refused_total": read(&counters.connections_refused),
        "requests_total": read(&counters.requests),
        "client_errors_total": read(&counters.client_errors),
        "server_errors_total": read(&counters.server_errors),
        "panics_total": read(&counters.panics),
    })
}

pub(super) async fn topics(State(api): State<Arc<Api>>) -> Json<Vec<TopicCensus>> {
    Json(census::topics(&api.log))
}

pub(super) async fn groups(State(api): State<Arc<Api>>) -> Json<Vec<GroupCensus>> {
    Json(census::groups(&api.log))
}
