//! What was already produced: why a crash between producing and storing leaves no duplicate in
//! `telemetry.cleaned` and `telemetry.dlq`.
//!
//! Records are produced before the store commits. After a crash the store wants the same raw
//! records again, and what they produced may already be in the output topics. Every produced
//! record names its source, and records of one source partition reach one output partition in
//! source order; so the newest source offset found there says which ones not to repeat. The store
//! remembers how far each output partition had been written at its last commit, so that only the
//! few records after that are read at start. A new store over an old log reads the outputs whole,
//! once, and likewise repeats nothing.

use std::collections::HashMap;

use holdfast_storage::log::{Offset, Record, TopicId};
use holdfast_storage::telemetry::{Position, TelemetryWriter};

use super::record::{find, header};
use crate::pipelines::event_log::{Consumer, EventLog, EventLogError};

/// Records and bytes of one read while the outputs are scanned at start.
const SCAN_RECORDS_MAX: usize = 10_000;
const SCAN_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Route {
    source: (TopicId, i32),
    output: (&'static str, i32),
}

/// The newest source offset in each output partition, by source partition. Bounded by the product
/// of their numbers.
#[derive(Debug, Default)]
pub(super) struct Produced {
    newest: HashMap<Route, Offset>,
}

impl Produced {
    /// Reads what was produced after the store's last commit.
    pub(super) async fn scan<L: EventLog>(
        log: &L,
        topics: [&'static str; 2],
        writer: &TelemetryWriter,
    ) -> Result<Produced, EventLogError> {
        let mut produced = Produced::default();
        for topic in topics {
            produced.scan_topic(log, topic, writer).await?;
        }
        Ok(produced)
    }

    async fn scan_topic<L: EventLog>(
        &mut self,
        log: &L,
        topic: &'static str,
        writer: &TelemetryWriter,
    ) -> Result<(), EventLogError> {
        let ends = log.end_offsets(topic)?;
        let mut consumer = log.consumer(topic, |id, partition| {
            // A store that is ahead of the topic has nothing to read there.
            let end = ends
                .iter()
                .find(|end| end.topic_id == id && end.partition == partition)?
                .offset;
            writer.produced(id, partition).map(|from| from.min(end))
        })?;
        let mut left: HashMap<i32, Offset> = HashMap::new();
        for end in &ends {
            let from = writer
                .produced(end.topic_id, end.partition)
                .unwrap_or_default();
            if from < end.offset {
                left.insert(end.partition, end.offset);
            }
        }
        while !left.is_empty() {
            let polled = consumer.poll(SCAN_RECORDS_MAX, SCAN_BYTES_MAX).await?;
            for (at, record) in &polled.records {
                if let Some(source) = source_of(record) {
                    self.note(source, (topic, at.partition));
                }
            }
            for at in &polled.next {
                left.retain(|partition, end| *partition != at.partition || at.offset < *end);
            }
        }
        Ok(())
    }

    fn note(&mut self, source: Position, output: (&'static str, i32)) {
        let route = Route {
            source: (source.topic_id, source.partition),
            output,
        };
        let newest = self.newest.entry(route).or_insert(source.offset);
        *newest = source.offset.max(*newest);
    }

    /// True where this source record is in that output partition already.
    pub(super) fn holds(&self, source: Position, output: (&'static str, i32)) -> bool {
        let route = Route {
            source: (source.topic_id, source.partition),
            output,
        };
        self.newest
            .get(&route)
            .is_some_and(|newest| source.offset <= *newest)
    }
}

/// The source that a produced record names; `None` for a record that somebody else wrote.
fn source_of(record: &Record) -> Option<Position> {
    let text = |name: &str| {
        let value = find(record, name)
            .or_else(|| find(record, &format!("{}{name}", header::DLQ_PREFIX)))?;
        str::from_utf8(value).ok()
    };
    Some(Position {
        topic_id: TopicId(text(header::SOURCE_TOPIC_ID)?.parse().ok()?),
        partition: text(header::SOURCE_PARTITION)?.parse().ok()?,
        offset: Offset::new(text(header::SOURCE_OFFSET)?.parse().ok()?)?,
    })
}
