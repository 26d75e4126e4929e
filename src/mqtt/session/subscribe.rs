//! SUBSCRIBE and UNSUBSCRIBE of one session, and the retained messages that answer the former.

use rumqttd::protocol::{
    Filter, QoS as WireQoS, RetainForwardRule, Subscribe, SubscribeProperties, SubscribeReasonCode,
    UnsubAckReason, Unsubscribe,
};
use tracing::{debug, warn};

use super::end::End;
use super::run::Session;
use crate::auth::Operation;
use crate::mqtt::access;
use crate::mqtt::codec;
use crate::mqtt::fanout::NewSubscription;
use crate::mqtt::frame::{Fault, Version};
use crate::mqtt::message::Delivery;
use crate::mqtt::publish::QoS;
use crate::mqtt::stats::add;
use crate::mqtt::subscriptions::{Added, Options};
use crate::mqtt::topic::SubscriptionKey;

/// One filter of a SUBSCRIBE: what to ask for, or why not.
type Judged = Result<(NewSubscription, RetainForwardRule), SubscribeReasonCode>;

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
        let mut room = self.subscription_room();
        let mut judged = Vec::with_capacity(packet.filters.len());
        for filter in packet.filters {
            judged.push(self.judge(filter, id, &mut room)?);
        }
        let wanted: Vec<NewSubscription> = judged
            .iter()
            .filter_map(|j| j.as_ref().ok())
            .map(|(new, _)| new.clone())
            .collect();
        let added = self.ask(wanted).await?;
        self.answer(packet.pkid, judged, added);
        Ok(())
    }

    fn judge(&self, filter: Filter, id: Option<u32>, room: &mut usize) -> Result<Judged, Fault> {
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
        if !self.is_subscribed(&key) {
            let Some(left) = room.checked_sub(1) else {
                return Ok(Err(self.failure(SubscribeReasonCode::QuotaExceeded)));
            };
            *room = left;
        }
        if !access::may_subscribe(self.caller(), &key.filter) {
            let (caller, client) = (self.caller(), self.client());
            let filter = key.filter.as_str();
            self.door()
                .note_denied(caller, client, Operation::Read, filter);
            return Ok(Err(self.failure(SubscribeReasonCode::NotAuthorized)));
        }
        let options = Options {
            qos: granted(filter.qos),
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            id,
        };
        Ok(Ok((
            NewSubscription { key, options },
            filter.retain_forward_rule,
        )))
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

    /// SUBACK first, then what is retained.
    fn answer(&mut self, packet_id: u16, judged: Vec<Judged>, added: Vec<Option<Added>>) {
        let mut added = added.into_iter();
        let mut codes = Vec::with_capacity(judged.len());
        let mut retained = Vec::new();
        for judged in judged {
            let (new, rule) = match judged {
                Ok(wanted) => wanted,
                Err(code) => {
                    codes.push(code);
                    continue;
                }
            };
            match added.next().flatten() {
                None => codes.push(self.failure(SubscribeReasonCode::QuotaExceeded)),
                Some(added) => {
                    codes.push(match new.options.qos {
                        QoS::AtMostOnce => SubscribeReasonCode::QoS0,
                        QoS::AtLeastOnce => SubscribeReasonCode::QoS1,
                    });
                    let due = match rule {
                        RetainForwardRule::OnEverySubscribe => true,
                        RetainForwardRule::OnNewSubscribe => added.new_subscription,
                        RetainForwardRule::Never => false,
                    };
                    if due && new.key.group.is_none() {
                        self.collect_retained(&new, &mut retained);
                    }
                    self.note_subscribed(new.key);
                }
            }
        }
        let version = self.version();
        codec::write_suback(packet_id, codes, version, self.out());
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
            warn!(client = %self.client(), missed, "more retained messages match than may wait for a subscriber");
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
