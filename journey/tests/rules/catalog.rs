//! Whom a signal concerns when journeys have versions and are deactivated.

use crate::helper::{at, compile, key, signal};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::Moment;
use sojourn_journey::enter::enter;
use sojourn_journey::plan::{Catalog, JourneyState, Part, plan};
use std::sync::Arc;

const ONE: &str = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#;

/// A journey with any number of versions, of which at most one is live.
struct Shelf {
    versions: Vec<Arc<Compiled>>,
    live: Option<u32>,
    state: JourneyState,
}

impl Catalog for Shelf {
    fn live(&self, journey: &str) -> Option<(u32, Arc<Compiled>)> {
        self.live.and_then(|v| Some((v, self.version(journey, v)?)))
    }

    fn version(&self, journey: &str, version: u32) -> Option<Arc<Compiled>> {
        let at = usize::try_from(version).ok()?.checked_sub(1)?;
        self.versions.get(at).filter(|c| c.name == journey).cloned()
    }

    fn listening(&self, kind: &str) -> Vec<String> {
        let live = self.live("j");
        live.filter(|(_, c)| c.entry.iter().any(|e| e.on.iter().any(|o| o == kind)))
            .map(|(_, c)| c.name.clone())
            .into_iter()
            .collect()
    }

    fn state(&self, _journey: &str) -> JourneyState {
        self.state
    }
}

fn shelf(state: JourneyState) -> Shelf {
    Shelf {
        versions: vec![compile(ONE), compile(ONE)],
        live: Some(2),
        state,
    }
}

/// A customer whose run of version 1 is active.
fn inside() -> Customer {
    let compiled = compile(ONE);
    let mut customer = Customer::new(key());
    let start = signal("a.start", "s0", at("0s"));
    for event in enter(
        &compiled,
        1,
        &customer,
        &start,
        None,
        1,
        Moment::of(&start, at("0s")),
    ) {
        customer.note("j", None, 1, &event);
    }
    customer
}

fn parts(shelf: &Shelf, customer: Option<&Customer>, what: &str) -> Vec<String> {
    let customer = customer.map(|c| Arc::new(c.clone()));
    let planned = plan(
        shelf,
        customer.as_ref(),
        &key(),
        &signal(what, "s", at("1h")),
        at("1h"),
    );
    let texts = planned.parts.iter().map(|part| match part {
        Part::Existing { run, version, .. } => format!("existing run {run} version {version}"),
        Part::Enter { run, version, .. } => format!("enter run {run} version {version}"),
        Part::Refused { reason, .. } => format!("refused {reason}"),
        Part::Ended { run, .. } => format!("ended run {run}"),
    });
    texts.collect()
}

#[test]
fn those_inside_stay_on_their_version_and_new_ones_enter_the_live_one() {
    let shelf = shelf(JourneyState::Active);
    assert_eq!(
        parts(&shelf, Some(&inside()), "a.up"),
        ["existing run 1 version 1"]
    );
    assert_eq!(parts(&shelf, None, "a.start"), ["enter run 1 version 2"]);
    assert_eq!(parts(&shelf, None, "a.up"), [] as [&str; 0]);
}

#[test]
fn a_deactivated_journey_lets_nobody_in() {
    let table = [
        (
            JourneyState::Held,
            "existing run 1 version 1",
            "refused the journey is held",
        ),
        (
            JourneyState::Draining,
            "existing run 1 version 1",
            "refused the journey is draining",
        ),
        (
            JourneyState::Dropped,
            "refused the journey is deactivated",
            "refused the journey is deactivated",
        ),
    ];
    for (state, existing, entering) in table {
        let shelf = shelf(state);
        let [found] = parts(&shelf, Some(&inside()), "a.up")
            .try_into()
            .expect("one part");
        assert!(found.starts_with(existing), "{state:?}: {found}");
        let [found] = parts(&shelf, None, "a.start").try_into().expect("one part");
        assert!(found.starts_with(entering), "{state:?}: {found}");
    }
}

#[test]
fn without_a_live_version_those_inside_go_on_and_ended_ones_answer() {
    let shelf = Shelf {
        live: None,
        ..shelf(JourneyState::Active)
    };
    let mut customer = inside();
    assert_eq!(
        parts(&shelf, Some(&customer), "a.start"),
        ["existing run 1 version 1"]
    );
    customer.runs[0].status = sojourn_journey::execution::Status::Completed;
    customer.runs[0].ended = Some(at("1m"));
    assert_eq!(parts(&shelf, Some(&customer), "a.start"), ["ended run 1"]);
}

#[test]
fn a_record_keeps_the_latest_run_of_each_instance() {
    use sojourn_journey::event::{Event, What};
    use sojourn_journey::execution::Status;
    let mut customer = inside();
    let event = |number, what| Event {
        number,
        at: at("2h"),
        occurred: at("2h"),
        what,
    };
    let by = |t: &str| t.to_owned();
    customer.note(
        "j",
        None,
        1,
        &event(
            1,
            What::Held {
                actor: by("ann"),
                reason: by("why"),
            },
        ),
    );
    assert_eq!(customer.runs[0].status, Status::Held);
    customer.note(
        "j",
        None,
        1,
        &event(
            2,
            What::Resumed {
                actor: by("ann"),
                reason: by("why"),
            },
        ),
    );
    assert_eq!(customer.runs[0].status, Status::Active);
    let ended = What::Ended {
        status: Status::Exited,
        stage: by("one"),
        outcome: Some(by("gone")),
        by: None,
    };
    customer.note("j", None, 1, &event(3, ended.clone()));
    assert_eq!(
        (customer.runs[0].status, customer.runs[0].ended),
        (Status::Exited, Some(at("2h")))
    );
    for run in 2..5 {
        let started = What::Started {
            journey: by("j"),
            version: 2,
            customer: key(),
            instance: None,
            run,
            stage: by("one"),
        };
        customer.note("j", None, run, &event(0, started));
        customer.note("j", None, run, &event(1, ended.clone()));
    }
    assert_eq!(
        customer
            .runs
            .iter()
            .map(|r| (r.run, r.version))
            .collect::<Vec<_>>(),
        [(4, 2)]
    );
}

const EACH: &str = r#"
journey: each
entry: [{ on: a.start }]
instance_key: signal.data.i
reentry: { mode: never }
stages:
  - stage: one
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#;

#[test]
fn the_record_forgets_the_runs_that_ended_first_and_gives_no_number_twice() {
    use sojourn_journey::event::{Event, What};
    use sojourn_journey::execution::Status;
    use sojourn_journey::limits::RUNS;
    use sojourn_journey::time::Span;
    let mut customer = Customer::new(key());
    let note = |customer: &mut Customer, instance: &str, run, second, what| {
        let time = at("0s").plus(Span::from_seconds(second));
        let event = Event {
            number: 0,
            at: time,
            occurred: time,
            what,
        };
        customer.note("each", Some(instance), run, &event);
    };
    let started = |instance: &str, run| What::Started {
        journey: "each".to_owned(),
        version: 1,
        customer: key(),
        instance: Some(instance.to_owned()),
        run,
        stage: "one".to_owned(),
    };
    let ended = || What::Ended {
        status: Status::Completed,
        stage: "end".to_owned(),
        outcome: None,
        by: None,
    };
    // The oldest of all stays active; the others end in the reverse order of their start.
    note(&mut customer, "active", 1, 0, started("active", 1));
    let run_of = |n| if n == RUNS - 1 { 7 } else { 1 };
    for n in 1..RUNS {
        let (name, run) = (n.to_string(), run_of(n));
        note(&mut customer, &name, run, 1, started(&name, run));
    }
    for n in 1..RUNS {
        let second = (2 * RUNS - n) as i64;
        note(&mut customer, &n.to_string(), run_of(n), second, ended());
    }
    assert_eq!((customer.runs.len(), customer.forgotten), (RUNS, 0));
    let has = |customer: &Customer, instance: &str| {
        let mut runs = customer.runs.iter();
        runs.any(|r| r.instance.as_deref() == Some(instance))
    };
    let last = (RUNS - 1).to_string();
    assert!(has(&customer, &last));
    note(&mut customer, "new", 1, 1_000, started("new", 1));
    assert_eq!((customer.runs.len(), customer.forgotten), (RUNS, 7));
    assert!(!has(&customer, &last), "it ended first");
    assert!(has(&customer, "active") && has(&customer, "new") && has(&customer, "1"));
    for n in 0..3 * RUNS {
        let (name, second) = (format!("more{n}"), 2_000 + n as i64);
        note(&mut customer, &name, 8, second, started(&name, 8));
        note(&mut customer, &name, 8, second, ended());
        assert_eq!(customer.runs.len(), RUNS);
    }
    assert!(has(&customer, "active") && has(&customer, "new"));
    assert_eq!(customer.forgotten, 8);

    // What is forgotten may enter again, under a number that nobody ever had; what is remembered may not.
    let shelf = Shelf {
        versions: vec![compile(EACH)],
        live: Some(1),
        state: JourneyState::Active,
    };
    let told = |what: &str, instance: &str| {
        let what = format!(r#"{what} {{"i":"{instance}"}}"#);
        parts(&shelf, Some(&customer), &what)
    };
    let kept = format!("more{}", 3 * RUNS - 1);
    assert_eq!(told("a.start", "1"), ["enter run 9 version 1"]);
    let known = told("a.start", &kept);
    assert!(known[0].starts_with("refused re-entry"), "{known:?}");
    // A signal of an ended run is answered `ended` while the run is remembered, and with nothing afterwards.
    assert_eq!(told("a.up", &kept), ["ended run 8"]);
    assert_eq!(told("a.up", "1"), [] as [&str; 0]);
}
