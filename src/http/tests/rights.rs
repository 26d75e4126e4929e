//! What access rules say at this door.

use super::*;
use crate::auth::{
    AclBinding, AclFilter, Authorizer, Operation, PatternType, Permission, Principal, ResourceType,
};
use crate::http::access::Access;
use axum::http::{HeaderMap, header};
use holdfast_storage::log::{CommittedOffset, OffsetCommit};

/// A door whose one client, `tester`, may do what rules allow.
async fn open() -> Door {
    let auth = AuthConfig {
        authorizer: Authorizer::Acl,
        super_users: vec!["User:admin".to_owned()],
        ..AuthConfig::default()
    };
    let handler = || async { "done" };
    let right = |path, operation, topic| RouteRight {
        path,
        operation,
        topic,
    };
    let mounts = Mounts {
        with_token: Router::new()
            .route("/take", post(handler))
            .route("/unnamed", get(handler)),
        speed: Router::new().route("/speed", post(handler)),
        rights: vec![
            right("/take", Operation::Write, "taken"),
            right("/speed", Operation::Write, "speed-events"),
        ],
        ..Mounts::default()
    };
    Door::open(Setup {
        auth,
        mounts,
        ..Setup::default()
    })
    .await
}

impl Door {
    async fn allow(&self, resource_type: ResourceType, operation: Operation, name: &str) {
        let rule = AclBinding {
            resource_type,
            pattern_type: PatternType::Literal,
            name: name.to_owned(),
            principal: "User:tester".to_owned(),
            host: "*".to_owned(),
            operation,
            permission: Permission::Allow,
        };
        let made = self.auth.create_acls(vec![rule]).await.unwrap();
        assert!(made.into_iter().all(|made| made.is_ok()));
    }

    async fn allow_topic(&self, operation: Operation, name: &str) {
        self.allow(ResourceType::Topic, operation, name).await;
    }

    async fn token_of(&self, user: &str) -> String {
        let secret = self.auth.renew_token(user).await.unwrap();
        let answer = self.sign_in(user, &secret).await.json();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn call(&self, method: &str, path: &str, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        exchange(self.address(), &request(method, path, &headers, "")).await
    }
}

#[tokio::test]
async fn a_route_is_served_to_whom_a_rule_allows_and_refused_with_a_sentence() {
    let door = open().await;
    let refused = door.call("POST", "/take", &door.token).await;
    let sentence = "not authorized to write to the topic taken";
    assert_eq!((refused.status, refused.error().as_str()), (403, sentence));
    door.allow_topic(Operation::Read, "taken").await;
    assert_eq!(door.call("POST", "/take", &door.token).await.status, 403);
    door.allow_topic(Operation::Write, "taken").await;
    assert_eq!(door.call("POST", "/take", &door.token).await.body, "done");
    door.auth.delete_acls(&AclFilter::default()).await.unwrap();
    assert_eq!(door.call("POST", "/take", &door.token).await.status, 403);
    let health = door.get("/health").await.json();
    assert_eq!(health["http"]["denied_total"], 3);
}

#[tokio::test]
async fn a_route_without_a_named_right_is_for_those_whom_no_rule_binds() {
    let door = open().await;
    door.allow_topic(Operation::All, "*").await;
    let refused = door.get_with("/unnamed", &door.token).await;
    assert_eq!(refused.status, 403);
    assert!(refused.error().contains("/unnamed"));
    let admin = door.token_of("admin").await;
    assert_eq!(door.get_with("/unnamed", &admin).await.body, "done");
    assert_eq!(door.call("POST", "/take", &admin).await.body, "done");
}

#[tokio::test]
async fn strangers_are_asked_too_where_they_may_come_in() {
    let door = open().await;
    let refused = door.post("/speed", "").await;
    assert_eq!(refused.status, 403);
    let rule = AclBinding {
        resource_type: ResourceType::Topic,
        pattern_type: PatternType::Literal,
        name: "speed-events".to_owned(),
        principal: "User:ANONYMOUS".to_owned(),
        host: "127.0.0.1".to_owned(),
        operation: Operation::Write,
        permission: Permission::Allow,
    };
    door.auth.create_acls(vec![rule]).await.unwrap();
    assert_eq!(door.post("/speed", "").await.body, "done");
    // The gauge reads.
    assert_eq!(door.connect("/ws/speed", &[]).await.err(), Some(403));
}

#[tokio::test]
async fn lists_leave_out_what_the_asker_may_not_see() {
    let door = open().await;
    for name in ["seen", "unseen"] {
        door.topic(name).await;
    }
    let names = async || -> Vec<String> {
        let listed = door.get_with("/api/v1/topics", &door.token).await.json();
        let listed = listed.as_array().unwrap().iter();
        listed
            .map(|topic| topic["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(names().await.is_empty());
    door.allow_topic(Operation::Read, "seen").await;
    assert_eq!(names().await, ["seen"]);
    let groups = door.get_with("/api/v1/groups", &door.token).await;
    assert_eq!(groups.json(), json!([]));
}

#[tokio::test]
async fn rooms_are_followed_by_whom_a_rule_allows_and_left_when_it_goes() {
    let door = open().await;
    door.topic("shown").await;
    let mut ws = door.dashboard().await;
    let rooms = [
        "overview",
        "speed",
        "quality",
        "invalid",
        "topic:shown",
        "topic:absent",
    ];
    ws.say(json!({ "type": "subscribe", "rooms": rooms })).await;
    for room in rooms {
        let expected = json!({ "type": "error", "room": room, "error": "not authorized" });
        assert_eq!(ws.json().await, expected);
    }
    door.allow_topic(Operation::Read, "shown").await;
    door.allow(ResourceType::Cluster, Operation::Describe, "kafka-cluster")
        .await;
    let rooms = ["topic:shown", "overview"];
    ws.say(json!({ "type": "subscribe", "rooms": rooms })).await;
    let overview = ws.update("overview").await;
    assert_eq!(overview["topics"][0]["name"], "shown");
    door.append("shown", "k", ["first".to_owned()]).await;
    assert_eq!(ws.update("topic:shown").await["value"], "first");

    door.auth.delete_acls(&AclFilter::default()).await.unwrap();
    door.append("shown", "k", ["second".to_owned()]).await;
    let mut left = Vec::new();
    while left.len() < rooms.len() {
        let frame = ws.json().await;
        // An overview that was on its way may still come; a record appended since may not.
        assert!(!frame.to_string().contains("second"), "{frame}");
        if frame["type"] == "error" {
            assert_eq!(frame["error"], "not authorized");
            left.push(frame["room"].as_str().unwrap().to_owned());
        }
    }
    left.sort();
    assert_eq!(left, ["overview", "topic:shown"]);
}

#[tokio::test]
async fn the_overview_leaves_out_what_its_socket_may_not_see() {
    let door = open().await;
    for topic in ["seen", "unseen"] {
        let topic = door.topic(topic).await;
        for group in ["ours", "theirs"] {
            let committed = CommittedOffset {
                offset: 0,
                leader_epoch: -1,
                metadata: String::new(),
                commit_timestamp_ms: 0,
            };
            let commit = OffsetCommit {
                topic: topic.id(),
                partition: 0,
                committed,
            };
            let committed = door.log.commit_offsets(group, vec![commit]);
            committed.await.unwrap();
        }
    }
    door.allow(ResourceType::Cluster, Operation::Describe, "kafka-cluster")
        .await;
    door.allow_topic(Operation::Describe, "seen").await;
    door.allow(ResourceType::Group, Operation::Describe, "ours")
        .await;
    let admin = door.token_of("admin").await;
    let everything = [
        ("ours", "seen"),
        ("ours", "unseen"),
        ("theirs", "seen"),
        ("theirs", "unseen"),
    ];
    let cases = [
        (&door.token, &["seen"][..], &[("ours", "seen")][..]),
        (&admin, &["seen", "unseen"], &everything),
    ];
    for (token, topics, groups) in cases {
        let mut ws = door.connect("/ws/live", &[]).await.unwrap();
        ws.say(json!({ "type": "hello", "token": token })).await;
        ws.say(json!({ "type": "subscribe", "rooms": ["overview"] }))
            .await;
        let overview = ws.update("overview").await;
        let column = |list: &str, field: &str| -> Vec<String> {
            let lines = overview[list].as_array().unwrap().iter();
            lines
                .map(|line| line[field].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(column("topics", "name"), topics);
        let shown: Vec<_> = column("groups", "group")
            .into_iter()
            .zip(column("groups", "topic"))
            .collect();
        let shown: Vec<_> = shown
            .iter()
            .map(|(group, topic)| (group.as_str(), topic.as_str()))
            .collect();
        assert_eq!(shown, groups);
    }
}

#[tokio::test]
async fn the_gauge_is_closed_when_its_right_goes() {
    let door = open().await;
    door.allow_topic(Operation::Read, "speed-events").await;
    let bearer = format!("Bearer {}", door.token);
    let connect = || async {
        let headers = [("Authorization", bearer.as_str())];
        door.connect("/ws/speed", &headers).await
    };
    let mut gauge = connect().await.unwrap();
    door.topic("speed-events").await;
    let event = |speed: u32| [json!({ "sensor_id": "s", "speed": speed, "ts": 1 }).to_string()];
    door.append("speed-events", "s", event(7)).await;
    assert_eq!(gauge.text().await.unwrap(), "7");
    door.auth.delete_acls(&AclFilter::default()).await.unwrap();
    door.append("speed-events", "s", event(8)).await;
    assert_eq!(gauge.closed_with().await, 4403);
    assert_eq!(connect().await.err(), Some(403));
}

#[tokio::test]
async fn a_certificate_names_its_user_unless_a_token_does_and_not_to_foreign_pages() {
    let door = open().await;
    let access = Access {
        auth: door.auth.clone(),
        allow_anonymous: false,
        speed_allow_anonymous: false,
        rights: Vec::new(),
    };
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let peer = Peer {
        address: (here, 50_000).into(),
        listener: (here, 8443).into(),
        certificate: Some(Principal::of_certificate("carol", here)),
    };
    let asked = |list: &[(header::HeaderName, &str)]| {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost:8443".parse().unwrap());
        for (name, value) in list {
            headers.insert(name.clone(), value.parse().unwrap());
        }
        let judged = access.for_api(&headers, &peer).map(|p| p.name().to_owned());
        let socket = access.without_token(&headers, &peer).is_some();
        (judged.map_err(|error| error.status.as_u16()), socket)
    };
    assert_eq!(asked(&[]), (Ok("carol".to_owned()), true));
    let own = [(header::ORIGIN, "https://localhost:8443")];
    assert_eq!(asked(&own), (Ok("carol".to_owned()), true));
    let foreign = [(header::ORIGIN, "https://evil.example")];
    assert_eq!(asked(&foreign), (Err(401), false));
    let bearer = format!("Bearer {}", door.token);
    let token = [(header::AUTHORIZATION, bearer.as_str())];
    assert_eq!(asked(&token).0, Ok("tester".to_owned()));
    let wrong = [(header::AUTHORIZATION, "Bearer wrong")];
    assert_eq!(asked(&wrong).0, Err(401));
}
