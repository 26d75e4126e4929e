//! A running node as the command line sees it: its Kafka door, and errors as sentences.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use holdfast_storage::log::{Record, StoredRecord};

use super::error::CliError;
use super::password;
use crate::config::nearest_name;
use crate::kafka::Mechanism;
use crate::kafka::client::{Client, ClientError, ConnectOptions, Login, TopicInfo};
use crate::tls::client::{Identity, TlsClient};

/// Time for a node to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Which node is meant.
#[derive(Debug, Clone, Args)]
pub(super) struct RemoteArgs {
    /// The Kafka door of the node.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Speak TLS, to a node that the authorities in this file vouch for (PEM).
    #[arg(long, value_name = "FILE", help_heading = SECURITY)]
    tls_ca: Option<PathBuf>,
    /// The certificate that is shown to the node (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"], help_heading = SECURITY)]
    tls_certificate: Option<PathBuf>,
    /// Its key (PEM, not encrypted).
    #[arg(long, value_name = "FILE", requires = "tls_certificate", help_heading = SECURITY)]
    tls_key: Option<PathBuf>,
    /// Sign in as this user; the password is typed, or comes from HOLDFAST_PASSWORD.
    #[arg(long, value_name = "NAME", help_heading = SECURITY)]
    user: Option<String>,
    /// The first line of this file is the password, or a token.
    #[arg(long, value_name = "FILE", requires = "user", help_heading = SECURITY)]
    password_file: Option<PathBuf>,
    /// How to sign in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Over TLS PLAIN, which takes tokens, too;
    /// otherwise SCRAM-SHA-512.
    #[arg(long, value_name = "NAME", requires = "user", value_parser = mechanism, help_heading = SECURITY)]
    sasl_mechanism: Option<Mechanism>,
}

const SECURITY: &str = "Security";

fn mechanism(text: &str) -> Result<Mechanism, String> {
    let mut all = Mechanism::ALL.into_iter();
    let found = all.find(|known| known.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 is needed".to_owned())
}

impl RemoteArgs {
    fn options(&self) -> Result<ConnectOptions, CliError> {
        let files = (self.tls_certificate.clone(), self.tls_key.clone());
        let identity = match files {
            (Some(certificate_file), Some(private_key_file)) => Some(Identity {
                certificate_file,
                private_key_file,
            }),
            _ => None,
        };
        let tls = self.tls_ca.as_deref();
        let tls = tls.map(|authorities| TlsClient::load(authorities, identity.as_ref()));
        let tls = tls
            .transpose()
            .map_err(|error| CliError::failed(error.to_string()))?;
        let by_default = match &tls {
            Some(_) => Mechanism::Plain,
            None => Mechanism::ScramSha512,
        };
        let login = match &self.user {
            None => None,
            Some(name) => Some(Login {
                name: name.clone(),
                secret: password::of_user(name, self.password_file.as_deref())?,
                mechanism: self.sasl_mechanism.unwrap_or(by_default),
            }),
        };
        Ok(ConnectOptions { tls, login })
    }
}

/// One connection.
pub(super) struct Remote {
    client: Client,
    address: String,
}

impl Remote {
    pub(super) async fn connect(arguments: &RemoteArgs) -> Result<Remote, CliError> {
        let address = arguments.kafka.clone();
        let options = arguments.options()?;
        match tokio::time::timeout(CONNECT_MAX, Client::connect_with(&address, options)).await {
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
        ClientError::Io(error) if is_hung_up(error) => CliError::failed(format!(
            "{}: does {address} want TLS (--tls-ca) or a sign-in (--user)?",
            reason(error)
        )),
        ClientError::Io(error) => CliError::failed(format!(
            "{}: is a node listening on {address}?",
            reason(error)
        )),
        error => CliError::failed(format!("{address}: {error}")),
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
    )
}

/// Why a connection failed, without the number that the operating system adds.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ if is_hung_up(error) => "connection closed by the other side".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    }
}
