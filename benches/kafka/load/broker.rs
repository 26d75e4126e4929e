//! What every load asks of a broker before it begins.

use std::time::Duration;

use holdfast::kafka::Client;
use holdfast::kafka::client::ClientError;
use holdfast::kafka::protocol::ErrorCode;
use holdfast::kafka::protocol::messages::{MetadataRequest, MetadataRequestTopic};
use tokio::time::{Instant, sleep};

use super::Failure;

/// A broker that is not ready after so long has failed.
const READY_MAX: Duration = Duration::from_secs(60);

/// Between two questions. Kafka's clients: `retry.backoff.ms`.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

/// The process to look at, and the broker to load.
#[derive(clap::Args, Clone)]
pub(crate) struct Broker {
    /// host:port of the broker
    #[arg(long)]
    pub(crate) broker: String,
    /// The broker's process, if it is on this machine
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

pub(crate) fn topic_metadata(topic: &str) -> MetadataRequest {
    let asked = MetadataRequestTopic {
        name: Some(topic.into()),
        ..Default::default()
    };
    MetadataRequest {
        topics: Some(vec![asked]),
        allow_auto_topic_creation: false,
        ..Default::default()
    }
}

/// Makes a topic unless it is there, and waits until every partition has a leader.
pub(crate) async fn make_topic(broker: &str, topic: &str, partitions: i32) -> Result<(), Failure> {
    let mut client = Client::connect(broker).await?;
    match client.create_topic(topic, partitions, &[]).await {
        Err(ClientError::Refused { code, .. }) if code == ErrorCode::TopicAlreadyExists => {}
        made => made?,
    }
    let give_up = Instant::now() + READY_MAX;
    loop {
        let metadata = client.call(topic_metadata(topic)).await?;
        let led = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        let led = led.filter(|partition| partition.error_code == 0).count();
        if led == usize::try_from(partitions)? {
            return Ok(());
        }
        if Instant::now() > give_up {
            return Err(
                format!("{led} of {partitions} partitions of {topic} have a leader").into(),
            );
        }
        sleep(RETRY).await;
    }
}
