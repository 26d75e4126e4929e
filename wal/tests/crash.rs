//! Seeded histories on a simulated disk: whatever was acknowledged is there after every crash, in
//! order and unchanged. A failing seed is printed; `HOLDFAST_SEED=n` plays that one alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::disk::sim::{Faults, Random};
use holdfast_wal::disk::{Disk, SimDisk};
use holdfast_wal::recovery::{self, groups_end_before};
use holdfast_wal::writer::PendingSync;
use holdfast_wal::{Group, Recovered, WalError, WalOptions, Writer, recover};

const SEGMENT_BYTES: u32 = 8 << 10;
const HISTORIES: u64 = 4_000;

fn options(seed: u64) -> WalOptions {
    let salts = std::sync::Mutex::new(Random::new(seed));
    WalOptions {
        admit: Arc::new(|_, _| Ok(())),
        segment_bytes: SEGMENT_BYTES,
        prepare_ahead: false,
        clock: Arc::new(|| 1_700_000_000_000),
        salt: Arc::new(move || salts.lock().unwrap().next_u64()),
    }
}

type Entries = Vec<(u64, Vec<u8>)>;

fn read_all(recovered: &Recovered) -> (Entries, Vec<recovery::Damage>) {
    let mut entries = Vec::new();
    let mut damage = recovered.damage.clone();
    for (i, segment) in recovered.segments.iter().enumerate() {
        let next = recovered.segments.get(i + 1);
        let trailer = segment.trailer().unwrap().map(|t| t.groups_end);
        let known = trailer.or(next.and_then(|n| groups_end_before(n, segment.id()).unwrap()));
        let scan = segment.scan(known).unwrap();
        for (offset, bytes) in scan.damage {
            let position = holdfast_wal::Position {
                segment: segment.id(),
                offset,
            };
            damage.push(recovery::Damage { position, bytes });
        }
        let mut last = 0;
        for group in scan.groups {
            assert!(group.header.sequence > last, "sequence numbers rise");
            last = group.header.sequence;
            for entry in group.entries {
                let mut payload = vec![0; entry.payload_bytes as usize];
                segment.read(entry.payload_position, &mut payload).unwrap();
                entries.push((entry.stream, payload));
            }
        }
    }
    (entries, damage)
}

fn random_group(random: &mut Random, group: &mut Group) -> Entries {
    group.clear();
    let mut entries = Vec::new();
    for _ in 0..=random.below(4) {
        let stream = random.below(5);
        group.begin_entry(stream);
        let mut payload = Vec::new();
        for _ in 0..random.below(4) {
            let piece: Vec<u8> = (0..random.below(400))
                .map(|_| random.next_u64() as u8)
                .collect();
            payload.extend_from_slice(&piece);
            group.push(Bytes::from(piece));
        }
        entries.push((stream, payload));
    }
    entries
}

struct Model {
    /// Acknowledged: must be there.
    durable: Entries,
    /// Groups whose fate a crash decides: written, never acknowledged, oldest first.
    open: Vec<Entries>,
    /// How many of the open groups the fdatasync that is running covers.
    syncing: usize,
    /// Groups whose callers were told that they failed, each with the number of open groups before
    /// it. A crash may bring one back: what was written over it may be lost where it is not.
    failed: Vec<(usize, Entries)>,
}

impl Model {
    fn settle(&mut self, groups: usize) {
        for entries in self.open.drain(..groups) {
            self.durable.extend(entries);
        }
        self.syncing = 0;
        self.failed.retain_mut(|(before, _)| {
            let open = before.checked_sub(groups);
            *before = open.unwrap_or_default();
            open.is_some()
        });
    }

    /// Whether a crash may have left `extra` behind what was acknowledged and `before` open groups: so
    /// many whole groups, in order.
    fn allows(&self, extra: &[(u64, Vec<u8>)], before: usize) -> bool {
        let failed = self.failed.iter().filter(|(place, _)| *place == before);
        let mut candidates = failed.map(|(_, group)| group).chain(self.open.get(before));
        extra.is_empty()
            || candidates.any(|group| {
                extra
                    .strip_prefix(group.as_slice())
                    .is_some_and(|rest| self.allows(rest, before + 1))
            })
    }
}

fn play(seed: u64) {
    let mut random = Random::new(seed);
    let sim = SimDisk::new(random.next_u64());
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut model = Model {
        durable: Vec::new(),
        open: Vec::new(),
        syncing: 0,
        failed: Vec::new(),
    };
    let mut group = Group::default();
    for life in 0..=random.below(4) {
        sim.set_faults(Faults::default());
        let recovered = recover(&disk, options(random.next_u64()))
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        check(seed, life, &recovered, &mut model);
        if random.chance(300) {
            // A crash in the middle of, or right after, recovery.
            sim.crash();
            continue;
        }
        let mut writer = recovered.writer;
        if random.chance(500) {
            let faults = Faults {
                short_write: 100,
                write_error: 30,
                no_space: 50,
                sync_error: 20,
            };
            sim.set_faults(faults);
        }
        let mut running: Option<PendingSync> = None;
        for _ in 0..random.below(60) {
            let entries = random_group(&mut random, &mut group);
            if random.chance(50) {
                writer.roll_before_next();
            }
            // As the writer thread does: one group is being made durable, others are written behind
            // it; or none at all.
            let ahead = random.chance(500) && model.open.len() < 3;
            if (!ahead || writer.must_settle_before(&group))
                && settle_all(seed, &mut writer, &mut running, &mut model).is_err()
            {
                let again = writer.write(&group);
                assert!(
                    matches!(again, Err(WalError::Poisoned { .. })),
                    "seed {seed}: a failed fsync is final"
                );
                break;
            }
            match writer.write(&group) {
                Ok(_) => model.open.push(entries),
                Err(WalError::NoSpace { .. }) => continue,
                Err(WalError::Write { .. }) => {
                    model.failed.push((model.open.len(), entries));
                    continue;
                }
                Err(WalError::Poisoned { .. }) => break,
                Err(other) => panic!("seed {seed}: {other}"),
            }
            for retired in writer.take_retired() {
                // Sealing is background work: a crash may come before it, or its fdatasync may fail.
                if random.chance(700)
                    && retired
                        .segment
                        .seal(retired.groups_end, retired.last_sequence, b"footer")
                        .is_err()
                {
                    assert!(random.next_u64() != 0);
                }
            }
            if running.is_none() {
                running = writer.begin_sync().unwrap();
                model.syncing = model.open.len();
            }
        }
        sim.set_faults(Faults::default());
        if random.chance(300)
            && model.failed.is_empty()
            && settle_all(seed, &mut writer, &mut running, &mut model).is_ok()
        {
            if let Some(retired) = writer.close() {
                retired
                    .segment
                    .seal(retired.groups_end, retired.last_sequence, b"")
                    .unwrap();
            }
        } else {
            drop(writer);
            sim.crash();
        }
    }
    let recovered = recover(&disk, options(1)).unwrap();
    check(seed, u64::MAX, &recovered, &mut model);
}

/// Finishes the running fdatasync and those that are due after it.
fn settle_all(
    seed: u64,
    writer: &mut Writer,
    running: &mut Option<PendingSync>,
    model: &mut Model,
) -> Result<(), ()> {
    while let Some(pending) = running.take() {
        let result = pending.run();
        match writer.finish_sync(pending, result) {
            Ok(()) => model.settle(model.syncing),
            Err(WalError::Poisoned { .. }) => return Err(()),
            Err(other) => panic!("seed {seed}: {other}"),
        }
        *running = writer.begin_sync().unwrap();
        model.syncing = model.open.len();
    }
    Ok(())
}

fn check(seed: u64, life: u64, recovered: &Recovered, model: &mut Model) {
    let (found, damage) = read_all(recovered);
    assert!(
        damage.is_empty(),
        "seed {seed} life {life}: a crash is not damage: {damage:?}"
    );
    let durable = model.durable.len();
    assert!(
        found.len() >= durable,
        "seed {seed} life {life}: {} of {durable} acknowledged entries",
        found.len()
    );
    assert!(
        found[..durable] == model.durable[..],
        "seed {seed} life {life}: acknowledged entries changed"
    );
    // What was not acknowledged is there whole or not at all.
    let extra = &found[durable..];
    assert!(
        model.allows(extra, 0),
        "seed {seed} life {life}: entries nobody wrote"
    );
    model.durable = found;
    model.open.clear();
    model.failed.clear();
}

fn seeds() -> Vec<u64> {
    match std::env::var("HOLDFAST_SEED") {
        Ok(seed) => vec![seed.parse().expect("HOLDFAST_SEED is a number")],
        Err(_) => (0..HISTORIES).collect(),
    }
}

#[test]
fn acknowledged_entries_survive_every_crash_in_order_and_unchanged() {
    for seed in seeds() {
        play(seed);
    }
}

/// Flips one bit anywhere below the last durable group: it is reported at its place, and every other
/// entry is still there.
#[test]
fn one_flipped_bit_costs_only_what_it_hit_and_is_reported() {
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let sim = SimDisk::new(seed);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let mut writer = recover(&disk, options(seed)).unwrap().writer;
        let mut group = Group::default();
        let mut written = Vec::new();
        let mut end = writer.durable();
        for _ in 0..20 {
            written.extend(random_group(&mut random, &mut group));
            writer.write(&group).unwrap();
            end = writer.durable();
            writer.sync().unwrap();
        }
        drop(writer);
        sim.crash();
        let mut names = disk.list().unwrap();
        names.retain(|name| *name <= end.segment.file_name());
        let name = &names[usize::try_from(random.below(names.len() as u64)).unwrap()];
        let segment_end = if *name == end.segment.file_name() {
            u64::from(end.offset)
        } else {
            let id = holdfast_wal::SegmentId::from_file_name(name).unwrap();
            let next = holdfast_wal::Segment::open(disk.as_ref(), id.next())
                .unwrap()
                .unwrap();
            u64::from(groups_end_before(&next, id).unwrap().unwrap())
        };
        if segment_end <= 64 {
            continue;
        }
        sim.flip_bit(name, random.below(segment_end * 8));
        let recovered = recover(&disk, options(seed)).unwrap();
        let (found, damage) = read_all(&recovered);
        assert!(
            !damage.is_empty(),
            "seed {seed}: a flipped bit in {name} went unnoticed"
        );
        let mut rest = written.iter();
        assert!(
            found.iter().all(|entry| rest.any(|w| w == entry)),
            "seed {seed}: an entry nobody wrote, or out of order"
        );
    }
}

/// A new log, and a group of one entry to be written to it.
fn one_entry() -> (SimDisk, Arc<dyn Disk>, Writer, Group) {
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let writer = recover(&disk, options(1)).unwrap().writer;
    let mut group = Group::default();
    group.begin_entry(1);
    group.push(Bytes::from_static(b"x"));
    (sim, disk, writer, group)
}

#[test]
fn a_segment_of_a_newer_format_is_refused_with_a_sentence() {
    let (sim, disk, mut writer, group) = one_entry();
    let placed = writer.write(&group).unwrap();
    writer.sync().unwrap();
    // Version 1 becomes version 3.
    sim.flip_bit(&placed.segment.id().file_name(), 8 * 8 + 1);
    let error = recover(&disk, options(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "segment 0000000000000001 has format version 3; this program reads up to 1"
    );
}

#[test]
fn on_a_full_disk_a_segment_that_has_room_is_written_on_though_a_new_one_was_asked_for() {
    let (sim, _disk, mut writer, group) = one_entry();
    let first = writer.write(&group).unwrap();
    writer.sync().unwrap();
    sim.set_faults(Faults {
        no_space: 1000,
        ..Faults::default()
    });
    writer.roll_before_next();
    let second = writer.write(&group).unwrap();
    writer.sync().unwrap();
    assert_eq!(second.segment.id(), first.segment.id());
    // With room it is done as asked.
    sim.set_faults(Faults::default());
    let third = writer.write(&group).unwrap();
    assert!(third.segment.id() > second.segment.id());
}
