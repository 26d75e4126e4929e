//! What the routes answer, errors first.

use holdfast_storage::log::{CommittedOffset, OffsetCommit};

use super::*;

#[tokio::test]
async fn every_error_is_json_with_a_sentence() {
    let door = Door::open(Setup::default()).await;
    let json_type = ("Content-Type", "application/json");
    let large = "x".repeat(20_000);
    let cases = [
        (request("GET", "/api/v1/nothing", &[], ""), 404),
        (request("POST", "/quality", &[], ""), 404),
        (request("POST", "/health", &[], ""), 405),
        (request("GET", "/auth", &[], ""), 405),
        (request("POST", "/auth", &[json_type], &large), 413),
        (
            request(
                "POST",
                "/auth",
                &[],
                r#"{"client_id":"a","client_secret":"b"}"#,
            ),
            415,
        ),
        (
            request("POST", "/auth", &[("Content-Type", "text/plain")], "{}"),
            415,
        ),
        (request("POST", "/auth", &[json_type], "{"), 400),
        (
            request("POST", "/auth", &[json_type], r#"{"client_id":7}"#),
            422,
        ),
        (request("GET", "/ws/live", &[], ""), 400),
        (request("POST", "/api/v1/topics", &[], &large), 401),
    ];
    for (bytes, status) in cases {
        let answer = exchange(door.address(), &bytes).await;
        let asked = String::from_utf8_lossy(&bytes[..40.min(bytes.len())]).into_owned();
        assert_eq!(answer.status, status, "{asked}: {answer:?}");
        assert!(!answer.error().is_empty(), "{asked}");
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_handler_that_panics_answers_500_and_harms_nobody() {
    async fn panics() -> &'static str {
        panic!("a defect")
    }
    let open = Router::new().route("/panics", get(panics));
    let door = Door::open(Setup {
        mounts: Mounts {
            open,
            ..Mounts::default()
        },
        ..Setup::default()
    })
    .await;
    let answer = door.get("/panics").await;
    assert_eq!(answer.status, 500);
    assert!(!answer.error().contains("defect"));
    let health = door.get("/health").await;
    assert_eq!(
        (health.status, &health.json()["http"]["panics_total"]),
        (200, &json!(1))
    );
}

#[tokio::test]
async fn health_names_the_node_and_its_parts() {
    let section = HealthSection {
        name: "mqtt",
        probe: Arc::new(|| (true, json!({ "connections": 3 }))),
    };
    let mounts = Mounts {
        health: vec![section],
        ..Mounts::default()
    };
    let door = Door::open(Setup {
        mounts,
        ..Setup::default()
    })
    .await;
    let answer = door.get("/health").await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["status"], "ok");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["cluster_id"], door.log.cluster_id().to_string());
    assert_eq!(body["leader_epoch"], door.log.leader_epoch());
    let log = &body["log"];
    assert_eq!(log["state"], "accepting");
    assert_eq!(log["durability"], "fsync");
    assert_eq!(log["durability_os_topics"], json!([]));
    assert_eq!(log["damage"], json!([]));
    assert!(log["disk_free_bytes"].as_u64() > Some(0));
    assert_eq!(body["mqtt"]["connections"], 3);
    assert!(body["uptime_s"].is_u64());
}

#[tokio::test]
async fn health_fails_with_any_part_and_with_the_log() {
    let section = HealthSection {
        name: "pipelines",
        probe: Arc::new(|| (false, json!({ "state": "stopped" }))),
    };
    let mounts = Mounts {
        health: vec![section],
        ..Mounts::default()
    };
    let door = Door::open(Setup {
        mounts,
        ..Setup::default()
    })
    .await;
    let answer = door.get("/health").await;
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (503, &json!("failed"))
    );

    let door = Door::open(Setup::default()).await;
    let log = door.log.clone();
    tokio::task::spawn_blocking(move || log.close())
        .await
        .unwrap();
    let answer = door.get("/health").await;
    assert_eq!(
        (answer.status, &answer.json()["log"]["state"]),
        (503, &json!("closed"))
    );
}

#[tokio::test]
async fn topics_and_groups_show_offsets_and_lag() {
    let door = Door::open(Setup::default()).await;
    let topic = door.topic("events").await;
    door.append("events", "k", (0..10).map(|n| n.to_string()))
        .await;
    let committed = CommittedOffset {
        offset: 4,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: 0,
    };
    let commit = OffsetCommit {
        topic: topic.id(),
        partition: 0,
        committed,
    };
    door.log
        .commit_offsets("readers", vec![commit])
        .await
        .unwrap();

    let topics = door.get_with("/api/v1/topics", &door.token).await.json();
    let events = topics
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["name"] == "events")
        .unwrap();
    assert_eq!(
        (&events["internal"], &events["id"]),
        (&json!(false), &json!(topic.id().to_string()))
    );
    let partition = &events["partitions"][0];
    assert_eq!(
        (&partition["log_start_offset"], &partition["high_watermark"]),
        (&json!(0), &json!(10))
    );
    assert!(partition["size_bytes"].as_u64().unwrap() > 0);

    let groups = door.get_with("/api/v1/groups", &door.token).await.json();
    let readers = groups
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["group"] == "readers")
        .unwrap();
    assert_eq!(readers["lag"], 6);
    let line = json!({"topic": "events", "partition": 0, "committed_offset": 4, "high_watermark": 10, "lag": 6});
    assert_eq!(readers["topics"], json!([line]));
}

#[tokio::test]
async fn every_listener_serves_the_same() {
    let http = HttpConfig {
        extra_listen: vec!["127.0.0.1:0".parse().unwrap(); 2],
        ..Setup::default().http
    };
    let door = Door::open(Setup {
        http,
        ..Setup::default()
    })
    .await;
    let addresses = door.handle.local_addrs();
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        assert_eq!(
            exchange(*address, &request("GET", "/health", &[], ""))
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let door = Door::open(Setup::default()).await;
    let http = HttpConfig {
        listen: door.address(),
        ..HttpConfig::default()
    };
    let (log, auth, live) = (door.log.clone(), door.auth.clone(), door.live.clone());
    let cancel = CancellationToken::new();
    let Err(error) = start(
        http,
        SpeedConfig::default(),
        log,
        auth,
        live,
        Mounts::default(),
        cancel,
    )
    .await
    else {
        panic!("two doors on one port");
    };
    assert!(error.to_string().contains(&door.address().to_string()));
}
