//! Sealing, off the append path: a full segment gets its footer, then the index takes it in, then
//! its batches are forgotten in memory. One thread, in order, with a bounded backlog: when the index
//! cannot keep up the writer waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_wal::WalError;
use holdfast_wal::writer::Retired;

use super::cleaner::Event;
use super::footer::{self, Part, ProducerEntry};
use super::index::{Changes, Index, MetadataChanges};
use super::partition::Partition;
use super::state::State;
use super::types::PartitionId;

/// Full segments that may wait for the sealer.
const BACKLOG_SEGMENTS: usize = 2;
/// Between two attempts to write the index, say on a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// A full segment and what is in it.
pub struct SealJob {
    pub retired: Retired,
    pub partitions: Vec<Arc<Partition>>,
    pub producers: Vec<ProducerEntry>,
    pub metadata: MetadataChanges,
}

/// Hands jobs to the sealer; dropping it lets the thread end.
pub type SealQueue = SyncSender<SealJob>;

/// Starts the thread.
pub fn start(
    index: Arc<Index>,
    state: Arc<State>,
    cleaner: Sender<Event>,
) -> std::io::Result<(SealQueue, JoinHandle<()>)> {
    let (queue, jobs) = sync_channel(BACKLOG_SEGMENTS);
    let thread = std::thread::Builder::new()
        .name("log-sealer".into())
        .spawn(move || run(&jobs, &index, &state, &cleaner))?;
    Ok((queue, thread))
}

fn run(jobs: &Receiver<SealJob>, index: &Index, state: &State, cleaner: &Sender<Event>) {
    for job in jobs {
        let segment = job.retired.segment.id();
        match seal(&job, index, state, cleaner) {
            Ok(true) => {
                state.unsealed.fetch_sub(1, Ordering::AcqRel);
                tracing::debug!(%segment, partitions = job.partitions.len(), "sealed");
            }
            // The index takes segments in order, so what follows waits for the next start as well.
            Ok(false) => return,
            Err(error) => {
                tracing::error!(%segment, %error, "sealing failed");
                // What a failed fdatasync left on disk is unknown (invariant 11). Everything else
                // stays readable from memory and is sealed at the next start.
                state.fail(error.to_string());
                return;
            }
        }
    }
}

/// Whether the index holds the segment now; `false` if the log is closing and the index cannot be written.
fn seal(
    job: &SealJob,
    index: &Index,
    state: &State,
    cleaner: &Sender<Event>,
) -> Result<bool, WalError> {
    let segment = &job.retired.segment;
    let parts: BTreeMap<PartitionId, Part> = job
        .partitions
        .iter()
        .filter_map(|p| Some((p.id(), p.hot_part(segment.id())?)))
        .collect();
    let (body, footer) = footer::encode(job.retired.groups_end, &parts, &job.producers);
    // A footer that cannot be written (a full disk, say) is tried again; a failed fdatasync is final.
    while let Err(error) = segment.seal(job.retired.groups_end, job.retired.last_sequence, &body) {
        tracing::error!(segment = %segment.id(), %error, "the segment cannot be sealed");
        if matches!(error, WalError::Poisoned { .. }) {
            return Err(error);
        }
        if state.is_closing() {
            return Ok(false);
        }
        std::thread::park_timeout(RETRY);
    }
    let changes = || {
        let mut changes = Changes::default();
        for info in &footer.blocks {
            changes.put_block(segment.id(), info);
        }
        changes.producers(&footer.producers);
        changes.metadata(&job.metadata);
        changes.checkpoint(segment.id());
        changes
    };
    while let Err(error) = index.apply(changes()) {
        tracing::error!(segment = %segment.id(), %error, "the index cannot be written; appends wait for it");
        if state.is_closing() {
            return Ok(false);
        }
        std::thread::park_timeout(RETRY);
    }
    for partition in &job.partitions {
        partition.forget_hot(segment.id());
    }
    // After the end of the cleaner nobody listens, and at the next start it counts anew.
    let _ = cleaner.send(Event::Sealed {
        segment: segment.id(),
        parts: footer.blocks,
    });
    Ok(true)
}
