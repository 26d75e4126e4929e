//! What the live rooms show besides the log, behind interfaces, so that the gateway knows neither the
//! telemetry store nor the MQTT door.

use std::sync::Arc;

/// Quality of the telemetry and its rejected records. Calls may block on the disk; the gateway makes
/// them off the async threads, at most about twice a second and only while somebody looks.
pub trait TelemetrySource: Send + Sync + 'static {
    /// The JSON body of `GET /topics/summary`. The error is for the node's own log.
    fn summary(&self) -> Result<String, String>;
    /// The newest rejected records, newest first. The error is for the node's own log.
    fn invalid_recent(&self, limit: usize) -> Result<Vec<InvalidItem>, String>;
}

/// One rejected record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidItem {
    /// Rises by one with every rejected record.
    pub id: i64,
    /// The record as `GET /invalid/recent` lists it.
    pub json: String,
}

/// What the overview shows of the MQTT door.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct MqttSnapshot {
    pub connections: u64,
    /// Publishes received since the start.
    pub received_total: u64,
}

/// Whether the speed pipeline accepts an event: its payload, and when it arrived in Unix milliseconds.
pub type SpeedRule = Arc<dyn Fn(&[u8], i64) -> bool + Send + Sync>;

/// The sources of a gateway; a room whose source is absent does not exist.
#[derive(Clone, Default)]
pub struct Sources {
    pub telemetry: Option<Arc<dyn TelemetrySource>>,
    /// Must not block.
    pub mqtt: Option<Arc<dyn Fn() -> MqttSnapshot + Send + Sync>>,
    /// Keeps what the pipeline will refuse off the gauges. Must not block. Without it whatever names a
    /// sensor and a number is shown.
    pub speed_rule: Option<SpeedRule>,
}
