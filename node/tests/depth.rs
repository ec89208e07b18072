//! Whatever the rules take in can be written and read again: values as deep as they allow, in everything that is stored.

use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::customer::{Customer, CustomerChange};
use sojourn_journey::decide::{Input, Moment, decide};
use sojourn_journey::enter::enter;
use sojourn_journey::event::{Event, What};
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
use sojourn_journey::identifier::customer_hash;
use sojourn_journey::limits::VALUE_DEPTH;
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::time::Time;
use sojourn_journey::value::{MAX_JSON_DEPTH, Value};
use sojourn_node::shard::customer::{CustomerState, DecisionId, pack, unpack};
use sojourn_node::shard::decision::{Decision, Part, id_hash_of};
use sojourn_proto::{stored, v1};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A fact, a variable and a kept value, all from one signal.
const JOURNEY: &str = r#"
journey: deep
entry: [{ on: a.start }]
variables:
  v: { from: "signal.data.x" }
stages:
  - stage: one
    transitions:
      - { to: two, on: Deep.Thing.updated, keep: { k: "signal.data.x" } }
  - stage: two
    transitions:
      - { to: end, when: "Deep.Thing.x == 1" }
  - stage: end
    end: done
"#;

fn lists(levels: usize) -> Value {
    (0..levels).fold(Value::Int(7), |inner, _| Value::List(vec![inner]))
}

fn maps(levels: usize) -> Value {
    (0..levels).fold(Value::Int(7), |inner, _| {
        Value::Map(BTreeMap::from([("m".to_owned(), inner)]))
    })
}

fn at() -> Time {
    Time::parse("2026-01-05T09:00:00Z").expect("a time")
}

fn key() -> Identifier {
    Identifier::new("id", "c1").expect("an identifier")
}

fn journey() -> Compiled {
    match Journey::compile(JOURNEY, &Known::default()) {
        Ok(checked) => checked.compiled,
        Err(problems) => panic!("{problems:#?}"),
    }
}

fn told(id: &str, kind: &str, data: BTreeMap<String, Value>) -> Signal {
    Signal {
        id: id.to_owned(),
        source: "test".to_owned(),
        kind: kind.to_owned(),
        time: Some(at()),
        identifiers: vec![key()],
        data,
        attributes: BTreeMap::new(),
    }
}

fn named(value: &Value) -> BTreeMap<String, Value> {
    BTreeMap::from([("x".to_owned(), value.clone())])
}

/// What the rules make of one value, as a fact, a variable, a kept value and an attribute.
struct Made {
    customer: Customer,
    change: CustomerChange,
    state: Execution,
    events: Vec<Event>,
}

fn make(journey: &Compiled, value: &Value) -> Made {
    let mut customer = Customer::new(key());
    let start = told("s1", "a.start", BTreeMap::new());
    let moment = Moment::of(&start, at());
    let mut events = enter(journey, 1, &customer, &start, None, 1, moment);
    let mut state = Execution::replay(&events).expect("it started");
    let mut signal = told("s2", "Deep.Thing.updated", named(value));
    signal.attributes = named(value);
    let change = customer.change(&signal, at());
    customer.apply(&change);
    let moment = Moment::of(&signal, at());
    let more = decide(journey, &state, &customer, Input::Signal(&signal), moment)
        .expect("a signal is never refused");
    for event in &more {
        evolve(&mut state, event);
    }
    events.extend(more);
    Made {
        customer,
        change,
        state,
        events,
    }
}

impl Made {
    /// The decision of it all, written and read again.
    fn decided(&self) -> Decision {
        let hash = customer_hash("default", &key());
        let cause = stored::cause::Cause::Signal(v1::Signal {
            id: "s2".to_owned(),
            source: "test".to_owned(),
            r#type: "Deep.Thing.updated".to_owned(),
            ..v1::Signal::default()
        });
        let decision = Decision {
            id: DecisionId {
                term: 1,
                node: 1,
                epoch: 1,
                counter: 1,
            },
            previous: None,
            workspace: "default".to_owned(),
            customer: key(),
            hash,
            at: at(),
            occurred: at(),
            id_hash: id_hash_of(hash, &cause),
            cause,
            change: self.change.clone(),
            parts: vec![Part {
                journey: "deep".to_owned(),
                instance: None,
                run: 1,
                events: self.events.clone(),
                fate: None,
            }],
            catalog: 1,
            content: 0,
            time_ahead: false,
            notes: Vec::new(),
            returned: None,
            outcome: None,
        };
        Decision::decode(&decision.encode()).expect("a decision can be read again")
    }

    /// The customer with its execution, packed and unpacked, is what it was.
    fn packs(self) {
        let mut state = CustomerState::new("default".to_owned(), self.customer, 1);
        state.executions.push(Arc::new(self.state));
        let bucket = vec![state];
        let read = unpack(&pack(&bucket)).expect("a customer can be read again");
        assert_eq!(read, bucket);
    }
}

#[test]
fn values_at_the_limit_are_written_and_read_again() {
    let journey = journey();
    for value in [lists(VALUE_DEPTH), maps(VALUE_DEPTH)] {
        let mut made = make(&journey, &value);
        assert_eq!(made.state.facts["Deep.Thing.x"].value, value);
        assert_eq!(made.state.vars["v"], value);
        assert_eq!(made.state.kept["k"], value);
        assert_eq!(made.customer.attributes["x"].value, value);
        let read = made.decided();
        assert_eq!(read.change, made.change);
        assert_eq!(read.parts[0].events, made.events);
        made.customer.forgotten = 3;
        made.packs();
    }
}

#[test]
fn one_level_more_is_taken_nowhere() {
    let journey = journey();
    for value in [lists(VALUE_DEPTH + 1), maps(VALUE_DEPTH + 1), maps(60)] {
        let made = make(&journey, &value);
        assert!(made.state.facts.is_empty(), "{:?}", made.state.facts);
        assert!(made.state.vars.is_empty(), "{:?}", made.state.vars);
        assert!(made.state.kept.is_empty(), "{:?}", made.state.kept);
        assert!(made.customer.attributes.is_empty());
        assert_eq!(made.change.left_out, ["x"]);
        let limit = format!("levels: expected at most {VALUE_DEPTH}");
        let incident = |e: &Event| match &e.what {
            What::Incident { place, message, .. } if message.ends_with(&limit) => {
                Some(place.clone())
            }
            _ => None,
        };
        let incidents: Vec<String> = made.events.iter().filter_map(incident).collect();
        let places = ["facts", "variable/v", "stage/one/transition/0/keep/k"];
        assert_eq!(incidents, places);
        assert_eq!(made.state.visit.stage, "two", "it moves all the same");
        assert_eq!(made.decided().parts[0].events, made.events);
        made.packs();
    }
}

/// A signal that waits keeps its data as JSON: that may nest deeper than what the rules take in.
#[test]
fn the_data_of_a_signal_that_waits_may_be_deeper() {
    let mut made = make(&journey(), &Value::Int(1));
    // with the object around it, the most that is read
    let data = named(&maps(MAX_JSON_DEPTH - 1));
    let waits = Event {
        number: made.state.next,
        at: at(),
        occurred: at(),
        what: What::SignalWaits(Box::new(told("s3", "Deep.Thing.updated", data))),
    };
    evolve(&mut made.state, &waits);
    made.events.push(waits);
    assert_eq!(made.decided().parts[0].events, made.events);
    made.packs();
}
