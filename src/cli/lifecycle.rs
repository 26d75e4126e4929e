//! From start to stop, the same for `serve` and `demo`: runtime, signals, announcements, supervisor.

use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;
use super::notify::Supervisor;
use super::output;
use crate::config::{Config, NodeConfig};
use crate::node::Node;

/// Exit code of a shutdown that a second signal cut short (128 + SIGINT).
const EXIT_INTERRUPTED: i32 = 130;
/// Threads that are still busy after an orderly stop get this long.
const RUNTIME_SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// How often, and by how much, a long recovery asks the supervisor for patience.
const PATIENCE_EVERY: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn install() -> Result<Signals, CliError> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The name of the next signal.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// One worker per core, at least two: a door must answer while another thread waits.
pub(super) fn runtime(config: &NodeConfig) -> Result<Runtime, CliError> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = if config.worker_threads == 0 {
        cores.max(2)
    } else {
        config.worker_threads
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("holdfast")
        .enable_all()
        .build()
        .map_err(|e| CliError::failed(format!("cannot start {threads} threads: {e}")))
}

/// Runs a command on a runtime of its own and does not wait for ever for its threads.
pub(super) fn block_on<F>(runtime: Runtime, future: F) -> Result<(), CliError>
where
    F: Future<Output = Result<(), CliError>>,
{
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_MAX);
    result
}

/// Files that root makes in another user's data directory would keep that user's node from starting.
pub(super) fn refuse_foreign_data_dir(dir: &Path) -> Result<(), CliError> {
    let (Ok(dir_owner), Ok(me)) = (
        fs::metadata(dir).map(|m| m.uid()),
        fs::metadata("/proc/self").map(|m| m.uid()),
    ) else {
        return Ok(());
    };
    if me == 0 && dir_owner != 0 {
        return Err(CliError::failed(format!(
            "{} belongs to user id {dir_owner} and this is root: run it as that user (sudo -u '#{dir_owner}' holdfast ...)",
            dir.display()
        )));
    }
    Ok(())
}

/// Starts the node; a signal during a long recovery ends the process at once, which is what recovery
/// is made for.
pub(super) async fn start(
    config: Config,
    signals: &mut Signals,
    supervisor: &Supervisor,
) -> Result<Option<Node>, CliError> {
    refuse_foreign_data_dir(&config.node.data_dir)?;
    let starting = Node::start(config);
    tokio::pin!(starting);
    let mut patience = tokio::time::interval(PATIENCE_EVERY);
    loop {
        tokio::select! {
            started = &mut starting => return started.map(Some).map_err(|e| CliError::opening(&e)),
            name = signals.next() => {
                tracing::info!("{name} while starting: stopped");
                return Ok(None);
            }
            _ = patience.tick() => supervisor.extend(PATIENCE),
        }
    }
}

/// The fixed lines on stdout that scripts wait for: `listening DOOR ADDRESS` thrice, for each further
/// listener of the Kafka door `listening kafka/NAME ADDRESS`, for those with TLS of the others
/// `listening mqtt/tls ADDRESS` and `listening http/tls ADDRESS`, then `ready`.
pub(super) fn announce(node: &Node, supervisor: &Supervisor) -> Result<(), CliError> {
    let addresses = node.addresses();
    output::line(format_args!("listening mqtt {}", addresses.mqtt))?;
    output::line(format_args!("listening kafka {}", addresses.kafka))?;
    output::line(format_args!("listening http {}", addresses.http))?;
    for (name, address) in node.kafka_listeners().iter().skip(1) {
        output::line(format_args!("listening kafka/{name} {address}"))?;
    }
    let with_tls = [("mqtt", addresses.mqtt_tls), ("http", addresses.http_tls)];
    for (door, address) in with_tls {
        if let Some(address) = address {
            output::line(format_args!("listening {door}/tls {address}"))?;
        }
    }
    output::line(format_args!("ready"))?;
    supervisor.ready();
    Ok(())
}

/// Stops in order; a second signal ends the process where it stands, which costs nothing that was
/// acknowledged.
pub(super) async fn stop(
    stopping: impl Future<Output = ()>,
    signals: &mut Signals,
    supervisor: &Supervisor,
) {
    supervisor.stopping();
    tokio::select! {
        () = stopping => tracing::info!("stopped"),
        name = signals.next() => {
            tracing::warn!("second signal ({name}): ending at once; acknowledged records are on disk");
            std::process::exit(EXIT_INTERRUPTED);
        }
    }
}
