//! What deciding costs: one signal that moves, one that does not, one that changes a fact under a condition. And what it
//! costs to follow the events of the first.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::{Input, Moment, decide};
use sojourn_journey::enter::enter;
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::time::Time;
use sojourn_journey::value::Value;
use std::collections::BTreeMap;
use std::hint::black_box;

const LOAN: &str = include_str!("../../examples/loan/journey.yaml");
const CONDITION: &str = r#"
journey: condition
entry: [{ on: a.start }]
stages:
  - stage: live
    transitions:
      - { to: end, when: 'Books.Invoice.Status == "Paid" && Desk.Department.Status == "Active"' }
  - stage: end
    end: done
"#;

fn signal(kind: &str, data: &[(&str, &str)]) -> Signal {
    let text =
        |(name, value): &(&str, &str)| ((*name).to_owned(), Value::String((*value).to_owned()));
    Signal {
        id: "1".to_owned(),
        source: "bench".to_owned(),
        kind: kind.to_owned(),
        time: Some(Time(0)),
        identifiers: vec![Identifier::new("id", "c1").expect("a good identifier")],
        data: data.iter().map(text).collect(),
        attributes: BTreeMap::new(),
    }
}

fn begin(text: &str, kind: &str) -> (Compiled, Customer, Execution) {
    let compiled = Journey::compile(text, &Known::default())
        .expect("a good journey")
        .compiled;
    let start = signal(kind, &[]);
    let customer = Customer::new(start.identifiers[0].clone());
    let events = enter(
        &compiled,
        1,
        &customer,
        &start,
        None,
        1,
        Moment::now(Time(0)),
    );
    let state = Execution::replay(&events).expect("a start");
    (compiled, customer, state)
}

fn rules(c: &mut Criterion) {
    let (loan, customer, state) = begin(LOAN, "bank.A_SUBMITTED");
    for (name, kind) in [
        ("moves", "bank.A_PARTLYSUBMITTED"),
        ("unmatched", "bank.W_Other"),
    ] {
        let signal = signal(kind, &[]);
        c.bench_function(&format!("decide/{name}"), |b| {
            b.iter(|| {
                decide(
                    &loan,
                    black_box(&state),
                    &customer,
                    Input::Signal(&signal),
                    Moment::now(Time(1)),
                )
            });
        });
    }
    let moves = signal("bank.A_PARTLYSUBMITTED", &[]);
    let input = Input::Signal(&moves);
    let events = decide(&loan, &state, &customer, input, Moment::now(Time(1))).expect("it moves");
    c.bench_function("evolve/moves", |b| {
        b.iter_batched_ref(
            || state.clone(),
            |state| {
                events
                    .iter()
                    .for_each(|event| evolve(state, black_box(event)))
            },
            BatchSize::SmallInput,
        );
    });
    let (condition, customer, state) = begin(CONDITION, "a.start");
    let signal = signal("Books.Invoice.updated", &[("Status", "Paid")]);
    c.bench_function("decide/condition", |b| {
        b.iter(|| {
            decide(
                &condition,
                black_box(&state),
                &customer,
                Input::Signal(&signal),
                Moment::now(Time(1)),
            )
        });
    });
}

criterion_group!(benches, rules);
criterion_main!(benches);
