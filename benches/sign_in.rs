//! Ten thousand devices that come back at once, and decisions among ten thousand access rules.
//!
//! `cargo bench --bench sign_in`: every user signs in once, all at the same time, with nothing
//! remembered (as after a restart), then once more. Then the server's side of as many SCRAM exchanges.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast::auth::scram::{ScramCredential, ScramMechanism};
use holdfast::auth::{
    ARGON2_WAITING_MAX, AclBinding, Auth, AuthConfig, Authorizer, Operation, PatternType,
    Permission, Principal, Resource, ResourceType,
};
use holdfast_storage::log::{Log, LogOptions};
use tokio::task::JoinSet;

const USERS: usize = 10_000;
const DECISIONS: usize = 200_000;
const PASSWORD: &str = "correct horse battery staple";
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::main]
async fn main() {
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    let config = AuthConfig {
        failures_max: u32::MAX,
        authorizer: Authorizer::Acl,
        ..AuthConfig::default()
    };
    println!(
        "sign_in: {threads} CPUs, Argon2id {} MiB x {}, SCRAM {} iterations",
        config.password_hash_memory_bytes >> 20,
        config.password_hashes_at_once,
        config.scram_iterations,
    );
    let dir = tempfile::TempDir::new().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let auth = Auth::open_with(log, config.clone()).await.unwrap();
    println!("idle: {} MiB resident", resident_mib("VmRSS"));

    let machines = made(&auth, "machine", USERS, |auth, name| async move {
        auth.renew_token(&name).await.unwrap()
    });
    signs_in("machine tokens", &auth, machines.await).await;

    let mechanism = ScramMechanism::Sha256;
    let iterations = config.scram_iterations;
    let verifier = ScramCredential::of_password(mechanism, PASSWORD, &[7; 24], iterations).unwrap();
    let people = made(&auth, "scram", USERS, |auth, name| {
        let verifier = verifier.clone();
        async move {
            auth.put_scram_credential(&name, verifier).await.unwrap();
            PASSWORD.to_owned()
        }
    });
    let people = people.await;
    signs_in("passwords, by SCRAM verifier", &auth, people.clone()).await;
    signs_in("the same passwords, remembered", &auth, people).await;

    let hashed = made(
        &auth,
        "argon2",
        ARGON2_WAITING_MAX,
        |auth, name| async move {
            auth.create_user(&name, PASSWORD, false).await.unwrap();
            PASSWORD.to_owned()
        },
    );
    let hashed = hashed.await;
    signs_in("passwords, by Argon2id alone", &auth, hashed.clone()).await;
    signs_in("the same passwords, remembered", &auth, hashed).await;

    exchanges(&auth);
    decisions(&auth).await;
    println!("peak: {} MiB resident", resident_mib("VmHWM"));
}

/// Names and secrets of new users, made side by side.
async fn made<F>(
    auth: &Auth,
    kind: &str,
    count: usize,
    make: impl Fn(Auth, String) -> F,
) -> Vec<(String, String)>
where
    F: Future<Output = String> + Send + 'static,
{
    let mut users = Vec::new();
    for first in (0..count).step_by(256) {
        let mut making = JoinSet::new();
        for n in first..count.min(first + 256) {
            let name = format!("{kind}-{n}");
            let made = make(auth.clone(), name.clone());
            making.spawn(async move { (name, made.await) });
        }
        users.extend(making.join_all().await);
    }
    users
}

async fn signs_in(what: &str, auth: &Auth, users: Vec<(String, String)>) {
    let (count, began) = (users.len(), Instant::now());
    let mut signing = JoinSet::new();
    for (name, secret) in users {
        let auth = auth.clone();
        signing.spawn(async move { auth.login(&name, &secret, FROM).await.map(|_| ()) });
    }
    let refused = signing
        .join_all()
        .await
        .into_iter()
        .filter(Result::is_err)
        .count();
    let took = began.elapsed();
    println!(
        "{what}: {count} sign-ins in {took:.2?}, {:.0}/s, {refused} refused; peak {} MiB resident",
        count as f64 / took.as_secs_f64(),
        resident_mib("VmHWM")
    );
}

/// With a proof that does not fit: the node computes as much as for one that does.
fn exchanges(auth: &Auth) {
    let began = Instant::now();
    for n in 0..USERS {
        let first = format!("n,,n=scram-{n},r=nonce");
        let start = auth.scram_start(ScramMechanism::Sha256, first.as_bytes(), FROM);
        let (login, answer) = start.unwrap();
        let nonce = answer.split(',').next().unwrap();
        let last = format!("c=biws,{nonce},p={}", STANDARD.encode([0; 32]));
        assert!(auth.scram_finish(login, last.as_bytes()).is_err());
    }
    let took = began.elapsed();
    println!("SCRAM exchanges, the server's side on one thread: {USERS} in {took:.2?}");
}

async fn decisions(auth: &Auth) {
    let rule = |n: usize| AclBinding {
        resource_type: ResourceType::Topic,
        pattern_type: if n.is_multiple_of(2) {
            PatternType::Literal
        } else {
            PatternType::Prefixed
        },
        name: format!("site-{n}.telemetry"),
        principal: format!("User:device-{n}"),
        host: "*".to_owned(),
        operation: Operation::Write,
        permission: Permission::Allow,
    };
    let began = Instant::now();
    auth.create_acls((0..USERS).map(rule).collect())
        .await
        .unwrap();
    println!("{USERS} access rules made in {:.2?}", began.elapsed());
    let principals: Vec<Principal> = (0..100)
        .map(|n| Principal::of_certificate(&format!("device-{n}"), FROM))
        .collect();
    let topics: Vec<String> = (0..100).map(|n| format!("site-{n}.telemetry")).collect();
    let began = Instant::now();
    let mut allowed = 0;
    for n in 0..DECISIONS {
        let (who, topic) = (&principals[n % 100], &topics[(n + n / 100 % 2) % 100]);
        allowed += usize::from(auth.authorize(who, Operation::Write, Resource::topic(topic)));
    }
    let each = began.elapsed() / u32::try_from(DECISIONS).unwrap();
    println!("decisions among them: {each:.0?} each, {allowed} of {DECISIONS} allowed");
}

fn resident_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 10
}
