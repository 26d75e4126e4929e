//! `holdfast consume`: records of a topic as lines.
//!
//! Reads without a group and commits nothing. What is there is read partition by partition, so that
//! the same log gives the same output; `--follow` then watches all partitions at once, over one
//! connection each, at most [`FOLLOWED_PARTITIONS_MAX`].

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use holdfast_storage::log::StoredRecord;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::CliError;
use super::lifecycle::{self, Signals, block_on};
use super::output;
use super::remote::{Fetched, Remote, RemoteArgs};
use crate::config::NodeConfig;

const FOLLOWED_PARTITIONS_MAX: usize = 64;
/// Fetched batches that wait to be printed.
const WAITING_MAX: usize = 16;
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct ConsumeArgs {
    /// The topic to read from.
    topic: String,
    /// Where to begin: beginning, end, an offset, or -N for the last N of each partition.
    #[arg(
        short = 'o',
        long,
        value_name = "WHERE",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    from: From,
    /// Partitions; all of them unless named.
    #[arg(short, long = "partition")]
    partitions: Vec<i32>,
    /// Wait for new records instead of ending at the present end.
    #[arg(short, long)]
    follow: bool,
    /// End after this many records.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Beginning,
    End,
    Offset(i64),
    Last(i64),
}

impl FromStr for From {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<From, &'static str> {
        match (text, text.parse::<i64>()) {
            ("beginning", _) => Ok(From::Beginning),
            ("end", _) => Ok(From::End),
            (_, Ok(last)) if text.starts_with('-') => {
                last.checked_neg().map(From::Last).ok_or("out of range")
            }
            (_, Ok(offset)) => Ok(From::Offset(offset)),
            _ => Err("expected beginning, end, an offset or -N"),
        }
    }
}

impl From {
    /// The offset to begin at, of those that exist (and the high watermark).
    fn within(self, start: i64, end: i64) -> i64 {
        match self {
            From::Beginning => start,
            From::End => end,
            From::Offset(offset) => offset.clamp(start, end),
            From::Last(count) => end.saturating_sub(count).max(start),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// partition:offset, time, key, value and headers, for people.
    Text,
    /// One JSON object a line; what is not UTF-8 becomes {"base64": "..."}.
    Json,
    /// The value alone, as it is.
    Value,
}

/// A place in one partition.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    partition: i32,
    next: i64,
    end: i64,
}

pub(super) fn run(arguments: &ConsumeArgs) -> Result<(), CliError> {
    block_on(
        lifecycle::runtime(&NodeConfig::default())?,
        consume(arguments),
    )
}

async fn consume(arguments: &ConsumeArgs) -> Result<(), CliError> {
    let mut signals = Signals::install()?;
    let reading = async {
        let mut printer = Printer::new(arguments);
        let mut remote = Remote::connect(&arguments.remote).await?;
        let mut cursors = cursors(&mut remote, arguments).await?;
        for cursor in &mut cursors {
            if !printer.wants_more() {
                break;
            }
            catch_up(&mut remote, cursor, &mut printer).await?;
        }
        match arguments.follow && printer.wants_more() {
            true => follow(arguments, cursors, &mut printer).await,
            false => Ok(()),
        }
    };
    tokio::select! {
        result = reading => result,
        _ = signals.next() => Ok(()),
    }
}

async fn cursors(remote: &mut Remote, arguments: &ConsumeArgs) -> Result<Vec<Cursor>, CliError> {
    let count = i32::try_from(remote.partitions(&arguments.topic).await?).unwrap_or(i32::MAX);
    if let Some(wrong) = arguments
        .partitions
        .iter()
        .find(|partition| !(0..count).contains(*partition))
    {
        let topic = &arguments.topic;
        return Err(CliError::failed(format!(
            "{topic} has partitions 0 to {}, not {wrong}",
            count - 1
        )));
    }
    let partitions: Vec<i32> = if arguments.partitions.is_empty() {
        (0..count).collect()
    } else {
        arguments.partitions.clone()
    };
    if arguments.follow && partitions.len() > FOLLOWED_PARTITIONS_MAX {
        return Err(CliError::failed(format!(
            "{} partitions: at most {FOLLOWED_PARTITIONS_MAX} can be followed, name them with --partition",
            partitions.len()
        )));
    }
    let mut cursors = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let (start, end) = remote.range(&arguments.topic, partition).await?;
        cursors.push(Cursor {
            partition,
            next: arguments.from.within(start, end),
            end,
        });
    }
    Ok(cursors)
}

/// The next records, and where to go on; a batch that cannot be read is reported and passed over.
async fn fetch(
    remote: &mut Remote,
    topic: &str,
    cursor: &mut Cursor,
) -> Result<Option<(Vec<StoredRecord>, i64)>, CliError> {
    match remote
        .fetch(topic, cursor.partition, cursor.next, POLL)
        .await?
    {
        Fetched::Records { records, next } => Ok(Some((records, next))),
        Fetched::Unreadable { next, sentence } => {
            output::complain(&sentence);
            cursor.next = next.max(cursor.next + 1);
            Ok(None)
        }
    }
}

/// Prints what a partition held when we looked.
async fn catch_up(
    remote: &mut Remote,
    cursor: &mut Cursor,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    while cursor.next < cursor.end && printer.wants_more() {
        let Some((records, next)) = fetch(remote, printer.topic, cursor).await? else {
            continue;
        };
        if next <= cursor.next {
            // What lies between here and the end is nothing for a reader, or not yet.
            break;
        }
        for record in records
            .iter()
            .filter(|record| (cursor.next..cursor.end).contains(&record.offset.value()))
        {
            if printer.wants_more() {
                printer.print(cursor.partition, record)?;
            }
        }
        cursor.next = next.min(cursor.end).max(cursor.next);
    }
    Ok(())
}

async fn follow(
    arguments: &ConsumeArgs,
    cursors: Vec<Cursor>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    let mut watchers = JoinSet::new();
    for cursor in cursors {
        let (arguments, topic, sender) = (
            arguments.remote.clone(),
            arguments.topic.clone(),
            sender.clone(),
        );
        watchers.spawn(async move {
            if let Err(error) = watch(&arguments, &topic, cursor, &sender).await {
                // If nobody listens any more, we are already ending.
                let _ = sender.send(Err(error)).await;
            }
        });
    }
    drop(sender);
    while let Some(batch) = receiver.recv().await {
        let (partition, records) = batch?;
        for record in &records {
            if !printer.wants_more() {
                return Ok(());
            }
            printer.print(partition, record)?;
        }
        if !printer.wants_more() {
            return Ok(());
        }
    }
    Ok(())
}

type Batch = Result<(i32, Vec<StoredRecord>), CliError>;

async fn watch(
    arguments: &RemoteArgs,
    topic: &str,
    mut cursor: Cursor,
    sender: &mpsc::Sender<Batch>,
) -> Result<(), CliError> {
    let mut remote = Remote::connect(arguments).await?;
    loop {
        let Some((mut records, next)) = fetch(&mut remote, topic, &mut cursor).await? else {
            continue;
        };
        records.retain(|record| record.offset.value() >= cursor.next);
        cursor.next = cursor.next.max(next);
        if records.is_empty() {
            continue;
        }
        if sender.send(Ok((cursor.partition, records))).await.is_err() {
            return Ok(());
        }
    }
}

struct Printer<'a> {
    topic: &'a str,
    format: Format,
    left: Option<u64>,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a ConsumeArgs) -> Printer<'a> {
        Printer {
            topic: &arguments.topic,
            format: arguments.format,
            left: arguments.count,
        }
    }

    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    fn print(&mut self, partition: i32, record: &StoredRecord) -> Result<(), CliError> {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        match self.format {
            Format::Text => output::line(format_args!("{}", text(partition, record))),
            Format::Json => {
                output::line(format_args!("{}", json_of(self.topic, partition, record)))
            }
            Format::Value => {
                let mut line = record.record.value.clone().unwrap_or_default().to_vec();
                line.push(b'\n');
                output::bytes(&line)
            }
        }
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.3}"))
}

fn text(partition: i32, stored: &StoredRecord) -> String {
    let shown = |bytes: &Bytes| {
        String::from_utf8_lossy(bytes)
            .escape_debug()
            .to_string()
            .replace("\\\"", "\"")
    };
    let record = &stored.record;
    let mut line = format!(
        "{partition}:{} {}",
        stored.offset,
        time(record.timestamp_ms)
    );
    if let Some(key) = &record.key {
        line.push_str(&format!(" key={}", shown(key)));
    }
    match &record.value {
        Some(value) => line.push_str(&format!(" {}", shown(value))),
        None => line.push_str(" (tombstone)"),
    }
    for header in &record.headers {
        let value = header.value.as_ref().map(shown).unwrap_or_default();
        line.push_str(&format!(" [{}={value}]", shown(&header.name)));
    }
    line
}

fn json_of(topic: &str, partition: i32, stored: &StoredRecord) -> Value {
    let shown = |bytes: &Bytes| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": BASE64.encode(bytes) }),
    };
    let record = &stored.record;
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|header| json!({ "name": shown(&header.name), "value": header.value.as_ref().map(shown) }))
        .collect();
    json!({
        "topic": topic,
        "partition": partition,
        "offset": stored.offset.value(),
        "timestamp": time(record.timestamp_ms),
        "timestamp_ms": record.timestamp_ms,
        "key": record.key.as_ref().map(shown),
        "value": record.value.as_ref().map(shown),
        "headers": headers,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use holdfast_storage::log::{Header, Offset, Record};

    use super::*;

    #[test]
    fn places_are_read_and_kept_within_what_exists() {
        let at = |text: &str| text.parse::<From>().unwrap().within(10, 100);
        assert_eq!(
            (at("beginning"), at("end"), at("42"), at("-5")),
            (10, 100, 42, 95)
        );
        assert_eq!((at("3"), at("300"), at("-500")), (10, 100, 10));
        assert!("somewhere".parse::<From>().is_err());
    }

    #[test]
    fn json_keeps_bytes_that_are_not_text() {
        let record = Record {
            timestamp_ms: 1_700_000_000_123,
            key: None,
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![Header::new("kind", "grid")],
        };
        let stored = StoredRecord {
            offset: Offset::new(7).unwrap(),
            record,
        };
        let line = json_of("t", 3, &stored);
        assert_eq!(line.pointer("/value/base64"), Some(&json!("/wA=")));
        assert_eq!(line.pointer("/headers/0/value"), Some(&json!("grid")));
        assert_eq!(
            line.pointer("/timestamp"),
            Some(&json!("2023-11-14T22:13:20.123Z"))
        );
        assert_eq!(line.pointer("/key"), Some(&Value::Null));
    }

    #[test]
    fn text_stays_on_one_line() {
        let record = Record {
            value: Some(Bytes::from_static(b"a\nb \"c\"")),
            ..Record::default()
        };
        let line = text(
            0,
            &StoredRecord {
                offset: Offset::ZERO,
                record,
            },
        );
        assert!(line.ends_with(r#" a\nb "c""#), "{line}");
    }
}
