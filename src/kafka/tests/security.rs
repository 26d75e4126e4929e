//! Who comes in, how, and what they may do.

use rustls::pki_types::ServerName;
use tokio_rustls::client::TlsStream;

use super::super::client::{ConnectOptions, Login};
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeConfigsResource,
    FindCoordinatorRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest,
};
use super::super::{ListenerConfig, Mechanism, Security};
use super::*;
use crate::auth::scram::ScramMechanism;
use crate::auth::tests::{config as quick, proof};
use crate::tls::ClientAuth;
use crate::tls::tests::{Identity, Site};

const BOTH: [crate::tls::TlsVersion; 2] =
    [crate::tls::TlsVersion::V12, crate::tls::TlsVersion::V13];

fn listener(name: &str, security: Security) -> ListenerConfig {
    ListenerConfig {
        name: name.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertised: None,
        security,
        sasl_mechanisms: None,
        allow_anonymous: false,
        tls: None,
    }
}

fn with_tls(name: &str, security: Security, site: &Site, auth: ClientAuth) -> ListenerConfig {
    ListenerConfig {
        tls: Some(site.config(auth)),
        ..listener(name, security)
    }
}

/// A door with these listeners beside the plain one, and the user `alice` with the password `pencil`.
async fn door(listeners: Vec<ListenerConfig>, auth: AuthConfig) -> Door {
    let config = KafkaConfig {
        listeners,
        handshake_timeout_ms: 5_000,
        ..Default::default()
    };
    let door = Door::open_guarded(tempfile::tempdir().unwrap(), config, auth).await;
    door.auth
        .create_user("alice", "pencil", true)
        .await
        .unwrap();
    door
}

impl Door {
    pub(super) fn address_of(&self, name: &str) -> SocketAddr {
        let mut all = self.handle.listeners().iter();
        all.find(|(known, _)| known == name).unwrap().1
    }

    pub(super) async fn wire_to(&self, name: &str) -> Wire {
        Wire {
            socket: TcpStream::connect(self.address_of(name)).await.unwrap(),
            next: 0,
        }
    }

    async fn tls_wire_to(
        &self,
        name: &str,
        site: &Site,
        identity: Option<&Identity>,
    ) -> std::io::Result<Wire<TlsStream<TcpStream>>> {
        let socket = TcpStream::connect(self.address_of(name)).await.unwrap();
        let server = ServerName::try_from("node.example").unwrap();
        let connector = site.connector(identity, &BOTH);
        let socket = connector.connect(server, socket).await?;
        Ok(Wire { socket, next: 0 })
    }

    async fn closed(&self, count: u64) {
        in_time(async {
            while self.handle.stats().connections_broken < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn token(bytes: &[u8]) -> SaslAuthenticateRequest {
    SaslAuthenticateRequest {
        auth_bytes: Bytes::copy_from_slice(bytes),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    async fn choose(&mut self, mechanism: &str, version: i16) -> (ErrorCode, Vec<String>) {
        let mechanism = mechanism.into();
        let response = self.ask(SaslHandshakeRequest { mechanism }, version).await;
        let names = response.mechanisms.iter().map(Str::to_string);
        (ErrorCode(response.error_code), names.collect())
    }

    pub(super) async fn plain(&mut self, name: &str, password: &str) -> SaslAuthenticateResponse {
        assert_eq!(self.choose("PLAIN", 1).await.0, ErrorCode::None);
        self.ask(token(format!("\0{name}\0{password}").as_bytes()), 2)
            .await
    }

    pub(super) async fn scram(
        &mut self,
        mechanism: ScramMechanism,
        name: &str,
        password: &str,
    ) -> SaslAuthenticateResponse {
        assert_eq!(self.choose(mechanism.name(), 1).await.0, ErrorCode::None);
        let bare = format!("n={name},r=abc");
        let first = self.ask(token(format!("n,,{bare}").as_bytes()), 1).await;
        assert_eq!(first.error_code, 0);
        let server_first = String::from_utf8(first.auth_bytes.to_vec()).unwrap();
        let last = proof(mechanism, &bare, &server_first, password);
        self.ask(token(last.as_bytes()), 1).await
    }

    async fn is_served(&mut self) -> bool {
        let id = self.send(MetadataRequest::default(), 12).await;
        match self.frame().await {
            Some(frame) => {
                let answered = protocol::decode_response(MetadataRequest::API, 12, frame);
                answered.unwrap().0 == id
            }
            None => false,
        }
    }
}

#[tokio::test]
async fn every_listener_tells_its_own_address() {
    let told = |host: &str| Some(format!("{host}:1234"));
    let door = door(
        vec![
            ListenerConfig {
                advertised: told("inside.example"),
                ..listener("IN", Security::Plaintext)
            },
            ListenerConfig {
                advertised: told("outside.example"),
                ..listener("OUT", Security::Plaintext)
            },
        ],
        quick(),
    )
    .await;
    for (name, host) in [("IN", "inside.example"), ("OUT", "outside.example")] {
        let mut wire = door.wire_to(name).await;
        let metadata = wire.ask(MetadataRequest::default(), 12).await;
        let broker = &metadata.brokers[0];
        assert_eq!((broker.host.as_str(), broker.port), (host, 1234));
        let request = DescribeClusterRequest {
            endpoint_type: 1,
            ..Default::default()
        };
        let cluster = wire.ask(request, 1).await;
        assert_eq!(cluster.brokers[0].host.as_str(), host);
        let request = FindCoordinatorRequest {
            key: "g".into(),
            ..Default::default()
        };
        assert_eq!(wire.ask(request, 3).await.host.as_str(), host);
    }
    let mut plain = door.wire().await;
    let metadata = plain.ask(MetadataRequest::default(), 12).await;
    assert_eq!(metadata.brokers[0].host.as_str(), "127.0.0.1");
    door.close().await;
}

/// Long runs come in pieces; where there is no room for those, in shorter ones.
#[tokio::test]
async fn records_go_through_tls_whether_there_is_room_for_them_or_not() {
    let site = Site::new();
    for responses_bytes_max in [64 << 20, 1] {
        let config = KafkaConfig {
            listeners: vec![with_tls("SSL", Security::Ssl, &site, ClientAuth::None)],
            responses_bytes_max,
            ..Default::default()
        };
        let door = Door::open_guarded(tempfile::tempdir().unwrap(), config, quick()).await;
        let topic = door.topic("t", 1).await;
        let mut wire = door.tls_wire_to("SSL", &site, None).await.unwrap();
        let value = "0123456789abcdef".repeat(40 << 10);
        for _ in 0..5 {
            let answer = produced(&mut wire, produce(&topic, 0, batch(&[&value])), 9).await;
            assert_eq!(answer.error_code, 0);
        }
        let mut request = fetch(&topic, 0, 0);
        request.max_bytes = 16 << 20;
        request.topics[0].partitions[0].partition_max_bytes = 16 << 20;
        let found = fetched(&mut wire, request, 11).await;
        let found = values(&found, 0);
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|(_, found)| *found == value));
        door.close().await;
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for_where_the_listener_says_so() {
    let site = Site::new();
    let door = door(
        vec![with_tls("SSL", Security::Ssl, &site, ClientAuth::Required)],
        quick(),
    )
    .await;
    let alice = site.client("alice");
    let mut known = door.tls_wire_to("SSL", &site, Some(&alice)).await.unwrap();
    assert!(known.is_served().await);
    // With TLS 1.3 the client learns of the refusal with its first read.
    let stranger = door.tls_wire_to("SSL", &site, None).await;
    if let Ok(mut stranger) = stranger {
        let read = in_time(stranger.socket.read_u8()).await;
        assert!(read.is_err());
    }
    door.closed(1).await;
    let other_site = Site::new();
    let forged = other_site.client("alice");
    if let Ok(mut forged) = door.tls_wire_to("SSL", &site, Some(&forged)).await {
        assert!(in_time(forged.socket.read_u8()).await.is_err());
    }
    door.closed(2).await;
    door.close().await;
}

#[tokio::test]
async fn who_speaks_tls_to_a_plain_listener_or_the_reverse_is_closed() {
    let site = Site::new();
    let door = door(
        vec![
            with_tls("SSL", Security::Ssl, &site, ClientAuth::None),
            listener("SASL", Security::SaslPlaintext),
        ],
        quick(),
    )
    .await;
    let mut plain = door.wire_to("SSL").await;
    plain.send(ApiVersionsRequest::default(), 0).await;
    // An alert, and the end.
    let mut rest = Vec::new();
    let _ = in_time(plain.socket.read_to_end(&mut rest)).await;
    door.closed(1).await;
    for (name, closed) in [("PLAINTEXT", 2), ("SASL", 3)] {
        assert!(door.tls_wire_to(name, &site, None).await.is_err());
        door.closed(closed).await;
    }
    door.close().await;
}

#[tokio::test]
async fn every_mechanism_lets_the_right_password_in_over_both_transports() {
    let site = Site::new();
    let door = door(
        vec![
            listener("SASL", Security::SaslPlaintext),
            with_tls("SECURE", Security::SaslSsl, &site, ClientAuth::None),
        ],
        quick(),
    )
    .await;
    let mut wire = door.wire_to("SASL").await;
    let answer = wire.plain("alice", "pencil").await;
    assert_eq!((answer.error_code, answer.error_message), (0, None));
    assert_eq!(answer.session_lifetime_ms, 0);
    assert!(wire.is_served().await);
    for mechanism in ScramMechanism::ALL {
        let mut wire = door.wire_to("SASL").await;
        let answer = wire.scram(mechanism, "alice", "pencil").await;
        assert_eq!(answer.error_code, 0);
        assert!(answer.auth_bytes.starts_with(b"v="));
        assert!(wire.is_served().await);
        let mut wire = door.tls_wire_to("SECURE", &site, None).await.unwrap();
        assert_eq!(wire.scram(mechanism, "alice", "pencil").await.error_code, 0);
        assert!(wire.is_served().await);
    }
    let mut wire = door.tls_wire_to("SECURE", &site, None).await.unwrap();
    assert_eq!(wire.plain("alice", "pencil").await.error_code, 0);
    assert!(wire.is_served().await);
    door.close().await;
}

#[tokio::test]
async fn who_fails_is_told_in_kafkas_words_and_closed() {
    let door = door(vec![listener("SASL", Security::SaslPlaintext)], quick()).await;
    let failed = ErrorCode::SaslAuthenticationFailed.code();
    for (name, password) in [("alice", "pen"), ("nobody", "pencil")] {
        let mut wire = door.wire_to("SASL").await;
        let began = std::time::Instant::now();
        let answer = wire.plain(name, password).await;
        assert!(began.elapsed() >= Duration::from_millis(100));
        assert_eq!(answer.error_code, failed);
        assert_eq!(
            answer.error_message.unwrap().as_str(),
            "Authentication failed: Invalid username or password"
        );
        assert!(wire.frame().await.is_none());
        let mut wire = door.wire_to("SASL").await;
        let answer = wire.scram(ScramMechanism::Sha512, name, password).await;
        assert_eq!(answer.error_code, failed);
        let message = answer.error_message.unwrap();
        assert!(message.as_str().ends_with("SASL mechanism SCRAM-SHA-512"));
        assert!(wire.frame().await.is_none());
    }
    door.close().await;
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered_is_answered_with_those_that_are() {
    let only_scram = ListenerConfig {
        sasl_mechanisms: Some(vec![Mechanism::ScramSha256, Mechanism::ScramSha512]),
        ..listener("SASL", Security::SaslPlaintext)
    };
    let door = door(vec![only_scram], quick()).await;
    for (mechanism, version) in [("PLAIN", 1), ("GSSAPI", 0)] {
        let mut wire = door.wire_to("SASL").await;
        let (error, names) = wire.choose(mechanism, version).await;
        assert_eq!(error, ErrorCode::UnsupportedSaslMechanism);
        assert_eq!(names, ["SCRAM-SHA-256", "SCRAM-SHA-512"]);
        assert!(wire.frame().await.is_none());
    }
    door.close().await;
}

#[tokio::test]
async fn the_client_signs_in_and_says_why_it_cannot() {
    let no_plain = ListenerConfig {
        sasl_mechanisms: Some(vec![Mechanism::ScramSha256]),
        ..listener("SCRAM", Security::SaslPlaintext)
    };
    let door = door(
        vec![listener("SASL", Security::SaslPlaintext), no_plain],
        quick(),
    )
    .await;
    door.topic("t", 1).await;
    let connect = async |listener: &str, mechanism, secret: &str| {
        let login = Login {
            name: "alice".to_owned(),
            secret: secret.to_owned(),
            mechanism,
        };
        let options = ConnectOptions {
            login: Some(login),
            ..Default::default()
        };
        Client::connect_with(&door.address_of(listener).to_string(), options).await
    };
    for mechanism in Mechanism::ALL {
        let mut client = connect("SASL", mechanism, "pencil").await.unwrap();
        let topics = client.topics().await.unwrap();
        assert!(topics.iter().any(|topic| topic.name == "t"));
        let refused = connect("SASL", mechanism, "pen").await.unwrap_err();
        assert!(
            refused.to_string().contains("SASL_AUTHENTICATION_FAILED"),
            "{refused}"
        );
    }
    let refused = connect("SCRAM", Mechanism::Plain, "pencil")
        .await
        .unwrap_err();
    let said = "the broker does not offer PLAIN; it offers SCRAM-SHA-256";
    assert_eq!(refused.to_string(), said);
    door.close().await;
}

#[tokio::test]
async fn before_signing_in_nothing_else_is_answered() {
    let door = door(vec![listener("SASL", Security::SaslPlaintext)], quick()).await;
    let mut early = door.wire_to("SASL").await;
    let versions = early.ask(ApiVersionsRequest::default(), 0).await;
    assert!(versions.api_keys.iter().any(|api| api.api_key == 36));
    assert!(!early.is_served().await);

    let illegal = ErrorCode::IllegalSaslState.code();
    let mut unchosen = door.wire_to("SASL").await;
    let answer = unchosen.ask(token(b"\0alice\0pencil"), 1).await;
    assert_eq!(answer.error_code, illegal);
    assert!(unchosen.frame().await.is_none());

    let mut twice = door.wire_to("SASL").await;
    twice.choose("PLAIN", 1).await;
    assert_eq!(twice.choose("PLAIN", 1).await.0.code(), illegal);
    assert!(twice.frame().await.is_none());

    let mut again = door.wire_to("SASL").await;
    again.plain("alice", "pencil").await;
    assert_eq!(again.choose("PLAIN", 1).await.0.code(), illegal);
    let answer = again.ask(token(b"\0alice\0pencil"), 1).await;
    assert_eq!(answer.error_code, illegal);
    assert!(again.is_served().await, "the connection lives on");

    let mut unasked = door.wire().await;
    assert_eq!(unasked.choose("PLAIN", 1).await.0.code(), illegal);
    door.close().await;
}

/// A frame without Kafka's header.
async fn raw(wire: &mut Wire, token: &[u8]) -> Option<Bytes> {
    let length = (token.len() as u32).to_be_bytes();
    wire.send_bytes(&[&length, token].concat()).await;
    wire.frame().await
}

#[tokio::test]
async fn clients_from_before_kip_152_send_bare_tokens() {
    let door = door(vec![listener("SASL", Security::SaslPlaintext)], quick()).await;
    let mut wire = door.wire_to("SASL").await;
    wire.choose("PLAIN", 0).await;
    let answer = raw(&mut wire, b"\0alice\0pencil").await;
    assert_eq!(answer.unwrap(), Bytes::new());
    assert!(wire.is_served().await);

    let mut wire = door.wire_to("SASL").await;
    wire.choose("SCRAM-SHA-256", 0).await;
    let server_first = raw(&mut wire, b"n,,n=alice,r=abc").await.unwrap();
    let server_first = String::from_utf8(server_first.to_vec()).unwrap();
    let last = proof(
        ScramMechanism::Sha256,
        "n=alice,r=abc",
        &server_first,
        "pencil",
    );
    let verified = raw(&mut wire, last.as_bytes()).await.unwrap();
    assert!(verified.starts_with(b"v="));
    assert!(wire.is_served().await);

    let mut wire = door.wire_to("SASL").await;
    wire.choose("PLAIN", 0).await;
    assert_eq!(raw(&mut wire, b"\0alice\0wrong").await, None);
    door.close().await;
}

#[tokio::test]
async fn requests_may_follow_the_last_token_without_a_pause() {
    let door = door(vec![listener("SASL", Security::SaslPlaintext)], quick()).await;
    let mut wire = door.wire_to("SASL").await;
    wire.choose("PLAIN", 1).await;
    let first = wire.send(token(b"\0alice\0pencil"), 2).await;
    let second = wire.send(MetadataRequest::default(), 12).await;
    let signed_in = wire.receive::<SaslAuthenticateRequest>(2, first).await;
    assert_eq!(signed_in.error_code, 0);
    wire.receive::<MetadataRequest>(12, second).await;
    door.close().await;
}

#[tokio::test]
async fn the_unknown_are_bounded_in_time_and_size() {
    let config = KafkaConfig {
        listeners: vec![listener("SASL", Security::SaslPlaintext)],
        handshake_timeout_ms: 200,
        ..Default::default()
    };
    let door = Door::open_guarded(tempfile::tempdir().unwrap(), config, quick()).await;
    let mut silent = door.wire_to("SASL").await;
    assert!(silent.frame().await.is_none());
    let hostile: [&[u8]; 3] = [
        b"\x00\x01\x00\x00\x00\x11",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x04abcd",
    ];
    for bytes in hostile {
        let mut wire = door.wire_to("SASL").await;
        wire.send_bytes(bytes).await;
        assert!(wire.frame().await.is_none(), "{bytes:?}");
    }
    door.closed(4).await;
    door.close().await;
}

#[tokio::test]
async fn the_brokers_configuration_says_what_its_listeners_are() {
    let site = Site::new();
    let door = door(
        vec![
            ListenerConfig {
                advertised: Some("out.example:9".to_owned()),
                sasl_mechanisms: Some(vec![Mechanism::Plain]),
                ..with_tls("OUT", Security::SaslSsl, &site, ClientAuth::Requested)
            },
            listener("IN", Security::Plaintext),
        ],
        quick(),
    )
    .await;
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 4,
            resource_name: "1".into(),
            configuration_keys: None,
        }],
        ..Default::default()
    };
    let answer = door.wire().await.ask(request, 4).await;
    let value = |name: &str| {
        let mut all = answer.results[0].configs.iter();
        let found = all.find(|c| c.name.as_str() == name).unwrap();
        found.value.as_ref().map(Str::to_string).unwrap_or_default()
    };
    let addresses = door.handle.listeners().iter();
    let listeners: Vec<_> = addresses
        .map(|(name, at)| format!("{name}://{at}"))
        .collect();
    assert_eq!(value("listeners"), listeners.join(","));
    assert_eq!(value("advertised.listeners"), "OUT://out.example:9");
    assert_eq!(
        value("listener.security.protocol.map"),
        "PLAINTEXT:PLAINTEXT,OUT:SASL_SSL,IN:PLAINTEXT"
    );
    assert_eq!(value("sasl.enabled.mechanisms"), "PLAIN");
    assert_eq!(value("ssl.client.auth"), "requested");
    assert_eq!(value("ssl.keystore.type"), "PEM");
    assert_eq!(value("authorizer.class.name"), "");
    door.close().await;
}
