//! Classic consumer groups that rebalance all at once: when they join, and when one member of each
//! leaves and comes back.
//!
//! Every member has a connection of its own and does what a consumer does: FindCoordinator, JoinGroup
//! (twice, for its member id), SyncGroup, OffsetFetch, Heartbeat. The leader shares the partitions
//! out. A group has settled when all of its members were told by a Heartbeat that all is well, in the
//! same generation, which has every member, and each with a share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast::kafka::Client;
use holdfast::kafka::protocol::ErrorCode;
use holdfast::kafka::protocol::messages::{
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupRequestProtocol,
    JoinGroupResponse, LeaveGroupRequest, MemberIdentity, OffsetFetchRequest,
    OffsetFetchRequestTopic, SyncGroupRequest, SyncGroupRequestAssignment,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Failure;
use super::broker::{Broker, RETRY, make_topic, topic_metadata};
use super::process::Stopwatch;

const TOPIC: &str = "grouped";
const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "range";
// What Kafka's consumers ask for: session.timeout.ms, max.poll.interval.ms.
const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 300_000;

/// Groups that have not settled after so long never will.
const SETTLED_MAX: Duration = Duration::from_secs(120);

#[derive(clap::Args, Clone)]
pub(crate) struct Plan {
    #[command(flatten)]
    broker: Broker,
    #[arg(long, default_value_t = 500)]
    groups: usize,
    /// Members of each group, at most 16
    #[arg(long, default_value_t = 4)]
    members: usize,
    /// Milliseconds between two heartbeats of a member. Kafka's consumers: heartbeat.interval.ms
    #[arg(long, default_value_t = 3000)]
    heartbeat_ms: u64,
}

/// What the members are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connect,
    Join,
    /// The last member of every group leaves and joins again.
    Return,
}

pub(crate) async fn run(plan: Plan) -> Result<(), Failure> {
    if plan.groups == 0 || !(1..=16).contains(&plan.members) {
        return Err("at least one group, and 1 to 16 members, are needed".into());
    }
    let partitions = i32::try_from(plan.members)?;
    make_topic(&plan.broker.broker, TOPIC, partitions).await?;
    // The first of all questions makes Kafka create the topic of its offsets.
    let mut first = Client::connect(&plan.broker.broker).await?;
    find_coordinator(&mut first, "warm-up").await?;

    let (phases, phase) = watch::channel(Phase::Connect);
    let (settled, settling) = watch::channel(0);
    let settled = Arc::new(settled);
    let groups: Vec<Arc<Group>> = (0..plan.groups)
        .map(|number| Arc::new(Group::new(number, &plan, settled.clone())))
        .collect();
    let mut members = JoinSet::new();
    for group in &groups {
        for number in 0..plan.members {
            let mut client = Client::connect(&plan.broker.broker).await?;
            client.call(topic_metadata(TOPIC)).await?;
            let member = Member {
                client,
                group: group.clone(),
                number,
                id: String::new(),
                phase: phase.clone(),
            };
            members.spawn(member.run());
        }
    }
    let run = Run {
        plan: &plan,
        groups: &groups,
        phases,
        settling,
    };
    tokio::select! {
        said = run.measure() => {
            println!("{}", said?);
            Ok(())
        }
        // A member ends only when it fails.
        Some(ended) = members.join_next() => Err(ended?.err().unwrap_or("a member ended".into())),
    }
}

struct Run<'a> {
    plan: &'a Plan,
    groups: &'a [Arc<Group>],
    phases: watch::Sender<Phase>,
    settling: watch::Receiver<usize>,
}

impl Run<'_> {
    async fn measure(mut self) -> Result<serde_json::Value, Failure> {
        let joined = self.settle(Phase::Join).await?;
        let returned = self.settle(Phase::Return).await?;
        Ok(json!({ "join": joined, "return": returned }))
    }

    /// Begins a phase and waits until every group has settled in it.
    async fn settle(&mut self, phase: Phase) -> Result<serde_json::Value, Failure> {
        let begun = Instant::now();
        let watch = Stopwatch::start(self.plan.broker.pid)?;
        for group in self.groups {
            group.unsettle(begun);
        }
        self.phases.send_replace(phase);
        let count = self.plan.groups;
        let all = timeout(SETTLED_MAX, async {
            loop {
                let settled = self.groups.iter().filter_map(|group| group.settled_after());
                let times: Vec<Duration> = settled.collect();
                if times.len() == count {
                    return Ok(times);
                }
                self.settling.changed().await?;
            }
        });
        let times: Result<Vec<Duration>, Failure> = all.await.map_err(|_| {
            let settled = self.groups.iter().filter(|g| g.settled_after().is_some());
            format!(
                "{phase:?}: {} of {count} groups settled in {SETTLED_MAX:?}",
                settled.count()
            )
        })?;
        let mut times = times?;
        let (loader_cpu_s, broker_cpu_s) = watch.spent()?;
        times.sort_unstable();
        let seconds = |time: Option<&Duration>| time.map(Duration::as_secs_f64);
        Ok(json!({
            "p50_s": seconds(times.get(times.len() / 2)),
            "max_s": seconds(times.last()),
            "loader_cpu_s": loader_cpu_s,
            "broker_cpu_s": broker_cpu_s,
        }))
    }
}

/// One group as its members see it.
struct Group {
    id: String,
    members: usize,
    heartbeat: Duration,
    state: Mutex<State>,
    /// Groups that have settled, over all phases.
    settled: Arc<watch::Sender<usize>>,
}

struct State {
    /// The generation in which each member was told that all is well.
    told: Vec<i32>,
    /// Generations that the leader found complete.
    complete: i32,
    /// The last generation in which the group settled before this phase.
    before: i32,
    begun: Instant,
    settled: Option<Instant>,
}

impl Group {
    fn new(number: usize, plan: &Plan, settled: Arc<watch::Sender<usize>>) -> Group {
        Group {
            id: format!("group-{number}"),
            members: plan.members,
            heartbeat: Duration::from_millis(plan.heartbeat_ms),
            state: Mutex::new(State {
                told: vec![-1; plan.members],
                complete: -1,
                before: -1,
                begun: Instant::now(),
                settled: None,
            }),
            settled,
        }
    }

    fn with_state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn unsettle(&self, begun: Instant) {
        self.with_state(|state| {
            state.before = state.told.iter().copied().max().unwrap_or(-1);
            state.begun = begun;
            state.settled = None;
        });
    }

    fn settled_after(&self) -> Option<Duration> {
        self.with_state(|state| state.settled.map(|at| at.duration_since(state.begun)))
    }

    fn led(&self, generation: i32, members: usize) {
        if members == self.members {
            self.with_state(|state| state.complete = generation);
        }
    }

    fn told(&self, member: usize, generation: i32) {
        let has_settled = self.with_state(|state| {
            if let Some(place) = state.told.get_mut(member) {
                *place = generation;
            }
            let is_whole = state.complete == generation
                && generation > state.before
                && state.told.iter().all(|&told| told == generation);
            let is_new = is_whole && state.settled.is_none();
            if is_new {
                state.settled = Some(Instant::now());
            }
            is_new
        });
        if has_settled {
            self.settled.send_modify(|count| *count += 1);
        }
    }
}

struct Member {
    client: Client,
    group: Arc<Group>,
    number: usize,
    id: String,
    phase: watch::Receiver<Phase>,
}

/// What ends a member's generation.
enum Next {
    Rejoin,
    Leave,
}

impl Member {
    async fn run(mut self) -> Result<(), Failure> {
        self.phase
            .wait_for(|phase| *phase != Phase::Connect)
            .await?;
        find_coordinator(&mut self.client, &self.group.id).await?;
        let returns = self.number + 1 == self.group.members;
        let mut may_leave = returns;
        loop {
            let joined = self.join().await?;
            let generation = joined.generation_id;
            let share = self.sync(&joined).await?;
            let Some(share) = share else { continue };
            self.fetch_offsets(&share).await?;
            match self.beat(generation, may_leave).await? {
                Next::Rejoin => {}
                Next::Leave => {
                    may_leave = false;
                    self.leave().await?;
                }
            }
        }
    }

    /// Joins until a generation has begun.
    async fn join(&mut self) -> Result<JoinGroupResponse, Failure> {
        loop {
            let request = JoinGroupRequest {
                group_id: self.group.id.as_str().into(),
                session_timeout_ms: SESSION_TIMEOUT_MS,
                rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
                member_id: self.id.as_str().into(),
                protocol_type: PROTOCOL_TYPE.into(),
                protocols: vec![JoinGroupRequestProtocol {
                    name: PROTOCOL.into(),
                    metadata: subscription(),
                }],
                ..Default::default()
            };
            let response = self.client.call(request).await?;
            match ErrorCode(response.error_code) {
                ErrorCode::None => {
                    self.id = response.member_id.as_str().to_owned();
                    if response.leader == response.member_id {
                        let members = response.members.len();
                        self.group.led(response.generation_id, members);
                    }
                    return Ok(response);
                }
                ErrorCode::MemberIdRequired => {
                    self.id = response.member_id.as_str().to_owned();
                }
                ErrorCode::UnknownMemberId => self.id.clear(),
                code if is_passing(code) => sleep(RETRY).await,
                code => return Err(format!("JoinGroup of {}: {code}", self.group.id).into()),
            }
        }
    }

    /// This member's partitions; none if the generation is over already.
    async fn sync(&mut self, joined: &JoinGroupResponse) -> Result<Option<Vec<i32>>, Failure> {
        let assignments = joined.members.iter().enumerate();
        let partitions = i32::try_from(self.group.members)?;
        let members = i32::try_from(joined.members.len())?;
        let assignments = assignments.map(|(place, member)| {
            let place = i32::try_from(place).unwrap_or(i32::MAX);
            let share = (0..partitions).filter(|partition| partition % members == place);
            SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: assignment(&share.collect::<Vec<_>>()),
            }
        });
        let request = SyncGroupRequest {
            group_id: self.group.id.as_str().into(),
            generation_id: joined.generation_id,
            member_id: self.id.as_str().into(),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: Some(PROTOCOL.into()),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let response = self.client.call(request).await?;
        match ErrorCode(response.error_code) {
            ErrorCode::None => Ok(Some(share(response.assignment)?)),
            code if is_over(code) => Ok(None),
            code => Err(format!("SyncGroup of {}: {code}", self.group.id).into()),
        }
    }

    async fn fetch_offsets(&mut self, share: &[i32]) -> Result<(), Failure> {
        let request = OffsetFetchRequest {
            group_id: self.group.id.as_str().into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: TOPIC.into(),
                partition_indexes: share.to_vec(),
            }]),
            ..Default::default()
        };
        let response = self.client.call(request).await?;
        let answered = response.topics.iter().flat_map(|topic| &topic.partitions);
        let codes: BTreeMap<i32, i16> = answered
            .map(|partition| (partition.partition_index, partition.error_code))
            .collect();
        let all_well = share
            .iter()
            .all(|partition| codes.get(partition) == Some(&0));
        if response.error_code != 0 || !all_well {
            let code = ErrorCode(response.error_code);
            return Err(format!("OffsetFetch of {}: {code}, {codes:?}", self.group.id).into());
        }
        Ok(())
    }

    /// Heartbeats, the first at once, until the generation ends or it is time to leave.
    async fn beat(&mut self, generation: i32, may_leave: bool) -> Result<Next, Failure> {
        loop {
            let request = HeartbeatRequest {
                group_id: self.group.id.as_str().into(),
                generation_id: generation,
                member_id: self.id.as_str().into(),
                ..Default::default()
            };
            let response = self.client.call(request).await?;
            match ErrorCode(response.error_code) {
                ErrorCode::None => self.group.told(self.number, generation),
                code if is_over(code) => return Ok(Next::Rejoin),
                code => return Err(format!("Heartbeat of {}: {code}", self.group.id).into()),
            }
            tokio::select! {
                () = sleep(self.group.heartbeat) => {}
                told = self.phase.wait_for(|phase| *phase == Phase::Return), if may_leave => {
                    told?;
                    return Ok(Next::Leave);
                }
            }
        }
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        let identity = MemberIdentity {
            member_id: self.id.as_str().into(),
            ..Default::default()
        };
        let request = LeaveGroupRequest {
            group_id: self.group.id.as_str().into(),
            members: vec![identity],
            ..Default::default()
        };
        let response = self.client.call(request).await?;
        let code = ErrorCode(response.error_code);
        if !code.is_ok() || response.members.iter().any(|member| member.error_code != 0) {
            return Err(format!("LeaveGroup of {}: {code}", self.group.id).into());
        }
        self.id.clear();
        Ok(())
    }
}

async fn find_coordinator(client: &mut Client, group: &str) -> Result<(), Failure> {
    let found = async {
        loop {
            let request = FindCoordinatorRequest {
                key: group.into(),
                ..Default::default()
            };
            match ErrorCode(client.call(request).await?.error_code) {
                ErrorCode::None => return Ok(()),
                code if is_passing(code) => sleep(RETRY).await,
                code => return Err(format!("FindCoordinator of {group}: {code}").into()),
            }
        }
    };
    timeout(SETTLED_MAX, found).await?
}

/// The coordinator is there in a moment.
fn is_passing(code: ErrorCode) -> bool {
    [
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotCoordinator,
    ]
    .contains(&code)
}

/// The member is to join again.
fn is_over(code: ErrorCode) -> bool {
    [
        ErrorCode::RebalanceInProgress,
        ErrorCode::IllegalGeneration,
        ErrorCode::UnknownMemberId,
    ]
    .contains(&code)
}

// --- the consumer's own format (ConsumerProtocolSubscription, ConsumerProtocolAssignment) ---------

fn put_topic(out: &mut BytesMut) {
    out.put_i32(1);
    out.put_i16(TOPIC.len() as i16);
    out.put_slice(TOPIC.as_bytes());
}

/// Version 0: the topic, no data of its own.
fn subscription() -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_topic(&mut out);
    out.put_i32(-1);
    out.freeze()
}

/// Version 0: the topic's partitions, no data of its own.
fn assignment(partitions: &[i32]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_topic(&mut out);
    out.put_i32(partitions.len() as i32);
    partitions
        .iter()
        .for_each(|partition| out.put_i32(*partition));
    out.put_i32(-1);
    out.freeze()
}

/// The partitions in an [`assignment`]: it must come back as it was sent.
fn share(bytes: Bytes) -> Result<Vec<i32>, Failure> {
    let partitions_at = 2 + 4 + 2 + TOPIC.len() + 4;
    let listed = bytes.get(partitions_at..bytes.len().saturating_sub(4));
    let listed = listed.ok_or("an assignment that is too short")?;
    let numbers = listed
        .chunks_exact(4)
        .map(|number| number.try_into().map(i32::from_be_bytes));
    let partitions: Vec<i32> = numbers.collect::<Result<_, _>>()?;
    match partitions.is_empty() || assignment(&partitions) != bytes {
        true => Err("an assignment that no leader made".into()),
        false => Ok(partitions),
    }
}
