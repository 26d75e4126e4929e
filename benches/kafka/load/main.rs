//! Loads any Kafka broker as clients do, and says what came of it as one line of JSON for each figure.
//!
//! ```text
//! cargo bench --bench kafka_load -- small --broker 127.0.0.1:9092 [--connections 100] [--in-flight 1]
//! cargo bench --bench kafka_load -- idle --broker 127.0.0.1:9092 --pid N [--connections 5000]
//! cargo bench --bench kafka_load -- groups --broker 127.0.0.1:9092 [--groups 500] [--members 4]
//! cargo bench --bench kafka_load -- disk --directory DIR
//! ```
//! It knows no broker: each is sent the same requests. With `--pid`, the broker's process on this
//! machine, the broker's CPU seconds and memory are told too. `make bench-kafka` starts the brokers,
//! runs this in turn against each and compares. Every connection needs a file descriptor here and one
//! in the broker (`ulimit -n`).

mod broker;
mod disk;
mod groups;
mod idle;
mod process;
mod small;

use std::error::Error;

use clap::{Parser, Subcommand};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Loads a Kafka broker and prints what came of it")]
struct Arguments {
    /// `cargo bench` adds it.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// One-record produces over many connections
    Small(small::Plan),
    /// Connections that have asked who is there, and then are silent
    Idle(idle::Plan),
    /// Consumer groups that rebalance all at once
    Groups(groups::Plan),
    /// fdatasync of the disk below a directory
    Disk(disk::Plan),
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    // One thread: the broker needs the others, and a load's tasks share nothing worth a second one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match arguments.part {
        Part::Small(plan) => runtime.block_on(small::run(plan)),
        Part::Idle(plan) => runtime.block_on(idle::run(plan)),
        Part::Groups(plan) => runtime.block_on(groups::run(plan)),
        Part::Disk(plan) => disk::run(&plan),
    }
}
