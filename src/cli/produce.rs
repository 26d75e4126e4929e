//! `holdfast produce`: records from an argument or from the lines of stdin.
//!
//! Limits: a line of [`LINE_BYTES_MAX`]; [`LINES_WAITING_MAX`] lines read ahead, sent
//! [`LINES_PER_ROUND_MAX`] at a time.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use holdfast_storage::log::murmur2::partition_of;
use holdfast_storage::log::{Header, Record};
use tokio::sync::mpsc;

use super::error::CliError;
use super::lifecycle::{self, block_on};
use super::output;
use super::remote::{Remote, RemoteArgs};
use crate::config::NodeConfig;

const LINE_BYTES_MAX: u64 = 16 << 20;
const LINES_WAITING_MAX: usize = 1_000;
const LINES_PER_ROUND_MAX: usize = 500;
/// Bytes of one batch: below what a node accepts by default.
const BATCH_BYTES_MAX: usize = 768 << 10;

#[derive(Debug, Args)]
pub(super) struct ProduceArgs {
    /// The topic to write to; it must exist.
    topic: String,
    /// The value; without it every line of stdin is one record.
    value: Option<String>,
    /// Key of the record, or of every line.
    #[arg(short, long, conflicts_with = "key_separator")]
    key: Option<String>,
    /// Splits each line into key and value at its first occurrence.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Header of every record; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Partition; without it the key decides, and records without a key take turns.
    #[arg(short, long)]
    partition: Option<i32>,
    #[command(flatten)]
    remote: RemoteArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ProduceArgs {
    fn record(&self, line: &[u8]) -> Result<Record, CliError> {
        let (key, value) = match &self.key_separator {
            None => (self.key.clone().map(Bytes::from), line),
            Some(separator) => {
                let (key, value) = split(line, separator.as_bytes()).ok_or_else(|| {
                    let line = String::from_utf8_lossy(line);
                    CliError::failed(format!("no {separator:?} in the line {line:?}"))
                })?;
                (Some(Bytes::copy_from_slice(key)), value)
            }
        };
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| Header::new(name.clone(), value.clone()))
            .collect();
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let timestamp_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Ok(Record {
            timestamp_ms,
            key,
            value: Some(Bytes::copy_from_slice(value)),
            headers,
        })
    }
}

fn split<'l>(line: &'l [u8], separator: &[u8]) -> Option<(&'l [u8], &'l [u8])> {
    let at = line
        .windows(separator.len().max(1))
        .position(|window| window == separator)?;
    Some((line.get(..at)?, line.get(at + separator.len()..)?))
}

pub(super) fn run(arguments: &ProduceArgs) -> Result<(), CliError> {
    if arguments.key_separator.as_deref() == Some("") {
        return Err(CliError::failed(
            "--key-separator: an empty text separates nothing",
        ));
    }
    block_on(
        lifecycle::runtime(&NodeConfig::default())?,
        produce(arguments),
    )
}

async fn produce(arguments: &ProduceArgs) -> Result<(), CliError> {
    let mut remote = Remote::connect(&arguments.remote).await?;
    let partitions = remote.partitions(&arguments.topic).await?;
    let exists = |partition: i32| usize::try_from(partition).is_ok_and(|at| at < partitions);
    if let Some(wrong) = arguments.partition.filter(|partition| !exists(*partition)) {
        let (topic, last) = (&arguments.topic, partitions.saturating_sub(1));
        return Err(CliError::failed(format!(
            "{topic} has partitions 0 to {last}, not {wrong}"
        )));
    }
    let mut turn = Turn {
        partitions,
        next: 0,
    };
    if let Some(value) = &arguments.value {
        return send(
            &mut remote,
            arguments,
            &mut turn,
            vec![arguments.record(value.as_bytes())?],
        )
        .await;
    }
    let mut lines = stdin_lines();
    let mut round = Vec::new();
    while lines.recv_many(&mut round, LINES_PER_ROUND_MAX).await > 0 {
        let records = round
            .drain(..)
            .map(|line| arguments.record(&line?))
            .collect::<Result<Vec<_>, CliError>>()?;
        send(&mut remote, arguments, &mut turn, records).await?;
    }
    Ok(())
}

/// Records without a key take turns, a round of lines at a time.
struct Turn {
    partitions: usize,
    next: usize,
}

impl Turn {
    fn take(&mut self) -> usize {
        let taken = self.next % self.partitions.max(1);
        self.next = taken + 1;
        taken
    }
}

/// Sends one round, a batch per partition, and prints where each record went, in the order given.
async fn send(
    remote: &mut Remote,
    arguments: &ProduceArgs,
    turn: &mut Turn,
    records: Vec<Record>,
) -> Result<(), CliError> {
    let keyless = turn.take();
    let mut batches: BTreeMap<i32, Vec<(usize, Record)>> = BTreeMap::new();
    let count = records.len();
    for (position, record) in records.into_iter().enumerate() {
        let partition = match (arguments.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => i32::try_from(partition_of(key, turn.partitions)).unwrap_or(0),
            (None, None) => i32::try_from(keyless).unwrap_or(0),
        };
        batches
            .entry(partition)
            .or_default()
            .push((position, record));
    }
    let mut places = vec![(0, 0); count];
    for (partition, records) in batches {
        for batch in cut(records) {
            let (positions, records): (Vec<usize>, Vec<Record>) = batch.into_iter().unzip();
            let base = remote.produce(&arguments.topic, partition, records).await?;
            for (offset, position) in (base..).zip(positions) {
                if let Some(place) = places.get_mut(position) {
                    *place = (partition, offset);
                }
            }
        }
    }
    let topic = &arguments.topic;
    places.iter().try_for_each(|(partition, offset)| {
        output::line(format_args!("{topic}-{partition}@{offset}"))
    })
}

/// Batches of at most [`BATCH_BYTES_MAX`], each of at least one record.
fn cut(records: Vec<(usize, Record)>) -> Vec<Vec<(usize, Record)>> {
    let mut batches: Vec<Vec<(usize, Record)>> = Vec::new();
    let mut bytes = 0;
    for (position, record) in records {
        let size =
            record.value.as_ref().map_or(0, Bytes::len) + record.key.as_ref().map_or(0, Bytes::len);
        match batches.last_mut() {
            Some(batch) if bytes + size <= BATCH_BYTES_MAX => {
                bytes += size;
                batch.push((position, record));
            }
            _ => {
                bytes = size;
                batches.push(vec![(position, record)]);
            }
        }
    }
    batches
}

/// Reads stdin on a thread of its own: a blocking read cannot be cancelled.
fn stdin_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let line = read_line(&mut input);
            let last = !matches!(line, Ok(Some(_)));
            let sent = line
                .transpose()
                .is_none_or(|line| sender.blocking_send(line).is_ok());
            if last || !sent {
                return;
            }
        }
    });
    receiver
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input
        .by_ref()
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)?;
    if read as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        return Err(io::Error::other(format!(
            "a line exceeds the limit of {LINE_BYTES_MAX} bytes"
        )));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok((read > 0).then_some(line))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_newlines_and_the_last_needs_none() {
        let mut input: &[u8] = b"a\n\nb";
        let read = |input: &mut &[u8]| read_line(input).unwrap();
        assert_eq!(read(&mut input), Some(b"a".to_vec()));
        assert_eq!(read(&mut input), Some(Vec::new()));
        assert_eq!(read(&mut input), Some(b"b".to_vec()));
        assert_eq!(read(&mut input), None);
    }

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        assert_eq!(split(b"k::v::w", b"::"), Some((&b"k"[..], &b"v::w"[..])));
        assert_eq!(split(b"kv", b"::"), None);
        assert_eq!(split(b"", b":"), None);
    }

    #[test]
    fn batches_are_cut_below_the_limit_and_keep_their_order() {
        let record = |bytes: usize| Record {
            value: Some(vec![0; bytes].into()),
            ..Record::default()
        };
        let half = BATCH_BYTES_MAX / 2;
        let cut = cut((0..4)
            .map(|n| (n, record(half)))
            .chain([(4, record(2 * BATCH_BYTES_MAX))])
            .collect());
        let positions: Vec<Vec<usize>> = cut
            .iter()
            .map(|batch| batch.iter().map(|(n, _)| *n).collect())
            .collect();
        assert_eq!(positions, [vec![0, 1], vec![2, 3], vec![4]]);
    }
}
