//! Fetch sessions (KIP-227): a client names its partitions once, and from then on only what has become
//! different; the answers leave out partitions with nothing to say.
//!
//! A session is taken out while a request of it is answered, and put back with the answer. So no lock is
//! held meanwhile, and a session whose connection ends in between is gone, as is one that others have
//! pushed out: its client is told that it is unknown, and begins another one. That costs one full fetch.
//!
//! Limits: sessions, and partitions of all sessions together; beyond them clients get no session, and
//! every fetch of theirs is a full one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::broker::TopicRef;
use super::protocol::messages::{FetchRequest, FetchTopic, ForgottenTopic};
use super::protocol::{ErrorCode, Str};

/// Of a request that begins a session, and of one that wants none.
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// A session that is not used for so long makes room for others. Kafka:
/// `min.incremental.fetch.session.eviction.ms`.
const EVICTED_AFTER: Duration = Duration::from_secs(120);

/// A partition as a client wants it read.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) topic: TopicRef,
    pub(super) index: i32,
    pub(super) offset: i64,
    pub(super) bytes_max: i32,
    pub(super) leader_epoch: i32,
    /// Epoch of the last record that the client has of it; negative if it does not say.
    pub(super) last_fetched_epoch: i32,
}

/// What an answer says of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) has_records: bool,
    pub(super) error: ErrorCode,
    /// That the client's records are not those here.
    pub(super) is_diverging: bool,
    pub(super) high_watermark: i64,
    pub(super) log_start: i64,
}

/// All sessions of the door.
pub(super) struct FetchSessions {
    idle: Mutex<HashMap<i32, Session>>,
    slots: Arc<Semaphore>,
    partitions: Arc<Semaphore>,
}

/// What a client has named, and what it was told last.
struct Session {
    /// Of the next request.
    epoch: i32,
    by_id: bool,
    partitions: Vec<Cached>,
    used: Instant,
    _slot: OwnedSemaphorePermit,
    room: OwnedSemaphorePermit,
}

struct Cached {
    wanted: Wanted,
    high_watermark: i64,
    log_start: i64,
}

/// A request on its way to its answer.
pub(super) struct Fetching {
    kind: Kind,
    by_id: bool,
}

enum Kind {
    /// No session, and none wanted.
    Alone,
    /// A session is wanted.
    New,
    Incremental(i32, Box<Session>),
}

impl FetchSessions {
    pub(super) fn new(sessions_max: usize, partitions_max: usize) -> FetchSessions {
        let bounded = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        FetchSessions {
            idle: Mutex::default(),
            slots: bounded(sessions_max),
            partitions: bounded(partitions_max),
        }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<i32, Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which partitions a request is about.
    pub(super) fn begin(
        &self,
        request: &FetchRequest,
        by_id: bool,
    ) -> Result<(Fetching, Vec<Wanted>), ErrorCode> {
        if let INITIAL_EPOCH | FINAL_EPOCH = request.session_epoch {
            // Whoever begins anew has done with the old one.
            self.idle().remove(&request.session_id);
            let kind = if request.session_epoch == INITIAL_EPOCH {
                Kind::New
            } else {
                Kind::Alone
            };
            return Ok((Fetching { kind, by_id }, named(&request.topics, by_id)));
        }
        let mut session = self.take(request, by_id)?;
        session.update(&request.topics, &request.forgotten_topics_data);
        let wanted = session
            .partitions
            .iter()
            .map(|cached| cached.wanted.clone());
        let wanted: Vec<Wanted> = wanted.collect();
        let kind = if wanted.is_empty() || !self.fits(&mut session) {
            // It ends with this answer, which is a full one.
            Kind::Alone
        } else {
            Kind::Incremental(request.session_id, Box::new(session))
        };
        Ok((Fetching { kind, by_id }, wanted))
    }

    fn take(&self, request: &FetchRequest, by_id: bool) -> Result<Session, ErrorCode> {
        let mut idle = self.idle();
        let session = idle.get_mut(&request.session_id);
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let session = idle.remove(&request.session_id);
        session.ok_or(ErrorCode::FetchSessionIdNotFound)
    }

    /// Takes as much room for its partitions as it needs now.
    fn fits(&self, session: &mut Session) -> bool {
        let (has, needs) = (session.room.num_permits(), session.partitions.len());
        if needs > has {
            let Some(more) = permits(&self.partitions, needs - has) else {
                return false;
            };
            session.room.merge(more);
        } else {
            drop(session.room.split(has - needs));
        }
        true
    }

    /// Which partitions the answer names, by their place, in this order; and the session it is of.
    /// `told` is what there is to say of each that was wanted.
    pub(super) fn end(
        &self,
        fetching: Fetching,
        wanted: &[Wanted],
        told: &[Told],
    ) -> (i32, Vec<usize>) {
        let all = || (0..told.len()).collect();
        match fetching.kind {
            Kind::Alone => (0, all()),
            Kind::New => (self.open(fetching.by_id, wanted, told), all()),
            Kind::Incremental(id, mut session) => {
                let changed = session.tell(told);
                session.epoch = session.epoch.checked_add(1).unwrap_or(1);
                session.used = Instant::now();
                self.idle().insert(id, *session);
                (id, changed)
            }
        }
    }

    /// The id of a new session; 0 where there is no room for one.
    fn open(&self, by_id: bool, wanted: &[Wanted], told: &[Told]) -> i32 {
        if wanted.is_empty() {
            return 0;
        }
        let Some((slot, room)) = self.room(wanted.len()) else {
            return 0;
        };
        let cached = wanted.iter().zip(told).map(|(wanted, told)| Cached {
            wanted: wanted.kept(),
            high_watermark: told.remembered(),
            log_start: told.log_start,
        });
        let session = Session {
            epoch: INITIAL_EPOCH + 1,
            by_id,
            partitions: cached.collect(),
            used: Instant::now(),
            _slot: slot,
            room,
        };
        let mut idle = self.idle();
        loop {
            // Nobody can guess which others there are.
            let id = (uuid::Uuid::new_v4().as_u128() as i32) & i32::MAX;
            if id != 0 && !idle.contains_key(&id) {
                idle.insert(id, session);
                return id;
            }
        }
    }

    fn room(&self, partitions: usize) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        loop {
            let slot = permits(&self.slots, 1);
            let room = slot.and_then(|slot| Some((slot, permits(&self.partitions, partitions)?)));
            if room.is_some() {
                return room;
            }
            let mut idle = self.idle();
            let oldest = idle.iter().min_by_key(|(_, session)| session.used);
            let oldest = oldest.filter(|(_, session)| session.used.elapsed() > EVICTED_AFTER);
            let id = *oldest?.0;
            idle.remove(&id);
        }
    }
}

fn permits(semaphore: &Arc<Semaphore>, count: usize) -> Option<OwnedSemaphorePermit> {
    let count = u32::try_from(count).ok()?;
    semaphore.clone().try_acquire_many_owned(count).ok()
}

impl Session {
    /// What the client wants otherwise, and no longer.
    fn update(&mut self, topics: &[FetchTopic], forgotten: &[ForgottenTopic]) {
        if topics.is_empty() && forgotten.is_empty() {
            return;
        }
        let places = self.partitions.iter().enumerate();
        let mut places: HashMap<(TopicRef, i32), usize> = places
            .map(|(place, cached)| (cached.wanted.place(), place))
            .collect();
        for wanted in named(topics, self.by_id) {
            let known = places.get(&wanted.place()).copied();
            match known.and_then(|place| self.partitions.get_mut(place)) {
                Some(cached) => {
                    cached.wanted = Wanted {
                        topic: cached.wanted.topic.clone(),
                        ..wanted
                    };
                }
                None => {
                    let wanted = wanted.kept();
                    places.insert(wanted.place(), self.partitions.len());
                    self.partitions.push(Cached {
                        wanted,
                        // Told with the next answer, whatever they are.
                        high_watermark: -1,
                        log_start: -1,
                    });
                }
            }
        }
        let mut gone = std::collections::HashSet::new();
        for topic in forgotten {
            let of_topic = TopicRef::new(self.by_id, &topic.topic, topic.topic_id);
            gone.extend(
                topic
                    .partitions
                    .iter()
                    .map(|&index| (of_topic.clone(), index)),
            );
        }
        if !gone.is_empty() {
            self.partitions
                .retain(|cached| !gone.contains(&cached.wanted.place()));
        }
    }

    /// The places that the answer names. Partitions with records go behind the others, so that the next
    /// answer, which may not have room for all, begins with those that wait.
    fn tell(&mut self, told: &[Told]) -> Vec<usize> {
        let mut changed = Vec::new();
        let (mut waiting, mut served) = (Vec::new(), Vec::new());
        let cached = std::mem::take(&mut self.partitions);
        for ((place, mut cached), told) in cached.into_iter().enumerate().zip(told) {
            let is_new = told.has_records
                || told.is_refused()
                || cached.high_watermark != told.high_watermark
                || cached.log_start != told.log_start;
            if is_new {
                changed.push(place);
            }
            cached.high_watermark = told.remembered();
            cached.log_start = told.log_start;
            if told.has_records {
                served.push(cached);
            } else {
                waiting.push(cached);
            }
        }
        waiting.append(&mut served);
        self.partitions = waiting;
        changed
    }
}

impl Told {
    /// Told again until it is over.
    fn is_refused(self) -> bool {
        self.error != ErrorCode::None || self.is_diverging
    }

    fn remembered(self) -> i64 {
        if self.is_refused() {
            -1
        } else {
            self.high_watermark
        }
    }
}

impl Wanted {
    fn place(&self) -> (TopicRef, i32) {
        (self.topic.clone(), self.index)
    }

    /// As it can be kept: a name from a request holds on to all of the request.
    fn kept(&self) -> Wanted {
        let topic = match &self.topic {
            TopicRef::Name(name) => TopicRef::Name(Str::from(name.as_str().to_owned())),
            TopicRef::Id(id) => TopicRef::Id(*id),
        };
        Wanted {
            topic,
            ..self.clone()
        }
    }
}

/// In the order of the request, which clients turn over so that every partition gets its turn.
fn named(topics: &[FetchTopic], by_id: bool) -> Vec<Wanted> {
    let mut all = Vec::new();
    for topic in topics {
        let topic_ref = TopicRef::new(by_id, &topic.topic, topic.topic_id);
        all.extend(topic.partitions.iter().map(|partition| Wanted {
            topic: topic_ref.clone(),
            index: partition.partition,
            offset: partition.fetch_offset,
            bytes_max: partition.partition_max_bytes,
            leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        }));
    }
    all
}
