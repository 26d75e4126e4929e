//! Retained messages: the last message of a topic, kept for those who subscribe later.
//!
//! Durable as settings of the log (`mqtt.retained`, keyed by topic). One task writes them, taking
//! everything that waits at once so that it shares a group commit; a message is visible to
//! subscribers, and its publisher is acknowledged, once it is durable. Limits are
//! `mqtt.retained_max`, `retained_bytes_max` and `retained_message_bytes_max`: a message beyond
//! them still goes to the log and to live subscribers, but is not retained, counted and logged.
//!
//! A stored value, big-endian:
//! `version u8 = 1 | flags u8 (bit 0: QoS 1; bit 1: expires) | expires_at_ms i64 |
//!  properties_len u32 | properties | payload`

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use holdfast_storage::log::{AppendError, Log};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::config::MqttConfig;
use super::message::{LiveMessage, NOBODY, now_ms};
use super::publish::QoS;
use super::stats::{LogGate, MqttStats, add};
use super::topic::TopicFilter;

const SETTING: &str = "mqtt.retained";
const FORMAT_VERSION: u8 = 1;
const FLAG_QOS_1: u8 = 1;
const FLAG_EXPIRES: u8 = 2;
/// Version, flags, expiry, length of the properties.
const HEADER_BYTES: usize = 1 + 1 + 8 + 4;
/// Settings written at once.
const WRITE_BATCH_MAX: usize = 512;

fn encode(message: &LiveMessage) -> Bytes {
    let mut value =
        BytesMut::with_capacity(HEADER_BYTES + message.properties.len() + message.payload.len());
    let qos = if message.qos == QoS::AtLeastOnce {
        FLAG_QOS_1
    } else {
        0
    };
    let expires = if message.expires_at_ms.is_some() {
        FLAG_EXPIRES
    } else {
        0
    };
    value.put_u8(FORMAT_VERSION);
    value.put_u8(qos | expires);
    value.put_i64(message.expires_at_ms.unwrap_or(0));
    value.put_u32(u32::try_from(message.properties.len()).unwrap_or(u32::MAX));
    value.put_slice(&message.properties);
    value.put_slice(&message.payload);
    value.freeze()
}

/// `None` for a value that this version did not write.
fn decode(topic: &str, mut value: Bytes) -> Option<LiveMessage> {
    if value.len() < HEADER_BYTES || value.get_u8() != FORMAT_VERSION {
        return None;
    }
    let flags = value.get_u8();
    let expires_at_ms = value.get_i64();
    let properties_len = usize::try_from(value.get_u32()).ok()?;
    if properties_len > value.len() {
        return None;
    }
    let properties = value.split_to(properties_len);
    Some(LiveMessage {
        topic: topic.to_owned(),
        payload: value,
        properties,
        expires_at_ms: (flags & FLAG_EXPIRES != 0).then_some(expires_at_ms),
        qos: if flags & FLAG_QOS_1 != 0 {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        },
        retain: true,
        publisher: NOBODY,
    })
}

fn size(message: &LiveMessage) -> usize {
    message.topic.len() + HEADER_BYTES + message.properties.len() + message.payload.len()
}

/// Which write the task has come to, or that it can write no more.
type Progress = Result<u64, AppendError>;

/// What a topic retains from now on.
type Change = (String, Option<Arc<LiveMessage>>);

#[derive(Default)]
struct State {
    durable: HashMap<String, Arc<LiveMessage>>,
    /// Not yet durable; the last one of a topic wins. `None` deletes.
    waiting: HashMap<String, Option<Arc<LiveMessage>>>,
    /// Topics and bytes of `durable` as they will be once `waiting` is durable.
    count: usize,
    bytes: usize,
    /// Number of the write that will cover `waiting`.
    write: u64,
}

impl State {
    fn current(&self, topic: &str) -> Option<&Arc<LiveMessage>> {
        match self.waiting.get(topic) {
            Some(waiting) => waiting.as_ref(),
            None => self.durable.get(topic),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    messages: usize,
    bytes: usize,
    message_bytes: usize,
}

/// The retained messages of the node; clones share them.
#[derive(Clone)]
pub(crate) struct RetainedStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    progress: watch::Sender<Progress>,
    limits: Limits,
    stats: Arc<MqttStats>,
    gate: LogGate,
}

/// Resolves when a retained change is durable.
#[derive(Debug)]
pub(crate) struct RetainedWrite {
    write: u64,
    progress: watch::Receiver<Progress>,
}

impl RetainedWrite {
    pub(crate) async fn durable(mut self) -> Result<(), AppendError> {
        let write = self.write;
        let done =
            |progress: &Progress| progress.as_ref().map_or(true, |reached| *reached >= write);
        match self.progress.wait_for(done).await {
            Ok(progress) => progress.as_ref().map(|_| ()).map_err(Clone::clone),
            Err(_) => Err(AppendError::Closed),
        }
    }
}

impl RetainedStore {
    /// Reads what earlier runs retained; the future is the task that writes.
    pub(crate) fn open(
        log: &Log,
        config: &MqttConfig,
        stats: Arc<MqttStats>,
        shutdown: CancellationToken,
    ) -> (RetainedStore, impl Future<Output = ()> + Send + 'static) {
        let mut state = State {
            write: 1,
            ..State::default()
        };
        for (topic, value) in log.settings(SETTING) {
            let Some(message) = decode(&topic, value) else {
                warn!(
                    topic,
                    "a retained message is of an unknown format and is passed over"
                );
                continue;
            };
            state.count += 1;
            state.bytes += size(&message);
            state.durable.insert(topic, Arc::new(message));
        }
        let limits = Limits {
            messages: config.retained_max,
            bytes: config.retained_bytes_max,
            message_bytes: config.retained_message_bytes_max,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Notify::new(),
            progress: watch::Sender::new(Ok(0)),
            limits,
            stats,
            gate: LogGate::default(),
        });
        let store = RetainedStore { shared };
        (store.clone(), store.write_all(log.clone(), shutdown))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the message for its topic, or, with an empty payload, forgets the topic. `None` where
    /// a limit forbids it.
    pub(crate) fn set(&self, message: LiveMessage) -> Option<RetainedWrite> {
        let mut state = self.state();
        let old = state.current(&message.topic).map(|old| size(old));
        let new = (!message.payload.is_empty()).then(|| size(&message));
        let count = state.count + usize::from(new.is_some()) - usize::from(old.is_some());
        let bytes = state.bytes + new.unwrap_or(0) - old.unwrap_or(0);
        let limits = self.shared.limits;
        let refused = new.is_some_and(|new| {
            new > limits.message_bytes || count > limits.messages || bytes > limits.bytes
        });
        if refused {
            drop(state);
            self.refuse(&message.topic);
            return None;
        }
        state.count = count;
        state.bytes = bytes;
        let topic = message.topic.clone();
        state.waiting.insert(topic, new.map(|_| Arc::new(message)));
        let write = RetainedWrite {
            write: state.write,
            progress: self.shared.progress.subscribe(),
        };
        drop(state);
        self.shared.wake.notify_one();
        Some(write)
    }

    fn refuse(&self, topic: &str) {
        add(&self.shared.stats.retained_refused, 1);
        if let Some(more) = self.shared.gate.open(now_ms()) {
            warn!(
                topic,
                more, "a limit of retained messages is reached: a message was not retained"
            );
        }
    }

    /// The durable, unexpired messages whose topic matches.
    pub(crate) fn matching(&self, filter: &TopicFilter) -> Vec<Arc<LiveMessage>> {
        let now_ms = now_ms();
        let state = self.state();
        let mut found: Vec<_> = state
            .durable
            .values()
            .filter(|message| filter.matches(&message.topic) && message.expiry_s(now_ms) != Some(0))
            .cloned()
            .collect();
        drop(state);
        found.sort_by(|a, b| a.topic.cmp(&b.topic));
        found
    }

    async fn write_all(self, log: Log, shutdown: CancellationToken) {
        loop {
            let (write, batch) = self.take();
            if batch.is_empty() {
                tokio::select! {
                    () = self.shared.wake.notified() => continue,
                    () = shutdown.cancelled() => return,
                }
            }
            let puts = batch.iter().map(|(topic, message)| {
                log.put_setting(SETTING, topic, message.as_deref().map(encode))
            });
            if let Some(error) = join_all(puts).await.into_iter().find_map(Result::err) {
                warn!(%error, "retained messages could not be written");
                let _ = self.shared.progress.send_replace(Err(error));
                return;
            }
            self.install(batch);
            if let Some(write) = write {
                let _ = self.shared.progress.send_replace(Ok(write));
            }
        }
    }

    /// What to write next; the number is set when it covers everything that waits.
    fn take(&self) -> (Option<u64>, Vec<Change>) {
        let mut state = self.state();
        let mut batch: Vec<_> = state.waiting.drain().collect();
        if batch.len() > WRITE_BATCH_MAX {
            state.waiting.extend(batch.drain(WRITE_BATCH_MAX..));
            return (None, batch);
        }
        let write = state.write;
        if !batch.is_empty() {
            state.write += 1;
        }
        (Some(write), batch)
    }

    fn install(&self, batch: Vec<Change>) {
        let mut state = self.state();
        for (topic, message) in batch {
            match message {
                Some(message) => state.durable.insert(topic, message),
                None => state.durable.remove(&topic),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    fn message() -> LiveMessage {
        LiveMessage {
            topic: "a/b".to_owned(),
            payload: Bytes::from_static(b"payload"),
            properties: Bytes::from_static(&[3, 0, 1, b'x']),
            expires_at_ms: Some(77),
            qos: QoS::AtLeastOnce,
            retain: true,
            publisher: 0,
        }
    }

    #[test]
    fn the_stored_format_is_pinned() {
        let golden = [
            &[1, 3, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 4, 3, 0, 1, b'x'][..],
            b"payload",
        ]
        .concat();
        assert_eq!(encode(&message()), golden);
        assert_eq!(decode("a/b", Bytes::from(golden)), Some(message()));
    }

    #[test]
    fn values_of_other_formats_are_not_read() {
        let good = encode(&message());
        for len in 0..HEADER_BYTES + 3 {
            assert_eq!(decode("a/b", good.slice(..len)), None, "{len} bytes");
        }
        let mut newer = good.to_vec();
        newer[0] = 2;
        assert_eq!(decode("a/b", Bytes::from(newer)), None);
    }
}
