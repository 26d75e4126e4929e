//! What the node says about itself: `/health`, `/api/v1/topics`, `/api/v1/groups`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use holdfast_storage::log::{Damage, Log, LogState};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::HealthSection;
use super::guard::Counters;
use crate::auth::{Auth, Operation, Principal, Resource};
use crate::live::Live;
use crate::live::census::{self, GroupCensus, TopicCensus};

pub(super) struct Api {
    pub(super) log: Log,
    pub(super) auth: Auth,
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
    let stats = log.stats();
    let mut os_topics: Vec<String> = Vec::new();
    for topic in log.topics().iter().filter(|topic| topic.is_os_durable()) {
        os_topics.push(topic.name().to_owned());
    }
    let at_start = log.damage();
    let found_at_start: u64 = at_start.iter().map(|found| u64::from(found.bytes)).sum();
    let named = |found: &Damage| format!("{} bytes at {}", found.bytes, found.position);
    let mut damage: Vec<String> = at_start.iter().map(named).collect();
    damage.extend(log.scrub_findings());
    let mut value = json!({
        "state": census::state_name(&log.state()),
        "durability": "fsync",
        // Topics whose appends are acknowledged in the page cache.
        "durability_os_topics": os_topics,
        "segments": stats.segments,
        "segments_unsealed": stats.unsealed,
        "segments_removed_total": stats.segments_removed,
        "live_bytes": stats.live_bytes,
        "dead_bytes": stats.sealed_bytes.saturating_sub(stats.live_bytes),
        "relocated_bytes_total": stats.relocated_bytes,
        "compacted_records_total": stats.compacted_records,
        "in_flight_bytes": stats.in_flight_bytes,
        "in_flight_bytes_max": stats.in_flight_bytes_max,
        "memory_bytes_max": stats.memory_bytes_max,
        "producers": stats.producers,
        "producers_forgotten_total": stats.producers_forgotten,
        "scrubbed_bytes_total": stats.scrubbed_bytes,
        "damaged_bytes": stats.damaged_bytes + found_at_start,
        "damage": damage,
        "disk_used_bytes": stats.disk_used_bytes,
        "disk_free_bytes": stats.disk_free_bytes,
        "disk_reserve_bytes": stats.disk_reserve_bytes,
        "disk_bytes_max": stats.disk_bytes_max,
        "disk_refusals_total": stats.disk_refusals,
    });
    let reason = match log.state() {
        LogState::Failed { reason }
        | LogState::Unwritable { reason }
        | LogState::Full { reason } => Some(reason),
        LogState::Accepting | LogState::Closed => None,
    };
    if let (Some(reason), Some(fields)) = (reason, value.as_object_mut()) {
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
        "tls_refused_total": read(&counters.tls_refused),
        "requests_total": read(&counters.requests),
        "client_errors_total": read(&counters.client_errors),
        "server_errors_total": read(&counters.server_errors),
        "denied_total": read(&counters.denied),
        "panics_total": read(&counters.panics),
    })
}

/// Those that the asker may describe.
pub(super) async fn topics(
    State(api): State<Arc<Api>>,
    Extension(asker): Extension<Principal>,
) -> Json<Vec<TopicCensus>> {
    let mut topics = census::topics(&api.log);
    topics.retain(|topic| api.may_describe(&asker, Resource::topic(&topic.name)));
    Json(topics)
}

/// Those that the asker may describe, with those of their topics of which that is true, too.
pub(super) async fn groups(
    State(api): State<Arc<Api>>,
    Extension(asker): Extension<Principal>,
) -> Json<Vec<GroupCensus>> {
    let mut groups = census::groups(&api.log);
    groups.retain(|group| api.may_describe(&asker, Resource::group(&group.group)));
    for group in &mut groups {
        group
            .topics
            .retain(|part| api.may_describe(&asker, Resource::topic(&part.topic)));
        group.lag = group.topics.iter().map(|part| part.lag).sum();
    }
    Json(groups)
}

impl Api {
    fn may_describe(&self, asker: &Principal, resource: Resource<'_>) -> bool {
        self.auth.authorize(asker, Operation::Describe, resource)
    }
}
