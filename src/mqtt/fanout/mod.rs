//! The live path: from publishes that are durable to the queues of their subscribers.
//!
//! One task owns the live router and is the only writer of the subscription table. It waits for
//! the router, never for a subscriber; publishers wait for it (bounded channel), so that nothing
//! piles up in between. It counts what the router still owes for every publish, which bounds what
//! is on its way, tells when the router may be replaced without loss, and shows when it is stuck.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::message::{ConnectionId, DeliveryQueue, LiveMessage};
use super::router::{IN_FLIGHT_BYTES_MAX, LiveRouter, RouterDown, Ticket, entry_bytes};
use super::stats::{MqttStats, add};
use super::subscriptions::{Added, DeadFilter, FilterId, Options, SubscriptionTable};
use super::topic::SubscriptionKey;

/// Bursts of publishes and other commands that wait for the task.
const COMMANDS_MAX: usize = 64;
/// Distinct topics the router has seen before it is replaced: its cache of them never shrinks.
const ROUTER_TOPICS_MAX: usize = 20_000;
/// Dead filters the router has kept before it is replaced: their logs are never freed.
const ROUTER_DEAD_FILTERS_MAX: usize = 2_000;
/// The router has failed when it owes matches and none came for so long.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// Between attempts to start a router.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// One subscription to make.
#[derive(Debug, Clone)]
pub(crate) struct NewSubscription {
    pub(crate) key: SubscriptionKey,
    pub(crate) options: Options,
}

enum Command {
    Publish(Vec<LiveMessage>),
    Subscribe {
        connection: ConnectionId,
        queue: Arc<DeliveryQueue>,
        wanted: Vec<NewSubscription>,
        /// Per subscription; `None` where `mqtt.filters_max` is reached.
        reply: oneshot::Sender<Vec<Option<Added>>>,
    },
    Unsubscribe {
        connection: ConnectionId,
        keys: Vec<SubscriptionKey>,
        /// Per key whether it was subscribed.
        reply: oneshot::Sender<Vec<bool>>,
    },
    Leave(ConnectionId),
}

/// The live path has ended: the node is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the live path has ended")]
pub(crate) struct FanoutEnded;

/// Handle on the live path; clones share it.
#[derive(Clone)]
pub(crate) struct Fanout {
    commands: mpsc::Sender<Command>,
    table: Arc<RwLock<SubscriptionTable>>,
    /// Kept beside the table so that a node without subscribers does not even take its lock.
    anyone: Arc<AtomicBool>,
}

impl Fanout {
    /// Starts the router and the task.
    pub(crate) async fn start<R: LiveRouter>(
        filters_max: usize,
        stats: Arc<MqttStats>,
        shutdown: CancellationToken,
    ) -> Result<(Fanout, impl Future<Output = ()> + Send + 'static), RouterDown> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let table = Arc::new(RwLock::new(SubscriptionTable::new(filters_max)));
        let anyone = Arc::new(AtomicBool::new(false));
        let fanout = Fanout {
            commands,
            table: Arc::clone(&table),
            anyone: Arc::clone(&anyone),
        };
        let task = Task {
            router: Some(R::start().await?),
            restart_at: Instant::now(),
            table,
            anyone,
            stats,
            on_the_way: VecDeque::new(),
            first_ticket: 0,
            on_the_way_bytes: 0,
            backlog: VecDeque::new(),
            dead: Vec::new(),
            router_topics: HashSet::new(),
            router_dead_filters: 0,
            hasher: RandomState::new(),
        };
        Ok((fanout, task.run(receiver, shutdown)))
    }

    /// Whether anyone is subscribed to anything.
    pub(crate) fn anyone(&self) -> bool {
        self.anyone.load(Ordering::Acquire)
    }

    /// For asking about many topics under one lock.
    pub(crate) fn table(&self) -> RwLockReadGuard<'_, SubscriptionTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands durable messages to the live path; waits while too much is on its way.
    pub(crate) async fn publish(&self, messages: Vec<LiveMessage>) {
        // After the end there are no subscribers left to miss anything.
        let _ = self.commands.send(Command::Publish(messages)).await;
    }

    /// Subscribes; everything published after it returns is delivered.
    pub(crate) async fn subscribe(
        &self,
        connection: ConnectionId,
        queue: Arc<DeliveryQueue>,
        wanted: Vec<NewSubscription>,
    ) -> Result<Vec<Option<Added>>, FanoutEnded> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Subscribe {
            connection,
            queue,
            wanted,
            reply,
        };
        self.commands.send(command).await.map_err(|_| FanoutEnded)?;
        answer.await.map_err(|_| FanoutEnded)
    }

    /// Unsubscribes; tells per key whether it was subscribed.
    pub(crate) async fn unsubscribe(
        &self,
        connection: ConnectionId,
        keys: Vec<SubscriptionKey>,
    ) -> Result<Vec<bool>, FanoutEnded> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Unsubscribe {
            connection,
            keys,
            reply,
        };
        self.commands.send(command).await.map_err(|_| FanoutEnded)?;
        answer.await.map_err(|_| FanoutEnded)
    }

    /// Ends every subscription of a connection.
    pub(crate) async fn leave(&self, connection: ConnectionId) {
        let _ = self.commands.send(Command::Leave(connection)).await;
    }
}

/// A message the router has been given or is about to be given.
struct Job {
    message: Arc<LiveMessage>,
    /// Given to a router that failed; not given to a third one.
    retried: bool,
}

struct OnTheWay {
    job: Job,
    /// Matches the router still owes.
    due: u32,
}

struct Task<R> {
    /// `None` while no router could be started.
    router: Option<R>,
    /// When to try again if it could not.
    restart_at: Instant,
    table: Arc<RwLock<SubscriptionTable>>,
    anyone: Arc<AtomicBool>,
    stats: Arc<MqttStats>,
    on_the_way: VecDeque<OnTheWay>,
    /// Ticket of the front of `on_the_way`.
    first_ticket: Ticket,
    on_the_way_bytes: usize,
    backlog: VecDeque<Job>,
    /// Filters without subscribers that the router still matches. They are taken out while
    /// nothing is on its way, so that what it owes is known.
    dead: Vec<DeadFilter>,
    router_topics: HashSet<u64>,
    router_dead_filters: usize,
    hasher: RandomState,
}

impl<R: LiveRouter> Task<R> {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, shutdown: CancellationToken) {
        let mut matches = Vec::new();
        loop {
            if let Err(down) = self.advance() {
                self.replace(&down).await;
                continue;
            }
            if self.worn_out() {
                info!("live router has seen enough topics and filters: replacing it");
                self.restart().await;
                continue;
            }
            let waiting = !self.on_the_way.is_empty();
            let event = tokio::select! {
                biased;
                result = matched(&mut self.router, self.restart_at, &mut matches) => Event::Matched(result),
                () = tokio::time::sleep(STUCK_AFTER), if waiting => Event::Stuck,
                // A backlog means that the router is behind: publishers wait in the channel.
                command = commands.recv(), if self.backlog.is_empty() => Event::Command(command),
                () = shutdown.cancelled(), if !waiting => Event::Command(None),
            };
            let outcome = match event {
                Event::Matched(result) => result.and_then(|()| self.deliver(&mut matches)),
                Event::Stuck => Err(RouterDown::new("it owes matches and is silent")),
                Event::Command(Some(command)) => self.obey(command),
                Event::Command(None) => break,
            };
            if let Err(down) = outcome {
                matches.clear();
                self.replace(&down).await;
            }
        }
        if let Some(router) = self.router.take() {
            router.stop();
        }
    }

    fn write_table(&self) -> RwLockWriteGuard<'_, SubscriptionTable> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn obey(&mut self, command: Command) -> Result<(), RouterDown> {
        match command {
            Command::Publish(messages) => {
                let jobs = messages.into_iter().map(|m| Job {
                    message: Arc::new(m),
                    retried: false,
                });
                self.backlog.extend(jobs);
                Ok(())
            }
            Command::Subscribe {
                connection,
                queue,
                wanted,
                reply,
            } => {
                let outcome = self.subscribe(connection, &queue, &wanted);
                self.note_subscriptions();
                // A connection that is gone meanwhile says so with its own `Leave`.
                let (added, outcome) = outcome;
                let _ = reply.send(added);
                outcome
            }
            Command::Unsubscribe {
                connection,
                keys,
                reply,
            } => {
                let removed = {
                    let mut table = self.write_table();
                    keys.iter()
                        .map(|key| table.remove(connection, key))
                        .collect::<Vec<_>>()
                };
                let existed = removed.iter().map(|(existed, _)| *existed).collect();
                self.dead
                    .extend(removed.into_iter().filter_map(|(_, dead)| dead));
                self.note_subscriptions();
                let _ = reply.send(existed);
                Ok(())
            }
            Command::Leave(connection) => {
                let dead = self.write_table().remove_connection(connection);
                self.dead.extend(dead);
                self.note_subscriptions();
                Ok(())
            }
        }
    }

    /// The table is right afterwards even if the router fails: its successor is subscribed from it.
    fn subscribe(
        &mut self,
        connection: ConnectionId,
        queue: &Arc<DeliveryQueue>,
        wanted: &[NewSubscription],
    ) -> (Vec<Option<Added>>, Result<(), RouterDown>) {
        let added: Vec<Option<Added>> = {
            let mut table = self.write_table();
            wanted
                .iter()
                .map(|new| table.add(connection, queue, &new.key, new.options))
                .collect()
        };
        let mut outcome = Ok(());
        for (new, added) in wanted.iter().zip(&added) {
            let Some(added) = added.as_ref().filter(|added| added.new_filter) else {
                continue;
            };
            let path = new.key.filter.as_str();
            // The router still has it under its former number and takes the new one.
            self.dead.retain(|dead| dead.path != path);
            if let (Ok(()), Some(router)) = (&outcome, &mut self.router) {
                outcome = router.subscribe(path, added.filter);
            }
        }
        (added, outcome)
    }

    fn note_subscriptions(&self) {
        let (empty, count) = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            (table.is_empty(), table.subscriptions())
        };
        self.anyone.store(!empty, Ordering::Release);
        self.stats
            .subscriptions
            .store(count as u64, Ordering::Relaxed);
    }

    /// Gives the router as much of the backlog as may be on its way.
    fn advance(&mut self) -> Result<(), RouterDown> {
        let Some(router) = &mut self.router else {
            self.lose_backlog();
            return Ok(());
        };
        if !self.dead.is_empty() && self.on_the_way.is_empty() {
            for dead in self.dead.drain(..) {
                router.unsubscribe(&dead.path)?;
                self.router_dead_filters += 1;
            }
        }
        if !self.dead.is_empty()
            || self.backlog.is_empty()
            || worn(&self.router_topics, self.router_dead_filters)
        {
            return Ok(());
        }
        let mut batch = Vec::new();
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            while self.on_the_way_bytes < IN_FLIGHT_BYTES_MAX {
                let Some(job) = self.backlog.pop_front() else {
                    break;
                };
                let due = table.matching(&job.message.topic);
                if due == 0 {
                    continue;
                }
                self.router_topics
                    .insert(self.hasher.hash_one(&job.message.topic));
                self.on_the_way_bytes += entry_bytes(&job.message.topic);
                let ticket = self.first_ticket + self.on_the_way.len() as Ticket;
                batch.push((job.message.topic.clone(), ticket));
                self.on_the_way.push_back(OnTheWay { job, due });
            }
        }
        router.publish(&mut batch)
    }

    fn deliver(&mut self, matches: &mut Vec<(FilterId, Ticket)>) -> Result<(), RouterDown> {
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            for (filter, ticket) in matches.drain(..) {
                let index = ticket
                    .checked_sub(self.first_ticket)
                    .and_then(|n| usize::try_from(n).ok());
                let Some(way) = index.and_then(|n| self.on_the_way.get_mut(n)) else {
                    return Err(RouterDown::new("it matched a publish that is done"));
                };
                way.due = way
                    .due
                    .checked_sub(1)
                    .ok_or_else(|| RouterDown::new("it matched a publish too often"))?;
                table.deliver(filter, &way.job.message, &self.stats);
            }
        }
        while self.on_the_way.front().is_some_and(|way| way.due == 0) {
            if let Some(done) = self.on_the_way.pop_front() {
                self.first_ticket += 1;
                self.on_the_way_bytes -= entry_bytes(&done.job.message.topic);
            }
        }
        Ok(())
    }

    fn worn_out(&self) -> bool {
        self.on_the_way.is_empty()
            && self.router.is_some()
            && worn(&self.router_topics, self.router_dead_filters)
    }

    /// After a failure: what was on its way goes to the next router, once more at most. A
    /// subscriber may get some of it twice.
    async fn replace(&mut self, down: &RouterDown) {
        add(&self.stats.router_failures, 1);
        let (again, lost): (Vec<Job>, Vec<Job>) = self
            .on_the_way
            .drain(..)
            .map(|way| way.job)
            .partition(|job| !job.retried);
        add(&self.stats.dropped_by_router, lost.len() as u64);
        error!(reason = %down, again = again.len(), lost = lost.len(), "live router failed: replacing it");
        for job in again.into_iter().rev() {
            self.backlog.push_front(Job {
                retried: true,
                ..job
            });
        }
        self.on_the_way_bytes = 0;
        self.restart().await;
    }

    async fn restart(&mut self) {
        if let Some(router) = self.router.take() {
            router.stop();
        }
        self.dead.clear();
        self.router_topics.clear();
        self.router_dead_filters = 0;
        let started = R::start().await.and_then(|mut router| {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            for (id, path) in table.filters() {
                router.subscribe(path, id)?;
            }
            Ok(router)
        });
        match started {
            Ok(router) => self.router = Some(router),
            Err(down) => {
                self.restart_at = Instant::now() + RESTART_PAUSE;
                error!(reason = %down, "live router did not start: live subscribers get nothing");
            }
        }
    }

    fn lose_backlog(&mut self) {
        let lost = self.backlog.len() as u64;
        if lost > 0 {
            add(&self.stats.dropped_by_router, lost);
            error!(lost, "no live router: live subscribers miss messages");
            self.backlog.clear();
        }
    }
}

enum Event {
    Matched(Result<(), RouterDown>),
    Stuck,
    Command(Option<Command>),
}

fn worn(topics: &HashSet<u64>, dead_filters: usize) -> bool {
    topics.len() >= ROUTER_TOPICS_MAX || dead_filters >= ROUTER_DEAD_FILTERS_MAX
}

async fn matched<R: LiveRouter>(
    router: &mut Option<R>,
    restart_at: Instant,
    matches: &mut Vec<(FilterId, Ticket)>,
) -> Result<(), RouterDown> {
    match router {
        Some(router) => router.matched(matches).await,
        None => {
            tokio::time::sleep_until(restart_at).await;
            Err(RouterDown::new("it could not be started"))
        }
    }
}

#[cfg(test)]
mod tests;
