//! What can be configured, as Kafka's administrators see it: every key that Kafka documents, with its
//! type, its default, and where the value comes from.
//!
//! Topic configurations that mean something here are judged and obeyed by the log
//! (`holdfast_storage::log::Topic`); the others are kept, judged by type and range, and answered.
//! Broker configurations are answered and not changed by clients: the node has a configuration file.

mod broker_keys;
mod topic_keys;

use std::collections::HashSet;

use holdfast_storage::log::{Retention, Topic};

use super::broker::{Broker, Refusal};
use super::config::KafkaConfig;
use super::endpoint::Endpoint;
use super::protocol::ErrorCode;
use super::sasl::Mechanism;
use super::sign_in::FRAME_BYTES_MAX;
use crate::tls::TlsConfig;

pub(super) use broker_keys::BROKER_KEYS;
pub(super) use topic_keys::TOPIC_KEYS;

/// Kafka's types of values; the number is the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

impl Kind {
    /// Whether a value can be of this type.
    pub(super) fn admits(self, value: &str) -> bool {
        let value = value.trim();
        match self {
            Kind::Boolean => {
                value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false")
            }
            Kind::Int => value.parse::<i32>().is_ok(),
            Kind::Short => value.parse::<i16>().is_ok(),
            Kind::Long => value.parse::<i64>().is_ok(),
            Kind::Double => value.parse::<f64>().is_ok(),
            Kind::String | Kind::List | Kind::Class | Kind::Password => true,
        }
    }
}

/// Where a value comes from; the number is the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Topic = 1,
    /// The node's configuration file.
    StaticBroker = 4,
    Default = 5,
}

/// What Kafka allows of a value beyond its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    OneOf(&'static [&'static str]),
    /// A list of these.
    SomeOf(&'static [&'static str]),
    /// `*`, or a list of partition:broker.
    Replicas,
}

impl Range {
    /// Whether a value of the right type is in it.
    pub(super) fn admits(self, value: &str) -> bool {
        let number = || value.parse::<i64>();
        match self {
            Range::Any => true,
            Range::AtLeast(least) => number().map_or(true, |n| n >= least),
            Range::Between(least, most) => number().is_ok_and(|n| (least..=most).contains(&n)),
            Range::OneOf(known) => known.contains(&value),
            Range::SomeOf(known) => {
                value.is_empty() || value.split(',').all(|item| known.contains(&item.trim()))
            }
            Range::Replicas => {
                let is_pair = |item: &str| {
                    let parts = item.trim().split_once(':');
                    parts.is_some_and(|(a, b)| a.parse::<i32>().is_ok() && b.parse::<i32>().is_ok())
                };
                value.is_empty() || value == "*" || value.split(',').all(is_pair)
            }
        }
    }
}

/// One configuration that Kafka documents, or one of ours.
#[derive(Debug)]
pub(super) struct ConfigKey {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Option<&'static str>,
    pub(super) range: Range,
    /// The broker configuration that sets the default of a topic's.
    of_broker: Option<&'static str>,
    /// What it does here; `None`: nothing.
    effect: Option<&'static str>,
}

impl ConfigKey {
    const fn new(name: &'static str, kind: Kind, default: Option<&'static str>) -> ConfigKey {
        ConfigKey {
            name,
            kind,
            default,
            range: Range::Any,
            of_broker: None,
            effect: None,
        }
    }

    const fn within(self, range: Range) -> ConfigKey {
        ConfigKey { range, ..self }
    }

    const fn of_broker(self, broker: &'static str) -> ConfigKey {
        ConfigKey {
            of_broker: Some(broker),
            ..self
        }
    }

    const fn does(self, effect: &'static str) -> ConfigKey {
        ConfigKey {
            effect: Some(effect),
            ..self
        }
    }

    /// For whoever reads configurations in a console.
    pub(super) fn documentation(&self) -> &'static str {
        self.effect.unwrap_or(WITHOUT_EFFECT)
    }
}

const WITHOUT_EFFECT: &str =
    "Kept and answered as Kafka documents it, without effect on this node.";

/// A configuration with its value.
pub(super) struct Setting {
    pub(super) key: &'static ConfigKey,
    pub(super) value: Option<String>,
    pub(super) source: Source,
    /// Every place that has a value for it, the one that counts first.
    pub(super) synonyms: Vec<(&'static str, Option<String>, Source)>,
}

/// Every configuration of a topic.
pub(super) fn of_topic(broker: &Broker, topic: &Topic) -> Vec<Setting> {
    of_configs(broker, topic.configs())
}

/// The same for a topic that would have these of its own.
pub(super) fn of_configs(broker: &Broker, configs: &[(String, String)]) -> Vec<Setting> {
    let setting = |key: &'static ConfigKey| {
        let own = configs.iter().find(|(name, _)| name == key.name);
        let inherited = inherited(broker, key);
        let mut synonyms = Vec::new();
        if let Some((_, value)) = own {
            synonyms.push((key.name, Some(value.clone()), Source::Topic));
        }
        // A default that is the topic's alone is not the broker's: its key is in another unit.
        let of_broker = key.of_broker.filter(|name| {
            let is_broker_default = || {
                BROKER_KEYS
                    .iter()
                    .any(|b| b.name == *name && b.default.is_some())
            };
            inherited.1 != Source::Default || is_broker_default()
        });
        if let Some(name) = of_broker {
            synonyms.push((name, inherited.0.clone(), inherited.1));
        }
        let (value, source) = match own {
            Some((_, value)) => (Some(value.clone()), Source::Topic),
            None => inherited,
        };
        Setting {
            key,
            value,
            source,
            synonyms,
        }
    };
    TOPIC_KEYS.iter().map(setting).collect()
}

/// The value of a topic configuration that the topic does not set.
fn inherited(broker: &Broker, key: &ConfigKey) -> (Option<String>, Source) {
    of_file_or_default(broker, key.of_broker.unwrap_or(key.name), key)
}

/// What the node says under one of Kafka's names, where that is not the key's default anyway.
fn of_file_or_default(broker: &Broker, name: &str, key: &ConfigKey) -> (Option<String>, Source) {
    match of_node(broker, name) {
        Some(value) if Some(value.as_str()) != key.default => (Some(value), Source::StaticBroker),
        _ => (key.default.map(str::to_owned), Source::Default),
    }
}

/// Every configuration of the broker.
pub(super) fn of_broker(broker: &Broker) -> Vec<Setting> {
    let setting = |key: &'static ConfigKey| {
        let (value, source) = of_file_or_default(broker, key.name, key);
        let mut synonyms = Vec::new();
        if source == Source::StaticBroker {
            synonyms.push((key.name, value.clone(), source));
        }
        if let Some(default) = key.default {
            synonyms.push((key.name, Some(default.to_owned()), Source::Default));
        }
        Setting {
            key,
            value,
            source,
            synonyms,
        }
    };
    BROKER_KEYS.iter().map(setting).collect()
}

/// What the node's own configuration says under one of Kafka's names; `None` where it says nothing.
fn of_node(broker: &Broker, key: &str) -> Option<String> {
    let config: &KafkaConfig = &broker.config;
    let (groups, transactions) = (&config.groups, &config.transactions);
    let retention: &Retention = broker.log.retention();
    let bound = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
    let milliseconds = |seconds: u64| seconds.saturating_mul(1000).to_string();
    Some(match key {
        "node.id" | "broker.id" => config.node_id.to_string(),
        "process.roles" => "broker,controller".to_owned(),
        "listeners" => each(broker, |e| Some(format!("{}://{}", e.name, e.address)))?,
        "advertised.listeners" => each(broker, |endpoint| {
            let (host, port) = endpoint.advertised.as_ref()?;
            Some(format!("{}://{host}:{port}", endpoint.name))
        })?,
        "listener.security.protocol.map" => each(broker, |e| {
            Some(format!("{}:{}", e.name, e.security.name()))
        })?,
        "sasl.enabled.mechanisms" => {
            let offered = |m: &Mechanism| broker.endpoints.iter().any(|e| e.mechanisms.contains(m));
            let all = Mechanism::ALL.into_iter().filter(offered);
            let names: Vec<&str> = all.map(Mechanism::name).collect();
            (!names.is_empty()).then(|| names.join(","))?
        }
        "authorizer.class.name" => match broker.auth.has_authorizer() {
            true => "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            false => String::new(),
        },
        "sasl.server.max.receive.size" => FRAME_BYTES_MAX.to_string(),
        "log.dirs" => broker.log.directory().display().to_string(),
        "num.partitions" => config.default_partitions.to_string(),
        "auto.create.topics.enable" => config.auto_create_topics.to_string(),
        "default.replication.factor"
        | "offsets.topic.replication.factor"
        | "transaction.state.log.replication.factor"
        | "transaction.state.log.min.isr"
        | "share.coordinator.state.topic.replication.factor"
        | "share.coordinator.state.topic.min.isr" => "1".to_owned(),
        "socket.request.max.bytes" => config.request_bytes_max.to_string(),
        "queued.max.request.bytes" => config.requests_bytes_max.to_string(),
        "connections.max.idle.ms" => milliseconds(config.idle_timeout_s),
        "max.connections" => config.connections_max.to_string(),
        "max.connections.per.ip" => config.connections_per_address_max.to_string(),
        "max.incremental.fetch.session.cache.slots" => config.fetch_sessions_max.to_string(),
        "fetch.max.bytes" => config.fetch_bytes_max.to_string(),
        "message.max.bytes" => broker.log.batch_bytes_max().to_string(),
        "log.retention.ms" => bound(retention.ms),
        "log.retention.bytes" => bound(retention.bytes),
        "group.initial.rebalance.delay.ms" => groups.initial_rebalance_delay_ms.to_string(),
        "group.min.session.timeout.ms" => groups.session_timeout_ms_min.to_string(),
        "group.max.session.timeout.ms" => groups.session_timeout_ms_max.to_string(),
        "group.max.size" => groups.group_size_max.to_string(),
        "offset.metadata.max.bytes" => groups.offset_metadata_bytes_max.to_string(),
        "offsets.retention.minutes" => (groups.offsets_retention_ms / 60_000).to_string(),
        "transaction.max.timeout.ms" => transactions.timeout_ms_max.to_string(),
        "transaction.abort.timed.out.transaction.cleanup.interval.ms" => {
            transactions.timeout_check_interval_ms.to_string()
        }
        "transactional.id.expiration.ms" => transactions.id_expiry_ms.to_string(),
        _ if key.starts_with("ssl.") => {
            // Of the first listener that has TLS, as Kafka's keys without a listener's name.
            let mut all = broker.endpoints.iter();
            of_tls(all.find_map(|endpoint| endpoint.tls_config.as_ref())?, key)?
        }
        _ => return None,
    })
}

/// One item for each listener that has one.
fn each(broker: &Broker, item: impl Fn(&Endpoint) -> Option<String>) -> Option<String> {
    let items: Vec<String> = broker.endpoints.iter().filter_map(|e| item(e)).collect();
    (!items.is_empty()).then(|| items.join(","))
}

fn of_tls(tls: &TlsConfig, key: &str) -> Option<String> {
    let authorities = tls.client_ca_file.as_ref();
    Some(match key {
        "ssl.client.auth" => tls.client_auth.name().to_owned(),
        "ssl.enabled.protocols" => {
            let names: Vec<&str> = tls.protocols.iter().map(|version| version.name()).collect();
            names.join(",")
        }
        "ssl.protocol" => tls.protocols.iter().max()?.name().to_owned(),
        "ssl.principal.mapping.rules" => tls.principal_mapping_rules.clone(),
        "ssl.keystore.type" => "PEM".to_owned(),
        "ssl.keystore.location" => tls.certificate_file.display().to_string(),
        "ssl.truststore.type" => authorities.map(|_| "PEM".to_owned())?,
        "ssl.truststore.location" => authorities?.display().to_string(),
        _ => return None,
    })
}

/// What is done to one configuration (KIP-339); the numbers are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Set = 0,
    Delete = 1,
    Append = 2,
    Subtract = 3,
}

impl Operation {
    pub(super) fn from_wire(operation: i8) -> Option<Operation> {
        [
            Operation::Set,
            Operation::Delete,
            Operation::Append,
            Operation::Subtract,
        ]
        .into_iter()
        .find(|known| *known as i8 == operation)
    }
}

/// One step from the configurations a topic has to those it shall have.
pub(super) fn apply(
    broker: &Broker,
    configs: &mut Vec<(String, String)>,
    name: &str,
    operation: Operation,
    value: Option<&str>,
) -> Result<(), Refusal> {
    let invalid = |message: String| (ErrorCode::InvalidConfig, message);
    let key = TOPIC_KEYS.iter().find(|key| key.name == name);
    if key.is_none() && operation == Operation::Delete {
        // What is not there is deleted.
        return Ok(());
    }
    let key = key.ok_or_else(|| invalid(format!("Unknown topic config name: {name}")))?;
    let place = configs.iter().position(|(known, _)| known == name);
    if operation == Operation::Delete {
        if let Some(place) = place {
            configs.remove(place);
        }
        return Ok(());
    }
    let value = value.ok_or_else(|| {
        let message = format!("Null value not supported for : {name}");
        (ErrorCode::InvalidRequest, message)
    })?;
    let value = match operation {
        Operation::Append | Operation::Subtract => {
            if key.kind != Kind::List {
                let operation = format!("{operation:?}").to_uppercase();
                return Err(invalid(format!(
                    "Can't {operation} to key {name} because its type is not LIST."
                )));
            }
            let own = place.and_then(|place| configs.get(place));
            let now = own.map_or_else(
                || inherited(broker, key).0.unwrap_or_default(),
                |(_, value)| value.clone(),
            );
            let items = |list: &str| -> Vec<String> {
                let items = list.split(',').map(str::trim);
                items.filter(|i| !i.is_empty()).map(str::to_owned).collect()
            };
            let (mut list, given) = (items(&now), items(value));
            if operation == Operation::Append && given.is_empty() {
                return Err(invalid(format!("There is nothing to append to {name}.")));
            }
            if operation == Operation::Append {
                let mut known: HashSet<String> = list.iter().cloned().collect();
                list.extend(given.into_iter().filter(|item| known.insert(item.clone())));
            } else {
                let given: HashSet<String> = given.into_iter().collect();
                list.retain(|item| !given.contains(item));
            }
            list.join(",")
        }
        _ => value.trim().to_owned(),
    };
    match place.and_then(|place| configs.get_mut(place)) {
        Some((_, now)) => *now = value,
        None => configs.push((name.to_owned(), value)),
    }
    Ok(())
}
