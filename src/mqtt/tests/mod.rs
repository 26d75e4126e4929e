//! The whole door over real sockets and a real log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod access;
mod client;
mod hostile;
mod live;
mod publishing;
mod sessions;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_storage::log::{Log, LogOptions, Offset, Record};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{MqttConfig, MqttHandle, MqttStats, start};
use crate::auth::{Auth, AuthConfig};

/// A running door on a port of its own.
struct Node {
    address: SocketAddr,
    log: Log,
    auth: Auth,
    stats: Arc<MqttStats>,
    handle: MqttHandle,
    shutdown: CancellationToken,
    dir: TempDir,
}

impl Node {
    async fn start() -> Node {
        Node::start_with(MqttConfig::default()).await
    }

    async fn start_with(config: MqttConfig) -> Node {
        Node::start_in(tempfile::tempdir().unwrap(), config).await
    }

    async fn start_in(dir: TempDir, config: MqttConfig) -> Node {
        Node::start_all(dir, config, AuthConfig::default()).await
    }

    async fn start_all(dir: TempDir, config: MqttConfig, auth: AuthConfig) -> Node {
        let options = LogOptions::new(dir.path());
        let log = tokio::task::spawn_blocking(|| Log::open(options))
            .await
            .unwrap()
            .unwrap();
        let auth = Auth::open_with(log.clone(), auth).await.unwrap();
        let shutdown = CancellationToken::new();
        let config = MqttConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..config
        };
        let handle = start(config, log.clone(), auth.clone(), shutdown.clone())
            .await
            .unwrap();
        Node {
            address: handle.local_addr(),
            log,
            auth,
            stats: handle.stats(),
            handle,
            shutdown,
            dir,
        }
    }

    /// Stops the door and the log; the data stay.
    async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        self.handle.stopped().await;
        let log = self.log;
        tokio::task::spawn_blocking(move || log.close())
            .await
            .unwrap();
        self.dir
    }

    /// Every record of a topic, by partition.
    fn records(&self, topic: &str) -> Vec<Vec<Record>> {
        let topic = self.log.topic(topic).expect("the topic exists");
        let read_all = |partition: &Arc<holdfast_storage::log::Partition>| {
            let mut records = Vec::new();
            let mut from = Offset::ZERO;
            while from < partition.high_watermark() {
                let read = self.log.read(partition, from, 1 << 20).unwrap();
                from = read.last().expect("progress").offset.plus(1);
                records.extend(read.into_iter().map(|stored| stored.record));
            }
            records
        };
        topic.partitions().iter().map(read_all).collect()
    }

    fn values(&self, topic: &str) -> Vec<String> {
        let records = self.records(topic).into_iter().flatten();
        records
            .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap())
            .collect()
    }
}

fn header<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
    let found = record
        .headers
        .iter()
        .find(|header| header.name == name.as_bytes())?;
    std::str::from_utf8(found.value.as_ref()?).ok()
}
