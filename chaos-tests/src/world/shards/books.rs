//! What happened in a world of shards: what clients asked and were told, what stands in history in the end, what the endpoint
//! was sent. Plain values, for the checkers. Times are microseconds of the world, except where they are the owners' clocks'.

use parking_lot::Mutex;
use sojourn_cluster::{GroupId, NodeId};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a client asked of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It sent a signal, or a command.
    Input {
        /// Its id.
        id: u64,
    },
    /// It wanted to know the customer as they are now.
    Look,
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The signal, or command, was decided.
    Receipt {
        /// By this decision.
        decision: String,
        /// At this log index.
        index: u64,
        /// It was known already, and this is the first answer.
        again: bool,
    },
    /// Nobody is known who could have got the signal.
    Nobody,
    /// The customer's last decision; `None`: nobody is known.
    Seen(Option<String>),
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
    /// Which customer.
    pub customer: u64,
    /// What was asked.
    pub asked: Asked,
    /// It was a command.
    pub by_hand: bool,
    /// When.
    pub begun: u64,
    /// What was told, and when; `None`: the node ended first.
    pub told: Option<(u64, Told)>,
}

/// A timer: the run, the visit, its place, its round.
pub type TimerId = (u32, u32, String, u32);
/// An action: the run, and the number of the event that owed it.
pub type ActionId = (u32, u64);

/// What an event of an execution says, as far as promises are about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A timer was armed, due at this time of the owner's clock.
    Armed(TimerId, i64),
    /// It came due.
    Fired(TimerId),
    /// The run began.
    Started {
        /// On which version of the journey.
        version: u32,
    },
    /// A new visit began: the timers of the one before are dropped.
    Moved {
        /// Which run.
        run: u32,
        /// The new visit.
        visit: u32,
        /// By an operator's override.
        by_hand: bool,
    },
    /// An operator holds the run.
    Held,
    /// And lets it go on.
    Resumed,
    /// A signal waits for the hold to end.
    Waits,
    /// The first signal that waited was decided.
    Taken,
    /// A signal was heeded: a fact of it was seen, or it moved nothing.
    Heard,
    /// The run ended, and with it all its timers.
    Ended {
        /// Which run.
        run: u32,
    },
    /// An action is owed.
    Owed(ActionId),
    /// It is not owed any more; `done`: because it was done.
    Settled(ActionId, bool),
    /// Something else.
    Other,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The run.
    pub run: u32,
    /// Its number in the run.
    pub number: u64,
    /// What it says.
    pub what: What,
}

/// One decision, as it stands in history.
#[derive(Clone, Debug)]
pub struct Line {
    /// The log index of its entry.
    pub index: u64,
    /// Its id.
    pub decision: String,
    /// The decision that it was made behind.
    pub previous: Option<String>,
    /// The signal or command that it decided, if it was one.
    pub input: Option<u64>,
    /// The position of the catalog that it was made with.
    pub catalog: u64,
    /// The owner's clock.
    pub at: i64,
    /// When a replica first applied it.
    pub applied: u64,
    /// Its events.
    pub events: Vec<Event>,
}

/// One customer in the end.
#[derive(Clone, Debug, Default)]
pub struct Customer {
    /// Their decisions, in the order of the log.
    pub lines: Vec<Line>,
}

/// Everybody of every group, in the end.
pub type Finals = BTreeMap<GroupId, BTreeMap<u64, Customer>>;

/// Something was sent to the endpoint.
#[derive(Clone, Debug)]
pub struct Sent {
    /// From which group.
    pub group: GroupId,
    /// For which customer.
    pub customer: u64,
    /// Which action.
    pub action: ActionId,
    /// When.
    pub at: u64,
    /// The endpoint took it, whatever the sender has learnt of that.
    pub taken: bool,
    /// A hash of what was sent.
    pub body: u64,
}

/// What the checkers are given beside calls, finals and what was sent.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// When the world ended, and what the true clock showed then.
    pub end: (u64, i64),
    /// When the faults had ended.
    pub calm: u64,
    /// The clocks of nodes go wrong by so many microseconds at most.
    pub skew: i64,
}

/// What operators do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Nothing moves until it is resumed.
    Hold,
    /// It goes on.
    Resume,
    /// It ends.
    Stop,
    /// It moves to this stage.
    Override(&'static str),
}

/// What a call was about: the id, group and customer of a signal or command.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its id.
    pub id: u64,
    /// The group.
    pub group: GroupId,
    /// The customer.
    pub customer: u64,
    /// What is to be done, of a command.
    pub hand: Option<Hand>,
}

#[derive(Default)]
struct Inner {
    calls: Vec<Call>,
    sent: Vec<Sent>,
    /// When an entry was first applied by any replica.
    applied: BTreeMap<(GroupId, u64), u64>,
    inputs: Vec<Known>,
}

/// The books of one world of shards.
#[derive(Default)]
pub struct Books {
    inner: Mutex<Inner>,
}

impl Books {
    /// A client calls; answers the call's number.
    pub fn begin(&self, call: Call) -> usize {
        let mut inner = self.inner.lock();
        inner.calls.push(call);
        inner.calls.len() - 1
    }

    /// A call has its answer.
    pub fn end(&self, call: usize, now: u64, told: Told) {
        if let Some(call) = self.inner.lock().calls.get_mut(call) {
            call.told = Some((now, told));
        }
    }

    /// Whether a call has its answer.
    pub fn is_over(&self, call: usize) -> bool {
        let inner = self.inner.lock();
        inner.calls.get(call).is_none_or(|call| call.told.is_some())
    }

    /// A signal with an id of its own, or a command.
    pub fn new_input(&self, group: GroupId, customer: u64, hand: Option<Hand>) -> Known {
        let mut inner = self.inner.lock();
        let known = Known {
            id: inner.inputs.len() as u64,
            group,
            customer,
            hand,
        };
        inner.inputs.push(known);
        known
    }

    /// How many signals and commands there were.
    pub fn inputs(&self) -> u64 {
        self.inner.lock().inputs.len() as u64
    }

    /// A signal or command that was sent before.
    pub fn input(&self, id: u64) -> Option<Known> {
        let inner = self.inner.lock();
        inner.inputs.get(usize::try_from(id).ok()?).copied()
    }

    /// A replica has applied an entry.
    pub fn applied(&self, group: GroupId, index: u64, now: u64) {
        let mut inner = self.inner.lock();
        inner.applied.entry((group, index)).or_insert(now);
    }

    /// When a replica first applied an entry.
    pub fn applied_at(&self, group: GroupId, index: u64) -> u64 {
        let inner = self.inner.lock();
        inner.applied.get(&(group, index)).copied().unwrap_or(0)
    }

    /// Something was sent.
    pub fn sent(&self, sent: Sent) {
        self.inner.lock().sent.push(sent);
    }

    /// All calls.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.lock().calls.clone()
    }

    /// Everything that was sent.
    pub fn all_sent(&self) -> Vec<Sent> {
        self.inner.lock().sent.clone()
    }

    /// A hash of everything here, onto another.
    pub fn digest(&self, from: u64) -> u64 {
        let inner = self.inner.lock();
        let mut hash = from;
        let mut add = |n: u64| hash = xxh3_64_with_seed(&n.to_le_bytes(), hash);
        for call in &inner.calls {
            [call.begun, call.group.0, call.node, call.customer]
                .into_iter()
                .for_each(&mut add);
            if let Some((at, told)) = &call.told {
                add(*at);
                match told {
                    Told::Receipt { index, again, .. } => {
                        add(2 + u64::from(*again));
                        add(*index);
                    }
                    Told::Nobody => add(4),
                    Told::Seen(last) => add(5 + u64::from(last.is_some())),
                    Told::Unknown => add(7),
                    Told::Refused => add(8),
                }
            }
        }
        for sent in &inner.sent {
            [sent.at, sent.customer, sent.action.1, sent.body]
                .into_iter()
                .for_each(&mut add);
        }
        for ((group, index), at) in &inner.applied {
            [group.0, *index, *at].into_iter().for_each(&mut add);
        }
        hash
    }
}
