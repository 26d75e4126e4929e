//! `holdfast doctor`: is what a stopped node keeps on disk whole?

use clap::Args;
use holdfast_storage::log::{OpenError, doctor};

use super::error::CliError;
use super::{NodeArgs, lifecycle, output};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Remove the index where it disagrees with the segments; the next start makes it anew. Damaged
    /// records cannot be repaired: restore the directory from a backup, or go on without them.
    #[arg(long)]
    repair: bool,
}

pub(super) fn run(arguments: &DoctorArgs) -> Result<(), CliError> {
    let config = arguments.node.load(None)?.config;
    let data_dir = &config.node.data_dir;
    lifecycle::refuse_foreign_data_dir(data_dir)?;
    if !data_dir.join("segments").is_dir() {
        let path = data_dir.display();
        return Err(CliError::failed(format!("{path} holds no log")));
    }
    let report = doctor::check(data_dir).map_err(|error| opening(&error))?;
    for finding in &report.damage {
        output::line(format_args!("damage: {finding}"))?;
    }
    for finding in &report.disagreements {
        output::line(format_args!("disagreement: {finding}"))?;
    }
    output::line(format_args!(
        "{} segments, {} bytes, {} record batches: {} damaged, {} disagreements{}",
        report.segments,
        report.bytes,
        report.batches,
        report.damage.len(),
        report.disagreements.len(),
        if report.torn_tail {
            "; a torn tail that was never acknowledged"
        } else {
            ""
        },
    ))?;
    if let Some(live) = report.live_bytes {
        output::line(format_args!(
            "{live} bytes live, {} awaiting cleaning or taken by footers",
            report.bytes.saturating_sub(live)
        ))?;
    }
    if arguments.repair && !report.disagreements.is_empty() {
        doctor::remove_index(data_dir).map_err(|error| opening(&error))?;
        output::line(format_args!(
            "the index was removed; the next start makes it anew"
        ))?;
    }
    if !report.damage.is_empty() {
        return Err(CliError::Storage(format!(
            "{} holds damage that costs records",
            data_dir.display()
        )));
    }
    if !report.disagreements.is_empty() && !arguments.repair {
        return Err(CliError::failed(
            "footers or index disagree with the segments; no record is lost: --repair",
        ));
    }
    Ok(())
}

fn opening(error: &OpenError) -> CliError {
    match error {
        OpenError::Locked(_) => {
            CliError::failed(format!("{error}: it is looked through while it is stopped"))
        }
        error => CliError::opening(error),
    }
}
