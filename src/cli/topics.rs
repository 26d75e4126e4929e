//! `holdfast topics`: what a running node has.

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
}

pub(super) fn run(arguments: &TopicsArgs) -> Result<(), CliError> {
    let TopicsCommand::List { remote, internal } = &arguments.command;
    block_on(
        lifecycle::runtime(&NodeConfig::default())?,
        list(remote, *internal),
    )
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
