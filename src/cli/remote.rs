//! A running node as the command line sees it: its Kafka door, and errors as sentences.

use std::io;
use std::time::Duration;

use clap::Args;
use holdfast_storage::log::{Record, StoredRecord};

use super::error::CliError;
use crate::config::nearest_name;
use crate::kafka::client::{Client, ClientError, TopicInfo};

/// Time for a node to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Which node is meant.
#[derive(Debug, Clone, Args)]
pub(super) struct RemoteArgs {
    /// The Kafka door of the node.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    kafka: String,
}

/// One connection.
pub(super) struct Remote {
    client: Client,
    address: String,
}

impl Remote {
    pub(super) async fn connect(arguments: &RemoteArgs) -> Result<Remote, CliError> {
        let address = arguments.kafka.clone();
        match tokio::time::timeout(CONNECT_MAX, Client::connect(&address)).await {
            Ok(Ok(client)) => Ok(Remote { client, address }),
            Ok(Err(error)) => Err(sentence(&error, &address)),
            Err(_) => Err(CliError::failed(format!(
                "no answer: is a node listening on {address}?"
            ))),
        }
    }

    pub(super) async fn topics(&mut self) -> Result<Vec<TopicInfo>, CliError> {
        self.client
            .topics()
            .await
            .map_err(|e| sentence(&e, &self.address))
    }

    pub(super) async fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(String, String)],
    ) -> Result<(), CliError> {
        let created = self.client.create_topic(topic, partitions, configs).await;
        created.map_err(|e| sentence(&e, &self.address))
    }

    pub(super) async fn delete_topic(&mut self, topic: &str) -> Result<(), CliError> {
        // A sentence that names the nearest, where there is none of this name.
        self.partitions(topic).await?;
        let deleted = self.client.delete_topic(topic).await;
        deleted.map_err(|e| sentence(&e, &self.address))
    }

    /// How many partitions a topic has; an unknown one is named with the most similar that exists.
    pub(super) async fn partitions(&mut self, topic: &str) -> Result<usize, CliError> {
        let topics = self.topics().await?;
        if let Some(found) = topics.iter().find(|t| t.name == topic) {
            return Ok(found.partitions.len());
        }
        let names: Vec<&str> = topics.iter().map(|t| t.name.as_str()).collect();
        let hint = nearest_name(topic, &names)
            .map(|name| format!("; did you mean {name:?}?"))
            .unwrap_or_default();
        Err(CliError::failed(format!(
            "{} has no topic {topic:?}{hint}",
            self.address
        )))
    }

    /// Writes records to one partition; answers with the first one's offset when they are durable.
    pub(super) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: Vec<Record>,
    ) -> Result<i64, CliError> {
        self.client
            .produce(topic, partition, records)
            .await
            .map_err(|e| sentence(&e, &self.address))
    }

    /// Records from an offset on; waits up to `wait` if there is none.
    pub(super) async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
        wait: Duration,
    ) -> Result<Fetched, CliError> {
        match self.client.fetch(topic, partition, from, wait).await {
            Ok((records, next)) => Ok(Fetched::Records { records, next }),
            Err(ref error @ ClientError::Records { next, .. }) => Ok(Fetched::Unreadable {
                next,
                sentence: format!("{topic}-{partition}: {error}"),
            }),
            Err(error) => Err(sentence(&error, &self.address)),
        }
    }

    /// Log start and high watermark of one partition.
    pub(super) async fn range(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<(i64, i64), CliError> {
        self.client
            .offsets(topic, partition)
            .await
            .map_err(|e| sentence(&e, &self.address))
    }
}

/// What a fetch brought.
pub(super) enum Fetched {
    Records {
        records: Vec<StoredRecord>,
        /// Where to go on.
        next: i64,
    },
    /// A batch that cannot be read, and the offset behind it.
    Unreadable { next: i64, sentence: String },
}

fn sentence(error: &ClientError, address: &str) -> CliError {
    match error {
        ClientError::Io(error) => CliError::failed(format!(
            "{}: is a node listening on {address}?",
            reason(error)
        )),
        error => CliError::failed(format!("{address}: {error}")),
    }
}

/// Why a connection failed, without the number that the operating system adds.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "connection closed by the other side".to_owned()
        }
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    }
}
