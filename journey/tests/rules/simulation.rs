//! The simulation, the report, test files, `why`, and the small rules around them.

use crate::helper::{START, World, after, at, compile, key, signal};
use sojourn_journey::customer::Customer;
use sojourn_journey::execution::Status;
use sojourn_journey::expr::Holds;
use sojourn_journey::identifier::{ExecutionId, customer_hash, slot_hash};
use sojourn_journey::limits;
use sojourn_journey::report::Report;
use sojourn_journey::signal::Identifier;
use sojourn_journey::simulate::Simulation;
use sojourn_journey::testfile;
use sojourn_journey::time::Time;
use sojourn_journey::why::{Waiting, why};
use std::cell::RefCell;
use std::rc::Rc;

const TWO: &str = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    transitions: [{ to: two, on: a.up }, { to: late, after: 2d }]
  - stage: two
    transitions: [{ to: end, on: a.end }]
  - stage: late
    end: lost
  - stage: end
    end: converted
"#;

#[test]
fn the_report_counts_people_outcomes_and_completed_visits() {
    let report = Rc::new(RefCell::new(Report::new(&compile(TWO))));
    let mut simulation = Simulation::new([compile(TWO)], "w");
    let watching = Rc::clone(&report);
    simulation.watch(move |h| watching.borrow_mut().observe(h.before, h.event));
    let steps = [
        ("0s", "a.start of=a"),
        ("0s", "a.start of=b"),
        ("0s", "a.start of=c"),
        ("10s", "a.up of=a"),
        ("20s", "a.up of=b"),
        ("50s", "a.end of=a"),
    ];
    for (n, (when, what)) in steps.iter().enumerate() {
        simulation.signal(&signal(what, &format!("s{n}"), at(when)));
    }
    simulation.advance(at("3d"));
    let report = report.borrow();
    let stage = |name: &str| {
        report
            .stages
            .iter()
            .find(|s| s.stage == name)
            .expect("a stage")
    };
    assert_eq!((report.started, report.moves), (3, 4));
    assert_eq!(
        (
            stage("one").people,
            stage("two").people,
            stage("end").people
        ),
        (0, 1, 0)
    );
    assert_eq!(
        (
            stage("one").time.count(),
            stage("two").time.count(),
            stage("end").time.count()
        ),
        (3, 1, 0)
    );
    assert_eq!(stage("one").time.sum(), 10.0 + 20.0 + 172_800.0);
    assert_eq!(stage("one").time.median(), Some(20.0));
    assert_eq!(stage("two").time.mean(), Some(40.0));
    assert_eq!(stage("late").time.median(), None);
    let outcomes: Vec<_> = report
        .outcomes
        .iter()
        .map(|((s, o), n)| (s.word(), o.clone(), *n))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("completed", Some("converted".to_owned()), 1),
            ("completed", Some("lost".to_owned()), 1)
        ]
    );
    assert_eq!((stage("end").ended, stage("late").ended), (1, 1));
}

#[test]
fn timers_fire_in_order_of_due_time_then_execution() {
    let mut world = World::new(&[TWO]);
    for who in ["b", "a"] {
        world
            .simulation
            .signal(&signal(&format!("a.start of={who}"), who, Time(START)));
    }
    world
        .simulation
        .signal(&signal("a.start of=0", "0", at("1m")));
    world.simulation.advance(at("9d"));
    let ended: Vec<String> = world
        .events()
        .iter()
        .filter(|(_, e)| matches!(e.what, sojourn_journey::event::What::Ended { .. }))
        .map(|(k, e)| format!("{} {}", k.customer.value, e.at))
        .collect();
    let (two, minute) = (at("2d"), at("2d1m"));
    assert_eq!(
        ended,
        [
            format!("a {two}"),
            format!("b {two}"),
            format!("0 {minute}")
        ]
    );
}

#[test]
fn an_execution_that_never_waits_is_put_aside() {
    let journey = r#"
journey: spin
entry: [{ on: a.start }]
stages:
  - stage: one
    transitions: [{ to: two, at: execution.entered_at }]
  - stage: two
    transitions: [{ to: one, at: execution.entered_at }, { to: end, on: a.end }]
  - stage: end
    end: done
"#;
    let mut world = World::new(&[journey]);
    world.step("0s", "a.start");
    world.simulation.advance(at("1m"));
    let troubles = world.simulation.troubles();
    assert!(
        troubles.len() == 1 && troubles[0].contains("put aside"),
        "{troubles:?}"
    );
}

#[test]
fn why_names_the_ways_out_what_holds_and_what_has_never_arrived() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
exit: [{ on: crm.deleted, outcome: gone }]
stages:
  - stage: live
    deadline: { after: 3d, move: end }
    transitions:
      - { to: end, when: 'Books.Invoice.Status == "Paid" && Desk.Department.Status == "Active"' }
      - { to: end, on: [a.up, a.jump], where: 'signal.data.n > 1' }
      - { to: end, all: [p.a, p.b], within: 1d }
      - { to: end, absent: m.opened, within: 2d }
      - { to: end }
  - stage: end
    end: done
"#;
    let mut world = World::new(&[journey]);
    world.step("0s", "a.start");
    world.step("1h", r#"Books.Invoice.updated {"Status":"Paid"}"#);
    world.step("2h", "p.a");
    let customer = world.simulation.customer(&key()).expect("a customer");
    let found = why(&compile(journey), world.execution(), customer, at("3h"));
    assert_eq!(
        (found.stage.as_str(), found.since, found.status),
        ("live", Time(START), Status::Active)
    );
    let [condition, any, all, absent, by_hand] = found.ways.as_slice() else {
        panic!("five ways: {found:#?}")
    };
    assert_eq!(condition.missing, ["Desk.Department.Status"]);
    let states: Vec<bool> = condition
        .parts
        .iter()
        .map(|p| p.state == Holds::Yes)
        .collect();
    assert_eq!(states, [true, false]);
    assert_eq!(
        condition.text,
        "to `end`: waits until `Books.Invoice.Status == \"Paid\"` (holds); and `Desk.Department.Status == \"Active\"` \
         (Desk.Department.Status has never arrived)"
    );
    assert_eq!(
        any.text,
        "to `end`: waits for a signal `a.up` where signal.data.n > 1, a signal `a.jump` where signal.data.n > 1"
    );
    assert_eq!(
        all.waits_for,
        [Waiting::Signal {
            kind: "p.b".to_owned(),
            where_: None,
            until: Some(at("1d"))
        }]
    );
    assert_eq!(absent.opens_at, Some(at("2d")));
    assert_eq!(by_hand.waits_for, [Waiting::ByHand]);
    assert_eq!(
        found.exits[0].text,
        "exit with outcome `gone`: waits for a signal `crm.deleted`"
    );
    assert_eq!(found.deadlines[0].to.as_deref(), Some("end"));
    assert_eq!(found.deadlines[0].due, at("3d"));
    assert!(found.text.contains("5 ways out"), "{}", found.text);
    // After its time a pattern waits for nothing in this visit.
    let later = why(&compile(journey), world.execution(), customer, at("25h"));
    assert_eq!(
        later.ways[2].text,
        format!(
            "to `end`: not in this visit any more, its time ended at {}",
            at("1d")
        )
    );
    assert!(
        later.ways[1].text.contains("waits for"),
        "{:?}",
        later.ways[1]
    );
}

#[test]
fn attributes_are_merged_newest_by_event_time_within_limits() {
    let mut customer = Customer::new(key());
    let mut tell = |attributes: &str, when: &str| {
        let change = customer.change(
            &signal(&format!("a.b attributes={attributes}"), "s", at(when)),
            at("9d"),
        );
        customer.apply(&change);
        (customer.clone(), change)
    };
    tell(r#"{"city":"Delft","age":1}"#, "2d");
    // Older: does not replace, but a key that is new is taken.
    let (customer, _) = tell(r#"{"city":"Ghent","name":"Ann"}"#, "1d");
    let text = |c: &Customer, name: &str| c.attributes[name].value.to_text();
    assert_eq!(
        (text(&customer, "city"), text(&customer, "name")),
        ("Delft".to_owned(), "Ann".to_owned())
    );
    let (customer, _) = tell(r#"{"city":"Ghent"}"#, "2d");
    assert_eq!(text(&customer, "city"), "Ghent");
    let many: Vec<String> = (0..80).map(|n| format!(r#""k{n:02}":{n}"#)).collect();
    let (customer, change) = tell(&format!("{{{}}}", many.join(",")), "3d");
    assert_eq!(customer.attributes.len(), limits::ATTRIBUTES);
    assert_eq!(change.left_out.len(), 80 + 3 - limits::ATTRIBUTES);
}

#[test]
fn an_attribute_that_nests_too_deep_is_left_out() {
    let list = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let attributes = format!(
        r#"{{"deep":{},"most":{}}}"#,
        list(limits::VALUE_DEPTH + 1),
        list(limits::VALUE_DEPTH)
    );
    let told = signal(&format!("a.b attributes={attributes}"), "s", at("1d"));
    let change = Customer::new(key()).change(&told, at("1d"));
    assert_eq!(change.left_out, ["deep"]);
    assert_eq!(change.attributes.keys().collect::<Vec<_>>(), ["most"]);
}

#[test]
fn identifiers_have_one_written_form_and_a_hash() {
    let table = [
        ("email", " Ann@Example.ORG ", Ok("ann@example.org")),
        ("phone", " +31 6 ", Ok("+31 6")),
        ("name", "Ame\u{301}lie", Ok("Am\u{e9}lie")),
        ("email", "  ", Err("empty value")),
        ("Email", "x", Err("no slug")),
        ("", "x", Err("no slug")),
        ("id", "a\u{0}b", Err("control character U+0000")),
    ];
    for (name, value, expected) in table {
        match (Identifier::new(name, value), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.value, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => {
                panic!("{name:?} {value:?}: expected {expected:?}, found {found:?}")
            }
        }
    }
    let long = "x".repeat(limits::IDENTIFIER_VALUE_BYTES);
    assert!(Identifier::new("id", &long).is_ok());
    assert!(Identifier::new("id", &format!("{long}x")).is_err());
    // By hand: the bytes of the layout, hashed.
    let bytes = b"\x00\x01w\x00\x02id\x00\x02c1";
    assert_eq!(
        customer_hash("w", &key()),
        xxhash_rust::xxh3::xxh3_64(bytes)
    );
    assert_eq!(
        slot_hash("j", None),
        xxhash_rust::xxh3::xxh3_64(b"\x00\x01j\x00\x00")
    );
    let id = ExecutionId::new("w", &key(), "j", Some("i"), 3);
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in [
        "",
        "1-2-3",
        "0000000000000000-0000000000000000-0",
        "0000000000000000-0000000000000000-1-1",
        "000000000000000G-0000000000000000-1",
    ] {
        assert!(bad.parse::<ExecutionId>().is_err(), "{bad}");
    }
}

#[test]
fn a_signal_is_checked_field_by_field() {
    let good = signal("a.b", "s", at("0s"));
    assert_eq!(good.check(), Ok(()));
    let fields = |change: &dyn Fn(&mut sojourn_journey::signal::Signal)| {
        let mut signal = good.clone();
        change(&mut signal);
        signal
            .check()
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|(field, _)| field)
            .collect::<Vec<_>>()
    };
    assert_eq!(fields(&|s| s.id.clear()), ["id"]);
    assert_eq!(fields(&|s| s.kind = "a b".to_owned()), ["type"]);
    assert_eq!(
        fields(&|s| s.kind = "customer.updated".to_owned()),
        ["type"]
    );
    assert_eq!(fields(&|s| s.source.clear()), ["source"]);
    assert_eq!(fields(&|s| s.identifiers.clear()), ["identifiers"]);
    assert_eq!(
        fields(&|s| s.identifiers = vec![key(); 10_000]),
        ["identifiers"]
    );
}

const TEST_FILE: &str = r#"
tests:
  - test: silence loses a customer
    start: 2026-01-05T08:00:00Z
    customer: { id: c1 }
    steps:
      - signal: a.start
        expect: { receipt: started, stage: one, actions: [], waits: [a.up], due: 2d }
      - after: 2d
        expect: { status: completed, outcome: lost, stage: late }
      - signal: a.up
        expect: { receipt: ended }
  - test: who goes up waits for the end
    customer: { id: c1 }
    steps:
      - signal: a.start
      - after: 1d
        signal: a.up
        expect: { receipt: moved, stage: two, waits: [a.end] }
      - hold: to look at it
        expect: { status: held }
      - hold: again
        expect: { refused: already held }
      - stop: given_up
        expect: { status: stopped, outcome: given_up }
"#;

#[test]
fn a_test_file_passes_or_says_what_differs_and_where() {
    let compiled = compile(TWO);
    let report = testfile::run(TEST_FILE, &compiled).expect("a test file");
    assert!(report.passed(), "{report:#?}");
    assert_eq!(
        report.tests.iter().map(|t| t.steps).collect::<Vec<_>>(),
        [3, 5]
    );
    let wrong = TEST_FILE
        .replace("stage: late", "stage: two")
        .replace("waits: [a.end]", "waits: [a.never]");
    let report = testfile::run(&wrong, &compiled).expect("a test file");
    let texts: Vec<String> = report
        .tests
        .iter()
        .flat_map(|t| &t.failures)
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "line 9, step 2: stage: expected `two`, found `late`",
            "line 17, step 2: waits: expected a.never, found [a.end]",
        ]
    );
}

/// A journey in which something goes wrong, a goal and values are there to be expected.
const PARCEL: &str = r#"
journey: parcel
goal: { stage: sent, within: 2d }
entry: [{ on: a.start }]
stages:
  - stage: packed
    enter: [{ webhook: { to: depot, await: label } }]
    transitions:
      - { to: packed, on: a.again, do: [{ log: "{{ Depot.Goods.weight / 0 }}" }] }
      - { to: sent, on: a.sent, keep: { van: signal.data.van } }
  - stage: sent
    transitions: [{ to: end, on: a.end }]
  - stage: end
    end: done
"#;

#[test]
fn a_test_file_expects_facts_kept_values_the_goal_and_incidents() {
    let file = |steps: &[&str]| {
        let steps: Vec<String> = steps.iter().map(|s| format!("      - {s}\n")).collect();
        format!(
            "tests:\n  - test: t\n    customer: {{ id: c1 }}\n    steps:\n      - signal: a.start\n{}",
            steps.concat()
        )
    };
    let weighed = "{ signal: Depot.Goods.weighed, data: { weight: 5 }, expect: { facts: { Depot.Goods.weight: 5.0 }, goal: none } }";
    // (steps after the start, what is not as expected)
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &[
                weighed,
                "{ after: 1d, signal: a.sent, data: { van: 7 }, expect: { kept: { van: 7 }, goal: in_time } }",
                "{ after: 9d, expect: { goal: in_time } }",
            ],
            &[],
        ),
        (
            &["{ after: 3d, signal: a.sent, expect: { kept: { van: 7 }, goal: in_time } }"],
            &[
                "kept.van: expected `7`, found `nothing`",
                "goal: expected `in_time`, found `late`",
            ],
        ),
        (
            &["{ signal: x.y, expect: { facts: { Depot.Goods.weight: 5 } } }"],
            &["facts.Depot.Goods.weight: expected `5`, found `nothing`"],
        ),
        // Whoever expects nothing expects no incident.
        (
            &[weighed, "signal: a.again"],
            &[
                "an incident that was not expected: stage/packed/transition/0/do/0: action not owed: ",
            ],
        ),
        (
            &[weighed, "{ signal: a.again, expect: { stage: packed } }"],
            &["an incident that was not expected: stage/packed/transition/0/do/0"],
        ),
        (
            &[
                weighed,
                "{ signal: a.again, expect: { incident: packed/transition/0 } }",
                "{ after: 1h, expect: { incident: action not owed } }",
            ],
            &[],
        ),
        (
            &["{ after: 1h, expect: { incident: depot } }"],
            &["incident: expected one with `depot`, found `none`"],
        ),
        // What the test itself had fail is expected.
        (&["{ result: { action: label, is: failed } }"], &[]),
    ];
    let compiled = compile(PARCEL);
    for (steps, expected) in cases {
        let report = testfile::run(&file(steps), &compiled).expect("a test file");
        let found: Vec<&str> = report.tests[0]
            .failures
            .iter()
            .map(|f| f.message.as_str())
            .collect();
        let same = found.len() == expected.len()
            && found.iter().zip(expected).all(|(f, e)| f.starts_with(e));
        assert!(same, "{steps:#?}\nexpected {expected:#?}\nfound {found:#?}");
    }
    let wrong = testfile::run(&file(&["expect: { goal: soon }"]), &compiled).expect_err("no goal");
    assert!(
        wrong.message.contains("expected in_time, late or none"),
        "{wrong}"
    );
}

#[test]
fn a_test_file_that_is_none_is_told_where() {
    let compiled = compile(TWO);
    let table = [
        ("tests: [", "", 1),
        (
            "tests:\n  - test: a\n    customer: { id: c1 }\n    stepps: []\n",
            "stepps",
            4,
        ),
        (
            "tests:\n  - test: a\n    customer: { Id: c1 }\n    steps: []\n",
            "slug",
            2,
        ),
        (
            "tests:\n  - test: a\n    customer: {}\n    steps: []\n",
            "at least one identifier",
            2,
        ),
        (
            "tests:\n  - test: a\n    customer: { id: c1 }\n    steps:\n      - after: soon\n",
            "soon",
            5,
        ),
        (
            "tests:\n  - test: a\n    customer: { id: c1 }\n    steps:\n      - { signal: a.b, hold: x }\n",
            "one thing",
            5,
        ),
        (
            "tests:\n  - test: a\n    customer: { id: c1 }\n    steps:\n      - { stop: x }\n",
            "no execution",
            5,
        ),
        (
            "tests:\n  - test: a\n    customer: { id: c1 }\n    steps:\n      - {}\n",
            "empty step",
            5,
        ),
    ];
    for (text, part, line) in table {
        let problem = testfile::run(text, &compiled).expect_err(text);
        assert!(problem.message.contains(part), "{text}: {problem}");
        assert_eq!(problem.line, line, "{text}: {problem}");
    }
}

#[test]
fn a_span_in_the_table_is_what_it_says() {
    assert_eq!(at("1d"), Time(START).plus(after("24h")));
}

/// Worked out with another implementation of xxh3 (Python's xxhash): what places a customer can never change.
#[test]
fn the_hash_that_places_a_customer_never_changes() {
    let long = "x".repeat(limits::IDENTIFIER_VALUE_BYTES);
    let table = [
        ("default", "application_id", "173688", 0x3981_e6c7_982a_915b),
        (
            "acme",
            "email",
            "Am\u{e9}lie@Example.org",
            0x2120_ae4f_8c86_9b7f,
        ),
        ("w", "id", long.as_str(), 0x2ff1_b00a_7f28_aa43),
    ];
    for (workspace, name, value, expected) in table {
        let key = Identifier::new(name, value).expect("an identifier");
        assert_eq!(
            customer_hash(workspace, &key),
            expected,
            "{workspace} {key}"
        );
    }
    assert_eq!(slot_hash("loan", None), 0x0658_3cb4_7141_0f07);
    assert_eq!(slot_hash("loan", Some("l-1")), 0xebfe_3dfe_5ac7_0ca9);
}
