//! `/ws/live`: the hello, the rooms, and sockets that are slow or wrong.

use super::*;

#[tokio::test]
async fn only_a_hello_with_a_good_token_is_welcome() {
    let door = Door::open(Setup::default()).await;
    let expired = door.auth.expired_token("tester").unwrap();
    for first in [
        json!({ "type": "hello", "token": "wrong" }).to_string(),
        json!({ "type": "hello", "token": expired }).to_string(),
        json!({ "type": "hello" }).to_string(),
        json!({ "type": "subscribe", "rooms": ["overview"] }).to_string(),
        "not json".to_owned(),
        String::new(),
    ] {
        let mut ws = door.connect("/ws/live", &[]).await.unwrap();
        ws.say_text(&first).await;
        assert_eq!(ws.text().await, Err(4401), "{first}");
    }
    door.dashboard().await;
}

#[tokio::test]
async fn a_socket_ends_when_its_token_is_revoked() {
    let live = LiveConfig {
        ping_interval_s: 1,
        ..LiveConfig::default()
    };
    let door = Door::open(Setup {
        live,
        ..Setup::default()
    })
    .await;
    let mut dashboard = door.dashboard().await;
    // A gauge sends it with the upgrade instead.
    let bearer = format!("Bearer {}", door.token);
    let headers = [("Authorization", bearer.as_str())];
    let mut gauge = door.connect("/ws/speed", &headers).await.unwrap();
    door.auth.delete_user("tester").await.unwrap();
    assert_eq!(dashboard.closed_with().await, 4401);
    assert_eq!(gauge.closed_with().await, 4401);
}

#[tokio::test]
async fn the_overview_counts_topics_groups_and_the_log() {
    let door = Door::open(Setup::default()).await;
    door.topic("events").await;
    door.append("events", "k", (0..7).map(|n| n.to_string()))
        .await;
    let mut ws = door.dashboard().await;
    ws.say(json!({ "type": "subscribe", "rooms": ["overview"] }))
        .await;
    let first = ws.update("overview").await;
    let events = first["topics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["name"] == "events")
        .unwrap()
        .clone();
    assert_eq!(
        (&events["partitions"], &events["high_watermark"]),
        (&json!(1), &json!(7))
    );
    assert_eq!(
        (&events["records_total"], &events["log_start"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(first["log"]["state"], "accepting");
    assert!(first["log"]["fdatasyncs"].as_u64().unwrap() > 0);
    assert_eq!(
        first["mqtt"],
        json!({ "connections": 0, "received_total": 0 })
    );

    door.append("events", "k", (0..100).map(|n| n.to_string()))
        .await;
    loop {
        let next = ws.update("overview").await;
        assert!(next["ts_ms"].as_u64() > first["ts_ms"].as_u64());
        let events = next["topics"]
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["name"] == "events")
            .unwrap();
        if events["records_total"] == 107 && events["records_per_s"].as_f64().unwrap() > 0.0 {
            break;
        }
    }
}

#[tokio::test]
async fn quality_is_sent_on_joining_and_when_it_changes() {
    let door = Door::open(Setup::default()).await;
    let mut one = door.dashboard().await;
    one.say(json!({ "type": "subscribe", "rooms": ["quality"] }))
        .await;
    assert_eq!(one.update("quality").await, json!({ "topics": [] }));
    *door.store.summary.lock().unwrap() = r#"{"topics":[{"topic":"sites"}]}"#.to_owned();
    assert_eq!(one.update("quality").await["topics"][0]["topic"], "sites");
    let mut two = door.dashboard().await;
    two.say(json!({ "type": "subscribe", "rooms": ["quality"] }))
        .await;
    assert_eq!(two.update("quality").await["topics"][0]["topic"], "sites");
}

#[tokio::test]
async fn rejected_records_come_as_a_list_and_then_one_by_one() {
    let door = Door::open(Setup::default()).await;
    let mut empty = door.dashboard().await;
    empty
        .say(json!({ "type": "subscribe", "rooms": ["invalid"] }))
        .await;
    assert_eq!(empty.update("invalid").await, json!([]));
    door.store.invalid.lock().unwrap().extend(1..=60);
    let mut ids = Vec::new();
    // 60 at once are more than one look takes: the first ten are counted, the rest come in order.
    let frame = empty.json().await;
    assert_eq!(
        frame,
        json!({ "type": "skipped", "room": "invalid", "count": 10 })
    );
    while ids.len() < 50 {
        ids.extend(
            empty
                .update("invalid")
                .await
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["id"].as_i64().unwrap()),
        );
    }
    assert_eq!(ids, (11..=60).collect::<Vec<_>>());

    let mut late = door.dashboard().await;
    late.say(json!({ "type": "subscribe", "rooms": ["invalid"] }))
        .await;
    let list = late.update("invalid").await;
    assert_eq!(
        (list.as_array().unwrap().len(), &list[0]["id"]),
        (50, &json!(60))
    );
    door.store.invalid.lock().unwrap().push(61);
    assert_eq!(late.update("invalid").await, json!([{ "id": 61 }]));
    assert_eq!(empty.update("invalid").await, json!([{ "id": 61 }]));
}

#[tokio::test]
async fn a_topic_is_shown_as_it_grows() {
    let door = Door::open(Setup::default()).await;
    door.topic("events").await;
    door.append("events", "before", ["unseen".to_owned()]).await;
    let mut ws = door.dashboard().await;
    let rooms = ["topic:events", "topic:nothing", "nonsense"];
    ws.say(json!({ "type": "subscribe", "rooms": rooms })).await;
    for room in rooms.iter().skip(1) {
        let complaint = ws.json().await;
        assert_eq!(
            (&complaint["type"], &complaint["room"]),
            (&json!("error"), &json!(room))
        );
    }
    // The complaints prove that the subscription before them was carried out.
    door.append("events", "k", ["42".to_owned()]).await;
    let shown = ws.update("topic:events").await;
    let expected = json!({
        "partition": 0, "offset": 1, "timestamp_ms": 1_700_000_000_000_i64,
        "key": "k", "value": "42", "encoding": "utf-8",
    });
    assert_eq!(shown, expected);
    ws.say(json!({ "type": "unsubscribe", "rooms": ["topic:events"] }))
        .await;
    ws.say(json!({ "type": "subscribe", "rooms": ["nonsense"] }))
        .await;
    assert_eq!(ws.json().await["type"], "error");
    door.append("events", "k", ["43".to_owned()]).await;
    ws.say(json!({ "type": "subscribe", "rooms": ["overview"] }))
        .await;
    for _ in 0..3 {
        assert_eq!(ws.json().await["room"], "overview");
    }
}

#[tokio::test]
async fn a_fast_topic_is_sampled_and_the_rest_counted() {
    let door = Door::open(Setup::default()).await;
    door.topic("fast").await;
    let mut ws = door.dashboard().await;
    ws.say(json!({ "type": "subscribe", "rooms": ["topic:fast", "nonsense"] }))
        .await;
    assert_eq!(ws.json().await["type"], "error");
    door.append("fast", "k", (0..5000).map(|n| n.to_string()))
        .await;
    let (mut shown, mut skipped) = (0, 0);
    while shown + skipped < 5000 {
        let frame = ws.json().await;
        match frame["type"].as_str().unwrap() {
            "update" => shown += 1,
            "skipped" => skipped += frame["count"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
    }
    assert_eq!(shown + skipped, 5000);
    assert!((1..=100).contains(&shown), "{shown} shown");
}

#[tokio::test]
async fn binary_and_large_values_are_shown_as_base64_and_cut() {
    let door = Door::open(Setup::default()).await;
    let topic = door.topic("blobs").await;
    let mut ws = door.dashboard().await;
    ws.say(json!({ "type": "subscribe", "rooms": ["topic:blobs", "nonsense"] }))
        .await;
    assert_eq!(ws.json().await["type"], "error");
    let record = |value: Option<Vec<u8>>| Record {
        value: value.map(Into::into),
        ..Record::default()
    };
    let records = vec![
        record(Some(vec![0xff, 0])),
        record(Some(vec![b'x'; 20_000])),
        record(None),
    ];
    door.log
        .append(topic.partition(0).unwrap(), &records)
        .await
        .unwrap()
        .await
        .unwrap();
    let binary = ws.update("topic:blobs").await;
    assert_eq!(
        (&binary["value"], &binary["encoding"], &binary["key"]),
        (&json!("/wA="), &json!("base64"), &Value::Null)
    );
    let large = ws.update("topic:blobs").await;
    assert_eq!(
        (large["value"].as_str().unwrap().len(), &large["truncated"]),
        (16 << 10, &json!(true))
    );
    assert_eq!(ws.update("topic:blobs").await["value"], Value::Null);
}

#[tokio::test]
async fn a_socket_that_talks_nonsense_is_told_and_then_closed() {
    let live = LiveConfig {
        rooms_per_socket_max: 1,
        ..LiveConfig::default()
    };
    let door = Door::open(Setup {
        live,
        ..Setup::default()
    })
    .await;
    let mut ws = door.dashboard().await;
    ws.say(json!({ "type": "subscribe", "rooms": ["overview", "overview", "speed"] }))
        .await;
    let complaint = ws.json().await;
    assert_eq!(
        (&complaint["type"], &complaint["room"]),
        (&json!("error"), &json!("speed"))
    );
    for _ in 0..16 {
        ws.say_text("{\"type\":\"dance\"}").await;
    }
    assert_eq!(ws.closed_with().await, 1008);

    let mut large = door.dashboard().await;
    large
        .say_text(&" ".repeat(crate::live::MESSAGE_BYTES_MAX + 1))
        .await;
    assert!([1006, 1009].contains(&large.closed_with().await));
    door.dashboard().await;
}
