//! `holdfast topics`: what a running node has, and changes to it.

use clap::{Args, Subcommand};

use super::error::CliError;
use super::lifecycle::{self, block_on};
use super::output;
use super::remote::{Remote, RemoteArgs};
use crate::config::NodeConfig;

#[derive(Debug, Args)]
pub(super) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Print every topic with its partitions and the records they hold.
    List {
        #[command(flatten)]
        remote: RemoteArgs,
        /// Internal topics as well.
        #[arg(long)]
        internal: bool,
    },
    /// Make a topic.
    Create {
        #[command(flatten)]
        remote: RemoteArgs,
        name: String,
        /// Without it the node's default (kafka.default_partitions).
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// A configuration of the topic by Kafka's name, such as retention.ms=3600000; may be repeated.
        #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
        config: Vec<(String, String)>,
    },
    /// Delete a topic and all its records.
    Delete {
        #[command(flatten)]
        remote: RemoteArgs,
        name: String,
    },
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("KEY=VALUE is needed".to_owned()),
    }
}

pub(super) fn run(arguments: &TopicsArgs) -> Result<(), CliError> {
    block_on(lifecycle::runtime(&NodeConfig::default())?, async {
        match &arguments.command {
            TopicsCommand::List { remote, internal } => list(remote, *internal).await,
            TopicsCommand::Create {
                remote,
                name,
                partitions,
                config,
            } => {
                let mut remote = Remote::connect(remote).await?;
                let partitions = partitions.unwrap_or(-1);
                remote.create_topic(name, partitions, config).await
            }
            TopicsCommand::Delete { remote, name } => {
                Remote::connect(remote).await?.delete_topic(name).await
            }
        }
    })
}

async fn list(remote: &RemoteArgs, internal: bool) -> Result<(), CliError> {
    let mut remote = Remote::connect(remote).await?;
    let mut topics = remote.topics().await?;
    topics.retain(|topic| internal || !topic.internal);
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let width = topics
        .iter()
        .map(|topic| topic.name.len())
        .max()
        .unwrap_or(0)
        .max("TOPIC".len());
    output::line(format_args!("{:<width$}  PARTITIONS  RECORDS", "TOPIC"))?;
    for topic in topics {
        let mut records = 0;
        for partition in &topic.partitions {
            let (start, end) = remote.range(&topic.name, *partition).await?;
            records += end - start;
        }
        output::line(format_args!(
            "{:<width$}  {:>10}  {records:>7}",
            topic.name,
            topic.partitions.len()
        ))?;
    }
    Ok(())
}
