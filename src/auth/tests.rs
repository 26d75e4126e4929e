//! Users, sign-ins and tokens over a real log.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_storage::log::LogOptions;

use super::scram::{ScramCredential, ScramMechanism};
use super::store::{CLIENT_KIND, USER_KIND};
use super::*;

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn open_log(dir: &tempfile::TempDir) -> Log {
    Log::open(LogOptions::new(dir.path())).unwrap()
}

/// Quick to hash with.
fn config() -> AuthConfig {
    AuthConfig {
        password_hash_memory_bytes: 7 << 20,
        scram_iterations: 4096,
        ..AuthConfig::default()
    }
}

async fn open(dir: &tempfile::TempDir) -> (Log, Auth) {
    let log = open_log(dir);
    let auth = Auth::open_with(log.clone(), config()).await.unwrap();
    (log, auth)
}

async fn token_of(auth: &Auth, name: &str, secret: &str) -> String {
    let principal = auth.login(name, secret, FROM).await.unwrap();
    auth.issue_token(&principal).unwrap().jwt
}

#[tokio::test]
async fn users_and_tokens_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (log, auth) = open(&dir).await;
    assert!(!auth.has_users());
    let secret = auth.renew_token("inverter-7").await.unwrap();
    auth.create_user("alice", "pencil", true).await.unwrap();
    let jwt = token_of(&auth, "inverter-7", &secret).await;
    drop(auth);
    log.close();
    drop(log);

    let (_log, auth) = open(&dir).await;
    let names: Vec<String> = auth.users().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["alice", "inverter-7"]);
    let principal = auth.verify_token(&jwt, FROM).unwrap();
    assert_eq!(
        (principal.name(), principal.authentication()),
        ("inverter-7", Authentication::Bearer)
    );
    assert!(auth.login("inverter-7", &secret, FROM).await.is_ok());
    assert!(auth.login("alice", "pencil", FROM).await.is_ok());
    for (name, secret) in [
        ("inverter-7", "wrong"),
        ("inverter-8", &secret),
        ("alice", "wrong"),
    ] {
        let refused = auth.login(name, secret, FROM).await.unwrap_err();
        assert_eq!(refused, LoginError::Refused);
    }
}

/// Bytes as an earlier version wrote them; the hash is that of "abc" (FIPS 180-2 appendix B.1).
#[tokio::test]
async fn clients_of_earlier_versions_become_users_once() {
    const CLIENT: &[u8] = br#"{"v":1,"secret_sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","created_at_ms":5}"#;
    const USER: &[u8] = br#"{"v":1,"created_at_ms":5,"changed_at_ms":5,"scram_off":false,"scram":[],"tokens":[{"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","created_at_ms":5}]}"#;
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(&dir);
    let put = async |name: &str, value: &'static [u8]| {
        let value = Some(Bytes::from_static(value));
        log.put_setting(CLIENT_KIND, name, value).await.unwrap();
    };
    for n in 0..300 {
        put(&format!("device-{n}"), CLIENT).await;
    }
    put("my client", CLIENT).await;
    put("damaged", b"{").await;
    let auth = Auth::open_with(log.clone(), config()).await.unwrap();
    assert!(auth.login("device-299", "abc", FROM).await.is_ok());
    assert!(auth.login("my client", "abc", FROM).await.is_ok());
    assert!(auth.login("damaged", "abc", FROM).await.is_err());
    assert_eq!(log.setting(USER_KIND, "device-0").unwrap(), USER);
    let left: Vec<String> = log
        .settings(CLIENT_KIND)
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert_eq!(left, ["damaged"]);

    // A crash between the two writes: the user has gone on, the client is still there.
    auth.renew_token("device-1").await.unwrap();
    put("device-1", CLIENT).await;
    drop(auth);
    log.close();
    drop(log);
    let (log, auth) = open(&dir).await;
    assert!(auth.login("device-1", "abc", FROM).await.is_err());
    assert!(log.setting(CLIENT_KIND, "device-1").is_none());
    assert_eq!(auth.users().len(), 301);
}

#[tokio::test]
async fn another_node_does_not_accept_the_token() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, first) = open(&one).await;
    let (_, second) = open(&two).await;
    let secret = first.renew_token("a").await.unwrap();
    second.renew_token("a").await.unwrap();
    let jwt = token_of(&first, "a", &secret).await;
    assert!(first.verify_token(&jwt, FROM).is_ok());
    assert_eq!(
        second.verify_token(&jwt, FROM).unwrap_err(),
        TokenError::Invalid
    );
}

#[tokio::test]
async fn a_token_ends_with_the_credential_it_was_issued_for_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir).await;
    auth.create_user("a", "pencil", true).await.unwrap();
    let first = auth.add_token("a", TokenOptions::default()).await.unwrap();
    let second = auth.add_token("a", TokenOptions::default()).await.unwrap();
    let revoked = |jwt: &str| auth.verify_token(jwt, FROM) == Err(TokenError::Revoked);
    let by_password = token_of(&auth, "a", "pencil").await;
    let by_first = token_of(&auth, "a", &first.text).await;
    let by_second = token_of(&auth, "a", &second.text).await;
    assert!(auth.delete_token("a", &first.id).await.unwrap());
    assert!(!auth.delete_token("a", &first.id).await.unwrap());
    let all = [&by_password, &by_first, &by_second];
    assert_eq!(all.map(|jwt| revoked(jwt)), [false, true, false]);
    assert!(auth.login("a", &first.text, FROM).await.is_err());
    auth.set_password("a", "brush", false).await.unwrap();
    assert_eq!(all.map(|jwt| revoked(jwt)), [true, true, false]);
    assert!(auth.login("a", "pencil", FROM).await.is_err());
    assert!(auth.login("a", "brush", FROM).await.is_ok());
    auth.renew_token("a").await.unwrap();
    assert!(revoked(&by_second));

    let by_password = token_of(&auth, "a", "brush").await;
    assert!(auth.delete_user("a").await.unwrap());
    assert!(!auth.delete_user("a").await.unwrap());
    assert!(revoked(&by_password));
    assert!(auth.login("a", "brush", FROM).await.is_err());
    let anonymous = auth.issue_token(&Principal::anonymous(FROM));
    assert!(matches!(anonymous, Err(AuthError::NoCredential(_))));
}

#[tokio::test]
async fn a_token_with_an_expiry_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir).await;
    let until = |expires_at_ms| TokenOptions {
        expires_at_ms: Some(expires_at_ms),
        label: None,
    };
    let good = auth.create_machine("a", until(i64::MAX)).await.unwrap();
    let over = auth.add_token("a", until(unix_ms())).await.unwrap();
    assert!(auth.login("a", &good.text, FROM).await.is_ok());
    assert!(auth.login("a", &over.text, FROM).await.is_err());
}

#[tokio::test]
async fn an_address_that_keeps_failing_is_turned_away_even_with_the_right_secret() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuthConfig {
        failures_max: 3,
        ..config()
    };
    let auth = Auth::open_with(open_log(&dir), config).await.unwrap();
    let secret = auth.renew_token("a").await.unwrap();
    for _ in 0..10 {
        assert!(auth.login("a", &secret, FROM).await.is_ok());
    }
    for _ in 0..3 {
        let refused = auth.login("a", "wrong", FROM).await.unwrap_err();
        assert_eq!(refused, LoginError::Refused);
    }
    let turned_away = auth.login("a", &secret, FROM).await;
    let Err(LoginError::TooManyFailures { retry_after_s }) = turned_away else {
        panic!("admitted");
    };
    assert!((1..=60).contains(&retry_after_s));
    let start = auth.scram_start(ScramMechanism::Sha256, b"n,,n=a,r=b", FROM);
    assert!(matches!(start, Err(LoginError::TooManyFailures { .. })));
    let elsewhere = "192.0.2.2".parse().unwrap();
    assert!(auth.login("a", &secret, elsewhere).await.is_ok());
}

#[tokio::test]
async fn users_are_made_once_and_within_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir).await;
    auth.create_user("a", "pencil", true).await.unwrap();
    let again = auth.create_user("a", "brush", true).await;
    assert!(matches!(again, Err(AuthError::UserExists(_))));
    let again = auth.create_machine("a", TokenOptions::default()).await;
    assert!(matches!(again, Err(AuthError::UserExists(_))));
    assert!(auth.login("a", "pencil", FROM).await.is_ok());
    let nobody = auth.set_password("b", "brush", true).await;
    assert!(matches!(nobody, Err(AuthError::NoSuchUser(_))));
    let nobody = auth.add_token("b", TokenOptions::default()).await;
    assert!(matches!(nobody, Err(AuthError::NoSuchUser(_))));
    for _ in 0..TOKENS_PER_USER_MAX {
        auth.add_token("a", TokenOptions::default()).await.unwrap();
    }
    let more = auth.add_token("a", TokenOptions::default()).await;
    assert!(matches!(more, Err(AuthError::TooManyTokens(_))));
    for name in ["", "two words", &"x".repeat(USER_NAME_BYTES_MAX + 1)] {
        let made = auth.create_user(name, "pencil", true).await;
        assert!(matches!(made, Err(AuthError::InvalidName { .. })), "{name}");
    }
    let empty = auth.create_user("c", "", true).await;
    assert!(matches!(empty, Err(AuthError::InvalidPassword(_))));
    let label = TokenOptions {
        expires_at_ms: None,
        label: Some("line\n".to_owned()),
    };
    let made = auth.create_machine("c", label).await;
    assert!(matches!(made, Err(AuthError::InvalidLabel(_))));
    assert_eq!(auth.users().len(), 1);
}

#[tokio::test]
async fn changes_made_at_the_same_time_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir).await;
    auth.create_user("a", "pencil", true).await.unwrap();
    let added = (0..20).map(|_| auth.add_token("a", TokenOptions::default()));
    let added = futures_util::future::try_join_all(added).await.unwrap();
    let kept = auth.user("a").unwrap();
    assert!(
        added
            .iter()
            .all(|new| kept.tokens().iter().any(|token| token.id() == new.id))
    );
}

/// Field `name` of a SCRAM message.
fn field<'m>(message: &'m str, name: &str) -> &'m str {
    let mut fields = message.split(',');
    fields.find_map(|field| field.strip_prefix(name)).unwrap()
}

/// The client's last message for a password, from RFC 5802 section 3 and the verifier's own code for
/// no more than the hash functions.
fn proof(mechanism: ScramMechanism, bare: &str, server_first: &str, password: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256, Sha512};
    fn made<H, M: Mac + KeyInit>(hash: H, salted: &[u8], message: &str) -> Vec<u8>
    where
        H: Fn(&[u8]) -> Vec<u8>,
    {
        let mac = |key: &[u8], data: &[u8]| {
            let mac = <M as KeyInit>::new_from_slice(key)
                .unwrap()
                .chain_update(data);
            mac.finalize().into_bytes().to_vec()
        };
        let client_key = mac(salted, b"Client Key");
        let signature = mac(&hash(&client_key), message.as_bytes());
        client_key
            .iter()
            .zip(signature)
            .map(|(key, sign)| key ^ sign)
            .collect()
    }
    let salt = STANDARD.decode(field(server_first, "s=")).unwrap();
    let iterations = field(server_first, "i=").parse().unwrap();
    let without_proof = format!("c=biws,r={}", field(server_first, "r="));
    let message = format!("{bare},{server_first},{without_proof}");
    let password = password.as_bytes();
    let proof = match mechanism {
        ScramMechanism::Sha256 => {
            let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, &salt, iterations);
            made::<_, Hmac<Sha256>>(|data| Sha256::digest(data).to_vec(), &salted, &message)
        }
        ScramMechanism::Sha512 => {
            let salted = pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, &salt, iterations);
            made::<_, Hmac<Sha512>>(|data| Sha512::digest(data).to_vec(), &salted, &message)
        }
    };
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

fn scram(
    auth: &Auth,
    mechanism: ScramMechanism,
    name: &str,
    password: &str,
) -> Result<Principal, LoginError> {
    let bare = format!("n={name},r=abc");
    let first = format!("n,,{bare}");
    let (login, server_first) = auth.scram_start(mechanism, first.as_bytes(), FROM)?;
    let last = proof(mechanism, &bare, &server_first, password);
    let (principal, _) = auth.scram_finish(login, last.as_bytes())?;
    Ok(principal)
}

#[tokio::test]
async fn scram_lets_in_whoever_has_a_verifier_and_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir).await;
    auth.create_user("alice", "pencil", true).await.unwrap();
    auth.create_user("bob", "pencil", false).await.unwrap();
    for mechanism in ScramMechanism::ALL {
        let principal = scram(&auth, mechanism, "alice", "pencil").unwrap();
        assert_eq!(principal.full_name(), "User:alice");
        assert_eq!(principal.authentication(), Authentication::Scram(mechanism));
        let jwt = auth.issue_token(&principal).unwrap().jwt;
        assert!(auth.verify_token(&jwt, FROM).is_ok());
        for (name, password) in [("alice", "brush"), ("bob", "pencil"), ("carol", "pencil")] {
            let refused = scram(&auth, mechanism, name, password).unwrap_err();
            assert_eq!(refused, LoginError::Refused, "{name}");
        }
    }
}

#[tokio::test]
async fn an_unknown_user_is_told_the_same_salt_before_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let told = |auth: &Auth| {
        let start = auth.scram_start(ScramMechanism::Sha256, b"n,,n=carol,r=abc", FROM);
        let (_, server_first) = start.unwrap();
        (
            field(&server_first, "s=").to_owned(),
            field(&server_first, "i=").to_owned(),
        )
    };
    let (log, auth) = open(&dir).await;
    auth.create_user("alice", "pencil", true).await.unwrap();
    let before = told(&auth);
    let known = auth.scram_start(ScramMechanism::Sha256, b"n,,n=alice,r=abc", FROM);
    let (_, known) = known.unwrap();
    assert_eq!(field(&known, "s=").len(), before.0.len());
    assert_eq!(field(&known, "i="), before.1);
    drop(auth);
    log.close();
    drop(log);
    assert_eq!(told(&open(&dir).await.1), before);
}

#[tokio::test]
async fn an_exchange_does_not_outlive_the_password_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir).await;
    auth.create_user("a", "pencil", true).await.unwrap();
    let mechanism = ScramMechanism::Sha256;
    let (login, server_first) = auth.scram_start(mechanism, b"n,,n=a,r=abc", FROM).unwrap();
    let last = proof(mechanism, "n=a,r=abc", &server_first, "pencil");
    auth.set_password("a", "pencil", true).await.unwrap();
    let refused = auth.scram_finish(login, last.as_bytes()).unwrap_err();
    assert_eq!(refused, LoginError::Refused);
}

#[tokio::test]
async fn verifiers_of_kafkas_tools_make_and_end_users() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir).await;
    let verifier = |mechanism, password| {
        ScramCredential::of_password(mechanism, password, b"salt", 4096).unwrap()
    };
    let (sha256, sha512) = (ScramMechanism::Sha256, ScramMechanism::Sha512);
    auth.put_scram_credential("a", verifier(sha256, "one"))
        .await
        .unwrap();
    auth.put_scram_credential("a", verifier(sha512, "two"))
        .await
        .unwrap();
    for password in ["one", "two"] {
        assert!(auth.login("a", password, FROM).await.is_ok());
    }
    assert!(scram(&auth, sha256, "a", "one").is_ok());
    assert!(scram(&auth, sha512, "a", "one").is_err());
    assert!(auth.delete_scram_credential("a", sha256).await.unwrap());
    assert!(!auth.delete_scram_credential("a", sha256).await.unwrap());
    assert!(auth.login("a", "one", FROM).await.is_err());
    assert!(auth.delete_scram_credential("a", sha512).await.unwrap());
    assert!(auth.user("a").is_none());
    assert!(!auth.delete_scram_credential("a", sha512).await.unwrap());

    auth.create_user("b", "pencil", true).await.unwrap();
    auth.put_scram_credential("b", verifier(sha256, "one"))
        .await
        .unwrap();
    assert!(auth.login("b", "one", FROM).await.is_ok());
    assert!(!auth.user("b").unwrap().has_argon2_hash());
    auth.create_user("c", "pencil", false).await.unwrap();
    let refused = auth
        .put_scram_credential("c", verifier(sha256, "one"))
        .await;
    assert!(matches!(refused, Err(AuthError::ScramOff(_))));
}

#[tokio::test]
async fn a_damaged_key_stops_the_start_and_a_damaged_user_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (log, auth) = open(&dir).await;
    let secret = auth.renew_token("good").await.unwrap();
    log.put_setting(USER_KIND, "bad", Some(Bytes::from_static(b"{")))
        .await
        .unwrap();
    assert!(auth.login("bad", "x", FROM).await.is_err());
    let changed = auth.add_token("bad", TokenOptions::default()).await;
    assert!(matches!(changed, Err(AuthError::DamagedSetting { .. })));
    assert!(auth.delete_user("bad").await.unwrap());
    assert!(auth.login("good", &secret, FROM).await.is_ok());
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
