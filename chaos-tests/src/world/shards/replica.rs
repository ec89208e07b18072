//! What a node of these worlds has of shards: one history for all of them, a root of its actors, a clock that may be a little
//! wrong, and replicas that run as the node itself runs them.

use super::books::{Books, Customer, Event, Line, What};
use super::journey::WORKSPACE;
use super::outside::Endpoint;
use crate::world::record::Record;
use anyhow::{Context, Result};
use bytes::Bytes;
use ractor::{Actor, ActorCell};
use sojourn_cluster::{
    Cut, EntryKind, Group, GroupId, HistoryPieces, Machine, NodeId, Position, Rebuilt, Running,
};
use sojourn_journey::event::What as Told;
use sojourn_journey::signal::Identifier;
use sojourn_journey::time::{Span, Time};
use sojourn_node::actors::live::Live;
use sojourn_node::actors::node::NodeActor;
use sojourn_node::actors::{CustomerKey, Gauge};
use sojourn_node::catalog::View;
use sojourn_node::clock::Clock;
use sojourn_node::history::{Keep, Memory, Store};
use sojourn_node::shard::decision::{Decision, Part};
use sojourn_node::shard::machine::ShardMachine;
use sojourn_node::shard::owner::{Parts, Shard};
use sojourn_node::shard::read;
use sojourn_node::shard::seams::Seams;
use sojourn_proto::stored::cause::Cause;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the owners' clocks show when a world begins, if they are right.
pub const EPOCH: i64 = 1_700_000_000_000_000;
/// Customers without anything that moves leave memory after so long.
const WINDOW: Span = Span::from_seconds(3);
/// A replica's state is compared with others' at every entry whose number this divides.
const HASH_EVERY: u64 = 8;

/// What all nodes of a world share.
#[derive(Clone)]
pub struct Common {
    /// The catalogs, one for each version that may be published.
    pub views: Vec<Arc<View>>,
    /// What clients, replicas and the endpoint saw.
    pub books: Arc<Books>,
    /// Nothing goes wrong any more.
    pub calm: Arc<AtomicBool>,
    /// How many shards there are.
    pub shards: u64,
    /// How long it is waited for an entry.
    pub deadline: Duration,
}

/// What a node has of shards, in one of its lives.
pub struct Ground {
    common: Common,
    store: Arc<Store>,
    root: ActorCell,
    gauge: Arc<Gauge>,
    running: Running,
    clock: Clock,
    now: Arc<dyn Fn() -> u64 + Send + Sync>,
    may_own: watch::Sender<bool>,
    catalog: watch::Sender<Arc<View>>,
    stop: CancellationToken,
}

impl Ground {
    /// On the disk that the node has; within its runtime. `skew`: how much its clock is ahead.
    ///
    /// # Errors
    /// History or the root of the actors does not open.
    pub async fn begin(
        common: Common,
        memory: Arc<Memory>,
        running: Running,
        skew: i64,
        now: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Result<Ground> {
        let store = Store::in_memory(memory).context("history does not open")?;
        let (root, _) = Actor::spawn(None, NodeActor, ())
            .await
            .context("the root of the actors does not start")?;
        let world = now.clone();
        let clock = Clock::Given(Arc::new(move || {
            let passed = i64::try_from(world()).unwrap_or(i64::MAX / 2);
            Time(EPOCH + passed + skew)
        }));
        let first = common.views.first().context("there is no catalog")?;
        Ok(Ground {
            catalog: watch::channel(first.clone()).0,
            common,
            store: Arc::new(store),
            root: root.get_cell(),
            gauge: Arc::default(),
            running,
            clock,
            now,
            may_own: watch::channel(true).0,
            stop: CancellationToken::new(),
        })
    }

    /// The node has learnt of a catalog; an older one than it knows is nothing new.
    pub fn learn(&self, view: &Arc<View>) {
        self.catalog.send_if_modified(|known| {
            let newer = known.position < view.position;
            if newer {
                *known = view.clone();
            }
            newer
        });
    }

    /// Whether history has refused a write: the process would end.
    pub fn has_failed(&self) -> bool {
        self.store.failed().borrow().is_some()
    }

    /// The machine of a shard.
    pub fn machine(&self, group: GroupId, record: &Arc<Record>, node: NodeId) -> Arc<Watched> {
        let keep = Keep {
            window: WINDOW,
            bytes: u64::MAX,
        };
        let seams = Seams {
            clock: self.clock.clone(),
            running: self.running.clone(),
        };
        let number = group.shard().map_or(0, |shard| shard.0);
        Arc::new(Watched {
            inner: Arc::new(ShardMachine::new(number, self.store.clone(), keep, seams)),
            node,
            group,
            record: record.clone(),
            books: self.common.books.clone(),
            now: self.now.clone(),
        })
    }

    /// The replica of an open group, running.
    pub fn run(&self, machine: &Watched, group: Group) -> Office {
        let outside = Endpoint {
            group: group.id(),
            books: self.common.books.clone(),
            calm: self.common.calm.clone(),
            clock: self.clock.clone(),
            now: self.now.clone(),
        };
        let shard = Shard::new(Parts {
            machine: machine.inner.clone(),
            group,
            live: Arc::new(Live::new(self.gauge.clone())),
            catalog: self.catalog.subscribe(),
            outside: Arc::new(outside),
            supervisor: self.root.clone(),
            shards: usize::try_from(self.common.shards).unwrap_or(1),
            may_own: self.may_own.subscribe(),
            deadline: self.common.deadline,
        });
        let stop = self.stop.child_token();
        tokio::spawn(shard.clone().run(stop.clone()));
        Office { shard, stop }
    }

    /// Forgets the history of a shard.
    ///
    /// # Errors
    /// A text: the disk refused.
    pub fn forget(&self, group: GroupId) -> Result<(), String> {
        let Some(shard) = group.shard() else {
            return Ok(());
        };
        self.store
            .forget_shard(shard.0)
            .map_err(|error| error.to_string())
    }
}

/// A replica that runs.
#[derive(Clone)]
pub struct Office {
    /// It.
    pub shard: Arc<Shard>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// The key of a customer of a group.
pub fn key_of(group: GroupId, customer: u64) -> CustomerKey {
    let key = Identifier {
        name: "id".to_owned(),
        value: format!("g{}-{customer}", group.0),
    };
    CustomerKey::new(WORKSPACE, key)
}

/// The number of the customer of a key.
pub fn customer_of(value: &str) -> u64 {
    let number = value.rsplit_once('-').map(|(_, number)| number);
    number.and_then(|n| n.parse().ok()).unwrap_or(u64::MAX)
}

/// The customer's last decision, as this replica has applied it.
///
/// # Errors
/// A text: they cannot be read.
pub fn last_of(shard: &Shard, group: GroupId, customer: u64) -> Result<Option<String>, String> {
    let who = key_of(group, customer);
    let (bucket, _) = read::bucket(shard, who.hash).map_err(|e| e.to_string())?;
    let known = bucket.iter().find(|c| c.customer.key == who.key);
    Ok(known.and_then(|c| c.last).map(|id| id.to_string()))
}

/// Everybody of a shard, as its replica has them in history.
///
/// # Errors
/// A text: something cannot be read.
pub fn everybody(
    shard: &Shard,
    group: GroupId,
    customers: u64,
    books: &Books,
) -> Result<BTreeMap<u64, Customer>, String> {
    let mut all = BTreeMap::new();
    for customer in 0..customers {
        let who = key_of(group, customer);
        let records = read::records(shard, who.hash, 0).map_err(|e| e.to_string())?;
        let mut lines = Vec::with_capacity(records.len());
        for record in records {
            let decision = Decision::decode(&record.bytes).map_err(|e| e.to_string())?;
            lines.push(line_of(
                &decision,
                record.index,
                books.applied_at(group, record.index),
            ));
        }
        if !lines.is_empty() {
            all.insert(customer, Customer { lines });
        }
    }
    Ok(all)
}

fn line_of(decision: &Decision, index: u64, applied: u64) -> Line {
    let input = match &decision.cause {
        Cause::Signal(signal) => signal.id.parse().ok(),
        Cause::Command(command) => command.id.parse().ok(),
        _ => None,
    };
    Line {
        index,
        decision: decision.id.to_string(),
        previous: decision.previous.map(|id| id.to_string()),
        input,
        catalog: decision.catalog,
        at: decision.at.0,
        applied,
        events: decision.parts.iter().flat_map(events_of).collect(),
    }
}

fn events_of(part: &Part) -> impl Iterator<Item = Event> + '_ {
    let run = part.run;
    part.events.iter().map(move |event| Event {
        run,
        number: event.number,
        what: match &event.what {
            Told::TimerArmed(t) => What::Armed((run, t.visit, t.place.clone(), t.round), t.due.0),
            Told::TimerFired {
                visit,
                place,
                round,
            } => What::Fired((run, *visit, place.clone(), *round)),
            Told::Started { version, .. } => What::Started { version: *version },
            Told::Moved { visit, cause, .. } => What::Moved {
                run,
                visit: *visit,
                by_hand: matches!(cause, sojourn_journey::event::Cause::Override(_)),
            },
            Told::Held { .. } => What::Held,
            Told::Resumed { .. } => What::Resumed,
            Told::SignalWaits(_) => What::Waits,
            Told::SignalTaken => What::Taken,
            Told::Fact { .. } | Told::Unmatched { .. } => What::Heard,
            Told::Ended { .. } => What::Ended { run },
            Told::Action(_) => What::Owed((run, event.number)),
            Told::Settled {
                action, outcome, ..
            } => {
                let done = matches!(outcome, sojourn_journey::event::ActionOutcome::Done { .. });
                What::Settled((run, *action), done)
            }
            _ => What::Other,
        },
    })
}

/// A shard's machine, watched: what it applies is told to the books.
pub struct Watched {
    inner: Arc<ShardMachine>,
    node: NodeId,
    group: GroupId,
    record: Arc<Record>,
    books: Arc<Books>,
    now: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Machine for Watched {
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes {
        let reply = self.inner.apply(at, kind, body);
        self.books.applied(self.group, at.index, (self.now)());
        if at.index.is_multiple_of(HASH_EVERY) {
            let hash = self.inner.hash();
            let folded = (hash >> 64) as u64 ^ hash as u64;
            self.record.applied(self.node, self.group, at, folded);
        }
        reply
    }

    fn cut(&self, at: Position, full: bool) -> Box<dyn Cut> {
        self.inner.cut(at, full)
    }

    fn waiting_bytes(&self) -> u64 {
        self.inner.waiting_bytes()
    }

    fn restore_begin(&self) {
        self.inner.restore_begin();
    }

    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String> {
        self.inner.restore_chunk(chunk)
    }

    fn restore_end(&self, at: Option<Position>) -> Result<(), String> {
        self.inner.restore_end(at)
    }

    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        self.inner.rebuild()
    }

    fn hash(&self) -> u128 {
        self.inner.hash()
    }

    fn history_upto(&self) -> Option<Position> {
        self.inner.history_upto()
    }

    fn history_is_whole(&self) -> bool {
        self.inner.history_is_whole()
    }

    fn history_after(
        &self,
        after: Option<Position>,
        upto: Position,
    ) -> Result<Option<Box<dyn HistoryPieces>>, String> {
        self.inner.history_after(after, upto)
    }

    fn take_history(&self, piece: &[u8]) -> Result<(), String> {
        self.inner.take_history(piece)
    }

    fn history_taken(&self, upto: Position) -> Result<(), String> {
        self.inner.history_taken(upto)
    }
}
