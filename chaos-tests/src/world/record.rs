//! What happened in a world, as clients and replicas saw it: what the checkers read.
//!
//! Times are microseconds of the world. Judges nothing but what must never be, wherever it is seen.

use parking_lot::Mutex;
use sojourn_cluster::{GroupId, NodeId, Position};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To append an id to a list.
    Append {
        /// Which list.
        list: u64,
        /// What.
        id: u64,
    },
    /// To read a list.
    Read {
        /// Which list.
        list: u64,
    },
}

impl Asked {
    /// The list that it is about.
    pub fn list(self) -> u64 {
        match self {
            Asked::Append { list, .. } | Asked::Read { list } => list,
        }
    }
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Appended, at this place of the group's log.
    Appended(Position),
    /// The list, read with a confirmed position.
    List(Vec<u64>),
    /// It may or may not be done.
    Unknown,
    /// It is known not to be done.
    Refused,
}

/// One call of a client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which group.
    pub group: GroupId,
    /// Which node was asked.
    pub node: NodeId,
    /// What was asked.
    pub asked: Asked,
    /// When.
    pub begun: u64,
    /// What was told, and when; `None`: the node ended first.
    pub told: Option<(u64, Told)>,
}

#[derive(Default)]
struct Books {
    calls: Vec<Call>,
    /// The hash of everything up to an entry, by the replica that was first there.
    chains: BTreeMap<(GroupId, u64), (NodeId, Position, u64)>,
    owners: BTreeMap<(GroupId, u64), NodeId>,
    closed: Vec<(NodeId, GroupId, String)>,
    broken: Vec<String>,
}

/// The books of one world.
#[derive(Default)]
pub struct Record {
    books: Mutex<Books>,
}

impl Record {
    /// A client calls; answers the call's number.
    pub fn begin(&self, group: GroupId, node: NodeId, asked: Asked, now: u64) -> usize {
        let mut books = self.books.lock();
        books.calls.push(Call {
            group,
            node,
            asked,
            begun: now,
            told: None,
        });
        books.calls.len() - 1
    }

    /// A call has its answer.
    pub fn end(&self, call: usize, now: u64, told: Told) {
        if let Some(call) = self.books.lock().calls.get_mut(call) {
            call.told = Some((now, told));
        }
    }

    /// Whether a call has its answer.
    pub fn is_over(&self, call: usize) -> bool {
        let books = self.books.lock();
        books.calls.get(call).is_none_or(|call| call.told.is_some())
    }

    /// A replica has applied an entry; `chain` is a hash of all entries so far.
    pub fn applied(&self, node: NodeId, group: GroupId, at: Position, chain: u64) {
        let mut books = self.books.lock();
        let (first, there, theirs) = *books
            .chains
            .entry((group, at.index))
            .or_insert((node, at, chain));
        if (there, theirs) != (at, chain) {
            books.broken.push(format!(
                "same prefix, same hash: at entry {} of {group} node {first} has {there} and {theirs:016x}, node {node} \
                 has {at} and {chain:016x}",
                at.index
            ));
        }
    }

    /// A node owns a group in a term.
    pub fn owns(&self, node: NodeId, group: GroupId, term: u64) {
        let mut books = self.books.lock();
        let owner = *books.owners.entry((group, term)).or_insert(node);
        if owner != node {
            books.broken.push(format!(
                "one owner per term: in term {term} of {group} both node {owner} and node {node} are"
            ));
        }
    }

    /// A replica has closed by itself.
    pub fn closed(&self, node: NodeId, group: GroupId, reason: &str) {
        let closed = (node, group, reason.to_owned());
        self.books.lock().closed.push(closed);
    }

    /// The replicas that have closed since this was asked last.
    pub fn take_closed(&self) -> Vec<(NodeId, GroupId, String)> {
        std::mem::take(&mut self.books.lock().closed)
    }

    /// Something that must never be was seen.
    pub fn fail(&self, what: String) {
        self.books.lock().broken.push(what);
    }

    /// What must never be, and was seen.
    pub fn broken(&self) -> Vec<String> {
        self.books.lock().broken.clone()
    }

    /// All calls.
    pub fn calls(&self) -> Vec<Call> {
        self.books.lock().calls.clone()
    }

    /// A hash of everything here: two runs of one seed have the same.
    pub fn digest(&self) -> u64 {
        let books = self.books.lock();
        let mut hash = 0;
        let mut add = |n: u64| hash = xxh3_64_with_seed(&n.to_le_bytes(), hash);
        for call in &books.calls {
            [call.begun, call.group.0, call.node]
                .into_iter()
                .for_each(&mut add);
            if let Some((at, told)) = &call.told {
                add(*at);
                match told {
                    Told::Appended(at) => [2, at.term, at.node, at.index]
                        .into_iter()
                        .for_each(&mut add),
                    Told::List(ids) => ids.iter().for_each(|id| add(*id)),
                    Told::Unknown => add(3),
                    Told::Refused => add(4),
                }
            }
        }
        for ((group, index), (_, at, chain)) in &books.chains {
            [group.0, *index, at.term, *chain]
                .into_iter()
                .for_each(&mut add);
        }
        hash
    }
}
