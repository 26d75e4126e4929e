//! What fields are filled with so that a request gets deep into its handler: a small pool of names, so
//! that what the node keeps of them stays bounded, and what its answers have told: ids, epochs, members.
//!
//! What answers have told is the only part of a frame that does not follow from its number: it takes the
//! same number of bytes and of decisions whatever it is, so that nothing else of the frame depends on it.

use std::sync::{Mutex, PoisonError};

use holdfast::kafka::protocol::Response;
use holdfast::kafka::protocol::messages::MetadataResponseTopic;
use uuid::Uuid;

use crate::dice::Dice;

/// Topics that frames may do anything to.
pub const TOPICS: &[&str] = &[
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "indigo.x",
    "violet_1",
    "compacted",
];
pub const GROUPS: &[&str] = &["g1", "g2", "g3", "g4", "g-long-name-of-a-group"];
pub const TRANSACTIONAL_IDS: &[&str] = &["t1", "t2", "t3", "t4", "t5"];
pub const USERS: &[&str] = &["alice", "bob", "carol", "dave"];

/// Of each kind, the newest.
const LEARNED_MAX: usize = 64;

/// A member's id, as long as those that a node gives to clients called "fuzz".
const NOBODY: &str = "fuzz-00000000-0000-0000-0000-000000000000";

#[derive(Default)]
pub struct Names {
    learned: Mutex<Learned>,
}

#[derive(Default)]
struct Learned {
    topic_ids: Vec<Uuid>,
    members: Vec<(String, i32)>,
    producers: Vec<(i64, i16)>,
    sessions: Vec<i32>,
    turn: usize,
}

impl Names {
    /// Keeps what an answer tells.
    pub fn learn(&self, response: &Response) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        match response {
            Response::Metadata(body) => {
                for topic in &body.topics {
                    learned.topic(topic);
                }
            }
            Response::CreateTopics(body) => {
                for topic in body
                    .topics
                    .iter()
                    .filter(|t| t.error_code == 0 && !t.topic_id.is_nil())
                {
                    learned.keep(|l| &mut l.topic_ids, topic.topic_id);
                }
            }
            Response::JoinGroup(body) if body.member_id.as_str().len() == NOBODY.len() => {
                let member = (body.member_id.as_str().to_owned(), body.generation_id);
                learned.keep(|l| &mut l.members, member);
            }
            Response::InitProducerId(body) if body.producer_id >= 0 => {
                learned.keep(
                    |l| &mut l.producers,
                    (body.producer_id, body.producer_epoch),
                );
            }
            Response::EndTxn(body) if body.producer_id >= 0 => {
                learned.keep(
                    |l| &mut l.producers,
                    (body.producer_id, body.producer_epoch),
                );
            }
            Response::Fetch(body) if body.session_id != 0 => {
                learned.keep(|l| &mut l.sessions, body.session_id);
            }
            _ => {}
        }
    }

    /// A topic's id, mostly of one that is there or was.
    pub fn topic_id(&self, dice: &mut Dice) -> Uuid {
        match dice.below(12) {
            0 => Uuid::nil(),
            1 => Uuid::from_u128(1),
            2 => Uuid::from_u64_pair(dice.next(), dice.next()),
            _ => self.one_of(dice, |l| &l.topic_ids).unwrap_or_default(),
        }
    }

    /// A member of a group, and its generation.
    pub fn member(&self, dice: &mut Dice) -> (String, i32) {
        let member = self.one_of(dice, |l| &l.members);
        member.unwrap_or_else(|| (NOBODY.to_owned(), -1))
    }

    /// A producer's id and epoch.
    pub fn producer(&self, dice: &mut Dice) -> (i64, i16) {
        if dice.once_in(6) {
            return (dice.below(6) as i64 - 1, dice.below(3) as i16 - 1);
        }
        let producer = self.one_of(dice, |l| &l.producers);
        producer.unwrap_or_default()
    }

    pub fn session(&self, dice: &mut Dice) -> i32 {
        self.one_of(dice, |l| &l.sessions).unwrap_or_default()
    }

    /// Draws the same from the dice whatever there is.
    fn one_of<T: Clone>(&self, dice: &mut Dice, kind: impl Fn(&Learned) -> &Vec<T>) -> Option<T> {
        let place = dice.below(LEARNED_MAX);
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kind(&learned);
        known.get(place % known.len().max(1)).cloned()
    }
}

impl Learned {
    fn keep<T>(&mut self, kind: impl Fn(&mut Learned) -> &mut Vec<T>, value: T) {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let kept = kind(self);
        if kept.len() < LEARNED_MAX {
            kept.push(value);
        } else {
            kept[turn % LEARNED_MAX] = value;
        }
    }

    fn topic(&mut self, topic: &MetadataResponseTopic) {
        let name = topic
            .name
            .as_ref()
            .map(|name| name.as_str())
            .unwrap_or_default();
        // Nobody may reach for the topics of those who must not notice.
        if topic.error_code == 0 && !topic.topic_id.is_nil() && TOPICS.contains(&name) {
            self.keep(|l| &mut l.topic_ids, topic.topic_id);
        }
    }
}
