//! Sign-in and tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

#[tokio::test]
async fn a_secret_buys_a_token_and_the_token_opens_the_api() {
    let door = Door::open(Setup::default()).await;
    let answer = door.sign_in("tester", &door.secret).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(
        (&body["token_type"], &body["expires_in"]),
        (&json!("Bearer"), &json!(3600))
    );
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(door.get_with("/api/v1/topics", token).await.status, 200);
}

#[tokio::test]
async fn a_stranger_is_told_to_sign_in_and_gets_nothing() {
    let with_token = Router::new().route("/mounted", get(|| async { "secret" }));
    let mounts = Mounts {
        with_token,
        ..Mounts::default()
    };
    let door = Door::open(Setup {
        mounts,
        ..Setup::default()
    })
    .await;
    for path in ["/api/v1/topics", "/api/v1/groups", "/mounted"] {
        let answer = door.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(answer.error().contains("POST /auth"), "{path}");
    }
    assert_eq!(door.get_with("/mounted", &door.token).await.body, "secret");
}

#[tokio::test]
async fn unknown_clients_and_wrong_secrets_are_refused_alike() {
    let door = Door::open(Setup::default()).await;
    let wrong = door.sign_in("tester", "wrong").await;
    let unknown = door.sign_in("nobody", &door.secret).await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
}

#[tokio::test]
async fn expired_forged_and_unsigned_tokens_are_refused() {
    let door = Door::open(Setup::default()).await;
    let expired = door.auth.expired_token("tester").unwrap();
    let answer = door.get_with("/api/v1/topics", &expired).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (401, "the token has expired")
    );

    let parts: Vec<&str> = door.token.split('.').collect();
    let header = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let none = format!("{}.{}.", header(r#"{"alg":"none","typ":"JWT"}"#), parts[1]);
    let none_signed = format!(
        "{}.{}.{}",
        header(r#"{"alg":"none","typ":"JWT"}"#),
        parts[1],
        parts[2]
    );
    let other_client = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let other_client = String::from_utf8(other_client)
        .unwrap()
        .replace("tester", "admin!");
    let forged = format!(
        "{}.{}.{}",
        parts[0],
        URL_SAFE_NO_PAD.encode(other_client),
        parts[2]
    );
    for token in [&none, &none_signed, &forged, "x", "..", &"a".repeat(9000)] {
        assert_eq!(
            door.get_with("/api/v1/topics", token).await.status,
            401,
            "{token}"
        );
    }
    let basic = request(
        "GET",
        "/api/v1/topics",
        &[("Authorization", "Basic dGVzdGVyOng=")],
        "",
    );
    assert_eq!(exchange(door.address(), &basic).await.status, 401);
}

#[tokio::test]
async fn renewing_a_secret_ends_the_old_tokens() {
    let door = Door::open(Setup::default()).await;
    door.auth.renew_token("tester").await.unwrap();
    let answer = door.get_with("/api/v1/topics", &door.token).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (401, "the token was revoked")
    );
}

#[tokio::test]
async fn failed_sign_ins_are_limited_per_address() {
    let auth = AuthConfig {
        failures_max: 3,
        ..AuthConfig::default()
    };
    let door = Door::open(Setup {
        auth,
        ..Setup::default()
    })
    .await;
    for _ in 0..3 {
        assert_eq!(door.sign_in("tester", "wrong").await.status, 401);
    }
    let answer = door.sign_in("tester", &door.secret).await;
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    assert_eq!(
        door.get_with("/api/v1/topics", &door.token).await.status,
        200
    );
}

#[tokio::test]
async fn anonymous_access_exists_only_where_the_configuration_says_so() {
    let http = HttpConfig {
        allow_anonymous: true,
        ..Setup::default().http
    };
    let door = Door::open(Setup {
        http,
        ..Setup::default()
    })
    .await;
    assert_eq!(door.get("/api/v1/topics").await.status, 200);
    // A token that is sent is judged all the same, and a foreign page is a stranger.
    assert_eq!(door.get_with("/api/v1/topics", "wrong").await.status, 401);
    let foreign = request(
        "GET",
        "/api/v1/topics",
        &[("Origin", "https://evil.example")],
        "",
    );
    assert_eq!(exchange(door.address(), &foreign).await.status, 401);
    let mut ws = door.connect("/ws/live", &[]).await.unwrap();
    ws.say(json!({ "type": "hello", "token": "" })).await;
    assert_eq!(ws.json().await, json!({ "type": "welcome" }));
}
