//! The doctor finds what was broken, and nothing in what is whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_storage::log::{Log, LogOptions, NewTopic, OpenError, Record, doctor};

/// A closed log with two topics in several sealed segments.
async fn filled(dir: &Path) {
    let log = Log::open(LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::new(dir)
    })
    .unwrap();
    for name in ["first", "second"] {
        let new = NewTopic {
            name: name.into(),
            partitions: 2,
            configs: Vec::new(),
        };
        let topic = log.create_topic(new).await.unwrap();
        for n in 0..200_usize {
            let record = Record {
                value: Some(Bytes::from(format!("{name} {n:01000}"))),
                ..Record::default()
            };
            let partition = &topic.partitions()[n % 2];
            log.append(partition, &[record])
                .await
                .unwrap()
                .await
                .unwrap();
        }
    }
    log.close();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// Flips a bit of the byte where `what` begins, in the first segment that holds it.
fn rot(dir: &Path, what: &[u8]) {
    for path in segments(dir) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(what.len()).position(|some| some == what) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("no segment holds it");
}

#[tokio::test]
async fn a_whole_log_is_called_whole() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let report = doctor::check(dir.path()).unwrap();
    assert_eq!(
        (&report.damage[..], &report.disagreements[..]),
        (&[][..], &[][..])
    );
    assert!(report.segments > 5, "{}", report.segments);
    assert!(report.batches > 400, "{}", report.batches);
    assert!(report.bytes > 400_000);
}

#[tokio::test]
async fn a_flipped_bit_is_named_by_topic_partition_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    rot(dir.path(), format!("second {:01000}", 101).as_bytes());
    let report = doctor::check(dir.path()).unwrap();
    assert!(
        report.disagreements.is_empty(),
        "{:?}",
        report.disagreements
    );
    let [finding] = &report.damage[..] else {
        panic!("{:?}", report.damage)
    };
    assert_eq!(finding.of, "second-1, offsets 50 to 50");
    assert_eq!(finding.reason, "the batch is damaged");
}

#[tokio::test]
async fn a_broken_footer_and_a_wrong_index_cost_no_record_and_are_mended() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let second = &segments(dir.path())[1];
    let mut bytes = fs::read(second).unwrap();
    // In front of the trailer ends the last block of the footer.
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(second, bytes).unwrap();
    let report = doctor::check(dir.path()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(report.disagreements.len(), 1, "{:?}", report.disagreements);
    assert!(report.disagreements[0].reason.contains("footer"));

    // An index of another log.
    let other = tempfile::tempdir().unwrap();
    filled(other.path()).await;
    let last = segments(other.path()).pop().unwrap();
    fs::remove_file(last).unwrap();
    let report = doctor::check(other.path()).unwrap();
    assert!(
        report
            .disagreements
            .iter()
            .any(|f| f.reason.contains("index"))
    );
    doctor::remove_index(other.path()).unwrap();
    let report = doctor::check(other.path()).unwrap();
    assert!(report.disagreements.is_empty());
    let log = Log::open(LogOptions::new(other.path())).unwrap();
    assert_eq!(log.topics().len(), 2);
}

#[tokio::test]
async fn a_segment_without_a_header_is_lost_as_a_whole_and_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let path = &segments(dir.path())[2];
    let mut bytes = fs::read(path).unwrap();
    bytes[..64].fill(0);
    fs::write(path, bytes).unwrap();
    let report = doctor::check(dir.path()).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert!(report.damage[0].reason.contains("header"));
}

#[tokio::test]
async fn a_log_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let refused = doctor::check(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked(_)), "{refused}");
    log.close();
}
