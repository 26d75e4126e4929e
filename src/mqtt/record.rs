//! From a publish to a record of the log.
//!
//! A [`Publisher`] belongs to one connection. It remembers where its topics go, so that a publish
//! costs one lookup, and shares every header text that does not change, so that a record's
//! headers cost one allocation. A retransmission (DUP) is one more record like any other: delivery
//! is at least once, and nothing in the record tells the two apart.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::log::{Header, Log, Partition, Record};
use jiff::Timestamp;

use super::frame::Fault;
use super::message::now_ms;
use super::publish::{Publish, PublishProperties, QoS};
use super::reason;
use super::routes::{RouteTable, UNROUTED_TOPIC};
use super::topic::{TopicLimits, check_name};
use crate::auth::{Caller, Operation, Rights};

/// Topics a connection remembers: as many as a hash table of 1,024 slots takes, one more would double it.
/// A client with more starts over each time; nothing is lost.
const TOPICS_REMEMBERED_MAX: usize = 896;
/// Bytes of their names, keys and kinds.
const TOPICS_BYTES_MAX: usize = 64 << 10;
/// Fixed headers and `kind`.
const HEADERS_FIXED: usize = 6;

mod name {
    pub(super) const KIND: &str = "kind";
    pub(super) const RECEIVED_AT: &str = "received_at";
    pub(super) const TOPIC: &str = "mqtt.topic";
    pub(super) const QOS: &str = "mqtt.qos";
    pub(super) const RETAIN: &str = "mqtt.retain";
    pub(super) const CLIENT: &str = "mqtt.client";
    pub(super) const CONTENT_TYPE: &str = "mqtt.content_type";
    pub(super) const RESPONSE_TOPIC: &str = "mqtt.response_topic";
    pub(super) const CORRELATION_DATA: &str = "mqtt.correlation_data";
    pub(super) const PAYLOAD_FORMAT: &str = "mqtt.payload_format";
    pub(super) const USER_PREFIX: &str = "mqtt.user.";
}

fn header(name: &'static str, value: Bytes) -> Header {
    Header {
        name: Bytes::from_static(name.as_bytes()),
        value: Some(value),
    }
}

/// When a burst of publishes arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) timestamp_ms: i64,
    /// RFC 3339, UTC, milliseconds.
    text: Bytes,
}

impl Arrival {
    pub(crate) fn now() -> Arrival {
        Arrival::at(now_ms())
    }

    fn at(timestamp_ms: i64) -> Arrival {
        let timestamp = Timestamp::from_millisecond(timestamp_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        Arrival {
            timestamp_ms,
            text: Bytes::from(format!("{timestamp:.3}")),
        }
    }
}

/// Where a topic goes, as a connection remembers it.
struct Destination {
    partition: Arc<Partition>,
    key: Bytes,
    kind: Option<Bytes>,
    routed: bool,
}

/// What becomes of one publish.
pub(crate) struct Accepted {
    /// The validated topic.
    pub(crate) topic: Bytes,
    pub(crate) routed: bool,
    /// `None` for a QoS 0 publish without a route: it is only fanned out.
    pub(crate) record: Option<(Arc<Partition>, Record)>,
}

/// Why a publish became no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The log topic of its route was deleted.
    #[error("log topic {0:?} does not exist")]
    TopicMissing(String),
    /// Access rules do not let the client write to this MQTT topic.
    #[error("not authorized to write to {0:?}")]
    Denied(String),
}

/// Makes records of one client's publishes.
pub(crate) struct Publisher {
    client: String,
    client_header: Bytes,
    limits: TopicLimits,
    destinations: HashMap<Bytes, Destination>,
    destinations_bytes: usize,
    aliases: HashMap<u16, Bytes>,
    alias_max: u16,
    /// `None`: nothing is asked.
    writing: Option<Rights>,
}

impl Publisher {
    pub(crate) fn new(
        client: &str,
        caller: &Caller,
        limits: TopicLimits,
        alias_max: u16,
    ) -> Publisher {
        Publisher {
            client: client.to_owned(),
            client_header: Bytes::copy_from_slice(client.as_bytes()),
            limits,
            destinations: HashMap::new(),
            destinations_bytes: 0,
            aliases: HashMap::new(),
            alias_max,
            writing: caller.rights(Operation::Write),
        }
    }

    pub(crate) fn accept(
        &mut self,
        publish: &Publish,
        arrival: &Arrival,
        routes: &RouteTable,
        log: &Log,
    ) -> Result<Accepted, Refused> {
        let topic = self.resolve_alias(publish)?;
        if self.destinations.contains_key(&topic) {
            self.may_write(std::str::from_utf8(&topic).unwrap_or_default())?;
        } else {
            let name = self.check(&topic)?;
            // Before it is remembered: who may write nothing fills no memory with names.
            self.may_write(name)?;
            self.learn(name, routes, log)?;
        }
        let Some((topic, destination)) = self.destinations.get_key_value(&topic) else {
            return Err(Refused::TopicMissing(UNROUTED_TOPIC.to_owned()));
        };
        let kept = destination.routed || publish.qos == QoS::AtLeastOnce;
        let record = kept.then(|| {
            let headers = self.headers(topic, destination, publish, arrival);
            let record = Record {
                timestamp_ms: arrival.timestamp_ms,
                key: Some(destination.key.clone()),
                value: Some(publish.payload.clone()),
                headers,
            };
            (Arc::clone(&destination.partition), record)
        });
        Ok(Accepted {
            topic: topic.clone(),
            routed: destination.routed,
            record,
        })
    }

    fn resolve_alias(&mut self, publish: &Publish) -> Result<Bytes, Fault> {
        let Some(alias) = publish.topic_alias else {
            return Ok(publish.topic.clone());
        };
        if alias == 0 || alias > self.alias_max {
            let text = format!("topic alias {alias}: 1 to {} are possible", self.alias_max);
            return Err(Fault::new(reason::TOPIC_ALIAS_INVALID, text));
        }
        if publish.topic.is_empty() {
            let topic = self.aliases.get(&alias).cloned();
            return topic
                .ok_or_else(|| Fault::protocol(format!("topic alias {alias} stands for nothing")));
        }
        // A copy: the alias outlives the read buffer.
        let topic = Bytes::copy_from_slice(&publish.topic);
        self.aliases.insert(alias, topic.clone());
        Ok(topic)
    }

    fn check<'t>(&self, topic: &'t [u8]) -> Result<&'t str, Fault> {
        check_name(topic, self.limits).map_err(|error| {
            let shown = String::from_utf8_lossy(topic);
            let shown: String = shown.chars().take(100).collect();
            Fault::new(
                reason::TOPIC_NAME_INVALID,
                format!("topic name {shown:?}: {error}"),
            )
        })
    }

    fn may_write(&self, name: &str) -> Result<(), Refused> {
        match &self.writing {
            Some(writing) if !writing.to(name) => Err(Refused::Denied(name.to_owned())),
            _ => Ok(()),
        }
    }

    fn learn(&mut self, name: &str, routes: &RouteTable, log: &Log) -> Result<(), Refused> {
        let own = Bytes::copy_from_slice(name.as_bytes());
        let target = routes.find(name, &self.client);
        let routed = target.is_some();
        let (log_topic, key, kind) = match target {
            Some(target) => (target.log_topic, target.key, target.kind),
            None => (UNROUTED_TOPIC, own.clone(), None),
        };
        let found = log
            .topic(log_topic)
            .ok_or_else(|| Refused::TopicMissing(log_topic.to_owned()))?;
        let partition = Arc::clone(found.partition_for(Some(key.as_ref())));
        let bytes = own.len() + key.len() + kind.as_ref().map_or(0, Bytes::len);
        if self.destinations.len() >= TOPICS_REMEMBERED_MAX
            || self.destinations_bytes + bytes > TOPICS_BYTES_MAX
        {
            self.destinations.clear();
            self.destinations_bytes = 0;
        }
        self.destinations_bytes += bytes;
        self.destinations.insert(
            own,
            Destination {
                partition,
                key,
                kind,
                routed,
            },
        );
        Ok(())
    }

    fn headers(
        &self,
        topic: &Bytes,
        destination: &Destination,
        publish: &Publish,
        arrival: &Arrival,
    ) -> Vec<Header> {
        let properties = publish.properties.as_deref();
        let extra = properties.map_or(0, |properties| 4 + properties.user.len());
        let mut headers = Vec::with_capacity(HEADERS_FIXED + extra);
        if let Some(kind) = &destination.kind {
            headers.push(header(name::KIND, kind.clone()));
        }
        let qos: &'static [u8] = if publish.qos == QoS::AtLeastOnce {
            b"1"
        } else {
            b"0"
        };
        let retain: &'static [u8] = if publish.retain { b"true" } else { b"false" };
        headers.push(header(name::RECEIVED_AT, arrival.text.clone()));
        headers.push(header(name::TOPIC, topic.clone()));
        headers.push(header(name::QOS, Bytes::from_static(qos)));
        headers.push(header(name::RETAIN, Bytes::from_static(retain)));
        headers.push(header(name::CLIENT, self.client_header.clone()));
        if let Some(properties) = properties {
            push_properties(&mut headers, properties);
        }
        headers
    }
}

fn push_properties(headers: &mut Vec<Header>, properties: &PublishProperties) {
    if let Some(value) = &properties.content_type {
        headers.push(header(name::CONTENT_TYPE, value.clone()));
    }
    if let Some(value) = &properties.response_topic {
        headers.push(header(name::RESPONSE_TOPIC, value.clone()));
    }
    if let Some(value) = &properties.correlation_data {
        headers.push(header(name::CORRELATION_DATA, as_text(value)));
    }
    if let Some(format) = properties.payload_format {
        let digit: &'static [u8] = if format == 0 { b"0" } else { b"1" };
        headers.push(header(name::PAYLOAD_FORMAT, Bytes::from_static(digit)));
    }
    for (user, value) in &properties.user {
        let mut text = Vec::with_capacity(name::USER_PREFIX.len() + user.len());
        text.extend_from_slice(name::USER_PREFIX.as_bytes());
        text.extend_from_slice(user);
        headers.push(Header {
            name: Bytes::from(text),
            value: Some(value.clone()),
        });
    }
}

/// Header values are UTF-8; binary correlation data stands there as `base64:` and its base64.
fn as_text(value: &Bytes) -> Bytes {
    use base64::Engine as _;
    if std::str::from_utf8(value).is_ok() {
        return value.clone();
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
    Bytes::from(format!("base64:{encoded}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use holdfast_storage::log::LogOptions;

    use super::*;
    use crate::auth::{Auth, AuthConfig, Authorizer, Principal};
    use crate::mqtt::routes::RouteTable;

    const LIMITS: TopicLimits = TopicLimits {
        bytes_max: 1024,
        levels_max: 32,
    };

    struct Site {
        routes: RouteTable,
        log: Log,
        caller: Caller,
        _dir: tempfile::TempDir,
    }

    impl Site {
        async fn new(authorizer: Authorizer) -> Site {
            let dir = tempfile::tempdir().unwrap();
            let options = LogOptions::new(dir.path());
            let log = tokio::task::spawn_blocking(|| Log::open(options)).await;
            let log = log.unwrap().unwrap();
            let config = AuthConfig {
                authorizer,
                ..AuthConfig::default()
            };
            let auth = Auth::open_with(log.clone(), config).await.unwrap();
            let routes = RouteTable::compile(&[], LIMITS).unwrap();
            routes.ensure_topics(&log).await.unwrap();
            let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
            Site {
                routes,
                log,
                caller: Caller::new(auth, Principal::anonymous(here)),
                _dir: dir,
            }
        }

        fn publisher(&self) -> Publisher {
            Publisher::new("c", &self.caller, LIMITS, 0)
        }

        fn accept(&self, publisher: &mut Publisher, topic: &str) -> Result<Accepted, Refused> {
            let publish = Publish {
                qos: QoS::AtLeastOnce,
                retain: false,
                packet_id: 1,
                topic: Bytes::copy_from_slice(topic.as_bytes()),
                topic_alias: None,
                properties: None,
                payload: Bytes::new(),
            };
            publisher.accept(&publish, &Arrival::at(0), &self.routes, &self.log)
        }
    }

    #[tokio::test]
    async fn a_topic_is_remembered_for_those_who_may_write_to_it() {
        let site = Site::new(Authorizer::Acl).await;
        let mut publisher = site.publisher();
        for n in 0..10 {
            let topic = format!("t/{n}");
            let refused = site.accept(&mut publisher, &topic).err();
            assert_eq!(refused, Some(Refused::Denied(topic)));
        }
        assert!(publisher.destinations.is_empty());
        let refused = site.accept(&mut publisher, "t/+").err();
        assert!(matches!(refused, Some(Refused::Fault(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn remembered_topics_are_bounded_in_number_and_in_bytes() {
        let site = Site::new(Authorizer::None).await;
        let mut publisher = site.publisher();
        let (mut most, mut most_bytes) = (0, 0);
        for padding in [1_000, 0] {
            for n in 0..2_000 {
                let topic = format!("{n:04}{}", "x".repeat(padding));
                let accepted = site.accept(&mut publisher, &topic).unwrap();
                assert_eq!(accepted.topic, topic);
                let topics = publisher.destinations.iter();
                let bytes = topics.map(|(topic, to)| topic.len() + to.key.len()).sum();
                assert_eq!(publisher.destinations_bytes, bytes);
                most = most.max(publisher.destinations.len());
                most_bytes = most_bytes.max(bytes);
            }
        }
        assert_eq!(most, TOPICS_REMEMBERED_MAX);
        assert!(most_bytes > TOPICS_BYTES_MAX - 3_000 && most_bytes <= TOPICS_BYTES_MAX);
        assert_eq!(publisher.destinations.capacity(), TOPICS_REMEMBERED_MAX);
    }

    #[test]
    fn arrival_is_told_in_utc_with_milliseconds() {
        assert_eq!(
            Arrival::at(1_700_000_000_120).text,
            "2023-11-14T22:13:20.120Z"
        );
        assert_eq!(Arrival::at(0).text, "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn binary_correlation_data_becomes_text() {
        assert_eq!(as_text(&Bytes::from_static(b"abc")), "abc");
        assert_eq!(as_text(&Bytes::from_static(&[0xff, 0])), "base64:/wA=");
    }
}
