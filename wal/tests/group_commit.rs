//! The writer thread: many callers, one fdatasync, everybody told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;
use holdfast_wal::disk::sim::Faults;
use holdfast_wal::disk::{Disk, RealDisk, SimDisk};
use holdfast_wal::writer::Retired;
use holdfast_wal::{
    Group, GroupCommit, Placed, Segment, SegmentId, Sequencer, WalError, WalOptions, recover,
};

fn options(segment_bytes: u32, prepare_ahead: bool) -> WalOptions {
    WalOptions {
        admit: Arc::new(|_, _| Ok(())),
        segment_bytes,
        prepare_ahead,
        clock: Arc::new(|| 0),
        salt: Arc::new(|| 42),
    }
}

type Answer = Result<(u64, u32), String>;

/// Answers callers with where their bytes are.
struct Bare;

impl Sequencer for Bare {
    type Submission = (Bytes, Sender<Answer>);
    type Closed = Vec<Sender<Answer>>;

    fn close_group(
        &mut self,
        submissions: impl Iterator<Item = Self::Submission>,
        group: &mut Group,
    ) -> Self::Closed {
        submissions
            .map(|(payload, answer)| {
                group.begin_entry(1);
                group.push(payload);
                answer
            })
            .collect()
    }

    fn wants_new_segment(&self) -> bool {
        false
    }

    fn durable(&mut self, closed: Self::Closed, placed: Option<&Placed>) {
        let placed = placed.unwrap();
        for (answer, position) in closed.into_iter().zip(&placed.payload_positions) {
            let _ = answer.send(Ok((placed.segment.id().0, *position)));
        }
    }

    fn failed(&mut self, closed: Self::Closed, error: &WalError) {
        for answer in closed {
            let _ = answer.send(Err(error.to_string()));
        }
    }

    fn reject(&mut self, (_, answer): Self::Submission, error: &WalError) {
        let _ = answer.send(Err(error.to_string()));
    }

    fn retired(&mut self, retired: Retired, _unwritten: Option<&Self::Closed>) {
        // A segment that could not be sealed is read like any other.
        let _ = retired
            .segment
            .seal(retired.groups_end, retired.last_sequence, b"body");
    }
}

#[test]
fn sixty_four_callers_are_each_told_where_their_bytes_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let recovered = recover(&disk, options(1 << 20, true)).unwrap();
    let commit = GroupCommit::start(recovered.writer, Bare, 1 << 20).unwrap();
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
fn what_waits_takes_more_in_and_what_is_gone_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let recovered = recover(&disk, options(1 << 20, true)).unwrap();
    let commit = GroupCommit::start(recovered.writer, Bare, 1 << 20).unwrap();
    let submitter = commit.submitter();
    let join = |number, byte: u8| {
        submitter.join(number, 1, |(bytes, _)| {
            *bytes = Bytes::from([bytes.as_ref(), &[byte]].concat());
            Some(())
        })
    };
    let (mut joined, mut numbers) = (0, Vec::new());
    // The writer thread is quick: some find their submission gone.
    for n in 0..20_000_u32 {
        let (answer, told) = channel();
        let submission = (Bytes::from(n.to_le_bytes().to_vec()), answer);
        let number = submitter.submit(submission, 4).unwrap();
        let more = join(number, 9).is_some();
        joined += u32::from(more);
        numbers.push(number);
        if n % 100 == 0 {
            let (segment, position) = told.recv().unwrap().unwrap();
            assert!(join(number, 9).is_none(), "it is durable already");
            let segment = Segment::open(disk.as_ref(), SegmentId(segment)).unwrap();
            let mut bytes = [0; 5];
            segment.unwrap().read(position, &mut bytes).unwrap();
            assert_eq!(bytes[..4], n.to_le_bytes());
            assert!(!more || bytes[4] == 9);
        }
    }
    assert!(joined > 0);
    assert!(numbers.is_sorted_by(|a, b| a < b));
}

#[test]
fn a_failed_fsync_answers_everybody_and_stays_final() {
    let sim = SimDisk::new(5);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let recovered = recover(&disk, options(1 << 16, false)).unwrap();
    let commit = GroupCommit::start(recovered.writer, Bare, 1 << 20).unwrap();
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
    let commit = GroupCommit::start(recovered.writer, Bare, 1 << 20).unwrap();
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

/// Enough in flight that one group is written while another one is made durable, on a disk whose
/// fdatasync fails at some point: who was told "durable" finds it after the power is cut, and everybody
/// was told something.
#[test]
fn what_was_answered_is_on_disk_also_when_groups_overlap() {
    const PAYLOAD_BYTES: usize = 32 << 10;
    for seed in 0..4 {
        let sim = SimDisk::new(seed);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let recovered = recover(&disk, options(8 << 20, false)).unwrap();
        let commit = GroupCommit::start(recovered.writer, Bare, 4 << 20).unwrap();
        let callers: Vec<_> = (0..48_u64)
            .map(|caller| {
                let (submitter, sim) = (commit.submitter(), sim.clone());
                std::thread::spawn(move || {
                    let mut durable = Vec::new();
                    for n in 0..30_u64 {
                        if caller == 0 && n == 10 + seed * 4 {
                            sim.set_faults(Faults {
                                sync_error: 300,
                                ..Faults::default()
                            });
                        }
                        let mut payload = vec![seed as u8; PAYLOAD_BYTES];
                        payload[..8].copy_from_slice(&(caller << 32 | n).to_le_bytes());
                        let payload = Bytes::from(payload);
                        let (answer, told) = channel();
                        submitter
                            .submit((payload.clone(), answer), PAYLOAD_BYTES)
                            .unwrap();
                        match told.recv().unwrap() {
                            Ok(place) => durable.push((place, payload)),
                            Err(reason) => assert!(reason.contains("is not retried"), "{reason}"),
                        }
                    }
                    durable
                })
            })
            .collect();
        let told: Vec<_> = callers
            .into_iter()
            .flat_map(|c| c.join().unwrap())
            .collect();
        commit.close();
        sim.set_faults(Faults::default());
        sim.crash();
        let recovered = recover(&disk, options(8 << 20, false)).unwrap();
        assert!(recovered.damage.is_empty(), "seed {seed}");
        let mut found = std::collections::HashSet::new();
        for segment in &recovered.segments {
            for entry in segment
                .scan(None)
                .unwrap()
                .groups
                .iter()
                .flat_map(|g| &g.entries)
            {
                let mut payload = vec![0; entry.payload_bytes as usize];
                segment.read(entry.payload_position, &mut payload).unwrap();
                found.insert(Bytes::from(payload));
            }
        }
        for ((segment, position), payload) in told {
            assert!(
                found.contains(&payload),
                "seed {seed}: {segment}:{position} was acknowledged and is lost"
            );
        }
    }
}
