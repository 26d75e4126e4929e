//! Whole segments as this format's first version writes them, sound and damaged, in `golden/`. They
//! never change: a program that writes or reads them in another way has another format.
//!
//! `HOLDFAST_GOLDEN=write` writes them, for a new version of the format beside the old.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_wal::disk::{Disk, RealDisk};
use holdfast_wal::{Group, Recovered, Relocation, SegmentId, WalError, WalOptions, recover};

const SEGMENT_BYTES: u32 = 1024;
const FOOTER_BODY: &[u8] = b"a footer body, opaque to the wal";

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn options() -> WalOptions {
    let salts = AtomicU64::new(0x0123_4567_89ab_cdef);
    WalOptions {
        admit: Arc::new(|_, _| Ok(())),
        segment_bytes: SEGMENT_BYTES,
        prepare_ahead: false,
        clock: Arc::new(|| 1_700_000_000_123),
        salt: Arc::new(move || salts.fetch_add(1, Ordering::Relaxed)),
    }
}

struct Dir {
    dir: tempfile::TempDir,
    disk: Arc<dyn Disk>,
}

impl Dir {
    fn new() -> Dir {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
        Dir { dir, disk }
    }

    /// A file under the name that a segment has.
    fn with(id: SegmentId, bytes: &[u8]) -> Dir {
        let dir = Dir::new();
        fs::write(dir.dir.path().join(id.file_name()), bytes).unwrap();
        dir
    }

    fn file(&self, id: SegmentId) -> Vec<u8> {
        fs::read(self.dir.path().join(id.file_name())).unwrap()
    }

    fn recover(&self) -> Result<Recovered, WalError> {
        recover(&self.disk, options())
    }
}

fn groups() -> [Group; 3] {
    let mut groups: [Group; 3] = Default::default();
    groups[0].begin_entry(1);
    groups[0].push(Bytes::from_static(b"first "));
    groups[0].push(Bytes::from_static(b"entry"));
    groups[0].begin_entry(u64::MAX);
    groups[1].begin_entry(2);
    groups[1].push(Bytes::from(vec![0xa5; 100]));
    groups[2].begin_entry(1);
    groups[2].push(Bytes::from_static(b"last entry"));
    groups
}

const FIRST: SegmentId = SegmentId(1);
const SECOND: SegmentId = SegmentId(2);

/// Each golden file, written anew.
fn written() -> BTreeMap<&'static str, Vec<u8>> {
    let mut files = BTreeMap::new();

    // Three groups, each durable before the next: the head of a log that was killed.
    let dir = Dir::new();
    let mut writer = dir.recover().unwrap().writer;
    for group in &groups() {
        writer.write(group).unwrap();
        writer.sync().unwrap();
    }
    let head = dir.file(FIRST);
    files.insert("head.wal", head.clone());

    // The same, sealed in order.
    let retired = writer.close().unwrap();
    let (end, last) = (retired.groups_end, retired.last_sequence);
    retired.segment.seal(end, last, FOOTER_BODY).unwrap();
    let sealed = dir.file(FIRST);
    files.insert("sealed.wal", sealed.clone());

    // What recovery makes of the head.
    let dir = Dir::with(FIRST, &head);
    drop(dir.recover().unwrap());
    files.insert("rewritten.wal", dir.file(SECOND));

    // Two entries that were still wanted of other segments.
    let dir = Dir::new();
    let id = SegmentId::relocated(7);
    let mut cold = Relocation::create(&dir.disk, id, 3, 0x0fed_cba9_8765_4321, 1024).unwrap();
    cold.append(1, 1_600_000_000_000, b"kept of one").unwrap();
    cold.append(9, 1_600_000_000_001, &[0x5a; 50]).unwrap();
    cold.finish(FOOTER_BODY).unwrap();
    let cold = dir.file(id);
    files.insert("relocated.cold", cold.clone());

    // One bit each.
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    let at = |bytes: &[u8], what: &[u8]| {
        let found = bytes.windows(what.len()).position(|some| some == what);
        found.unwrap()
    };
    files.insert("head-damaged.wal", flipped(&head, at(&head, b"entry")));
    files.insert("head-torn.wal", flipped(&head, at(&head, b"last")));
    files.insert(
        "sealed-damaged.wal",
        flipped(&sealed, at(&sealed, b"\xa5\xa5")),
    );
    files.insert(
        "sealed-footer-damaged.wal",
        flipped(&sealed, at(&sealed, b"footer")),
    );
    files.insert("relocated-damaged.cold", flipped(&cold, at(&cold, b"kept")));
    files.insert("newer.wal", flipped(&head, 8));
    files
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(golden_dir().join(name)).unwrap()
}

#[test]
fn segments_are_written_as_ever() {
    let files = written();
    if std::env::var_os("HOLDFAST_GOLDEN").is_some_and(|value| value == "write") {
        fs::create_dir_all(golden_dir()).unwrap();
        for (name, bytes) in &files {
            fs::write(golden_dir().join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in &files {
        assert!(*bytes == golden(name), "{name} is written in another way");
    }
    let listed = fs::read_dir(golden_dir()).unwrap();
    assert_eq!(
        listed.count(),
        files.len(),
        "every golden file is written here"
    );
}

/// Stream and payload of every entry.
type Entries = Vec<(u64, Vec<u8>)>;
/// Position and bytes of what is damaged.
type Damaged = Vec<(u32, u32)>;

fn entries(recovered: &Recovered) -> (Entries, Damaged) {
    let (mut entries, mut damage) = (Vec::new(), Vec::new());
    for segment in recovered.segments.iter().chain(&recovered.relocated) {
        let end = segment.trailer().unwrap().map(|trailer| trailer.groups_end);
        let scan = segment.scan(end).unwrap();
        damage.extend(scan.damage);
        for entry in scan.groups.into_iter().flat_map(|group| group.entries) {
            let mut payload = vec![0; entry.payload_bytes as usize];
            segment.read(entry.payload_position, &mut payload).unwrap();
            entries.push((entry.stream, payload));
        }
    }
    damage.extend(
        recovered
            .damage
            .iter()
            .map(|d| (d.position.offset, d.bytes)),
    );
    (entries, damage)
}

fn read(name: &str, id: SegmentId) -> (Entries, Damaged) {
    entries(&Dir::with(id, &golden(name)).recover().unwrap())
}

fn all() -> Entries {
    vec![
        (1, b"first entry".to_vec()),
        (u64::MAX, Vec::new()),
        (2, vec![0xa5; 100]),
        (1, b"last entry".to_vec()),
    ]
}

#[test]
fn sound_segments_are_read() {
    assert_eq!(read("head.wal", FIRST), (all(), vec![]));
    assert_eq!(read("sealed.wal", FIRST), (all(), vec![]));
    assert_eq!(read("rewritten.wal", SECOND), (all(), vec![]));
    let dir = Dir::with(FIRST, &golden("sealed.wal"));
    let (trailer, body) = dir.recover().unwrap().segments[0]
        .footer()
        .unwrap()
        .unwrap();
    assert_eq!((trailer.last_sequence, &body[..]), (3, FOOTER_BODY));
}

#[test]
fn relocated_segments_are_read() {
    let id = SegmentId::relocated(7);
    let kept = vec![(1, b"kept of one".to_vec()), (9, vec![0x5a; 50])];
    assert_eq!(read("relocated.cold", id), (kept.clone(), vec![]));
    assert_eq!(
        read("relocated-damaged.cold", id),
        (kept[1..].to_vec(), vec![(112, 27)])
    );
}

#[test]
fn damage_costs_what_is_damaged_and_is_told_from_a_torn_tail() {
    // The first group had been durable when the second was written.
    assert_eq!(
        read("head-damaged.wal", FIRST),
        (all()[1..].to_vec(), vec![(112, 27)])
    );
    // Nothing says that the last one ever was.
    assert_eq!(read("head-torn.wal", FIRST), (all()[..3].to_vec(), vec![]));
    let mut without_second = all();
    without_second.remove(2);
    assert_eq!(
        read("sealed-damaged.wal", FIRST),
        (without_second, vec![(203, 116)])
    );
    // Groups do not need the footer.
    assert_eq!(read("sealed-footer-damaged.wal", FIRST), (all(), vec![]));
    let dir = Dir::with(FIRST, &golden("sealed-footer-damaged.wal"));
    assert!(
        dir.recover().unwrap().segments[0]
            .footer()
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_newer_version_is_refused() {
    let error = Dir::with(FIRST, &golden("newer.wal"))
        .recover()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "segment 0000000000000001 has format version 17; this program reads up to 1"
    );
}
