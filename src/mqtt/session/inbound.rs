//! Publishes of one client on their way into the log.
//!
//! All publishes of one read make one [`Burst`] and one submission. Bursts wait for their fdatasync
//! in order; what follows from durability (PUBACKs, live forwarding) comes back as [`Durable`].

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use holdfast_storage::log::{AppendError, AppendingAll, Partition, Record};

use crate::mqtt::codec;
use crate::mqtt::fanout::Fanout;
use crate::mqtt::message::{ConnectionId, LiveMessage, NOBODY};
use crate::mqtt::publish::{Publish, QoS};
use crate::mqtt::record::Accepted;
use crate::mqtt::retained::{RetainedStore, RetainedWrite};

/// A publish as the live path will need it; slices of the read buffer until then.
#[derive(Debug)]
struct Forward {
    topic: Bytes,
    publish: Publish,
    arrived_ms: i64,
}

impl Forward {
    /// The topic was validated when the publish was accepted.
    fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).unwrap_or_default()
    }

    fn to_message(&self, publisher: ConnectionId) -> LiveMessage {
        LiveMessage::of(&self.publish, self.topic(), self.arrived_ms, publisher)
    }
}

/// The publishes of one read.
#[derive(Default)]
pub(super) struct Burst {
    records: Vec<(Arc<Partition>, Record)>,
    after: After,
    pub(super) received: u64,
    pub(super) payload_bytes: u64,
    pub(super) routed: u64,
}

/// What happens once a burst is durable.
#[derive(Default)]
struct After {
    /// PUBACKs, ready for the socket.
    acks: Vec<u8>,
    /// How many, and how many of them say yes.
    acks_count: usize,
    acked: usize,
    forwards: Vec<Forward>,
    retained: Vec<LiveMessage>,
    bytes: usize,
    publishes: usize,
}

impl Burst {
    pub(super) fn is_empty(&self) -> bool {
        self.after.publishes == 0
    }

    pub(super) fn publishes(&self) -> usize {
        self.after.publishes
    }

    pub(super) fn bytes(&self) -> usize {
        self.after.bytes
    }

    /// QoS 1 publishes.
    pub(super) fn unacknowledged(&self) -> usize {
        self.after.acks_count
    }

    pub(super) fn push(
        &mut self,
        publish: Publish,
        accepted: Accepted,
        packet_bytes: usize,
        arrived_ms: i64,
        anyone_live: bool,
    ) {
        self.received += 1;
        self.payload_bytes += publish.payload.len() as u64;
        self.routed += u64::from(accepted.routed);
        self.after.publishes += 1;
        self.after.bytes += packet_bytes;
        if publish.qos == QoS::AtLeastOnce && publish.packet_id != 0 {
            self.after
                .acks
                .extend_from_slice(&codec::puback(publish.packet_id));
            self.after.acks_count += 1;
            self.after.acked += 1;
        }
        self.records.extend(accepted.record);
        let retain = publish.retain;
        if !anyone_live && !retain {
            return;
        }
        let forward = Forward {
            topic: accepted.topic,
            publish,
            arrived_ms,
        };
        if retain {
            self.after.retained.push(forward.to_message(NOBODY));
        }
        if anyone_live {
            self.after.forwards.push(forward);
        }
    }
}

impl Burst {
    /// Answers a publish of QoS 1 that is not taken, in its turn (MQTT 5, 4.6).
    pub(super) fn refuse(&mut self, packet_id: u16, reason: u8, packet_bytes: usize) {
        let ack = codec::puback_refused(packet_id, reason);
        self.after.acks.extend_from_slice(&ack);
        self.after.acks_count += 1;
        self.after.publishes += 1;
        self.after.bytes += packet_bytes;
    }
}

type Submission = Result<Option<AppendingAll>, AppendError>;

/// A burst that the log has not taken yet.
struct Submitting {
    log: BoxFuture<'static, Submission>,
    after: After,
}

/// A burst that waits for its fdatasync.
struct Pending {
    append: Option<AppendingAll>,
    retained: Option<BoxFuture<'static, Result<(), AppendError>>>,
    after: After,
}

/// What a burst leaves to do once it is durable.
pub(super) struct Durable {
    pub(super) acks: Vec<u8>,
    /// PUBACKs that say yes.
    pub(super) acked: usize,
    forwards: Vec<Forward>,
}

impl Durable {
    /// The messages somebody wants, copied out of the read buffer.
    pub(super) fn wanted(&self, fanout: &Fanout, publisher: ConnectionId) -> Vec<LiveMessage> {
        if self.forwards.is_empty() {
            return Vec::new();
        }
        let table = fanout.table();
        let wanted = self
            .forwards
            .iter()
            .filter(|forward| table.matches_any(forward.topic()));
        wanted
            .map(|forward| forward.to_message(publisher))
            .collect()
    }
}

/// The bursts of one session between read and durable.
#[derive(Default)]
pub(super) struct Inbound {
    submitting: Option<Submitting>,
    pending: VecDeque<Pending>,
    held_publishes: usize,
    held_acks: usize,
    held_bytes: usize,
}

impl Inbound {
    /// Publishes held, of any QoS.
    pub(super) fn publishes(&self) -> usize {
        self.held_publishes
    }

    /// QoS 1 publishes held.
    pub(super) fn unacknowledged(&self) -> usize {
        self.held_acks
    }

    pub(super) fn bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.submitting.is_none() && self.pending.is_empty()
    }

    pub(super) fn is_submitting(&self) -> bool {
        self.submitting.is_some()
    }

    /// Hands a burst to the log. Only when nothing else is being submitted: order.
    pub(super) fn submit(&mut self, burst: Burst, log: &holdfast_storage::log::Log) {
        debug_assert!(
            self.submitting.is_none(),
            "bursts are submitted one after the other"
        );
        let Burst { records, after, .. } = burst;
        self.held_publishes += after.publishes;
        self.held_acks += after.acks_count;
        self.held_bytes += after.bytes;
        let log = log.clone();
        let submission = async move {
            if records.is_empty() {
                return Ok(None);
            }
            log.append_all(records).await.map(Some)
        };
        self.submitting = Some(Submitting {
            log: submission.boxed(),
            after,
        });
    }

    /// Drives submission and the oldest burst. Resolves with `None` when the log has taken a
    /// burst, so that the next one may follow, and with each burst that has become durable.
    /// Pending for ever while nothing is held.
    pub(super) fn poll_durable(
        &mut self,
        cx: &mut Context<'_>,
        retained: &RetainedStore,
    ) -> Poll<Result<Option<Durable>, AppendError>> {
        if self.submitting.is_some() {
            match self.poll_submission(cx, retained) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        let Some(front) = self.pending.front_mut() else {
            return Poll::Pending;
        };
        if let Some(append) = &mut front.append {
            ready!(Pin::new(append).poll(cx))?;
            front.append = None;
        }
        if let Some(retained) = &mut front.retained {
            ready!(retained.poll_unpin(cx))?;
            front.retained = None;
        }
        let Some(Pending { after, .. }) = self.pending.pop_front() else {
            return Poll::Pending;
        };
        self.held_publishes -= after.publishes;
        self.held_acks -= after.acks_count;
        self.held_bytes -= after.bytes;
        Poll::Ready(Ok(Some(Durable {
            acks: after.acks,
            acked: after.acked,
            forwards: after.forwards,
        })))
    }

    fn poll_submission(
        &mut self,
        cx: &mut Context<'_>,
        retained: &RetainedStore,
    ) -> Poll<Result<(), AppendError>> {
        let Some(submitting) = &mut self.submitting else {
            return Poll::Ready(Ok(()));
        };
        let append = ready!(submitting.log.poll_unpin(cx))?;
        if let Some(Submitting { mut after, .. }) = self.submitting.take() {
            let writes: Vec<RetainedWrite> = after
                .retained
                .drain(..)
                .filter_map(|message| retained.set(message))
                .collect();
            let retained = (!writes.is_empty()).then(|| all_durable(writes).boxed());
            self.pending.push_back(Pending {
                append,
                retained,
                after,
            });
        }
        Poll::Ready(Ok(()))
    }
}

async fn all_durable(writes: Vec<RetainedWrite>) -> Result<(), AppendError> {
    for write in writes {
        write.durable().await?;
    }
    Ok(())
}
