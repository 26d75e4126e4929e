//! Live subscriptions: who wants which topics.
//!
//! A trie over topic levels answers "does anyone want this topic" cheaply enough to be asked for
//! every publish, and "which filters match" for the fan-out. One task writes (`fanout`), the
//! sessions read.

use std::collections::HashMap;
use std::sync::Arc;

use super::message::{ConnectionId, Delivery, DeliveryQueue, LiveMessage};
use super::publish::QoS;
use super::stats::{MqttStats, add};
use super::topic::SubscriptionKey;

/// Number of one distinct filter with subscribers; from 1, never reused.
pub(crate) type FilterId = usize;

/// Options of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<u32>,
}

#[derive(Debug)]
struct Member {
    connection: ConnectionId,
    queue: Arc<DeliveryQueue>,
    options: Options,
}

impl Member {
    fn deliver(&self, message: &Arc<LiveMessage>, stats: &MqttStats) {
        let delivery = Delivery {
            message: Arc::clone(message),
            qos: message.qos.min(self.options.qos),
            retain: message.retain && self.options.retain_as_published,
            subscription_id: self.options.id,
        };
        self.queue.push(delivery, stats);
    }
}

#[derive(Debug)]
struct Group {
    name: String,
    members: Vec<Member>,
    next: usize,
}

impl Group {
    /// Takes turns; a member whose queue is full is passed over while another has room, one that may
    /// not read the topic in any case.
    fn deliver(&mut self, message: &Arc<LiveMessage>, stats: &MqttStats) {
        let count = self.members.len();
        let turn = self.next;
        self.next = (turn + 1) % count.max(1);
        let in_turn = (0..count).map(|n| (turn + n) % count);
        let mut readers = in_turn
            .filter_map(|n| self.members.get(n))
            .filter(|member| member.queue.may_read(&message.topic));
        let with_room = readers
            .clone()
            .find(|member| member.queue.has_room(message));
        match with_room.or_else(|| readers.next()) {
            Some(member) => member.deliver(message, stats),
            None => add(&stats.unreadable, 1),
        }
    }
}

#[derive(Debug)]
struct FilterEntry {
    path: String,
    members: Vec<Member>,
    groups: Vec<Group>,
}

impl FilterEntry {
    fn slot(&mut self, group: Option<&str>) -> &mut Vec<Member> {
        let Some(name) = group else {
            return &mut self.members;
        };
        let index = self
            .groups
            .iter()
            .position(|g| g.name == name)
            .unwrap_or_else(|| {
                self.groups.push(Group {
                    name: name.to_owned(),
                    members: Vec::new(),
                    next: 0,
                });
                self.groups.len() - 1
            });
        match self.groups.get_mut(index) {
            Some(group) => &mut group.members,
            None => &mut self.members,
        }
    }

    fn is_dead(&self) -> bool {
        self.members.is_empty() && self.groups.is_empty()
    }
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<String, Node>,
    /// `+`
    any: Option<Box<Node>>,
    /// `#` below this node
    rest: Option<FilterId>,
    here: Option<FilterId>,
}

impl Node {
    /// `levels` is what is left of the topic; `None` after its last level.
    fn walk(&self, levels: Option<&str>, found: &mut impl FnMut(FilterId)) {
        if let Some(id) = self.rest {
            found(id);
        }
        let Some(levels) = levels else {
            if let Some(id) = self.here {
                found(id);
            }
            return;
        };
        let (level, tail) = split_level(levels);
        if let Some(child) = self.children.get(level) {
            child.walk(tail, found);
        }
        if let Some(any) = &self.any {
            any.walk(tail, found);
        }
    }

    fn slot(&mut self, levels: Option<&str>) -> &mut Option<FilterId> {
        let Some(levels) = levels else {
            return &mut self.here;
        };
        match split_level(levels) {
            ("#", _) => &mut self.rest,
            ("+", tail) => self.any.get_or_insert_default().slot(tail),
            (level, tail) => self
                .children
                .entry(level.to_owned())
                .or_default()
                .slot(tail),
        }
    }

    /// Takes a filter out and with it the nodes that served only this filter.
    fn clear(&mut self, levels: Option<&str>) {
        let Some(levels) = levels else {
            self.here = None;
            return;
        };
        match split_level(levels) {
            ("#", _) => self.rest = None,
            ("+", tail) => {
                if let Some(any) = &mut self.any {
                    any.clear(tail);
                    if any.is_empty() {
                        self.any = None;
                    }
                }
            }
            (level, tail) => {
                if let Some(child) = self.children.get_mut(level) {
                    child.clear(tail);
                    if child.is_empty() {
                        self.children.remove(level);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.rest.is_none() && self.here.is_none()
    }
}

fn split_level(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, tail)) => (level, Some(tail)),
        None => (levels, None),
    }
}

/// What became of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) filter: FilterId,
    /// The first subscription of anyone to this filter.
    pub(crate) new_filter: bool,
    /// This client had no such subscription before (MQTT 5 retain handling 1 asks).
    pub(crate) new_subscription: bool,
}

/// A filter that has lost its last subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadFilter {
    pub(crate) id: FilterId,
    pub(crate) path: String,
}

/// Every live subscription of the node.
#[derive(Debug)]
pub(crate) struct SubscriptionTable {
    root: Node,
    filters: HashMap<FilterId, FilterEntry>,
    by_connection: HashMap<ConnectionId, Vec<(FilterId, Option<String>)>>,
    next_id: FilterId,
    filters_max: usize,
}

impl SubscriptionTable {
    pub(crate) fn new(filters_max: usize) -> SubscriptionTable {
        SubscriptionTable {
            root: Node::default(),
            filters: HashMap::new(),
            by_connection: HashMap::new(),
            next_id: 1,
            filters_max,
        }
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = (FilterId, &str)> {
        self.filters
            .iter()
            .map(|(id, entry)| (*id, entry.path.as_str()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Subscriptions of everyone.
    pub(crate) fn subscriptions(&self) -> usize {
        self.by_connection.values().map(Vec::len).sum()
    }

    /// Subscribes, or replaces the options of the subscription that exists. `None` where the
    /// filter would be one too many.
    pub(crate) fn add(
        &mut self,
        connection: ConnectionId,
        queue: &Arc<DeliveryQueue>,
        key: &SubscriptionKey,
        options: Options,
    ) -> Option<Added> {
        let path = key.filter.as_str();
        let full = self.filters.len() >= self.filters_max;
        let next_id = self.next_id;
        let slot = self.root.slot(Some(path));
        let new_filter = slot.is_none();
        if new_filter && full {
            self.root.clear(Some(path));
            return None;
        }
        let id = *slot.get_or_insert(next_id);
        if new_filter {
            self.next_id += 1;
        }
        let entry = self.filters.entry(id).or_insert_with(|| FilterEntry {
            path: path.to_owned(),
            members: Vec::new(),
            groups: Vec::new(),
        });
        let members = entry.slot(key.group.as_deref());
        let new_subscription = match members.iter_mut().find(|m| m.connection == connection) {
            Some(member) => {
                member.options = options;
                false
            }
            None => {
                members.push(Member {
                    connection,
                    queue: Arc::clone(queue),
                    options,
                });
                self.by_connection
                    .entry(connection)
                    .or_default()
                    .push((id, key.group.clone()));
                true
            }
        };
        Some(Added {
            filter: id,
            new_filter,
            new_subscription,
        })
    }

    /// Whether the subscription existed, and the filter if it died with it.
    pub(crate) fn remove(
        &mut self,
        connection: ConnectionId,
        key: &SubscriptionKey,
    ) -> (bool, Option<DeadFilter>) {
        let owned = self.by_connection.entry(connection).or_default();
        let filters = &self.filters;
        let found = owned.iter().position(|(id, group)| {
            *group == key.group
                && filters
                    .get(id)
                    .is_some_and(|entry| entry.path == key.filter.as_str())
        });
        let removed = found.map(|index| owned.swap_remove(index));
        if owned.is_empty() {
            self.by_connection.remove(&connection);
        }
        match removed {
            Some((id, group)) => (true, self.leave(connection, id, group.as_deref())),
            None => (false, None),
        }
    }

    /// Takes out everything of a connection; returns the filters that died.
    pub(crate) fn remove_connection(&mut self, connection: ConnectionId) -> Vec<DeadFilter> {
        let owned = self.by_connection.remove(&connection).unwrap_or_default();
        owned
            .into_iter()
            .filter_map(|(id, group)| self.leave(connection, id, group.as_deref()))
            .collect()
    }

    fn leave(
        &mut self,
        connection: ConnectionId,
        id: FilterId,
        group: Option<&str>,
    ) -> Option<DeadFilter> {
        let entry = self.filters.get_mut(&id)?;
        entry
            .slot(group)
            .retain(|member| member.connection != connection);
        entry.groups.retain(|group| !group.members.is_empty());
        if !entry.is_dead() {
            return None;
        }
        let entry = self.filters.remove(&id)?;
        self.root.clear(Some(&entry.path));
        Some(DeadFilter {
            id,
            path: entry.path,
        })
    }

    pub(crate) fn matches_any(&self, topic: &str) -> bool {
        let mut any = false;
        self.root.walk(Some(topic), &mut |_| any = true);
        any
    }

    /// How many distinct filters match.
    pub(crate) fn matching(&self, topic: &str) -> u32 {
        let mut count = 0;
        self.root.walk(Some(topic), &mut |_| count += 1);
        count
    }

    /// Queues a message for every subscription to one filter: one copy per subscription, as the
    /// standard permits where subscriptions of one client overlap.
    pub(crate) fn deliver(
        &mut self,
        filter: FilterId,
        message: &Arc<LiveMessage>,
        stats: &MqttStats,
    ) {
        let Some(entry) = self.filters.get_mut(&filter) else {
            return;
        };
        for member in &entry.members {
            if !(member.options.no_local && member.connection == message.publisher) {
                member.deliver(message, stats);
            }
        }
        for group in &mut entry.groups {
            group.deliver(message, stats);
        }
        add(
            &stats.delivered,
            (entry.members.len() + entry.groups.len()) as u64,
        );
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
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::mqtt::topic::{TopicFilter, TopicLimits};

    const LIMITS: TopicLimits = TopicLimits {
        bytes_max: 64,
        levels_max: 8,
    };
    const OPTIONS: Options = Options {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };

    fn key(text: &str) -> SubscriptionKey {
        SubscriptionKey::parse(text, LIMITS).unwrap()
    }

    fn queue(messages: usize) -> (Arc<DeliveryQueue>, Receiver<Delivery>) {
        DeliveryQueue::new("c".to_owned(), messages, 1000, None)
    }

    fn message(topic: &str, publisher: ConnectionId) -> Arc<LiveMessage> {
        Arc::new(LiveMessage {
            topic: topic.to_owned(),
            payload: Bytes::new(),
            properties: Bytes::new(),
            expires_at_ms: None,
            qos: QoS::AtLeastOnce,
            retain: true,
            publisher,
        })
    }

    fn received(receiver: &mut Receiver<Delivery>) -> usize {
        std::iter::from_fn(|| receiver.try_recv().ok()).count()
    }

    #[test]
    fn a_filter_lives_from_its_first_to_its_last_subscriber() {
        let mut table = SubscriptionTable::new(10);
        let (queue, _receiver) = queue(10);
        let first = table.add(1, &queue, &key("a/+"), OPTIONS).unwrap();
        assert!(first.new_filter && first.new_subscription);
        let again = table.add(1, &queue, &key("a/+"), OPTIONS).unwrap();
        assert!(!again.new_filter && !again.new_subscription);
        let shared = table.add(2, &queue, &key("$share/g/a/+"), OPTIONS).unwrap();
        assert_eq!(
            (shared.filter, shared.new_filter, shared.new_subscription),
            (first.filter, false, true)
        );
        assert_eq!(table.subscriptions(), 2);
        assert_eq!(table.remove(1, &key("$share/g/a/+")), (false, None));
        assert_eq!(table.remove(1, &key("a/+")), (true, None));
        assert_eq!(table.remove(1, &key("a/+")), (false, None));
        assert!(table.matches_any("a/b"));
        let dead = table.remove_connection(2);
        assert_eq!(
            dead,
            [DeadFilter {
                id: first.filter,
                path: "a/+".to_owned()
            }]
        );
        assert!(table.is_empty() && table.root.is_empty());
    }

    #[test]
    fn one_filter_too_many_is_refused_and_leaves_no_trace() {
        let mut table = SubscriptionTable::new(1);
        let (queue, _receiver) = queue(1);
        table.add(1, &queue, &key("a/b"), OPTIONS).unwrap();
        assert_eq!(table.add(1, &queue, &key("a/c/d"), OPTIONS), None);
        assert!(!table.matches_any("a/c/d"));
        assert!(table.add(2, &queue, &key("a/b"), OPTIONS).is_some());
        table.remove_connection(1);
        table.remove_connection(2);
        assert!(table.root.is_empty());
    }

    #[test]
    fn no_local_and_retain_as_published_are_honoured() {
        let stats = MqttStats::default();
        let mut table = SubscriptionTable::new(10);
        let (q, mut receiver) = queue(10);
        let options = Options {
            no_local: true,
            retain_as_published: true,
            id: Some(9),
            ..OPTIONS
        };
        let added = table.add(1, &q, &key("a"), options).unwrap();
        table.deliver(added.filter, &message("a", 1), &stats);
        assert_eq!(received(&mut receiver), 0);
        table.deliver(added.filter, &message("a", 2), &stats);
        let delivery = receiver.try_recv().unwrap();
        assert!(delivery.retain);
        assert_eq!(delivery.subscription_id, Some(9));
        table.add(1, &q, &key("a"), OPTIONS).unwrap();
        table.deliver(added.filter, &message("a", 1), &stats);
        assert!(!receiver.try_recv().unwrap().retain);
    }

    #[test]
    fn a_group_takes_turns_and_passes_over_a_full_member() {
        let stats = MqttStats::default();
        let mut table = SubscriptionTable::new(10);
        let (fast, mut fast_receiver) = queue(100);
        let (slow, mut slow_receiver) = queue(2);
        let filter = table
            .add(1, &fast, &key("$share/g/a"), OPTIONS)
            .unwrap()
            .filter;
        table.add(2, &slow, &key("$share/g/a"), OPTIONS).unwrap();
        for _ in 0..10 {
            table.deliver(filter, &message("a", 0), &stats);
        }
        assert_eq!(
            (received(&mut fast_receiver), received(&mut slow_receiver)),
            (8, 2)
        );
        assert_eq!(MqttStats::get(&stats.dropped_for_slow_subscriber), 0);
    }

    fn filter_text() -> impl Strategy<Value = String> {
        (prop::collection::vec("[ab+]|", 1..5), any::<bool>()).prop_filter_map(
            "empty",
            |(levels, tail)| {
                let mut text = levels.join("/");
                if tail {
                    text.push_str("/#");
                }
                (!text.is_empty()).then_some(text)
            },
        )
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_matching_filters_one_by_one(
            steps in prop::collection::vec((filter_text(), 1u64..4, any::<bool>()), 1..40),
            topic in "[ab]?(/[ab]?){0,4}",
        ) {
            prop_assume!(!topic.is_empty());
            let (queue, _receiver) = queue(1);
            let mut table = SubscriptionTable::new(1000);
            let mut model: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for (text, connection, add) in steps {
                let members = model.entry(text.clone()).or_default();
                if add {
                    table.add(connection, &queue, &key(&text), OPTIONS).unwrap();
                    if !members.contains(&connection) {
                        members.push(connection);
                    }
                } else {
                    let (existed, _) = table.remove(connection, &key(&text));
                    prop_assert_eq!(existed, members.contains(&connection));
                    members.retain(|m| *m != connection);
                }
            }
            let expected = model
                .iter()
                .filter(|(text, members)| {
                    !members.is_empty() && TopicFilter::parse(text, LIMITS).unwrap().matches(&topic)
                })
                .count();
            prop_assert_eq!(table.matching(&topic) as usize, expected);
            prop_assert_eq!(table.matches_any(&topic), expected > 0);
            for connection in 1..4 {
                table.remove_connection(connection);
            }
            prop_assert!(table.is_empty() && table.root.is_empty());
        }
    }
}
