//! The writer thread: many callers, one fdatasync, everybody told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;
use holdfast_wal::disk::sim::Faults;
use holdfast_wal::disk::{Disk, RealDisk, SimDisk};
use holdfast_wal::writer::Retired;
use holdfast_wal::{Group, GroupCommit, Placed, Sequencer, WalError, WalOptions, recover};

fn options(segment_bytes: u32, prepare_ahead: bool) -> WalOptions {
    WalOptions {
        segment_bytes,
        prepare_ahead,
        clock: Arc::new(|| 0),
        salt: Arc::new(|| 42),
    }
}

type Answer = Result<(u64, u32), String>;

struct Bare {
    open: Vec<Sender<Answer>>,
}

impl Sequencer for Bare {
    type Submission = (Bytes, Sender<Answer>);

    fn close_group(&mut self, queue: &mut VecDeque<Self::Submission>, group: &mut Group) -> bool {
        for (payload, answer) in queue.drain(..) {
            group.begin_entry(1);
            group.push(payload);
            self.open.push(answer);
        }
        false
    }

    fn durable(&mut self, placed: Option<&Placed>) {
        let placed = placed.unwrap();
        for (answer, position) in self.open.drain(..).zip(&placed.payload_positions) {
            let _ = answer.send(Ok((placed.segment.id().0, *position)));
        }
    }

    fn failed(&mut self, error: &WalError) {
        for answer in self.open.drain(..) {
            let _ = answer.send(Err(error.to_string()));
        }
    }

    fn reject(&mut self, (_, answer): Self::Submission, error: &WalError) {
        let _ = answer.send(Err(error.to_string()));
    }

    fn retired(&mut self, retired: Retired) {
        retired
            .segment
            .seal(retired.groups_end, retired.last_sequence, b"body")
            .unwrap();
    }
}

#[test]
fn sixty_four_callers_are_each_told_where_their_bytes_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let recovered = recover(&disk, options(1 << 20, true)).unwrap();
    let commit = GroupCommit::start(recovered.writer, Bare { open: Vec::new() }, 1 << 20).unwrap();
    let callers: Vec<_> = (0..64_u8)
        .map(|caller| {
            let submitter = commit.submitter();
            std::thread::spawn(move || {
                (0..50_u8)
                    .map(|n| {
                        let (answer, told) = channel();
                        submitter
                            .submit((Bytes::from(vec![caller, n, 7, 7]), answer), 1)
                            .unwrap();
                        told.recv().unwrap().unwrap()
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let told: Vec<Vec<(u64, u32)>> = callers.into_iter().map(|c| c.join().unwrap()).collect();
    commit.close();
    let recovered = recover(&disk, options(1 << 20, true)).unwrap();
    let groups: usize = recovered
        .segments
        .iter()
        .map(|s| s.scan(None).unwrap().groups.len())
        .sum();
    assert!(groups < 64 * 50, "callers share groups");
    for (caller, positions) in told.iter().enumerate() {
        for (n, &(segment, position)) in positions.iter().enumerate() {
            let segment = recovered
                .segments
                .iter()
                .find(|s| s.id().0 == segment)
                .unwrap();
            let mut bytes = [0; 4];
            segment.read(position, &mut bytes).unwrap();
            assert_eq!(bytes, [caller as u8, n as u8, 7, 7]);
        }
    }
}

#[test]
fn a_failed_fsync_answers_everybody_and_stays_final() {
    let sim = SimDisk::new(5);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let recovered = recover(&disk, options(1 << 16, false)).unwrap();
    let commit = GroupCommit::start(recovered.writer, Bare { open: Vec::new() }, 1 << 20).unwrap();
    let ask = |text: &'static str| {
        let (answer, told) = channel();
        commit
            .submitter()
            .submit((Bytes::from_static(text.as_bytes()), answer), 1)
            .unwrap();
        told.recv().unwrap()
    };
    assert!(ask("one").is_ok());
    sim.set_faults(Faults {
        sync_error: 1000,
        ..Faults::default()
    });
    assert!(ask("two").unwrap_err().contains("is not retried"));
    sim.set_faults(Faults::default());
    assert!(ask("three").unwrap_err().contains("is not retried"));
}

#[test]
fn a_full_disk_refuses_and_takes_up_again_when_there_is_room() {
    let sim = SimDisk::new(6);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let recovered = recover(&disk, options(4096, false)).unwrap();
    let commit = GroupCommit::start(recovered.writer, Bare { open: Vec::new() }, 1 << 20).unwrap();
    let ask = || {
        let (answer, told) = channel();
        commit
            .submitter()
            .submit((Bytes::from(vec![1; 3000]), answer), 1)
            .unwrap();
        told.recv().unwrap()
    };
    assert!(ask().is_ok());
    sim.set_faults(Faults {
        no_space: 1000,
        ..Faults::default()
    });
    assert!(ask().unwrap_err().contains("preallocating a segment"));
    sim.set_faults(Faults::default());
    assert!(ask().is_ok());
}
