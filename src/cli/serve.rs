//! `holdfast serve`: the node in the foreground until a signal. SIGHUP reads certificates again.

use std::convert::Infallible;
use std::future::pending;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;
use super::lifecycle::{self, Signals};
use super::notify::Supervisor;
use super::{DoorArgs, NodeArgs, VERSION, logging};
use crate::config::Config;
use crate::node::Node;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    pub(super) doors: DoorArgs,
}

pub(super) fn run(arguments: &ServeArgs) -> Result<(), CliError> {
    let config = arguments.node.load(Some(&arguments.doors))?.config;
    logging::init(&config.logging);
    tracing::info!(
        "holdfast {VERSION}, data in {}",
        config.node.data_dir.display()
    );
    let runtime = lifecycle::runtime(&config.node)?;
    lifecycle::block_on(runtime, serve(config))
}

async fn serve(config: Config) -> Result<(), CliError> {
    let mut signals = Signals::install()?;
    let mut hangups = signal(SignalKind::hangup())?;
    let supervisor = Supervisor::from_env();
    let Some(node) = lifecycle::start(config, &mut signals, &supervisor).await? else {
        return Ok(());
    };
    // Whoever started us may not read our stdout; that is no reason not to serve.
    if lifecycle::announce(&node, &supervisor).is_err() {
        tracing::warn!("nobody reads stdout");
    }
    // Side by side: a disk that does not answer must not keep the node from stopping.
    let name = tokio::select! {
        name = signals.next() => name,
        never = obey_hangups(&mut hangups, &node) => match never {},
    };
    tracing::info!("{name}: stopping");
    lifecycle::stop(node.stop(), &mut signals, &supervisor).await;
    Ok(())
}

/// One at a time; any that come meanwhile are one more.
async fn obey_hangups(hangups: &mut Signal, node: &Node) -> Infallible {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: reading certificates again");
        node.read_certificates_again().await;
    }
    pending().await
}
