//! Replicas of one shard, each with a history of its own on disk, and a shop whose customers they know.

use bytes::Bytes;
use prost::Message;
use sojourn_cluster::format::encode_cover;
use sojourn_cluster::{EntryKind, GroupId, Machine, Position, ShardId};
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::{Input, Moment, decide};
use sojourn_journey::enter::enter;
use sojourn_journey::identifier::customer_hash;
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::time::{Span, Time};
use sojourn_node::history::{Keep, Store};
use sojourn_node::shard::customer::{DecisionId, customer_of};
use sojourn_node::shard::decision::{Decision, Part, id_hash_of};
use sojourn_node::shard::machine::ShardMachine;
use sojourn_node::shard::read::{self, Replica};
use sojourn_node::shard::seams::Seams;
use sojourn_node::shard::state::Shared;
use sojourn_proto::{cluster, stored, v1};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

pub const SHARD: u16 = 3;

const JOURNEY: &str = "journey: visits
entry:
  - on: shop.opened
stages:
  - stage: inside
    transitions:
      - { to: gone, on: shop.closed }
  - { stage: gone, end: done }
";

pub fn group() -> GroupId {
    GroupId::of_shard(ShardId(SHARD))
}

pub fn keep() -> Keep {
    Keep {
        window: Span::from_seconds(7 * 86_400),
        bytes: 8 << 30,
    }
}

/// A replica and its disk.
pub struct Place {
    pub dir: TempDir,
    pub machine: Arc<ShardMachine>,
}

impl Replica for Place {
    fn shard(&self) -> u16 {
        self.machine.shard
    }
    fn state(&self) -> &Shared {
        &self.machine.state
    }
    fn history(&self) -> &Arc<Store> {
        &self.machine.history
    }
}

/// A chunk after the other, and the position that they cover.
pub type Snapshot = (Position, Vec<Vec<u8>>);

impl Place {
    /// A replica on an empty disk, which replays from the first entry.
    pub fn new() -> Place {
        let place = Place::blank();
        place.machine.restore_begin();
        let restored = place.machine.restore_end(None);
        restored.expect("nothing to restore");
        place
    }

    /// A replica on an empty disk that has not been opened yet.
    pub fn blank() -> Place {
        let dir = tempfile::tempdir().expect("a folder");
        let machine = open(&dir);
        Place { dir, machine }
    }

    /// The same disk in another process: nothing is left in memory, and no state is taken back yet.
    pub fn reopen(self) -> Place {
        let Place { dir, machine } = self;
        drop(machine);
        let machine = open(&dir);
        Place { dir, machine }
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.machine.history
    }

    pub fn applied(&self) -> u64 {
        self.machine.state.lock().applied
    }

    /// Makes a checkpoint of what is applied, and gives all of it.
    pub fn checkpoint(&self) -> Snapshot {
        let at = position(self.applied());
        let mut cut = self.machine.cut(at, true);
        cut.before(&encode_cover(&cover(at)))
            .expect("it is written");
        let mut chunks = Vec::new();
        while let Some(chunk) = cut.next_chunk() {
            chunks.push(chunk);
        }
        cut.done(true);
        (at, chunks)
    }

    /// All pieces of its history behind what another one has.
    pub fn pieces(&self, after: Option<Position>, upto: Position) -> Vec<Vec<u8>> {
        let given = self.machine.history_after(after, upto).expect("it has it");
        let mut given = given.expect("it keeps history");
        let mut pieces = Vec::new();
        while let Some(piece) = given.next_piece().expect("it can be read") {
            pieces.push(piece);
        }
        pieces
    }

    /// Takes another one's history up to a position; answers how many bytes came.
    pub fn take(&self, from: &Place, upto: Position) -> usize {
        let pieces = from.pieces(self.machine.history_upto(), upto);
        for piece in &pieces {
            self.machine.take_history(piece).expect("it is taken");
        }
        self.machine.history_taken(upto).expect("it is complete");
        pieces.iter().map(Vec::len).sum()
    }

    /// Takes over a state.
    pub fn install(&self, snapshot: &Snapshot) -> Result<(), String> {
        let (at, chunks) = snapshot;
        self.machine.restore_begin();
        for chunk in chunks {
            self.machine.restore_chunk(chunk)?;
        }
        self.machine.restore_end(Some(*at))
    }

    pub fn key(n: usize) -> Identifier {
        Identifier::new("id", &format!("customer {n}")).expect("an identifier")
    }

    pub fn hash_of(n: usize) -> u64 {
        customer_hash("default", &Place::key(n))
    }

    /// Everything that can be read of customers up to `n`, and what all of them have together.
    pub fn everything(&self, n: usize) -> Everything {
        let applied = self.applied();
        let mut timelines = Vec::new();
        let mut receipts = Vec::new();
        let mut customers = Vec::new();
        for n in 0..n {
            let hash = Place::hash_of(n);
            let records = read::records(self, hash, 0).expect("they can be read");
            for record in &records {
                let decision = Decision::decode(&record.bytes).expect("a decision");
                if let Some(id) = decision.id_hash {
                    let found = read::first_answer(self, hash, id).expect("it can be read");
                    let found = found.map(|f| (f.index, f.decision.encode()));
                    assert_eq!(found, Some((record.index, record.bytes.clone())));
                    receipts.push(record.index);
                }
            }
            timelines.push(
                records
                    .into_iter()
                    .map(|r| (r.index, r.sub, r.bytes))
                    .collect(),
            );
            customers.push(read::bucket(self, hash).expect("it can be read").0);
        }
        let all = (u64::MAX, u64::MAX, u32::MAX);
        let ended = read::ended(self, (0, 0, 0), all, usize::MAX).expect("they can be read");
        let ended = ended.into_iter().map(|e| (e.key, (*e.execution).clone()));
        let mut unmatched: Vec<stored::UnmatchedSignal> = Vec::new();
        let waiting = self
            .machine
            .state
            .lock()
            .waiting
            .unmatched_before((u64::MAX, 0), usize::MAX);
        for note in &waiting {
            unmatched.push(stored::UnmatchedSignal::decode(&note.bytes[..]).expect("a signal"));
        }
        let before = waiting
            .last()
            .map_or((applied + 1, 0), |n| (n.index, n.sub));
        let read = self.store().unmatched(SHARD, before, |signal| {
            unmatched.push(signal);
            true
        });
        read.expect("they can be read");
        Everything {
            hash: self.machine.hash(),
            timelines,
            receipts,
            customers,
            ended: ended.collect(),
            unmatched,
        }
    }

    /// The same.
    #[track_caller]
    pub fn is_like(&self, other: &Place, n: usize) {
        let (mine, theirs) = (self.everything(n), other.everything(n));
        assert_eq!(mine.receipts, theirs.receipts);
        assert_eq!(mine.unmatched, theirs.unmatched);
        assert!(mine == theirs, "they differ");
        let (mine, theirs) = (self.machine.state.lock(), other.machine.state.lock());
        assert_eq!(mine.counters, theirs.counters);
        assert_eq!(
            (mine.customers, mine.away, mine.ignored, mine.catalog),
            (
                theirs.customers,
                theirs.away,
                theirs.ignored,
                theirs.catalog
            )
        );
    }
}

type Timeline = Vec<(u64, u32, Bytes)>;

/// Everything that can be read of a replica.
#[derive(Debug, PartialEq)]
pub struct Everything {
    pub hash: u128,
    pub timelines: Vec<Timeline>,
    pub receipts: Vec<u64>,
    pub customers: Vec<Arc<sojourn_node::shard::customer::Bucket>>,
    pub ended: Vec<((u64, u64, u32), sojourn_journey::execution::Execution)>,
    pub unmatched: Vec<stored::UnmatchedSignal>,
}

fn open(dir: &TempDir) -> Arc<ShardMachine> {
    let store = Store::open(&dir.path().join("history")).expect("it opens");
    Arc::new(ShardMachine::new(
        SHARD,
        Arc::new(store),
        keep(),
        Seams::real(),
    ))
}

/// Entry `index`: every hundred entries there is another leader.
pub fn position(index: u64) -> Position {
    Position {
        term: 1 + index / 100,
        node: 1 + index / 100 % 3,
        index,
    }
}

pub fn cover(at: Position) -> cluster::Cover {
    cluster::Cover {
        group: group().0,
        at: Some(cluster::LogPosition {
            term: at.term,
            node: at.node,
            index: at.index,
        }),
        ..cluster::Cover::default()
    }
}

/// The shop, which decides on what a replica knows.
pub struct Shop {
    journey: Compiled,
    counter: u64,
    began: Time,
    noise: u64,
    /// Bytes of data of each signal.
    pub padding: usize,
}

impl Shop {
    pub fn new() -> Shop {
        let checked = Journey::compile(JOURNEY, &Known::default()).expect("it compiles");
        Shop {
            journey: checked.compiled,
            counter: 0,
            began: sojourn_node::clock::wall(),
            noise: 7,
            padding: 0,
        }
    }

    fn data(&mut self) -> Bytes {
        let mut data = Vec::with_capacity(self.padding + 8);
        while data.len() < self.padding {
            self.noise = self
                .noise
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(1);
            data.extend_from_slice(&self.noise.to_be_bytes());
        }
        data.into()
    }

    /// Decides a signal, or that the customer leaves.
    pub fn decide(&mut self, on: &impl Replica, n: usize, kind: &str) -> Decision {
        let key = Place::key(n);
        let hash = customer_hash("default", &key);
        let (bucket, returned) = read::bucket(on, hash).expect("it can be read");
        let known = customer_of(&bucket, "default", &key);
        self.counter += 1;
        let at = self
            .began
            .plus(Span(i64::try_from(self.counter).expect("few")));
        let sent = v1::Signal {
            id: format!("signal {}", self.counter),
            source: "shop".to_owned(),
            r#type: kind.to_owned(),
            data: self.data(),
            ..v1::Signal::default()
        };
        let signal = Signal {
            id: sent.id.clone(),
            source: sent.source.clone(),
            kind: kind.to_owned(),
            time: Some(at),
            identifiers: vec![key.clone()],
            data: BTreeMap::new(),
            attributes: BTreeMap::new(),
        };
        let cause = match kind {
            "leaves" => stored::cause::Cause::Leave(stored::LeaveCause {}),
            _ => stored::cause::Cause::Signal(sent),
        };
        let moment = Moment::of(&signal, at);
        let active = known.and_then(|k| k.executions.first());
        let runs = known.map_or(0, |k| {
            k.customer.runs.iter().map(|r| r.run).max().unwrap_or(0)
        });
        let customer = known.map_or_else(|| Customer::new(key.clone()), |k| (*k.customer).clone());
        let (run, events) = match (kind, active) {
            ("shop.opened", None) => {
                let run = runs + 1;
                (
                    run,
                    enter(&self.journey, 1, &customer, &signal, None, run, moment),
                )
            }
            ("leaves", _) | (_, None) => (runs, Vec::new()),
            (_, Some(e)) => {
                let input = Input::Signal(&signal);
                let events = decide(&self.journey, e, &customer, input, moment);
                (e.run, events.expect("it is decided"))
            }
        };
        let part = Part {
            journey: "visits".to_owned(),
            instance: None,
            run,
            events,
            fate: None,
        };
        Decision {
            id: DecisionId {
                term: 1,
                node: 1,
                epoch: 1,
                counter: self.counter,
            },
            previous: known.and_then(|k| k.last),
            workspace: "default".to_owned(),
            customer: key,
            hash,
            at,
            occurred: at,
            id_hash: id_hash_of(hash, &cause),
            cause,
            change: Default::default(),
            parts: if part.events.is_empty() {
                Vec::new()
            } else {
                vec![part]
            },
            catalog: 1,
            content: self.counter,
            time_ahead: false,
            notes: Vec::new(),
            returned,
            outcome: None,
        }
    }
}

/// The log of the shard, and the replica that is up to date.
pub struct World {
    pub shop: Shop,
    pub first: Place,
    pub log: Vec<(u64, Bytes)>,
    next: u64,
}

/// An entry of the leader of this term and node, which decided it.
pub fn body_of(mut decisions: Vec<Decision>, (term, node): (u64, u64)) -> Bytes {
    for decision in &mut decisions {
        (decision.id.term, decision.id.node) = (term, node);
    }
    let entry = stored::Decisions {
        decisions: decisions.iter().map(Decision::encode).collect(),
        node,
        epoch: 1,
        entry: 0,
    };
    entry.encode_to_vec().into()
}

impl World {
    pub fn new() -> World {
        World {
            shop: Shop::new(),
            first: Place::new(),
            log: Vec::new(),
            next: 3,
        }
    }

    /// Each of these is sent one signal, all in one entry.
    pub fn send(&mut self, people: impl IntoIterator<Item = usize>, kind: &str) {
        let decisions: Vec<Decision> = people
            .into_iter()
            .map(|n| self.shop.decide(&self.first, n, kind))
            .collect();
        let at = position(self.next);
        let body = body_of(decisions, (at.term, at.node));
        self.log.push((self.next, body.clone()));
        self.first.machine.apply(at, EntryKind::Decisions, &body);
        // the entries between are of other kinds
        self.next += 3;
    }

    /// A replica applies the log from where it is up to an index.
    pub fn follow(&self, replica: &Place, to: u64) {
        World::replay(&self.log, replica, to);
    }

    /// A replica applies a log from where it is up to an index.
    pub fn replay(log: &[(u64, Bytes)], replica: &Place, to: u64) {
        let applied = replica.applied();
        for (index, body) in log {
            if *index > applied && *index <= to {
                let at = position(*index);
                replica.machine.apply(at, EntryKind::Decisions, body);
            }
        }
    }

    pub fn follow_all(&self, replica: &Place) {
        self.follow(replica, u64::MAX);
    }

    /// Thirty customers: of each ten, some are active, some over, some away, and all have sung without being heard.
    pub fn usual(&mut self) {
        self.send(0..30, "shop.opened");
        self.send(0..30, "shop.sang");
        self.send((0..30).filter(|n| n % 10 > 2), "shop.closed");
        self.send((0..30).filter(|n| n % 10 > 5), "leaves");
    }
}

impl Place {
    /// The ids of all signals in its history, and where they stand.
    pub fn ids(&self) -> Vec<(u64, u128)> {
        let mut ids = Vec::new();
        let read = self.store().each_record(SHARD, |_, record| {
            let decision = Decision::decode(&record.bytes).expect("a decision");
            ids.extend(decision.id_hash.map(|id| (record.index, id)));
            Ok(())
        });
        read.expect("they can be read");
        assert!(!ids.is_empty());
        ids
    }
}
