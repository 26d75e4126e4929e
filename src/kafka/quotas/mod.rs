//! Client quotas: how much a user, a client id or an address may have of this node, and how long it has to
//! wait if it takes more (KIP-13, KIP-124, KIP-546, KIP-599, KIP-612).
//!
//! Owns one kind of settings records in the log, `kafka.quota`: the key is the entity as a JSON object
//! (`{"user":"a","client-id":null}`, null for the default of all), the value a JSON object of quotas. They
//! hold from the moment they are durable.
//!
//! A rate is measured as Kafka measures it, over eleven windows of a second: short bursts are free. Who is
//! above it is answered at once and told how long it should wait; its connection is not read for as long
//! (KIP-219).
//!
//! Limits: [`ENTITIES_MAX`], [`RATES_MAX`].

mod entity;
mod rate;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_storage::log::{AppendError, Log};
use tokio::sync::Mutex as AsyncMutex;

pub(super) use entity::{Entity, Filter, Matching, Part};
use rate::Rate;

const KIND: &str = "kafka.quota";
/// Entities with quotas of their own.
pub(super) const ENTITIES_MAX: usize = 10_000;
/// Rates remembered; those that were not used for a while are forgotten first.
const RATES_MAX: usize = 20_000;
/// A rate that was not used for so long is zero again.
const RATE_IDLE: Duration = Duration::from_secs(60);

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Quota {
    /// Bytes of records in a second.
    Produce,
    Fetch,
    /// Share of a processor's time, in percent.
    Request,
    /// Topics and partitions made and deleted in a second.
    Mutation,
    /// Connections of an address in a second.
    Connection,
}

impl Quota {
    pub(super) const ALL: [Quota; 5] = [
        Quota::Produce,
        Quota::Fetch,
        Quota::Request,
        Quota::Mutation,
        Quota::Connection,
    ];

    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Quota::Produce => "producer_byte_rate",
            Quota::Fetch => "consumer_byte_rate",
            Quota::Request => "request_percentage",
            Quota::Mutation => "controller_mutation_rate",
            Quota::Connection => "connection_creation_rate",
        }
    }

    pub(super) fn named(name: &str) -> Option<Quota> {
        Quota::ALL.into_iter().find(|quota| quota.name() == name)
    }

    /// Kafka knows no fractions of them.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Quota::Produce | Quota::Fetch | Quota::Connection)
    }
}

/// The quotas of one entity.
pub(super) type Values = BTreeMap<Quota, f64>;

type Rules = BTreeMap<Entity, Values>;

/// Who shares a rate: quota, user and client id or address, as far as the rule tells them apart.
type Sharers = (Quota, Option<String>, Option<String>);

/// One change of a quota; `None` removes it.
pub(super) type Change = (Quota, Option<f64>);

/// All quotas and rates.
pub(super) struct Quotas {
    log: Log,
    rules: RwLock<Arc<Rules>>,
    /// Nobody pays for quotas where there are none.
    are_any: AtomicBool,
    rates: Mutex<HashMap<Sharers, Rate>>,
    /// One change at a time.
    changing: AsyncMutex<()>,
}

impl Quotas {
    /// As the log keeps them.
    pub(super) fn open(log: Log) -> Quotas {
        let kept = log.settings(KIND).into_iter();
        let rules: Rules = kept
            .filter_map(|(key, value)| {
                let read = Entity::from_json(&key).zip(from_json(&value));
                if read.is_none() {
                    tracing::warn!(entity = key, "a quota cannot be read and does not hold");
                }
                read
            })
            .collect();
        Quotas {
            log,
            are_any: AtomicBool::new(!rules.is_empty()),
            rules: RwLock::new(Arc::new(rules)),
            rates: Mutex::default(),
            changing: AsyncMutex::default(),
        }
    }

    /// Whether anybody has any.
    pub(super) fn are_any(&self) -> bool {
        self.are_any.load(Ordering::Acquire)
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Entities that a filter matches, with their quotas.
    pub(super) fn find(&self, filter: &Filter) -> Vec<(Entity, Values)> {
        let rules = self.rules();
        let matching = rules.iter().filter(|(entity, _)| filter.matches(entity));
        matching
            .map(|(entity, values)| (entity.clone(), values.clone()))
            .collect()
    }

    /// Changes the quotas of an entity; durable when it returns. `false`: there are too many.
    pub(super) async fn change(
        &self,
        entity: &Entity,
        changes: &[Change],
    ) -> Result<bool, AppendError> {
        let _alone = self.changing.lock().await;
        let rules = self.rules();
        let mut values = rules.get(entity).cloned().unwrap_or_default();
        for (quota, value) in changes {
            match value {
                Some(value) => values.insert(*quota, *value),
                None => values.remove(quota),
            };
        }
        if !rules.contains_key(entity) && rules.len() >= ENTITIES_MAX {
            return Ok(false);
        }
        let kept = (!values.is_empty()).then(|| to_json(&values));
        self.log.put_setting(KIND, &entity.to_json(), kept).await?;
        let mut rules = Arc::unwrap_or_clone(rules);
        if values.is_empty() {
            rules.remove(entity);
        } else {
            rules.insert(entity.clone(), values);
        }
        self.are_any.store(!rules.is_empty(), Ordering::Release);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(true)
    }

    /// Counts what a client takes, and says how long it should wait.
    pub(super) fn take(&self, quota: Quota, user: &str, client_id: &str, amount: f64) -> Duration {
        if !self.are_any() {
            return Duration::ZERO;
        }
        let rules = self.rules();
        match entity::of_client(&rules, quota, user, client_id) {
            Some((user, client_id, bound)) => self.record((quota, user, client_id), amount, bound),
            None => Duration::ZERO,
        }
    }

    /// The same for a connection of an address.
    pub(super) fn take_connection(&self, address: IpAddr) -> Duration {
        if !self.are_any() {
            return Duration::ZERO;
        }
        let quota = Quota::Connection;
        let address = address.to_canonical().to_string();
        match entity::of_address(&self.rules(), &address) {
            Some(bound) => self.record((quota, None, Some(address)), 1.0, bound),
            None => Duration::ZERO,
        }
    }

    fn record(&self, sharers: Sharers, amount: f64, bound: f64) -> Duration {
        let now = Instant::now();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= RATES_MAX && !rates.contains_key(&sharers) {
            rates.retain(|_, rate| now.saturating_duration_since(rate.used()) < RATE_IDLE);
            if rates.len() >= RATES_MAX {
                rates.clear();
            }
        }
        let rate = rates.entry(sharers).or_insert_with(|| Rate::new(now));
        rate.add(now, amount);
        rate.excess(now, bound)
    }
}

fn to_json(values: &Values) -> Bytes {
    let values = values.iter().map(|(quota, value)| {
        let value = serde_json::Value::from(*value);
        (quota.name().to_owned(), value)
    });
    let object = serde_json::Value::Object(values.collect());
    Bytes::from(object.to_string())
}

/// A quota of a later version is kept in the log and left alone here.
fn from_json(bytes: &[u8]) -> Option<Values> {
    let object: BTreeMap<String, f64> = serde_json::from_slice(bytes).ok()?;
    let known = object.into_iter();
    let known = known.filter_map(|(name, value)| Some((Quota::named(&name)?, value)));
    Some(known.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_storage::log::LogOptions;

    #[tokio::test]
    async fn quotas_hold_after_a_restart_and_no_longer_when_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let entity = Entity::default().with_user(Part::Is("a".into()));
        let log = Log::open(LogOptions::new(dir.path())).unwrap();
        let quotas = Quotas::open(log.clone());
        let take = |quotas: &Quotas| quotas.take(Quota::Produce, "a", "any", 50_000.0);
        assert_eq!(take(&quotas), Duration::ZERO);
        let changed = quotas.change(&entity, &[(Quota::Produce, Some(1000.0))]);
        assert!(changed.await.unwrap());
        drop((quotas, log));
        let log = Log::open(LogOptions::new(dir.path())).unwrap();
        let quotas = Quotas::open(log);
        // 50,000 bytes are 50 s worth; ten of them are free.
        let wait = take(&quotas);
        assert!(
            wait > Duration::from_secs(35) && wait < Duration::from_secs(45),
            "{wait:?}"
        );
        assert_eq!(
            quotas.take(Quota::Produce, "b", "any", 50_000.0),
            Duration::ZERO
        );
        assert!(
            quotas
                .change(&entity, &[(Quota::Produce, None)])
                .await
                .unwrap()
        );
        assert_eq!(take(&quotas), Duration::ZERO);
        assert!(quotas.find(&Filter::default()).is_empty());
    }
}
