//! Throws hostile frames at a Kafka door of its own: `FRAMES=10000000 SECONDS=3600 SEED=7 frames`.
//! Ends with 1 if a promise was broken.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_frames::attack::{self, Plan};
use holdfast_frames::heap::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let plan = Plan {
        seed: number("SEED").unwrap_or_else(any_seed),
        frames: number("FRAMES").unwrap_or(u64::MAX),
        time: Duration::from_secs(number("SECONDS").unwrap_or(60)),
        connections: number("CONNECTIONS").unwrap_or(32),
    };
    println!("{plan:?}");
    let report = attack::run(plan);
    print!("{report}");
    if report.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => {
            eprintln!("{name}={text} is not a number");
            std::process::exit(2);
        }
    }
}

fn any_seed() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_nanos() as u64 & 0xffff_ffff
}
