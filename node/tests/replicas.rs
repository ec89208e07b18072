//! What replicas agree on: the same entries give the same state to the bit, however it is kept in memory, and a
//! decision is applied only to the very state it was decided on.

use bytes::Bytes;
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::{Input, Moment, decide};
use sojourn_journey::enter::enter;
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
use sojourn_journey::identifier::customer_hash;
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::time::{Span, Time};
use sojourn_node::shard::apply::apply;
use sojourn_node::shard::customer::{DecisionId, Slot, pack};
use sojourn_node::shard::decision::{Decision, Part, id_hash_of};
use sojourn_node::shard::state::{Look, ShardState, Verdict};
use sojourn_proto::{stored, v1};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const LOAN: &str = include_str!("../../examples/loan/journey.yaml");
const WAY: [&str; 6] = [
    "bank.A_SUBMITTED",
    "bank.A_PARTLYSUBMITTED",
    "bank.W_Completeren_aanvraag",
    "bank.A_PREACCEPTED",
    "bank.A_ACCEPTED",
    "bank.O_SENT",
];

/// An owner that decides for one customer, one decision after the other.
struct Owner {
    journey: Compiled,
    customer: Customer,
    state: Option<Execution>,
    last: Option<DecisionId>,
    counter: u64,
    epoch: u64,
}

impl Owner {
    fn new(number: usize) -> Owner {
        let checked = Journey::compile(LOAN, &Known::default()).expect("the example compiles");
        let key = Identifier::new("application_id", &number.to_string()).expect("an identifier");
        Owner {
            journey: checked.compiled,
            customer: Customer::new(key),
            state: None,
            last: None,
            counter: 0,
            epoch: number as u64,
        }
    }

    /// Decides a signal on its pending state, and goes on from there.
    fn decide(&mut self, kind: &str) -> Decision {
        let at = Time::parse("2026-01-05T09:00:00Z")
            .expect("a time")
            .plus(Span::from_seconds(self.counter as i64));
        let signal = Signal {
            id: format!("{}-{}", self.customer.key.value, self.counter),
            source: "bank".to_owned(),
            kind: kind.to_owned(),
            time: Some(at),
            identifiers: vec![self.customer.key.clone()],
            data: BTreeMap::new(),
            attributes: BTreeMap::new(),
        };
        let moment = Moment::of(&signal, at);
        let events = match &self.state {
            None => enter(&self.journey, 1, &self.customer, &signal, None, 1, moment),
            Some(state) => {
                let input = Input::Signal(&signal);
                decide(&self.journey, state, &self.customer, input, moment).expect("it is decided")
            }
        };
        self.state = match self.state.take() {
            None => Execution::replay(&events),
            Some(mut state) => {
                for event in &events {
                    evolve(&mut state, event);
                }
                Some(state)
            }
        };
        self.counter += 1;
        let id = DecisionId {
            term: 1,
            node: 1,
            epoch: self.epoch,
            counter: self.counter,
        };
        let hash = customer_hash("default", &self.customer.key);
        let cause = stored::cause::Cause::Signal(v1::Signal {
            id: signal.id,
            source: signal.source,
            r#type: signal.kind,
            ..v1::Signal::default()
        });
        Decision {
            id,
            previous: self.last.replace(id),
            workspace: "default".to_owned(),
            customer: self.customer.key.clone(),
            hash,
            at,
            occurred: at,
            id_hash: id_hash_of(hash, &cause),
            cause,
            change: Default::default(),
            parts: vec![Part {
                journey: "loan".to_owned(),
                instance: None,
                run: 1,
                events,
                fate: None,
            }],
            catalog: 1,
            content: 0,
            time_ahead: false,
            notes: Vec::new(),
            returned: None,
            outcome: None,
        }
    }

    /// The customer leaves memory.
    fn leave(&mut self) -> Decision {
        let state = self.state.clone();
        let mut decision = self.decide(WAY[2]);
        self.state = state;
        decision.cause = stored::cause::Cause::Leave(stored::LeaveCause {});
        decision.id_hash = None;
        decision.parts.clear();
        decision
    }

    fn hash(&self) -> u64 {
        customer_hash("default", &self.customer.key)
    }
}

/// What a group of several customers decided, as the log has it.
fn log(customers: usize) -> Vec<Decision> {
    let mut owners: Vec<Owner> = (0..customers).map(Owner::new).collect();
    WAY.iter()
        .flat_map(|kind| {
            owners
                .iter_mut()
                .map(|o| o.decide(kind))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn take(state: &mut ShardState, index: u64, decision: &Decision, bytes: &Bytes) -> Verdict {
    apply(state, index, 0, decision, bytes).expect("the state can be read")
}

#[test]
fn replicas_that_applied_the_same_entries_have_the_same_hash() {
    let (mut owner, mut follower) = (ShardState::default(), ShardState::default());
    // in the future: everything has been idle since before it, so everything is packed
    let always = Instant::now() + Duration::from_secs(3_600);
    for (index, decision) in (1..).zip(log(5)) {
        let bytes = decision.encode();
        let applied = Verdict::Applied { index, sub: 0 };
        assert_eq!(take(&mut owner, index, &decision, &bytes), applied);
        // the follower knows the bytes only, and keeps nothing awake
        let read = Decision::decode(&bytes).expect("what was written can be read");
        assert_eq!(take(&mut follower, index, &read, &bytes), applied);
        follower.pack_idle(always, usize::MAX);
        assert_eq!(owner.hash(), follower.hash(), "after entry {index}");
        assert_eq!(owner.counters, follower.counters, "after entry {index}");
    }
    assert_eq!((owner.customers, owner.ignored), (5, 0));
    assert_ne!(owner.hash(), ShardState::default().hash());
}

#[test]
fn a_decision_on_another_state_is_ignored_by_all_and_changes_nothing() {
    let mut owner = Owner::new(1);
    let begun: Vec<Decision> = WAY[..2].iter().map(|kind| owner.decide(kind)).collect();
    let next = owner.decide("bank.A_PREACCEPTED");
    // an owner of before, which did not see `next`, decides on the same state
    let mut before = Owner::new(1);
    before.epoch = 99;
    for kind in &WAY[..2] {
        before.decide(kind);
    }
    before.last = begun.last().map(|d| d.id);
    let rival = before.decide("bank.A_DECLINED");
    assert_eq!(next.previous, rival.previous);

    let mut state = ShardState::default();
    for (index, decision) in (1..).zip(&begun) {
        take(&mut state, index, decision, &decision.encode());
    }
    let applied = take(&mut state, 3, &next, &next.encode());
    assert_eq!(applied, Verdict::Applied { index: 3, sub: 0 });
    let counters = state.counters.clone();
    let waiting = state.waiting.bytes();
    for (index, late) in [(4, &rival), (5, &next), (6, &begun[0])] {
        let verdict = take(&mut state, index, late, &late.encode());
        assert_eq!(verdict, Verdict::Ignored, "entry {index}");
    }
    assert_eq!(state.ignored, 3);
    assert_eq!(state.counters, counters);
    assert_eq!(
        state.waiting.bytes(),
        waiting,
        "no history of what did not happen"
    );
    let key = &owner.customer.key;
    let hash = customer_hash("default", key);
    let customer = state
        .customer(hash, "default", key)
        .expect("the state can be read")
        .expect("the customer is known");
    assert_eq!(customer.last, Some(next.id));

    // nobody known, and a predecessor that never was: nothing is made
    let mut stranger = Owner::new(2);
    stranger.decide(WAY[0]);
    let orphan = stranger.decide(WAY[1]);
    assert_eq!(
        take(&mut state, 7, &orphan, &orphan.encode()),
        Verdict::Ignored
    );
    assert_eq!((state.customers, state.buckets.len()), (1, 1));
}

/// The packed customers of a hash that are in memory.
fn packed(state: &ShardState, hash: u64) -> Bytes {
    match state.look(hash).expect("the state can be read") {
        Look::Here(bucket) => pack(&bucket).into(),
        Look::Away { .. } | Look::Nobody => panic!("they are not in memory"),
    }
}

/// An owner's replica, and one that knows the bytes only and keeps nothing awake.
#[derive(Default)]
struct Both {
    owner: ShardState,
    follower: ShardState,
    index: u64,
}

impl Both {
    fn take(&mut self, decision: &Decision) -> Verdict {
        self.index += 1;
        let bytes = decision.encode();
        let verdict = take(&mut self.owner, self.index, decision, &bytes);
        let read = Decision::decode(&bytes).expect("what was written can be read");
        let same = take(&mut self.follower, self.index, &read, &bytes);
        let always = Instant::now() + Duration::from_secs(3_600);
        self.follower.pack_idle(always, usize::MAX);
        assert_eq!(verdict, same);
        assert_eq!(
            self.owner.hash(),
            self.follower.hash(),
            "after entry {}",
            self.index
        );
        verdict
    }
}

#[test]
fn who_is_away_comes_back_as_they_left_and_only_so() {
    let mut both = Both::default();
    let mut owner = Owner::new(1);
    both.take(&owner.decide(WAY[0]));
    // with an active execution they stay, whatever is asked
    assert_eq!(
        both.take(&owner.leave()),
        Verdict::Applied { index: 2, sub: 0 }
    );
    assert_eq!(both.owner.away, 0);
    both.take(&owner.decide("bank.A_DECLINED"));
    let early = packed(&both.owner, owner.hash());
    both.take(&owner.decide(WAY[1]));
    assert_eq!(
        both.take(&owner.leave()),
        Verdict::Applied { index: 5, sub: 0 }
    );
    assert_eq!(both.owner.away, 1);
    assert!(matches!(
        both.owner.buckets.get(&owner.hash()),
        Some(Slot::Away(_))
    ));
    let left = both.owner.waiting.away_of(owner.hash());
    let left = left.expect("history has them");

    let last = owner.last;
    let back = owner.decide(WAY[3]);
    for returned in [None, Some(early)] {
        let wrong = Decision {
            returned,
            ..back.clone()
        };
        assert_eq!(both.take(&wrong), Verdict::Ignored);
    }
    assert_eq!(both.owner.away, 1);
    let right = Decision {
        returned: Some(Bytes::copy_from_slice(&left)),
        ..back
    };
    assert_eq!(right.previous, last);
    assert_eq!(both.take(&right), Verdict::Applied { index: 8, sub: 0 });
    assert_eq!(
        (both.owner.away, both.owner.customers, both.owner.ignored),
        (0, 1, 2)
    );
    assert!(both.owner.waiting.away_of(owner.hash()).is_none());
    let customer = both
        .owner
        .customer(owner.hash(), "default", &owner.customer.key);
    let customer = customer.expect("it can be read").expect("they are back");
    assert_eq!((customer.last, customer.recent.len()), (Some(right.id), 4));
    assert_eq!(customer.customer.runs.len(), 1);
    // the same once more is another decision's chance no more
    assert_eq!(both.take(&right), Verdict::Ignored);
}
