//! SUBSCRIBE and UNSUBSCRIBE of one session, and the retained messages that answer the former.

use std::collections::HashMap;

use rumqttd::protocol::{
    Filter, QoS as WireQoS, RetainForwardRule, Subscribe, SubscribeProperties, SubscribeReasonCode,
    UnsubAckReason, Unsubscribe,
};
use tokio::task::{consume_budget, yield_now};
use tracing::{debug, warn};

use super::end::End;
use super::run::Session;
use crate::auth::Operation;
use crate::mqtt::access;
use crate::mqtt::codec;
use crate::mqtt::fanout::NewSubscription;
use crate::mqtt::frame::{Fault, Version};
use crate::mqtt::message::{Delivery, now_ms};
use crate::mqtt::publish::QoS;
use crate::mqtt::stats::add;
use crate::mqtt::subscriptions::{Added, Options};
use crate::mqtt::topic::SubscriptionKey;

/// One filter of a SUBSCRIBE: which of the wanted subscriptions it asks for and with what, or why not.
type Judged = Result<(usize, QoS), SubscribeReasonCode>;

/// What one SUBSCRIBE comes to. A filter that it repeats replaces the one before, as in a SUBSCRIBE of its
/// own, and costs a look-up: packets may hold hundreds of thousands of them.
struct Asked {
    /// Of distinct filters, `mqtt.subscriptions_per_client_max` at most.
    verdicts: HashMap<SubscriptionKey, Result<usize, SubscribeReasonCode>>,
    verdicts_max: usize,
    wanted: Vec<Wanted>,
    /// Subscriptions that the client may still make.
    room: usize,
}

struct Wanted {
    new: NewSubscription,
    retained: RetainForwardRule,
}

impl Session {
    pub(super) async fn subscribe(
        &mut self,
        packet: Subscribe,
        properties: Option<SubscribeProperties>,
    ) -> Result<(), End> {
        if packet.pkid == 0 {
            return Err(Fault::protocol("packet identifier 0").into());
        }
        let id = match properties.and_then(|properties| properties.id) {
            None => None,
            Some(id) => match u32::try_from(id) {
                Ok(id) if id > 0 => Some(id),
                _ => return Err(Fault::protocol("subscription identifier 0").into()),
            },
        };
        let mut asked = Asked {
            verdicts: HashMap::new(),
            verdicts_max: self.door().config.subscriptions_per_client_max,
            wanted: Vec::new(),
            room: self.subscription_room(),
        };
        let mut judged = Vec::with_capacity(packet.filters.len());
        for filter in packet.filters {
            judged.push(self.judge(filter, id, &mut asked)?);
            consume_budget().await;
        }
        let wanted = asked.wanted;
        let added = self
            .ask(wanted.iter().map(|wanted| wanted.new.clone()).collect())
            .await?;
        self.answer(packet.pkid, &judged, &added);
        self.give_retained(wanted, added).await;
        Ok(())
    }

    fn judge(&self, filter: Filter, id: Option<u32>, asked: &mut Asked) -> Result<Judged, Fault> {
        let key = match SubscriptionKey::parse(&filter.path, self.topic_limits()) {
            Ok(key) => key,
            Err(error) => {
                let shown: String = filter.path.chars().take(100).collect();
                debug!(client = %self.client(), filter = shown, %error, "topic filter refused");
                return Ok(Err(self.failure(SubscribeReasonCode::TopicFilterInvalid)));
            }
        };
        if filter.nolocal && key.group.is_some() {
            return Err(Fault::protocol("no-local with a shared subscription"));
        }
        let options = Options {
            qos: granted(filter.qos),
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            id,
        };
        let granted = |index| (index, options.qos);
        if let Some(verdict) = asked.verdicts.get(&key) {
            let again = verdict.ok().and_then(|index| asked.wanted.get_mut(index));
            if let Some(wanted) = again {
                wanted.new.options = options;
                // By now the subscription is not new.
                if filter.retain_forward_rule == RetainForwardRule::OnEverySubscribe {
                    wanted.retained = filter.retain_forward_rule;
                }
            }
            return Ok(verdict.map(granted));
        }
        if asked.verdicts.len() >= asked.verdicts_max {
            return Ok(Err(self.failure(SubscribeReasonCode::QuotaExceeded)));
        }
        let verdict = self.admit(&key, &mut asked.room).map(|()| {
            asked.wanted.push(Wanted {
                new: NewSubscription {
                    key: key.clone(),
                    options,
                },
                retained: filter.retain_forward_rule,
            });
            asked.wanted.len() - 1
        });
        asked.verdicts.insert(key, verdict);
        Ok(verdict.map(granted))
    }

    /// Room is for what is allowed: a denied filter takes none.
    fn admit(&self, key: &SubscriptionKey, room: &mut usize) -> Result<(), SubscribeReasonCode> {
        if !access::may_subscribe(self.caller(), &key.filter) {
            let (caller, client) = (self.caller(), self.client());
            let filter = key.filter.as_str();
            self.door()
                .note_denied(caller, client, Operation::Read, filter);
            return Err(self.failure(SubscribeReasonCode::NotAuthorized));
        }
        if !self.is_subscribed(key) {
            let Some(left) = room.checked_sub(1) else {
                return Err(self.failure(SubscribeReasonCode::QuotaExceeded));
            };
            *room = left;
        }
        Ok(())
    }

    /// 3.1.1 knows one failure only.
    fn failure(&self, code: SubscribeReasonCode) -> SubscribeReasonCode {
        match self.version() {
            Version::V311 => SubscribeReasonCode::Failure,
            Version::V5 => code,
        }
    }

    async fn ask(&mut self, wanted: Vec<NewSubscription>) -> Result<Vec<Option<Added>>, End> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (connection, queue) = self.delivery_address();
        let fanout = self.door().fanout.clone();
        fanout
            .subscribe(connection, queue, wanted)
            .await
            .map_err(|_| End::Shutdown)
    }

    fn answer(&mut self, packet_id: u16, judged: &[Judged], added: &[Option<Added>]) {
        let code = |judged: &Judged| match *judged {
            Err(code) => code,
            Ok((index, _)) if !matches!(added.get(index), Some(Some(_))) => {
                self.failure(SubscribeReasonCode::QuotaExceeded)
            }
            Ok((_, QoS::AtMostOnce)) => SubscribeReasonCode::QoS0,
            Ok((_, QoS::AtLeastOnce)) => SubscribeReasonCode::QoS1,
        };
        let codes = judged.iter().map(code).collect();
        let version = self.version();
        codec::write_suback(packet_id, codes, version, self.out());
    }

    /// What follows the SUBACK.
    async fn give_retained(&mut self, wanted: Vec<Wanted>, added: Vec<Option<Added>>) {
        let mut retained = Vec::new();
        for (
            Wanted {
                new,
                retained: rule,
            },
            added,
        ) in wanted.into_iter().zip(added)
        {
            let Some(added) = added else {
                continue;
            };
            let due = match rule {
                RetainForwardRule::OnEverySubscribe => true,
                RetainForwardRule::OnNewSubscribe => added.new_subscription,
                RetainForwardRule::Never => false,
            };
            if due && new.key.group.is_none() {
                self.collect_retained(&new, &mut retained);
                // All retained messages were looked at: milliseconds, of which a budget would let many pass.
                yield_now().await;
            }
            self.note_subscribed(new.key);
        }
        self.deliver(retained);
    }

    fn collect_retained(&self, new: &NewSubscription, deliveries: &mut Vec<Delivery>) {
        let mut found = self.door().retained.matching(&new.key.filter);
        let (_, queue) = self.delivery_address();
        found.retain(|message| queue.may_read(&message.topic));
        let room = self.delivery_room().saturating_sub(deliveries.len());
        let missed = found.len().saturating_sub(room);
        if missed > 0 {
            add(
                &self.door().stats.dropped_for_slow_subscriber,
                missed as u64,
            );
            if let Some(more) = self.door().retained_missed.open(now_ms()) {
                warn!(client = %self.client(), missed, more, "more retained messages match than may wait for a subscriber");
            }
        }
        deliveries.extend(found.into_iter().take(room).map(|message| Delivery {
            qos: message.qos.min(new.options.qos),
            retain: true,
            subscription_id: new.options.id,
            message,
        }));
    }

    pub(super) async fn unsubscribe(&mut self, packet: Unsubscribe) -> Result<(), End> {
        if packet.pkid == 0 {
            return Err(Fault::protocol("packet identifier 0").into());
        }
        if packet.filters.is_empty() {
            return Err(Fault::protocol("an UNSUBSCRIBE without topic filters").into());
        }
        let limits = self.topic_limits();
        let keys: Vec<_> = packet
            .filters
            .iter()
            .map(|text| SubscriptionKey::parse(text, limits).ok())
            .collect();
        let known: Vec<SubscriptionKey> = keys.iter().flatten().cloned().collect();
        let (connection, _) = self.delivery_address();
        let fanout = self.door().fanout.clone();
        let existed = fanout
            .unsubscribe(connection, known)
            .await
            .map_err(|_| End::Shutdown)?;
        let mut existed = existed.into_iter();
        let mut reasons = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(key) = key else {
                reasons.push(UnsubAckReason::TopicFilterInvalid);
                continue;
            };
            self.note_unsubscribed(&key);
            reasons.push(if existed.next() == Some(true) {
                UnsubAckReason::Success
            } else {
                UnsubAckReason::NoSubscriptionExisted
            });
        }
        let version = self.version();
        codec::write_unsuback(packet.pkid, reasons, version, self.out());
        Ok(())
    }
}

/// QoS 2 is granted as QoS 1, which the SUBACK says.
fn granted(asked: WireQoS) -> QoS {
    match asked {
        WireQoS::AtMostOnce => QoS::AtMostOnce,
        WireQoS::AtLeastOnce | WireQoS::ExactlyOnce => QoS::AtLeastOnce,
    }
}
