//! The node: which room starts after which, and how they stop.
//!
//! Start: log, auth, telemetry pipeline (it makes its topics), MQTT and Kafka doors, live gateway,
//! HTTP door (it shows all the others). Stop: the doors first, so that nothing new is accepted; then
//! the pipeline and the gateway; the log last, which makes everything acknowledged durable and seals
//! its head.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_storage::log::{Log, OpenError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, AuthError};
use crate::config::Config;
use crate::http::speed::SpeedState;
use crate::http::telemetry::TelemetryState;
use crate::http::{HealthSection, HttpHandle, Mounts};
use crate::live::{Live, MqttSnapshot, Sources};
use crate::mqtt::{MqttHandle, MqttStats};
use crate::pipelines::event_log::EmbeddedLog;
use crate::pipelines::telemetry;
use crate::{http, kafka, mqtt};

/// Groups that mirror how far the pipelines are: no client is ever in them.
const HELD_GROUPS: &[&str] = &[telemetry::TELEMETRY_GROUP, telemetry::SPEED_GROUP];

/// A running node.
pub struct Node {
    log: Log,
    auth: Auth,
    addresses: Addresses,
    doors: CancellationToken,
    inside: CancellationToken,
    mqtt: MqttHandle,
    kafka: kafka::Handle,
    http: HttpHandle,
    live: Live,
    telemetry: telemetry::Handle,
}

/// Where the doors are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub mqtt: SocketAddr,
    pub kafka: SocketAddr,
    pub http: SocketAddr,
    /// `mqtt.tls.listen`.
    pub mqtt_tls: Option<SocketAddr>,
    /// `http.tls.listen`.
    pub http_tls: Option<SocketAddr>,
}

/// Which room did not start, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("log: {0}")]
    Log(#[from] OpenError),
    #[error("auth: {0}")]
    Auth(#[from] AuthError),
    #[error("telemetry: {0}")]
    Telemetry(#[from] telemetry::StartError),
    #[error("mqtt: {0}")]
    Mqtt(#[from] mqtt::StartError),
    #[error("kafka: {0}")]
    Kafka(#[from] kafka::StartError),
    #[error("http: {0}")]
    Http(#[from] http::StartError),
    #[error("a start-up task ended abnormally: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Node {
    /// Starts everything; what had started is stopped again if a later room does not start.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let options = config.log_options();
        let log = tokio::task::spawn_blocking(move || Log::open(options)).await??;
        let (doors, inside) = (CancellationToken::new(), CancellationToken::new());
        let started = Self::start_rooms(config, log.clone(), doors.clone(), inside.clone()).await;
        if started.is_err() {
            doors.cancel();
            inside.cancel();
            close(log).await;
        }
        started
    }

    async fn start_rooms(
        config: Config,
        log: Log,
        doors: CancellationToken,
        inside: CancellationToken,
    ) -> Result<Node, StartError> {
        let auth = Auth::open_with(log.clone(), config.auth).await?;
        let events = EmbeddedLog::new(log.clone());
        let data_dir = &config.node.data_dir;
        let telemetry =
            telemetry::start(&config.telemetry, data_dir, events, inside.clone()).await?;
        let mqtt = mqtt::start(config.mqtt, log.clone(), auth.clone(), doors.clone()).await?;
        let (log_, auth_, stop) = (log.clone(), auth.clone(), doors.clone());
        let kafka = kafka::start(config.kafka, log_, auth_, HELD_GROUPS, stop).await?;
        let sources = sources(&mqtt, &telemetry);
        let live = Live::start(config.live, log.clone(), sources, doors.clone());
        let mounts = Mounts {
            with_token: http::telemetry::router(TelemetryState::new(log.clone(), &telemetry)),
            speed: http::speed::router(SpeedState::new(log.clone())),
            rights: [&http::telemetry::RIGHTS[..], &[http::speed::RIGHT]].concat(),
            health: vec![
                mqtt_health(mqtt.stats()),
                kafka_health(kafka.clone()),
                telemetry_health(&telemetry),
            ],
            ..Mounts::default()
        };
        let (http, speed) = (config.http, config.speed);
        let listen = http.listen;
        let (log_, auth_, stop) = (log.clone(), auth.clone(), doors.clone());
        let http = http::start(http, speed, log_, auth_, live.clone(), mounts, stop).await?;
        let addresses = Addresses {
            mqtt: mqtt.local_addr(),
            kafka: kafka.local_addr(),
            http: http.local_addr().unwrap_or(listen),
            mqtt_tls: mqtt.tls_addr(),
            http_tls: http.tls_addr(),
        };
        Ok(Node {
            log,
            auth,
            addresses,
            doors,
            inside,
            mqtt,
            kafka,
            http,
            live,
            telemetry,
        })
    }

    /// Where the doors are bound.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Every listener of the Kafka door by name.
    pub fn kafka_listeners(&self) -> &[(String, SocketAddr)] {
        self.kafka.listeners()
    }

    /// Clients and tokens.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Reads the certificates of every listener with TLS again: they count for new connections, and those
    /// there are go on. What cannot be used is logged and leaves what is in force.
    pub async fn read_certificates_again(&self) {
        let kafka = self.kafka.tls().iter();
        let others = [self.mqtt.tls(), self.http.tls()];
        for tls in kafka.chain(others.into_iter().flatten()) {
            tls.read_again().await;
        }
    }

    /// Stops in order; returns when everything acknowledged is sealed on disk.
    pub async fn stop(self) {
        self.doors.cancel();
        self.mqtt.stopped().await;
        self.kafka.stopped().await;
        self.http.stopped().await;
        self.live.stopped().await;
        self.inside.cancel();
        self.telemetry.stopped().await;
        close(self.log).await;
    }
}

async fn close(log: Log) {
    if let Err(error) = tokio::task::spawn_blocking(move || log.close()).await {
        tracing::error!(%error, "closing the log ended abnormally");
    }
}

fn sources(mqtt: &MqttHandle, telemetry: &telemetry::Handle) -> Sources {
    let stats = mqtt.stats();
    Sources {
        telemetry: Some(Arc::new(telemetry.reader())),
        mqtt: Some(Arc::new(move || MqttSnapshot {
            connections: stats.connections.load(Ordering::Relaxed),
            received_total: stats.received_total.load(Ordering::Relaxed),
        })),
        speed_rule: Some(Arc::new(|payload, arrived_ms| {
            telemetry::speed::judge(payload, arrived_ms).is_ok()
        })),
    }
}

fn mqtt_health(stats: Arc<MqttStats>) -> HealthSection {
    let probe = move || {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = json!({
            "connections": read(&stats.connections),
            "connections_refused": read(&stats.refused_total),
            "tls_refused": read(&stats.tls_refused),
            // By access rules: publishes, wills and subscriptions; messages not given to subscribers.
            "denied": read(&stats.denied),
            "unreadable": read(&stats.unreadable),
        });
        (true, counts)
    };
    HealthSection {
        name: "mqtt",
        probe: Arc::new(probe),
    }
}

fn kafka_health(kafka: kafka::Handle) -> HealthSection {
    let probe = move || {
        let stats = kafka.stats();
        let counts = json!({
            "connections": stats.connections,
            "connections_refused": stats.connections_refused,
            "addresses_refused": stats.addresses_refused,
            "connections_broken": stats.connections_broken,
            "requests": stats.requests,
            "throttled": stats.throttled,
        });
        (true, counts)
    };
    HealthSection {
        name: "kafka",
        probe: Arc::new(probe),
    }
}

fn telemetry_health(telemetry: &telemetry::Handle) -> HealthSection {
    let status = telemetry.status();
    let probe = move || {
        let status = status.borrow();
        let works = status.problems.is_empty() && !status.stopped;
        (
            works,
            json!({ "problems": status.problems, "commits": status.commits }),
        )
    };
    HealthSection {
        name: "telemetry",
        probe: Arc::new(probe),
    }
}
