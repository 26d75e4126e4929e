//! The node's own log on stderr, and what a panic leaves there.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LoggingConfig};

/// Crates whose ordinary events are of no use to an operator.
const QUIETER: &str = "fjall=warn,lsm_tree=warn,rumqttd=warn,rumqttc=warn,hyper=warn";

/// Starts the log; `RUST_LOG`, where set, decides alone what is written.
pub(super) fn init(config: &LoggingConfig) {
    let level = config.level.as_str();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},{QUIETER}")));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // An earlier subscriber of the same process stays: the log is already running.
    let _ = match config.format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(report_panic));
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message = text
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let thread = std::thread::current()
        .name()
        .unwrap_or("unnamed")
        .to_owned();
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(place, thread, "panic: {message}\n{backtrace}")
        }
        _ => tracing::error!(
            place,
            thread,
            "panic: {message} (RUST_BACKTRACE=1 shows the way there)"
        ),
    }
}
