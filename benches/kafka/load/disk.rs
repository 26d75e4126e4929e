//! What one fdatasync costs here: the floor under every durable acknowledgement.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::json;

use super::Failure;

const WRITE_BYTES: usize = 4096;

#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Where the file is made, and removed again
    #[arg(long)]
    directory: PathBuf,
    /// Writes of 4 KiB, each followed by fdatasync
    #[arg(long, default_value_t = 500)]
    count: u32,
}

/// Twice: into a file that has its size and its blocks, and at the end of a file that grows, where
/// the file system's own journal is part of the price.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let path = plan.directory.join("fdatasync");
    let in_place = timed(plan, &path, true);
    let growing = timed(plan, &path, false);
    std::fs::remove_file(&path)?;
    let (in_place, growing) = (in_place?, growing?);
    let said = json!({
        "in_place_p50_us": in_place.value_at_quantile(0.5),
        "in_place_p99_us": in_place.value_at_quantile(0.99),
        "growing_p50_us": growing.value_at_quantile(0.5),
        "growing_p99_us": growing.value_at_quantile(0.99),
    });
    println!("{said}");
    Ok(())
}

fn timed(plan: &Plan, path: &PathBuf, in_place: bool) -> Result<Histogram<u64>, Failure> {
    let mut file = File::create(path)?;
    let page = [0x5a; WRITE_BYTES];
    if in_place {
        (0..plan.count).try_for_each(|_| file.write_all(&page))?;
    }
    file.sync_all()?;
    let mut us = Histogram::new(3)?;
    for number in 0..plan.count {
        let begun = Instant::now();
        file.write_all_at(&page, u64::from(number) * WRITE_BYTES as u64)?;
        file.sync_data()?;
        us.record(u64::try_from(begun.elapsed().as_micros())?.max(1))?;
    }
    Ok(us)
}
