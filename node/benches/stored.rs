//! What a decision's stored form costs: a signal that moves one execution, as bytes and back.
//!
//! Says nothing of deciding (the benches of `journey`), of the log (those of `cluster`), or of the wire.

use criterion::{Criterion, criterion_group, criterion_main};
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::customer::{Customer, CustomerChange};
use sojourn_journey::decide::{Input, Moment, decide};
use sojourn_journey::enter::enter;
use sojourn_journey::execution::Execution;
use sojourn_journey::identifier::customer_hash;
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::time::Time;
use sojourn_journey::value::Value;
use sojourn_node::convert::signal::signal_to;
use sojourn_node::shard::customer::DecisionId;
use sojourn_node::shard::decision::{Decision, Part, id_hash_of};
use sojourn_proto::stored::cause::Cause;
use std::collections::BTreeMap;
use std::hint::black_box;

const LOAN: &str = include_str!("../../examples/loan/journey.yaml");
const WORKSPACE: &str = "default";

fn signal(kind: &str) -> Signal {
    let amount = Value::String("20000".to_owned());
    Signal {
        id: "173688-1".to_owned(),
        source: "bank".to_owned(),
        kind: kind.to_owned(),
        time: Some(Time(1)),
        identifiers: vec![Identifier::new("application_id", "173688").expect("a good identifier")],
        data: [("AMOUNT_REQ".to_owned(), amount)].into(),
        attributes: BTreeMap::new(),
    }
}

/// The second signal of an application, decided.
fn decision() -> Decision {
    let loan = Journey::compile(LOAN, &Known::default()).expect("a good journey");
    let loan = loan.compiled;
    let start = signal("bank.A_SUBMITTED");
    let customer = Customer::new(start.identifiers[0].clone());
    let begun = enter(&loan, 1, &customer, &start, None, 1, Moment::now(Time(0)));
    let state = Execution::replay(&begun).expect("a start");
    let moves = signal("bank.A_PARTLYSUBMITTED");
    let now = Moment::now(Time(1));
    let events = decide(&loan, &state, &customer, Input::Signal(&moves), now).expect("it moves");
    let customer = moves.identifiers[0].clone();
    let hash = customer_hash(WORKSPACE, &customer);
    let cause = Cause::Signal(signal_to(&moves));
    let id = |counter| DecisionId {
        term: 3,
        node: 1,
        epoch: 1_795_000_000_000_000,
        counter,
    };
    Decision {
        id: id(1_001),
        previous: Some(id(1_000)),
        workspace: WORKSPACE.to_owned(),
        customer,
        hash,
        at: Time(1),
        occurred: Time(1),
        id_hash: id_hash_of(hash, &cause),
        cause,
        change: CustomerChange::default(),
        parts: vec![Part {
            journey: "loan".to_owned(),
            instance: None,
            run: 1,
            events,
            fate: None,
        }],
        catalog: 7,
        content: 42,
        time_ahead: false,
        notes: Vec::new(),
        returned: None,
        outcome: None,
    }
}

fn stored(c: &mut Criterion) {
    let mut decision = decision();
    let bytes = decision.encode();
    eprintln!("a decision: {} bytes", bytes.len());
    c.bench_function("decision/encode", |b| {
        b.iter(|| black_box(&mut decision).encode_own());
    });
    c.bench_function("decision/decode", |b| {
        b.iter(|| Decision::decode(black_box(&bytes)).expect("it was encoded"));
    });
}

criterion_group!(benches, stored);
criterion_main!(benches);
