//! The listener with TLS.

use bytes::{Buf as _, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::client::{Client, Hello, Message, packet, text};
use super::{MqttConfig, Node};
use crate::auth::AuthConfig;
use crate::mqtt::MqttStats;
use crate::tls::listener::TlsListenerConfig;
use crate::tls::tests::{Identity, Site};
use crate::tls::{ClientAuth, TlsVersion};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

async fn start(site: &Site, client_auth: ClientAuth) -> Node {
    let files = site.config(client_auth);
    let tls = TlsListenerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate_file: files.certificate_file,
        private_key_file: files.private_key_file,
        client_auth,
        client_ca_file: files.client_ca_file,
        protocols: files.protocols,
        principal_mapping_rules: files.principal_mapping_rules,
    };
    let config = MqttConfig {
        tls: Some(tls),
        write_timeout_ms: 300,
        ..MqttConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    Node::start_all(dir, config, AuthConfig::default()).await
}

/// Over TLS, past the CONNACK.
async fn connect(node: &Node, site: &Site, identity: Option<&Identity>) -> TlsStream<TcpStream> {
    let address = node.handle.tls_addr().unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = site.connector(identity, &[TlsVersion::V12, TlsVersion::V13]);
    let name = ServerName::try_from("node.example").unwrap();
    let mut stream = connector.connect(name, socket).await.unwrap();
    let hello = Hello::v3("secure").packet();
    stream.write_all(&hello).await.unwrap();
    assert_eq!(read(&mut stream, 4).await[..], [0x20, 2, 0, 0]);
    stream
}

async fn read(stream: &mut TlsStream<TcpStream>, bytes: usize) -> BytesMut {
    let mut buffer = BytesMut::new();
    timeout(PATIENCE, async {
        while buffer.len() < bytes {
            assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0, "closed");
        }
    })
    .await
    .expect("nothing came");
    buffer
}

async fn subscribe(stream: &mut TlsStream<TcpStream>, filter: &str) {
    let body = [&[0, 1][..], &text(filter), &[0]].concat();
    stream.write_all(&packet(0x82, &body)).await.unwrap();
    assert_eq!(read(stream, 5).await[..], [0x90, 3, 0, 1, 0]);
}

/// A large publish of QoS 0, as it arrives again.
fn large(topic: &str) -> Vec<u8> {
    let body = [&text(topic)[..], &vec![b'x'; 500_000]].concat();
    packet(0x30, &body)
}

#[tokio::test]
async fn packets_larger_than_a_tls_record_arrive_whole_in_both_directions() {
    let site = Site::new();
    let node = start(&site, ClientAuth::None).await;
    let mut client = connect(&node, &site, None).await;
    subscribe(&mut client, "large").await;
    let packet = large("large");
    let mut got = BytesMut::new();
    for _ in 0..4 {
        client.write_all(&packet).await.unwrap();
        client.flush().await.unwrap();
    }
    while got.len() < 4 * packet.len() {
        let more = read(&mut client, 1).await;
        got.extend_from_slice(&more);
    }
    for _ in 0..4 {
        assert!(got.starts_with(&packet));
        got.advance(packet.len());
    }
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_through_tls_is_given_up() {
    let site = Site::new();
    let node = start(&site, ClientAuth::Required).await;
    let carol = site.client("carol");
    let mut idle = connect(&node, &site, Some(&carol)).await;
    subscribe(&mut idle, "large").await;
    let mut publisher = Client::connect(node.address, Hello::v3("publisher")).await;
    let gone = async {
        while MqttStats::get(&node.stats.connections) > 1 {
            publisher.send(&large("large")).await;
            publisher.publish(Message::v3("small", "x", 1)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it is still there");
    drop(idle);
    node.stop().await;
}
