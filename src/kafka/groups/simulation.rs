//! Thousands of random histories of one group, on a clock of their own, held against what a group
//! promises:
//!
//! - generations only rise, and each has one leader and one protocol;
//! - a share that a member is given is, to the byte, the one its generation's leader handed in first;
//! - the group's own books agree with its phase after every step;
//! - nobody who asked is left without an answer once time has passed.
//!
//! A failure prints its seed; `history(seed)` plays it again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::group::{Group, Phase};
use super::{
    GroupError, GroupsConfig, HeartbeatRequest, JoinRequest, JoinResponse, LeavingMember, Protocol,
    SyncRequest, SyncResponse,
};

const HISTORIES: u64 = 2_000;
const STEPS: usize = 400;
const CLIENTS: usize = 5;

/// A small generator of repeatable chance (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

type Answer<T> = oneshot::Receiver<Result<T, GroupError>>;

struct PendingJoin {
    answer: Answer<JoinResponse>,
    /// The group's generation and whether it was stable when the request came.
    before: (i32, bool),
}

struct PendingSync {
    answer: Answer<SyncResponse>,
    generation: i32,
    member_id: String,
}

#[derive(Default)]
struct Client {
    instance_id: Option<String>,
    member_id: String,
    joined: Option<JoinResponse>,
    has_share: bool,
    joins: Vec<PendingJoin>,
    syncs: Vec<PendingSync>,
}

/// What the answers of a generation have shown of it.
#[derive(Default)]
struct Generation {
    leader: Option<String>,
    protocol: Option<String>,
    /// As handed in by the leader when the generation still waited for it.
    shares: Option<BTreeMap<String, Bytes>>,
}

struct World {
    dice: Dice,
    /// Proper steps for every twenty wild ones.
    order: u64,
    now: Instant,
    group: Group,
    clients: Vec<Client>,
    generations: BTreeMap<i32, Generation>,
    last_generation: i32,
    shares_given: u64,
    /// Answers given to each kind of end: share, refusal.
    shares_seen: usize,
    refusals_seen: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed);
        let now = Instant::now();
        let config = GroupsConfig {
            initial_rebalance_delay_ms: if dice.one_in(2) { 3_000 } else { 0 },
            group_size_max: if dice.one_in(3) { 3 } else { 1_000 },
            ..GroupsConfig::default()
        };
        let clients = (0..CLIENTS)
            .map(|i| Client {
                // Two clients may claim the same instance.
                instance_id: dice.one_in(2).then(|| format!("box-{}", i % 3)),
                ..Client::default()
            })
            .collect();
        World {
            order: [0, 20, 100, 400][dice.below(4) as usize],
            dice,
            now,
            group: Group::new("g".to_owned(), Arc::new(config), now),
            clients,
            generations: BTreeMap::new(),
            last_generation: 0,
            shares_given: 0,
            shares_seen: 0,
            refusals_seen: 0,
        }
    }

    fn step(&mut self) {
        let i = self.dice.below(CLIENTS as u64) as usize;
        match self.dice.below(20 + self.order) {
            0..6 => self.join(i),
            6..11 => self.sync(i),
            11..13 => self.heartbeat(i),
            13 => self.leave(i),
            14 => self.hang_up(i),
            15 => self.forget_all(i),
            16..20 => {
                let ms = if self.dice.one_in(5) { 30_000 } else { 2_000 };
                let ms = self.dice.below(ms);
                self.pass(Duration::from_millis(ms));
            }
            _ => self.behave(i),
        }
        self.check_books();
        self.collect();
    }

    /// What a proper client would do next.
    fn behave(&mut self, i: usize) {
        let client = &self.clients[i];
        let waits = !client.joins.is_empty() || !client.syncs.is_empty();
        match &client.joined {
            _ if waits => self.pass(Duration::from_millis(300)),
            None => self.join(i),
            Some(_) if !client.has_share => self.sync(i),
            Some(_) => {
                self.heartbeat(i);
                self.pass(Duration::from_millis(300));
            }
        }
    }

    fn join(&mut self, i: usize) {
        let before = (
            self.group.generation,
            matches!(self.group.phase, Phase::Stable { .. }),
        );
        let request = self.join_request(i);
        let (waiter, answer) = oneshot::channel();
        self.group.join(self.now, request, waiter);
        self.clients[i].joins.push(PendingJoin { answer, before });
    }

    fn join_request(&mut self, i: usize) -> JoinRequest {
        let names: &[&str] = match self.dice.below(4) {
            0 => &["range", "sticky"],
            1 => &["sticky", "range"],
            2 => &["range"],
            _ => &["sticky", "range", "round"],
        };
        let subscription = self.dice.below(3).to_string();
        let client = &self.clients[i];
        JoinRequest {
            group_id: "g".to_owned(),
            member_id: client.member_id.clone(),
            group_instance_id: client.instance_id.clone(),
            client_id: format!("client-{i}"),
            client_host: String::new(),
            session_timeout: Duration::from_millis(6_000 + self.dice.below(10_000)),
            rebalance_timeout: Duration::from_millis(1_000 + self.dice.below(20_000)),
            protocol_type: "consumer".to_owned(),
            protocols: names
                .iter()
                .map(|name| Protocol {
                    name: (*name).to_owned(),
                    metadata: Bytes::from(subscription.clone()),
                })
                .collect(),
            requires_member_id: self.dice.one_in(2),
            supports_skip_assignment: self.dice.one_in(2),
        }
    }

    fn sync(&mut self, i: usize) {
        let Some(joined) = self.clients[i].joined.clone() else {
            return;
        };
        let mut shares = BTreeMap::new();
        for member in &joined.members {
            self.shares_given += 1;
            shares.insert(
                member.member_id.clone(),
                Bytes::from(self.shares_given.to_string()),
            );
        }
        let counts = matches!(self.group.phase, Phase::Completing { .. })
            && self.group.generation == joined.generation_id
            && self.group.is_leader(&joined.member_id);
        let (waiter, answer) = oneshot::channel();
        let request = SyncRequest {
            group_id: "g".to_owned(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            group_instance_id: self.clients[i].instance_id.clone(),
            protocol_type: None,
            protocol_name: Some(joined.protocol_name),
            assignments: shares.clone().into_iter().collect(),
        };
        self.group.sync(self.now, request, waiter);
        if counts && matches!(self.group.phase, Phase::Stable { .. }) {
            let generation = self.generations.entry(joined.generation_id).or_default();
            assert!(generation.shares.is_none(), "a generation is assigned once");
            generation.shares = Some(shares);
        }
        let pending = PendingSync {
            answer,
            generation: joined.generation_id,
            member_id: joined.member_id,
        };
        self.clients[i].syncs.push(pending);
    }

    fn heartbeat(&mut self, i: usize) {
        let Some(joined) = &self.clients[i].joined else {
            return;
        };
        let request = HeartbeatRequest {
            group_id: "g".to_owned(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            group_instance_id: self.clients[i].instance_id.clone(),
        };
        let result = self.group.heartbeat(self.now, &request);
        if result.is_ok() {
            assert_eq!(request.generation_id, self.group.generation);
            assert!(self.group.members.contains_key(&request.member_id));
        }
        self.obey(i, result.err());
    }

    fn leave(&mut self, i: usize) {
        let leaving = LeavingMember {
            member_id: self.clients[i].member_id.clone(),
            group_instance_id: self.clients[i].instance_id.clone(),
        };
        drop(self.group.leave(self.now, &leaving));
        assert!(!self.group.members.contains_key(&leaving.member_id));
    }

    /// Loses its connection; it may come back with the id it had.
    fn hang_up(&mut self, i: usize) {
        self.clients[i].joins.clear();
        self.clients[i].syncs.clear();
    }

    /// Is restarted.
    fn forget_all(&mut self, i: usize) {
        let instance_id = self.clients[i].instance_id.take();
        self.clients[i] = Client {
            instance_id,
            ..Client::default()
        };
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.group.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.group.tick(self.now);
            let next = self.group.next_deadline();
            assert!(
                next.is_none_or(|next| next > self.now),
                "time would stand still"
            );
            self.check_books();
            self.collect();
        }
        self.now = until;
    }

    /// Takes every answer that is there.
    fn collect(&mut self) {
        for i in 0..CLIENTS {
            for pending in std::mem::take(&mut self.clients[i].joins) {
                self.collect_join(i, pending);
            }
            for pending in std::mem::take(&mut self.clients[i].syncs) {
                self.collect_sync(i, pending);
            }
        }
    }

    fn collect_join(&mut self, i: usize, mut pending: PendingJoin) {
        match pending.answer.try_recv() {
            Err(TryRecvError::Empty) => self.clients[i].joins.push(pending),
            Err(TryRecvError::Closed) => panic!("a join was dropped without an answer"),
            Ok(Ok(joined)) => {
                self.check_joined(&joined, pending.before);
                self.clients[i].member_id.clone_from(&joined.member_id);
                self.clients[i].joined = Some(joined);
                self.clients[i].has_share = false;
            }
            Ok(Err(error)) => self.obey(i, Some(error)),
        }
    }

    fn check_joined(&mut self, joined: &JoinResponse, before: (i32, bool)) {
        let is_leader = joined.leader_id == joined.member_id;
        assert!(
            is_leader || joined.members.is_empty(),
            "only the leader sees the members"
        );
        assert!(joined.generation_id >= before.0);
        // A member that resumes in a stable generation may be told of its leader as it was (KIP-345).
        if before == (joined.generation_id, true) {
            return;
        }
        assert!(!joined.skip_assignment);
        if is_leader {
            let seen: BTreeSet<_> = joined.members.iter().map(|m| &m.member_id).collect();
            assert_eq!(seen.len(), joined.members.len());
            assert!(seen.contains(&joined.member_id));
        }
        let generation = self.generations.entry(joined.generation_id).or_default();
        let leader = generation
            .leader
            .get_or_insert_with(|| joined.leader_id.clone());
        assert_eq!(*leader, joined.leader_id, "one leader per generation");
        let protocol = generation
            .protocol
            .get_or_insert_with(|| joined.protocol_name.clone());
        assert_eq!(
            *protocol, joined.protocol_name,
            "one protocol per generation"
        );
        assert!(!protocol.is_empty());
    }

    fn collect_sync(&mut self, i: usize, mut pending: PendingSync) {
        match pending.answer.try_recv() {
            Err(TryRecvError::Empty) => self.clients[i].syncs.push(pending),
            Err(TryRecvError::Closed) => panic!("a sync was dropped without an answer"),
            Ok(Ok(synced)) => {
                self.shares_seen += 1;
                self.check_share(&pending, &synced.assignment);
                self.clients[i].has_share = true;
            }
            Ok(Err(error)) => self.obey(i, Some(error)),
        }
    }

    fn check_share(&self, pending: &PendingSync, share: &Bytes) {
        let generation = self
            .generations
            .get(&pending.generation)
            .expect("a known generation");
        let shares = generation
            .shares
            .as_ref()
            .expect("nobody is given a share before the leader spoke");
        match shares.get(&pending.member_id) {
            Some(given) => assert_eq!(given, share, "the share is the leader's to the byte"),
            // A static member that came back holds the share of the member it was.
            None => assert!(
                shares.values().any(|given| given == share),
                "a share of this generation"
            ),
        }
    }

    fn obey(&mut self, i: usize, error: Option<GroupError>) {
        let client = &mut self.clients[i];
        match error {
            None => return,
            Some(GroupError::MemberIdRequired { member_id }) => client.member_id = member_id,
            Some(
                GroupError::UnknownMemberId
                | GroupError::FencedInstanceId
                | GroupError::IllegalGeneration
                | GroupError::GroupMaxSizeReached,
            ) => {
                client.member_id.clear();
                client.joined = None;
            }
            Some(GroupError::RebalanceInProgress) => client.joined = None,
            Some(GroupError::InconsistentGroupProtocol) => {}
            Some(error) => panic!("{error}"),
        }
        self.refusals_seen += 1;
    }

    fn check_books(&mut self) {
        let group = &self.group;
        assert!(
            group.generation >= self.last_generation,
            "generations only rise"
        );
        self.last_generation = group.generation;
        let members = group.members.values();
        let leads = |id: &String| group.members.contains_key(id);
        match group.phase {
            Phase::Empty { .. } => assert!(group.members.is_empty()),
            Phase::Preparing { .. } => {}
            Phase::Completing { .. } | Phase::Stable { .. } => {
                assert!(
                    group.leader.as_ref().is_some_and(leads),
                    "a generation has its leader"
                );
                assert!(members.clone().all(|m| !m.has_joined() && !m.is_new));
                assert!(members.clone().all(|m| m.supports(&group.protocol_name)));
            }
            Phase::Dead => panic!("nobody ended the group"),
        }
        if matches!(group.phase, Phase::Stable { .. }) {
            assert!(
                members.clone().all(|m| !m.waits()),
                "nobody waits in a stable group"
            );
        }
        assert_eq!(group.leader.is_none(), group.members.is_empty());
        let named: BTreeMap<String, String> = members
            .filter_map(|m| {
                m.instance_id
                    .clone()
                    .map(|instance| (instance, m.id.clone()))
            })
            .collect();
        assert_eq!(named, group.instances, "instance ids and members agree");
        assert!(
            group
                .pending
                .keys()
                .all(|id| !group.members.contains_key(id))
        );
        assert!(group.members.iter().all(|(id, m)| *id == m.id));
    }

    /// Everybody falls silent but still listens: whoever waits must hear something.
    fn run_out(&mut self) {
        self.pass(Duration::from_secs(600));
        for client in &self.clients {
            assert!(client.joins.is_empty(), "a join is left hanging");
            assert!(client.syncs.is_empty(), "a sync is left hanging");
        }
        assert!(
            matches!(self.group.phase, Phase::Empty { .. }),
            "silence empties the group"
        );
        assert!(self.group.next_deadline().is_none());
    }
}

fn history(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.run_out();
    world
}

#[test]
fn a_group_keeps_its_promises_in_every_history() {
    let (mut shares, mut refusals, mut generations) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let played = std::panic::catch_unwind(|| history(seed));
        let Ok(world) = played else {
            panic!("seed {seed}")
        };
        shares += world.shares_seen;
        refusals += world.refusals_seen;
        generations += world.last_generation;
    }
    // Histories in which nothing happens would prove nothing.
    assert!(shares > 10 * HISTORIES as usize, "{shares} shares");
    assert!(refusals > 10 * HISTORIES as usize, "{refusals} refusals");
    assert!(
        generations > 5 * HISTORIES as i32,
        "{generations} generations"
    );
}
