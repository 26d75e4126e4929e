//! The endpoints over a real log and a running pipeline, by plain HTTP/1.1 on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use holdfast_storage::log::LogOptions;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::speed::{self, SPEED_BODY_BYTES_MAX, SpeedState};
use crate::pipelines::event_log::EmbeddedLog;
use crate::pipelines::telemetry::record::find;
use crate::pipelines::telemetry::{self, SPEED_TOPIC, Status};

const PATIENCE: Duration = Duration::from_secs(60);

struct Door {
    _dir: TempDir,
    log: Log,
    state: TelemetryState,
    pipeline: Option<Handle>,
    address: SocketAddr,
    cancel: CancellationToken,
}

async fn door() -> Door {
    let dir = TempDir::new().unwrap();
    let log = Log::open(LogOptions::new(dir.path().join("log"))).unwrap();
    let cancel = CancellationToken::new();
    let config = TelemetryConfig {
        commit_age_ms: 10,
        ..TelemetryConfig::default()
    };
    let embedded = EmbeddedLog::new(log.clone());
    let pipeline = telemetry::start(&config, &dir.path().join("store"), embedded, cancel.clone())
        .await
        .unwrap();
    let state = TelemetryState::new(log.clone(), &pipeline);
    let address = serve(state.clone(), log.clone(), cancel.clone()).await;
    Door {
        _dir: dir,
        log,
        state,
        pipeline: Some(pipeline),
        address,
        cancel,
    }
}

async fn serve(state: TelemetryState, log: Log, cancel: CancellationToken) -> SocketAddr {
    let routes = router(state).merge(speed::router(SpeedState::new(log)));
    let routes = routes.layer(Extension(Principal::of_certificate(
        "tester",
        IpAddr::V4(Ipv4Addr::LOCALHOST),
    )));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let stop = cancel.cancelled_owned();
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop)
            .await
            .unwrap();
    });
    address
}

impl Door {
    async fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        // The server may refuse a body by its length alone and close before it is sent.
        let _ = socket.write_all(body).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (
            status,
            serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {text}")),
        )
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.request("POST", path, body.as_bytes()).await
    }

    async fn ingest(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/ingest", &body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn until(&self, done: impl Fn(&Status) -> bool) {
        let mut status = self.pipeline.as_ref().unwrap().status();
        tokio::time::timeout(PATIENCE, status.wait_for(done))
            .await
            .expect("in time")
            .expect("running");
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        let topic = self.log.topic(topic).unwrap();
        let read = |partition: &Arc<Partition>| {
            self.log
                .read(partition, partition.log_start_offset(), 8 << 20)
                .unwrap()
        };
        topic
            .partitions()
            .iter()
            .flat_map(read)
            .map(|stored| stored.record)
            .collect()
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        let pipeline = self.pipeline.take().unwrap();
        tokio::time::timeout(PATIENCE, pipeline.stopped())
            .await
            .expect("in time");
    }
}

fn codes(answer: &Value) -> Vec<(u64, String)> {
    let rejections = answer["rejections"].as_array().unwrap().iter();
    let code = |error: &Value| error["code"].as_str().unwrap().to_owned();
    rejections
        .flat_map(|rejection| {
            let index = rejection["index"].as_u64().unwrap();
            rejection["errors"]
                .as_array()
                .unwrap()
                .iter()
                .map(move |error| (index, code(error)))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_judged_appended_and_stored() {
    let door = door().await;
    let answer = door
        .ingest(&json!({"records": [
            {"topic": "sites", "payload": {"site_id": "s-1", "power_kw": 1.5}, "timestamp": "2023-11-14T22:13:20"},
            {"topic": "weather", "payload": "{\"station_id\":\"w\",\"temperature_c\":20}", "ts": 1_700_000_000, "id": 7},
            {"topic": "pumps", "payload": {}},
            {"topic": "grid"},
            {"payload": {}},
            {"topic": 5, "payload": {}},
            17,
            {"topic": "grid", "payload": [1]},
            {"topic": "grid", "payload": {}, "id": ""},
            {"topic": "telemetry/inverters/inv-9", "payload": {"power_kw": 2}, "qos": 1, "retain": true,
             "received_at": "2026-01-01T00:00:00Z"},
        ]}))
        .await;
    assert_eq!(
        (
            &answer["accepted"],
            &answer["rejected"],
            &answer["duplicates"]
        ),
        (&json!(3), &json!(7), &json!(0))
    );
    let expected = [
        (2, "unsupported_topic"),
        (3, "missing_payload"),
        (4, "missing_topic"),
        (5, "invalid_topic"),
        (6, "record_not_object"),
        (7, "payload_not_object"),
        (8, "invalid_id"),
    ];
    assert_eq!(
        codes(&answer),
        expected.map(|(index, code)| (index, code.to_owned()))
    );
    let raw = door.records(RAW_TOPIC);
    assert_eq!(raw.len(), 10, "rejected records are appended too");
    assert!(
        raw.iter()
            .any(|record| record.value.as_deref() == Some(b"17"))
    );
    let forwarded = raw
        .iter()
        .find(|record| record.key.as_deref() == Some(b"inv-9"))
        .unwrap();
    let header = |name| std::str::from_utf8(find(forwarded, name).unwrap()).unwrap();
    assert_eq!(
        (header("kind"), header("mqtt.qos"), header("mqtt.retain")),
        ("inverters", "1", "true")
    );
    assert_eq!(
        (header("mqtt.topic"), header("http.client")),
        ("telemetry/inverters/inv-9", "tester")
    );

    door.until(|status| status.clean == 3 && status.invalid == 7)
        .await;
    let (status, summary) = door.request("GET", "/topics/summary", b"").await;
    assert_eq!(status, 200);
    let topic = |name: &str| {
        summary["topics"]
            .as_array()
            .unwrap()
            .iter()
            .find(|topic| topic["topic"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        (
            &topic("sites")["accepted"],
            &topic("sites")["missing_fields"]
        ),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        topic("sites")["last_event_time"],
        "2023-11-14T22:13:20.000Z"
    );
    assert_eq!(topic("inverters")["fallback_timestamps"], 1);
    assert_eq!(
        topic("inverters")["last_event_time"],
        "2026-01-01T00:00:00.000Z"
    );
    assert_eq!(topic("pumps")["rejected"], 1);
    let (_, page) = door.request("GET", "/invalid/recent?limit=3", b"").await;
    assert_eq!(page["records"].as_array().unwrap().len(), 3);
    let last = page["records"][2]["id"].as_i64().unwrap();
    let (_, rest) = door
        .request("GET", &format!("/invalid/recent?before={last}"), b"")
        .await;
    assert_eq!(rest["records"].as_array().unwrap().len(), 4);
    assert_eq!(page["records"][0]["source"]["topic"], "telemetry.raw");
    assert_eq!(
        door.request("GET", "/invalid/recent?limit=many", b"")
            .await
            .0,
        400
    );
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redelivered_batch_is_counted_and_not_stored_again() {
    let door = door().await;
    let batch = json!([
        {"topic": "sites", "payload": {"site_id": "a"}, "id": "r-1"},
        {"topic": "sites", "payload": {"site_id": "b"}},
        {"topic": "sites", "payload": {"site_id": "b"}},
        {"topic": "sites", "payload": "{"},
    ]);
    let first = door.ingest(&batch).await;
    assert_eq!(
        (&first["accepted"], &first["rejected"], &first["duplicates"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let at_once = door.ingest(&batch).await;
    assert_eq!(
        (
            &at_once["accepted"],
            &at_once["rejected"],
            &at_once["duplicates"]
        ),
        (&json!(0), &json!(1), &json!(3))
    );
    door.until(|status| status.clean == 2 && status.duplicates == 5)
        .await;
    let later = door.ingest(&batch).await;
    assert_eq!(
        (&later["accepted"], &later["duplicates"]),
        (&json!(0), &json!(3))
    );
    door.until(|status| status.clean == 2 && status.invalid == 1 && status.duplicates == 9)
        .await;
    let corrected = door
        .ingest(&json!([{"topic": "sites", "payload": {"site_id": "c"}}]))
        .await;
    assert_eq!(corrected["accepted"], 1);
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_batch_is_refused_and_kept() {
    let door = door().await;
    let malformed = [
        "",
        "hello",
        "{\"records\":5}",
        "{\"topic\":\"sites\",\"payload\":{}}",
        "[{]",
        "[1,",
        "\"[]\"",
    ];
    for body in malformed {
        let (status, answer) = door.post("/ingest", body).await;
        assert_eq!(status, 400, "{body}");
        assert!(
            answer["error"].as_str().unwrap().contains("body"),
            "{answer}"
        );
    }
    assert_eq!(
        door.request("POST", "/ingest", &[b'[', 0xff, b']']).await.0,
        400
    );
    let dead = door.records(DLQ_TOPIC);
    assert_eq!(dead.len(), malformed.len() + 1);
    assert!(
        dead.iter()
            .any(|record| record.value.as_deref() == Some(b"[{]"))
    );
    assert!(
        dead.iter()
            .all(|record| find(record, "dlq.error_codes").unwrap() == "malformed_body")
    );
    assert_eq!(door.ingest(&json!([])).await["accepted"], 0);
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_answered_not_suffered() {
    let door = door().await;
    let many = format!("[{}1]", "1,".repeat(INGEST_RECORDS_MAX));
    assert_eq!(door.post("/ingest", &many).await.0, 413);
    let large = format!("[\"{}\"]", "x".repeat(INGEST_BODY_BYTES_MAX));
    assert_eq!(door.post("/ingest", &large).await.0, 413);
    assert!(door.records(RAW_TOPIC).is_empty());
    let payload = json!([{"topic": "sites", "payload": {"a": "x".repeat(1_000_000)}}]);
    assert_eq!(
        codes(&door.ingest(&payload).await),
        [(0, "payload_too_large".to_owned())]
    );
    let speed = json!({"sensor_id": "s", "pad": "x".repeat(SPEED_BODY_BYTES_MAX)});
    assert_eq!(door.post("/speed", &speed.to_string()).await.0, 413);
    door.until(|status| status.invalid == 1).await;
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_speed_event_is_keyed_by_its_sensor_and_bad_fields_are_named() {
    let door = door().await;
    let (status, answer) = door
        .post(
            "/speed",
            r#"{"sensor_id":"sensor-1","speed":42,"ts":1700000000}"#,
        )
        .await;
    assert_eq!((status, answer), (202, json!({"status": "accepted"})));
    let records = door.records(SPEED_TOPIC);
    assert_eq!(records[0].key.as_deref(), Some(b"sensor-1".as_slice()));
    assert_eq!(
        records[0].value.as_deref(),
        Some(br#"{"sensor_id":"sensor-1","speed":42,"ts":1700000000}"#.as_slice())
    );
    let (status, answer) = door
        .post("/speed", r#"{"sensor_id":"sensor-1","speed":-1}"#)
        .await;
    assert_eq!(status, 422);
    assert_eq!(answer["fields"]["ts"], "ts is required");
    assert!(answer["fields"]["speed"].is_string() && answer["error"].is_string());
    assert_eq!(door.post("/speed", "fast").await.0, 400);
    assert_eq!(door.records(SPEED_TOPIC).len(), 1);
    door.until(|status| status.speed == 1).await;
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_log_is_said_and_the_retry_is_no_duplicate() {
    let door = door().await;
    door.log.close();
    let (status, answer) = door
        .post("/ingest", r#"[{"topic":"sites","payload":{}}]"#)
        .await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(
        door.post("/speed", r#"{"sensor_id":"s","speed":1,"ts":1700000000}"#)
            .await
            .0,
        503
    );
    let judged = batch::judge(
        &door.state,
        br#"[{"topic":"sites","payload":{}}]"#,
        "tester",
        now_ms(),
    )
    .unwrap();
    assert_eq!(serde_json::to_value(&judged.answer).unwrap()["accepted"], 1);
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_pipeline_the_door_still_takes_records() {
    let dir = TempDir::new().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let config = TelemetryConfig::default();
    telemetry::ensure_topics(&config, &EmbeddedLog::new(log.clone()))
        .await
        .unwrap();
    let state = TelemetryState::without_pipeline(log.clone(), &config);
    let cancel = CancellationToken::new();
    let address = serve(state.clone(), log.clone(), cancel.clone()).await;
    let door = Door {
        _dir: dir,
        log,
        state,
        pipeline: None,
        address,
        cancel,
    };
    let batch = json!([{"topic": "sites", "payload": {"ts": 1_700_000_000}}]);
    assert_eq!(door.ingest(&batch).await["accepted"], 1);
    assert_eq!(door.ingest(&batch).await["duplicates"], 1);
    assert_eq!(door.records(RAW_TOPIC).len(), 2);
    let (status, answer) = door.request("GET", "/topics/summary", b"").await;
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().contains("switched off"));
    door.cancel.cancel();
}
