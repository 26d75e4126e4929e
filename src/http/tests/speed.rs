//! The speedometer's socket, the `speed` room, and who may use them.

use super::*;

fn reading(sensor: &str, speed: usize) -> String {
    json!({ "sensor_id": sensor, "speed": speed, "ts": 1_700_000_000 }).to_string()
}

async fn speed_door(listen: &str, speed_allow_anonymous: bool) -> Door {
    let http = HttpConfig {
        listen: listen.parse().unwrap(),
        ..HttpConfig::default()
    };
    let speed = Router::new().route(
        "/speed",
        post(|| async { (axum::http::StatusCode::ACCEPTED, "taken") }),
    );
    let mounts = Mounts {
        speed,
        ..Mounts::default()
    };
    let door = Door::open(Setup {
        http,
        mounts,
        speed_allow_anonymous,
        ..Setup::default()
    })
    .await;
    door.topic("speed-events").await;
    door
}

#[tokio::test]
async fn a_gauge_gets_plain_numbers_the_latest_at_once() {
    let door = speed_door("127.0.0.1:0", false).await;
    let mut early = door.connect("/ws/speed?sensor_id=a", &[]).await.unwrap();
    let mut any = door.connect("/ws/speed", &[]).await.unwrap();
    door.append("speed-events", "a", [reading("a", 42)]).await;
    assert_eq!(early.text().await.unwrap(), "42");
    assert_eq!(any.text().await.unwrap(), "42");
    door.append(
        "speed-events",
        "b",
        [json!({ "sensor_id": "b", "speed": 7.5, "ts": 1 }).to_string()],
    )
    .await;
    assert_eq!(any.text().await.unwrap(), "7.5");
    let mut late = door.connect("/ws/speed?sensor_id=a", &[]).await.unwrap();
    assert_eq!(late.text().await.unwrap(), "42");
}

#[tokio::test]
async fn a_gauge_that_does_not_keep_up_ends_at_the_newest_value() {
    let door = speed_door("127.0.0.1:0", false).await;
    let mut slow = door.connect("/ws/speed?sensor_id=a", &[]).await.unwrap();
    door.append("speed-events", "a", (0..20_000).map(|n| reading("a", n)))
        .await;
    let mut values: Vec<u64> = Vec::new();
    while values.last() != Some(&19_999) {
        values.push(slow.text().await.unwrap().parse().unwrap());
    }
    assert!(values.is_sorted());
    assert!(values.len() < 20_000, "every single value was sent");
}

#[tokio::test]
async fn the_room_begins_with_the_latest_and_accounts_for_every_reading() {
    let door = speed_door("127.0.0.1:0", false).await;
    // Long names fill the socket's buffers, so that a client that does not read falls out of the ring.
    let long = "s".repeat(250);
    door.append(
        "speed-events",
        "k",
        [reading(&long, 1), reading("other", 5)],
    )
    .await;
    let mut gauge = door
        .connect(&format!("/ws/speed?sensor_id={long}"), &[])
        .await
        .unwrap();
    assert_eq!(gauge.text().await.unwrap(), "1");
    let mut slow = door.dashboard().await;
    slow.say(json!({ "type": "subscribe", "rooms": ["speed"] }))
        .await;
    let first = slow.update("speed").await;
    assert_eq!(first["latest"].as_array().unwrap().len(), 2);
    assert_eq!(
        first["latest"][0],
        json!({ "sensor_id": "other", "speed": 5, "ts": 1_700_000_000 })
    );

    const READINGS: u64 = 60_000;
    door.append(
        "speed-events",
        "k",
        (0..READINGS as usize).map(|n| reading(&long, n + 2)),
    )
    .await;
    // The slow dashboard has read nothing of it, and the gauge is served to the end all the same.
    while gauge.text().await.unwrap() != (READINGS + 1).to_string() {}
    let (mut updates, mut skipped, mut caught_up) = (0, 0, false);
    while updates + skipped < READINGS || !caught_up {
        let frame = slow.json().await;
        if frame["type"] == "skipped" {
            skipped += frame["count"].as_u64().unwrap();
        } else if let Some(latest) = frame["data"]["latest"].as_array() {
            caught_up = latest.iter().any(|r| r["speed"] == READINGS + 1);
        } else {
            updates += 1;
        }
    }
    assert_eq!(updates + skipped, READINGS);
    assert!(skipped > 0, "nothing was skipped");
}

#[tokio::test]
async fn a_restarted_gateway_knows_its_sensors() {
    let door = speed_door("127.0.0.1:0", false).await;
    door.append("speed-events", "a", (0..100).map(|n| reading("a", n)))
        .await;
    let cancel = CancellationToken::new();
    let live = Live::start(
        LiveConfig::default(),
        door.log.clone(),
        Sources::default(),
        cancel.clone(),
    );
    let http = Setup::default().http;
    let (log, auth) = (door.log.clone(), door.auth.clone());
    let handle = start(
        http,
        SpeedConfig::default(),
        log,
        auth,
        live,
        Mounts::default(),
        cancel.clone(),
    )
    .await
    .unwrap();
    let url = format!("ws://{}/ws/speed?sensor_id=a", handle.local_addr().unwrap());
    let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut gauge = Ws { socket };
    while gauge.text().await.unwrap() != "99" {}
    cancel.cancel();
}

#[tokio::test]
async fn on_loopback_the_speed_routes_are_open_but_not_to_foreign_pages() {
    let door = speed_door("127.0.0.1:0", false).await;
    assert_eq!(door.post("/speed", "{}").await.status, 202);
    let json_type = ("Content-Type", "application/json");
    let foreign = request(
        "POST",
        "/speed",
        &[json_type, ("Origin", "https://evil.example")],
        "{}",
    );
    assert_eq!(exchange(door.address(), &foreign).await.status, 401);
    let bearer = format!("Bearer {}", door.token);
    let with_token = [
        json_type,
        ("Origin", "https://page.example"),
        ("Authorization", bearer.as_str()),
    ];
    assert_eq!(
        exchange(
            door.address(),
            &request("POST", "/speed", &with_token, "{}")
        )
        .await
        .status,
        202
    );
    // A foreign page may open the socket, but without a token it hears nothing.
    let mut ws = door
        .connect("/ws/speed", &[("Origin", "https://evil.example")])
        .await
        .unwrap();
    ws.say_text("{}").await;
    assert_eq!(ws.text().await, Err(4401));
}

#[tokio::test]
async fn a_listener_that_others_reach_wants_a_token_for_speed() {
    let door = speed_door("0.0.0.0:0", false).await;
    assert_eq!(door.post("/speed", "{}").await.status, 401);
    door.append("speed-events", "a", [reading("a", 42)]).await;
    let mut ws = door.connect("/ws/speed", &[]).await.unwrap();
    ws.say(json!({ "type": "hello", "token": door.token }))
        .await;
    assert_eq!(ws.text().await.unwrap(), "42");
    let mut ws = door.connect("/ws/speed", &[]).await.unwrap();
    ws.say(json!({ "type": "hello", "token": "wrong" })).await;
    assert_eq!(ws.text().await, Err(4401));
    let bearer = format!("Bearer {}", door.token);
    let mut ws = door
        .connect("/ws/speed", &[("Authorization", &bearer)])
        .await
        .unwrap();
    assert_eq!(ws.text().await.unwrap(), "42");
    assert_eq!(
        door.connect("/ws/speed", &[("Authorization", "Bearer wrong")])
            .await
            .err(),
        Some(401)
    );

    let said_so = speed_door("0.0.0.0:0", true).await;
    assert_eq!(said_so.post("/speed", "{}").await.status, 202);
    assert_eq!(said_so.get("/api/v1/topics").await.status, 401);
}
