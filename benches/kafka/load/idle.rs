//! Connections that did what every client does first, ApiVersions and Metadata, and then are silent.
//!
//! As many have come and gone, one at a time, before the memory that they add is counted from.

use std::time::{Duration, Instant};

use holdfast::kafka::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Failure;
use super::broker::{Broker, make_topic, topic_metadata};
use super::process;

const TOPIC: &str = "idle";
const PARTITIONS: i32 = 16;

/// Clients that connect at the same time: fewer than a listener's backlog.
const CONNECTING: usize = 50;

#[derive(clap::Args, Clone)]
pub(crate) struct Plan {
    #[command(flatten)]
    broker: Broker,
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    /// Seconds of silence each time before the broker's memory is read
    #[arg(long, default_value_t = 5)]
    settle_s: u64,
}

pub(crate) async fn run(plan: Plan) -> Result<(), Failure> {
    let pid = plan.broker.pid.ok_or("idle: --pid is needed")?;
    let address = &plan.broker.broker;
    make_topic(address, TOPIC, PARTITIONS).await?;
    let settle = Duration::from_secs(plan.settle_s);
    let fresh = process::memory(pid)?;
    // One after another: what serving so many for the first time costs is not what holding them costs.
    for _ in 0..plan.connections {
        connect(address.clone()).await?;
    }
    sleep(settle).await;
    let before = process::memory(pid)?;
    let begun = Instant::now();
    let mut clients = Vec::with_capacity(plan.connections);
    let mut connecting = JoinSet::new();
    for number in 0..plan.connections + CONNECTING {
        if number >= CONNECTING
            && let Some(connected) = connecting.join_next().await
        {
            clients.push(connected??);
        }
        if number < plan.connections {
            connecting.spawn(connect(address.clone()));
        }
    }
    let opened_s = begun.elapsed().as_secs_f64();
    sleep(settle).await;
    let open = process::memory(pid)?;
    let cpu_s = process::cpu_s(pid)?;
    sleep(settle).await;
    let silent_cpu_s = process::cpu_s(pid)? - cpu_s;
    // Whoever was closed meanwhile was not idle.
    for client in &mut clients {
        client.call(topic_metadata(TOPIC)).await?;
    }
    let connections = clients.len();
    drop(clients);
    sleep(settle).await;
    let closed = process::memory(pid)?;
    let more = |bytes: u64, before: u64| bytes as f64 - before as f64;
    let said = json!({
        "connections": connections,
        "opened_s": opened_s,
        "rss_fresh_mb": fresh.rss as f64 / 1e6,
        "rss_before_mb": before.rss as f64 / 1e6,
        "rss_open_mb": open.rss as f64 / 1e6,
        "rss_closed_mb": closed.rss as f64 / 1e6,
        "rss_more_mb": more(open.rss, before.rss) / 1e6,
        "rss_more_than_fresh_mb": more(open.rss, fresh.rss) / 1e6,
        "pss_more_mb": more(open.pss, before.pss) / 1e6,
        "rss_more_kib_each": more(open.rss, before.rss) / 1024.0 / connections as f64,
        "silent_cpus": silent_cpu_s / settle.as_secs_f64().max(1.0),
    });
    println!("{said}");
    Ok(())
}

async fn connect(address: String) -> Result<Client, Failure> {
    let mut client = Client::connect(&address).await?;
    client.call(topic_metadata(TOPIC)).await?;
    Ok(client)
}
