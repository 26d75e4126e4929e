//! The client table and the token key over a real log.
#![allow(clippy::unwrap_used, clippy::panic)]

use holdfast_storage::log::LogOptions;

use super::*;

fn open_log(dir: &tempfile::TempDir) -> Log {
    Log::open(LogOptions::new(dir.path())).unwrap()
}

#[tokio::test]
async fn clients_and_tokens_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(&dir);
    let auth = Auth::open(log.clone()).await.unwrap();
    assert!(!auth.has_clients());
    let secret = auth.create_client("inverter-7").await.unwrap();
    let principal = auth.authenticate("inverter-7", &secret).unwrap();
    let token = auth.issue_token(&principal).unwrap();
    assert_eq!(token.expires_in_s, 3600);
    drop(auth);
    log.close();
    drop(log);

    let auth = Auth::open(open_log(&dir)).await.unwrap();
    assert!(auth.has_clients());
    assert_eq!(auth.clients(), ["inverter-7"]);
    assert_eq!(
        auth.verify_token(&token.jwt).unwrap().client_id,
        "inverter-7"
    );
    assert!(auth.authenticate("inverter-7", &secret).is_some());
    assert!(auth.authenticate("inverter-7", "wrong").is_none());
    assert!(auth.authenticate("inverter-8", &secret).is_none());
}

#[tokio::test]
async fn another_node_does_not_accept_the_token() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Auth::open(open_log(&one)).await.unwrap();
    let second = Auth::open(open_log(&two)).await.unwrap();
    first.create_client("a").await.unwrap();
    second.create_client("a").await.unwrap();
    let token = first
        .issue_token(&Principal {
            client_id: "a".into(),
        })
        .unwrap();
    assert!(first.verify_token(&token.jwt).is_ok());
    assert_eq!(
        second.verify_token(&token.jwt).unwrap_err(),
        TokenError::Invalid
    );
}

#[tokio::test]
async fn renewing_or_deleting_a_client_revokes_its_secret_and_its_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Auth::open(open_log(&dir)).await.unwrap();
    let old = auth.create_client("a").await.unwrap();
    let token = auth
        .issue_token(&auth.authenticate("a", &old).unwrap())
        .unwrap();
    let new = auth.create_client("a").await.unwrap();
    assert_ne!(old, new);
    assert!(auth.authenticate("a", &old).is_none());
    assert_eq!(
        auth.verify_token(&token.jwt).unwrap_err(),
        TokenError::Revoked
    );

    let token = auth
        .issue_token(&auth.authenticate("a", &new).unwrap())
        .unwrap();
    assert!(auth.delete_client("a").await.unwrap());
    assert!(!auth.delete_client("a").await.unwrap());
    assert!(auth.authenticate("a", &new).is_none());
    assert_eq!(
        auth.verify_token(&token.jwt).unwrap_err(),
        TokenError::Revoked
    );
    assert!(!auth.has_clients());
}

#[tokio::test]
async fn an_address_that_keeps_failing_is_turned_away_even_with_the_right_secret() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuthConfig {
        failures_max: 3,
        ..AuthConfig::default()
    };
    let auth = Auth::open_with(open_log(&dir), config).await.unwrap();
    let secret = auth.create_client("a").await.unwrap();
    let from: IpAddr = "192.0.2.1".parse().unwrap();
    for _ in 0..10 {
        assert!(auth.login("a", &secret, from).is_ok());
    }
    for _ in 0..3 {
        assert_eq!(
            auth.login("a", "wrong", from).unwrap_err(),
            LoginError::Refused
        );
    }
    let Err(LoginError::TooManyFailures { retry_after_s }) = auth.login("a", &secret, from) else {
        panic!("admitted");
    };
    assert!((1..=60).contains(&retry_after_s));
    assert!(
        auth.login("a", &secret, "192.0.2.2".parse().unwrap())
            .is_ok()
    );
}

#[tokio::test]
async fn a_damaged_key_stops_the_start_and_a_damaged_client_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(&dir);
    let auth = Auth::open(log.clone()).await.unwrap();
    let secret = auth.create_client("good").await.unwrap();
    log.put_setting(CLIENT_KIND, "bad", Some(Bytes::from_static(b"{")))
        .await
        .unwrap();
    assert!(auth.authenticate("bad", "x").is_none());
    assert!(auth.authenticate("good", &secret).is_some());
    log.put_setting(
        KEY_KIND,
        KEY_NAME,
        Some(Bytes::from_static(b"{\"v\":1,\"key\":\"\"}")),
    )
    .await
    .unwrap();
    let Err(AuthError::DamagedSetting { key, .. }) = Auth::open(log).await else {
        panic!("opened")
    };
    assert_eq!(key, KEY_NAME);
}
