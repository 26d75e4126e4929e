//! The door from outside: a real listener over a real log, spoken to in bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod access;
mod admin;
mod consuming;
mod framing;
mod grouping;
mod producing;
mod quotas;
mod security;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_storage::log::{Log, LogOptions, NewTopic, Offset, Record, Topic};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::protocol::messages::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use super::protocol::{self, Call, Frame, Request, Str};
use super::{Client, Handle, KafkaConfig, start};
use crate::auth::{Auth, AuthConfig};

/// Whoever waits longer than this in a test waits for something that does not come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Door {
    log: Log,
    auth: Auth,
    handle: Handle,
    stop: CancellationToken,
    dir: TempDir,
}

impl Door {
    async fn open() -> Door {
        Door::open_with(KafkaConfig::default()).await
    }

    async fn open_with(config: KafkaConfig) -> Door {
        Door::open_in(tempfile::tempdir().unwrap(), config).await
    }

    async fn open_in(dir: TempDir, config: KafkaConfig) -> Door {
        Door::open_guarded(dir, config, AuthConfig::default()).await
    }

    async fn open_guarded(dir: TempDir, config: KafkaConfig, auth: AuthConfig) -> Door {
        let options = LogOptions::new(dir.path());
        let log = tokio::task::spawn_blocking(|| Log::open(options))
            .await
            .unwrap()
            .unwrap();
        let stop = CancellationToken::new();
        let config = KafkaConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            ..config
        };
        let auth = Auth::open_with(log.clone(), auth).await.unwrap();
        let handle = start(config, log.clone(), auth.clone(), &[], stop.clone()).await;
        let handle = handle.unwrap();
        Door {
            log,
            auth,
            handle,
            stop,
            dir,
        }
    }

    fn address(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    async fn client(&self) -> Client {
        Client::connect(&self.address().to_string()).await.unwrap()
    }

    async fn wire(&self) -> Wire {
        Wire {
            socket: TcpStream::connect(self.address()).await.unwrap(),
            next: 0,
        }
    }

    async fn topic(&self, name: &str, partitions: u32) -> std::sync::Arc<Topic> {
        let new = NewTopic {
            name: name.to_owned(),
            partitions,
            configs: Vec::new(),
        };
        self.log.create_topic(new).await.unwrap()
    }

    /// Stops door and log and gives the directory back for another start.
    async fn close(self) -> TempDir {
        self.stop.cancel();
        in_time(self.handle.stopped()).await;
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.close())
            .await
            .unwrap();
        self.dir
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// A client that says exactly what it is told to, in the version it is told to.
struct Wire<S = TcpStream> {
    socket: S,
    next: i32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    async fn send(&mut self, request: impl Into<Request>, version: i16) -> i32 {
        self.next += 1;
        let request = request.into();
        let frame = protocol::encode_request(&request, version, self.next, &Str::from("test"));
        self.send_frame(frame.unwrap()).await;
        self.next
    }

    async fn send_frame(&mut self, frame: Frame) {
        self.send_bytes(&frame.into_bytes().unwrap()).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` when the door hung up.
    async fn frame(&mut self) -> Option<Bytes> {
        in_time(async {
            let length = self.socket.read_i32().await.ok()?;
            let mut frame = BytesMut::zeroed(length as usize);
            self.socket.read_exact(&mut frame).await.ok()?;
            Some(frame.freeze())
        })
        .await
    }

    async fn receive<R: Call>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let frame = self.frame().await.expect("an answer");
        let (answered, response) = protocol::decode_response(R::API, version, frame).unwrap();
        assert_eq!(
            answered, correlation_id,
            "answers come in the order of the requests"
        );
        R::response(response).unwrap()
    }

    async fn ask<R: Call>(&mut self, request: R, version: i16) -> R::Response {
        let correlation_id = self.send(request, version).await;
        self.receive::<R>(version, correlation_id).await
    }
}

/// A batch as a producer would send it.
fn batch(values: &[&str]) -> Bytes {
    let record = |value: &&str| Record {
        timestamp_ms: 1_700_000_000_000,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Default::default()
    };
    let records: Vec<Record> = values.iter().map(record).collect();
    super::client::encode_records(&records)
}

/// The same batch from an idempotent producer.
fn batch_of(producer_id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let mut bytes = batch(values).to_vec();
    bytes[43..51].copy_from_slice(&producer_id.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    sign(&mut bytes);
    bytes.into()
}

fn sign(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A Produce of one batch to one partition; names the topic in both ways, the version picks one.
fn produce(topic: &Topic, partition: i32, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData {
            name: topic.name().into(),
            topic_id: topic.id().0,
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(records),
            }],
        }],
        ..Default::default()
    }
}

/// In versions that name topics one way the other field keeps its default, as a decoder leaves it.
fn in_version(mut request: ProduceRequest, version: i16) -> ProduceRequest {
    for topic in &mut request.topic_data {
        if version >= 13 {
            topic.name = Str::default();
        } else {
            topic.topic_id = uuid::Uuid::nil();
        }
    }
    request
}

async fn produced<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    request: ProduceRequest,
    version: i16,
) -> PartitionProduceResponse {
    let mut response = wire.ask(in_version(request, version), version).await;
    response.responses.remove(0).partition_responses.remove(0)
}

/// A Fetch of one partition that does not wait.
fn fetch(topic: &Topic, partition: i32, from: i64) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: topic.name().into(),
            topic_id: topic.id().0,
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: from,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

async fn fetched<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    request: FetchRequest,
    version: i16,
) -> PartitionData {
    let mut response = wire.ask(request, version).await;
    assert_eq!(response.error_code, 0);
    response.responses.remove(0).partitions.remove(0)
}

/// Values of every record in a Fetch's answer, with their offsets.
fn values(found: &PartitionData, from: i64) -> Vec<(i64, String)> {
    let aborted = found.aborted_transactions.clone().unwrap_or_default();
    let aborted = aborted.iter().map(|a| (a.producer_id, a.first_offset));
    let aborted = aborted.collect();
    let batches = found
        .records
        .clone()
        .unwrap_or_default()
        .into_bytes()
        .unwrap();
    let records = super::client::decode_records(&batches, from, aborted)
        .unwrap()
        .0;
    let text = |value: Option<Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    records
        .into_iter()
        .map(|r| (r.offset.value(), text(r.record.value)))
        .collect()
}

fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}
