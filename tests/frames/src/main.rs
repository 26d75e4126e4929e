//! Throws hostile frames at a Kafka door of its own, and ends with 1 if a promise was broken.
//!
//! | variable | meaning |
//! |---|---|
//! | `FRAMES` | ends after so many; default: none |
//! | `FRAMES_SECONDS` | ends after so long; default: never |
//! | `SEED` | what they follow from; default: the time |
//! | `FRAME`, `EXCHANGE` | throws this one alone |
//! | `FILE` | throws the frames of a file alone |
//! | `CONNECTIONS` | at once, in the rounds of many; default 32 |
//! | `FRAMES_DIR` | where frames that broke a promise are kept; default `target/frames` |

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_frames::attack::{self, Plan};
use holdfast_frames::heap::Counting;
use holdfast_frames::kept;
use holdfast_frames::victim::Number;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let plan = Plan {
        seed: number("SEED").unwrap_or_else(any_seed),
        frames: number("FRAMES").unwrap_or(u64::MAX),
        time: Duration::from_secs(number("FRAMES_SECONDS").unwrap_or(u64::from(u32::MAX))),
        connections: number("CONNECTIONS").unwrap_or(32),
        keep: text("FRAMES_DIR").map_or_else(|| PathBuf::from("target/frames"), PathBuf::from),
    };
    println!("seed {}", plan.seed);
    let frame = number("FRAME").map(Number::Frame);
    let exchange = number("EXCHANGE").map(Number::Exchange);
    let numbers: Vec<Number> = frame.into_iter().chain(exchange).collect();
    let file = text("FILE").map(|path| match std::fs::read(&path) {
        Ok(bytes) => kept::frames(&bytes),
        Err(error) => refuse(&format!("FILE={path}: {error}")),
    });
    let report = if numbers.is_empty() && file.is_none() {
        attack::run(plan)
    } else {
        attack::replay(plan, &numbers, file.unwrap_or_default())
    };
    print!("{report}");
    if report.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What is empty is not set, as `make` passes it on.
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    let text = text(name)?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => refuse(&format!("{name}={text} is not a number")),
    }
}

fn refuse(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(2)
}

fn any_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64 & 0xffff_ffff
}
