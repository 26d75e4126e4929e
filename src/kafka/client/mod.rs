//! A small Kafka client over the door's own codec, for the command line and the tests.
//!
//! It speaks to a broker of any version that shares one with the tables of [`super::protocol`],
//! asks one thing at a time, keeps no background tasks and retries nothing: what fails is told. In a
//! cluster of several brokers it goes to each partition's leader. It does not join consumer groups.
//!
//! Limits: an answer has [`ANSWER_BYTES_MAX`] bytes at most and is waited for at most
//! [`ANSWER_WAIT_MAX`] beyond the wait the request itself asks for.

mod records;
mod sign_in;
mod wire;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::time::Duration;

use holdfast_storage::log::{Record, StoredRecord};

use super::protocol::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, DeleteTopicState,
    DeleteTopicsRequest, FetchPartition, FetchRequest, FetchTopic, FindCoordinatorRequest,
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest,
    MetadataRequestTopic, MetadataResponse, OffsetFetchRequest, OffsetFetchRequestTopic,
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use super::protocol::{Call, DecodeError, EncodeError, ErrorCode, Str};
use crate::tls::client::TlsClient;
pub use sign_in::Login;
use wire::Connection;
pub use wire::{ANSWER_BYTES_MAX, ANSWER_WAIT_MAX};

/// Aborted records are not for us (KIP-98).
const READ_COMMITTED: i8 = 1;

/// Most record bytes asked of one fetch.
const FETCH_BYTES_MAX: i32 = 1 << 20;

/// Time a broker gets for what it does on the client's behalf, in milliseconds.
const BROKER_TIMEOUT_MS: i32 = 30_000;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker refused; the text is its own, where it gave one.
    #[error("{what}: {code}{}", detail(.message))]
    Refused {
        what: String,
        code: ErrorCode,
        message: Option<String>,
    },
    #[error("the broker does not offer {wanted}; it offers {offered}")]
    Mechanism {
        wanted: &'static str,
        offered: String,
    },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the broker offers no version of {0} that is known here")]
    NoCommonVersion(&'static str),
    #[error("the answer cannot be understood: {0}")]
    Decode(#[from] DecodeError),
    #[error("the request cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    #[error("the answer is not what was asked for: {0}")]
    Unexpected(&'static str),
    /// A record batch that cannot be read, and where reading can go on.
    #[error("the record batch at offset {offset} cannot be read: {reason}")]
    Records {
        offset: i64,
        next: i64,
        reason: String,
    },
}

fn detail(message: &Option<String>) -> String {
    message
        .as_ref()
        .map(|text| format!(" ({text})"))
        .unwrap_or_default()
}

/// A topic and its partitions, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub name: String,
    pub internal: bool,
    pub partitions: Vec<i32>,
}

/// One or more connections to a cluster; see the module's header.
#[derive(Debug)]
pub struct Client {
    bootstrap: Connection,
    /// Leaders other than the broker that was connected to, by node id.
    others: HashMap<i32, Connection>,
    options: ConnectOptions,
}

/// How brokers are spoken to; by default in plain text and without a name.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    pub tls: Option<TlsClient>,
    pub login: Option<Login>,
}

/// What a partition's answer says went wrong, if anything did.
fn check(
    what: impl FnOnce() -> String,
    code: i16,
    message: Option<&Str>,
) -> Result<(), ClientError> {
    let code = ErrorCode(code);
    if code.is_ok() {
        return Ok(());
    }
    let message = message
        .filter(|text| !text.is_empty())
        .map(|text| text.as_str().to_owned());
    Err(ClientError::Refused {
        what: what(),
        code,
        message,
    })
}

fn place(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// The only element of what was asked as one.
fn only<T>(items: Vec<T>, what: &'static str) -> Result<T, ClientError> {
    let mut items = items.into_iter();
    match (items.next(), items.next()) {
        (Some(item), None) => Ok(item),
        _ => Err(ClientError::Unexpected(what)),
    }
}

impl Client {
    /// Connects to `host:port` and learns which versions the broker speaks.
    pub async fn connect(address: &str) -> Result<Client, ClientError> {
        Client::connect_with(address, ConnectOptions::default()).await
    }

    pub async fn connect_with(
        address: &str,
        options: ConnectOptions,
    ) -> Result<Client, ClientError> {
        Ok(Client {
            bootstrap: Connection::open(address, &options).await?,
            others: HashMap::new(),
            options,
        })
    }

    /// Every topic, by name.
    pub async fn topics(&mut self) -> Result<Vec<TopicInfo>, ClientError> {
        let request = MetadataRequest {
            allow_auto_topic_creation: false,
            ..all_topics(&self.bootstrap)
        };
        let metadata = self.bootstrap.call(request, Duration::ZERO).await?;
        let mut topics = Vec::with_capacity(metadata.topics.len());
        for topic in metadata
            .topics
            .into_iter()
            .filter(|topic| topic.error_code == 0)
        {
            let mut partitions: Vec<i32> = topic
                .partitions
                .iter()
                .map(|partition| partition.partition_index)
                .collect();
            partitions.sort_unstable();
            let name = topic
                .name
                .map(|name| name.as_str().to_owned())
                .unwrap_or_default();
            topics.push(TopicInfo {
                name,
                internal: topic.is_internal,
                partitions,
            });
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Creates a topic; `partitions` of -1 takes the broker's default.
    pub async fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(String, String)],
    ) -> Result<(), ClientError> {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: BROKER_TIMEOUT_MS,
            ..Default::default()
        };
        let response = self.bootstrap.call(request, Duration::ZERO).await?;
        let topic = only(response.topics, "one topic")?;
        check(
            || name.to_owned(),
            topic.error_code,
            topic.error_message.as_ref(),
        )
    }

    /// Deletes a topic with everything in it.
    pub async fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        // Brokers of every version take names; which field holds them depends on the version.
        let state = DeleteTopicState {
            name: Some(name.into()),
            ..Default::default()
        };
        let request = DeleteTopicsRequest {
            topics: vec![state],
            topic_names: vec![name.into()],
            timeout_ms: BROKER_TIMEOUT_MS,
        };
        let response = self.bootstrap.call(request, Duration::ZERO).await?;
        let topic = only(response.responses, "one topic")?;
        check(
            || name.to_owned(),
            topic.error_code,
            topic.error_message.as_ref(),
        )
    }

    /// Writes records to one partition as one batch and answers, when they are durable, with the
    /// offset of the first.
    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: Vec<Record>,
    ) -> Result<i64, ClientError> {
        let data = PartitionProduceData {
            index: partition,
            records: Some(records::encode(&records)),
        };
        let topic_data = TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: BROKER_TIMEOUT_MS,
            topic_data: vec![topic_data],
            ..Default::default()
        };
        let response = self
            .leader(topic, partition)
            .await?
            .call(request, Duration::ZERO)
            .await?;
        let answered = only(
            only(response.responses, "one topic")?.partition_responses,
            "one partition",
        )?;
        check(
            || place(topic, partition),
            answered.error_code,
            answered.error_message.as_ref(),
        )?;
        Ok(answered.base_offset)
    }

    /// Committed records of one partition from `offset` on, and where to go on; waits up to `max_wait` for
    /// the first.
    pub async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_wait: Duration,
    ) -> Result<(Vec<StoredRecord>, i64), ClientError> {
        let wanted = FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: FETCH_BYTES_MAX,
            ..Default::default()
        };
        let request = FetchRequest {
            max_wait_ms: i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: FETCH_BYTES_MAX,
            isolation_level: READ_COMMITTED,
            topics: vec![FetchTopic {
                topic: topic.into(),
                partitions: vec![wanted],
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = self
            .leader(topic, partition)
            .await?
            .call(request, max_wait)
            .await?;
        check(|| place(topic, partition), response.error_code, None)?;
        let answered = only(
            only(response.responses, "one topic")?.partitions,
            "one partition",
        )?;
        check(|| place(topic, partition), answered.error_code, None)?;
        let aborted = answered.aborted_transactions.unwrap_or_default();
        let aborted = aborted.iter().map(|a| (a.producer_id, a.first_offset));
        let aborted = aborted.collect();
        let batches = answered.records.unwrap_or_default();
        let decode = move || {
            let batches = batches.into_bytes();
            let batches = batches.map_err(|_| ClientError::Unexpected("records"))?;
            records::decode(&batches, offset, aborted)
        };
        tokio::task::spawn_blocking(decode)
            .await
            .map_err(|_| ClientError::Unexpected("records"))?
    }

    /// Log start offset and high watermark of one partition.
    pub async fn offsets(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<(i64, i64), ClientError> {
        let start = self.offset_at(topic, partition, EARLIEST).await?;
        Ok((start, self.offset_at(topic, partition, LATEST).await?))
    }

    /// Offset of the first record whose timestamp is at least `timestamp_ms`, if there is one.
    pub async fn offset_for_time(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp_ms: i64,
    ) -> Result<Option<i64>, ClientError> {
        let offset = self
            .offset_at(topic, partition, timestamp_ms.max(0))
            .await?;
        Ok((offset >= 0).then_some(offset))
    }

    async fn offset_at(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<i64, ClientError> {
        let wanted = ListOffsetsPartition {
            partition_index: partition,
            timestamp,
            ..Default::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: topic.into(),
                partitions: vec![wanted],
            }],
            timeout_ms: BROKER_TIMEOUT_MS,
            ..Default::default()
        };
        let response = self
            .leader(topic, partition)
            .await?
            .call(request, Duration::ZERO)
            .await?;
        let answered = only(
            only(response.topics, "one topic")?.partitions,
            "one partition",
        )?;
        check(|| place(topic, partition), answered.error_code, None)?;
        Ok(answered.offset)
    }

    /// What a consumer group has committed, as (topic, partition, offset), in that order.
    pub async fn group_offsets(
        &mut self,
        group: &str,
    ) -> Result<Vec<(String, i32, i64)>, ClientError> {
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: None,
            ..Default::default()
        };
        let response = self
            .coordinator(group)
            .await?
            .call(request, Duration::ZERO)
            .await?;
        check(|| format!("group {group}"), response.error_code, None)?;
        let mut offsets = Vec::new();
        for topic in response.topics {
            for partition in topic.partitions.iter().filter(|p| p.committed_offset >= 0) {
                let name = topic.name.as_str().to_owned();
                offsets.push((name, partition.partition_index, partition.committed_offset));
            }
        }
        offsets.sort();
        Ok(offsets)
    }

    /// What a consumer group has committed in one partition.
    pub async fn group_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<i64>, ClientError> {
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: topic.into(),
                partition_indexes: vec![partition],
            }]),
            ..Default::default()
        };
        let response = self
            .coordinator(group)
            .await?
            .call(request, Duration::ZERO)
            .await?;
        check(|| format!("group {group}"), response.error_code, None)?;
        let answered = only(
            only(response.topics, "one topic")?.partitions,
            "one partition",
        )?;
        check(|| place(topic, partition), answered.error_code, None)?;
        Ok((answered.committed_offset >= 0).then_some(answered.committed_offset))
    }

    /// Any request of the protocol, to the broker that was connected to.
    pub async fn call<R: Call>(&mut self, request: R) -> Result<R::Response, ClientError> {
        self.bootstrap.call(request, Duration::ZERO).await
    }

    /// The connection to a partition's leader.
    async fn leader(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<&mut Connection, ClientError> {
        let asked = MetadataRequestTopic {
            name: Some(topic.into()),
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![asked]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let metadata = self.bootstrap.call(request, Duration::ZERO).await?;
        if let [only] = metadata.topics.as_slice() {
            check(|| topic.to_owned(), only.error_code, None)?;
        }
        let found = metadata
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .find(|found| found.partition_index == partition);
        let Some(found) = found else {
            let code = ErrorCode::UnknownTopicOrPartition;
            let what = place(topic, partition);
            return Err(ClientError::Refused {
                what,
                code,
                message: None,
            });
        };
        let node = found.leader_id;
        self.broker(node, &metadata).await
    }

    /// A cluster of one is reached where it was reached before, whatever address it advertises.
    async fn broker(
        &mut self,
        node: i32,
        metadata: &MetadataResponse,
    ) -> Result<&mut Connection, ClientError> {
        if metadata.brokers.len() <= 1 {
            return Ok(&mut self.bootstrap);
        }
        match self.others.entry(node) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let found = metadata
                    .brokers
                    .iter()
                    .find(|broker| broker.node_id == node);
                let broker = found.ok_or(ClientError::Unexpected("the leader is no broker"))?;
                let address = format!("{}:{}", broker.host, broker.port);
                Ok(unknown.insert(Connection::open(&address, &self.options).await?))
            }
        }
    }

    /// The connection to a group's coordinator.
    async fn coordinator(&mut self, group: &str) -> Result<&mut Connection, ClientError> {
        let request = FindCoordinatorRequest {
            key: group.into(),
            ..Default::default()
        };
        let found = self.bootstrap.call(request, Duration::ZERO).await?;
        check(
            || format!("group {group}"),
            found.error_code,
            found.error_message.as_ref(),
        )?;
        let metadata = MetadataRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let metadata = self.bootstrap.call(metadata, Duration::ZERO).await?;
        self.broker(found.node_id, &metadata).await
    }
}

/// Version 0 asks for every topic with an empty list, the later ones with none.
fn all_topics(connection: &Connection) -> MetadataRequest {
    let topics = match connection.version::<MetadataRequest>() {
        Ok(0) => Some(Vec::new()),
        _ => None,
    };
    MetadataRequest {
        topics,
        ..Default::default()
    }
}

#[cfg(test)]
pub(super) use records::{decode as decode_records, encode as encode_records};
