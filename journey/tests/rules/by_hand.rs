//! What is done by hand: override, hold, resume, stop; and what waits meanwhile.

use crate::helper::{World, check, compile, key, signal};
use sojourn_journey::decide::{ByHand, Gate, Input, Moment, decide};
use sojourn_journey::limits;
use sojourn_journey::owed::{Effect, owed};
use sojourn_journey::receipt::{Fate, fate};
use sojourn_journey::time::Time;

const J: &str = r#"
journey: j
entry: [{ on: a.start }]
variables: { n: { type: number, from: signal.data.n } }
stages:
  - stage: one
    enter: [{ log: { text: in } }]
    leave: [{ log: { text: out } }]
    transitions:
      - { to: two, on: a.up, do: [{ log: { text: up } }] }
      - { to: late, after: 5d }
      - { to: two, when: vars.n > 5 }
  - stage: two
    enter: [{ log: { text: two } }]
    transitions: [{ to: end, on: a.end }, { to: one, on: a.back }]
  - stage: late
    transitions: [{ to: end, on: a.end }]
  - stage: end
    end: done
"#;

const ENTER: (&str, &str, &str, &str) = (
    "0s",
    "a.start",
    "started one",
    "start one 1 | arm one/1 5d | do one/enter/0",
);

#[test]
fn an_override_runs_leaving_and_entering_actions_and_the_transitions_when_asked() {
    check(
        J,
        &[
            ENTER,
            (
                "1m",
                "override two",
                "",
                "do one/leave/0 | one>two 2 (override ann) | do two/enter/0",
            ),
            (
                "2m",
                "override one",
                "",
                "two>one 3 (override ann) | arm one/1 7202m | do one/enter/0",
            ),
            (
                "3m",
                "override+ two",
                "",
                "do one/leave/0 | do one/0/do/0 | one>two 4 (override ann) | do two/enter/0",
            ),
            (
                "4m",
                "override end",
                "",
                "two>end 5 (override ann) | completed end done",
            ),
        ],
    );
}

#[test]
fn a_command_is_refused_with_what_would_be_accepted() {
    check(
        J,
        &[
            ENTER,
            ("1m", "override tow", "did you mean `two`?", ""),
            (
                "2m",
                "override elsewhere_entirely",
                "expected one of one, two, late, end",
                "",
            ),
            ("3m", "visit 7 override two", "visit 1 (stage `one`)", ""),
            (
                "4m",
                "override+ end",
                "no transition leads from `one` to `end`",
                "",
            ),
            ("5m", "resume", "it is not held", ""),
            ("6m", "stop Not A Slug", "no slug", ""),
            ("7m", "hold", "", "held ann"),
            ("8m", "hold", "already held by ann (why not)", ""),
            (
                "9m",
                "visit 1 override two",
                "",
                "do one/leave/0 | one>two 2 (override ann) | do two/enter/0",
            ),
            ("10m", "stop given_up", "", "stopped two given_up by ann"),
            ("11m", "override one", "the execution ended at", ""),
            ("12m", "hold", "the execution ended at", ""),
        ],
    );
}

#[test]
fn while_held_nothing_moves_signals_wait_and_timers_fire_on_resume_in_order() {
    check(
        J,
        &[
            ENTER,
            ("1d", "hold", "", "held ann"),
            ("2d", "a.back", "held", "queue a.back"),
            ("6d", "a.up", "held", "waits one/1 | queue a.up"),
            // The signal that waited first, then the timer, then the signal that came after it.
            (
                "7d",
                "resume",
                "",
                "resumed ann | take | unmatched a.back | fire one/1 | do one/leave/0 | one>late 2 (timer one/1) | take | unmatched a.up",
            ),
        ],
    );
}

#[test]
fn a_waiting_signal_keeps_its_own_time() {
    let world = check(
        J,
        &[
            ENTER,
            ("1d", "hold", "", "held ann"),
            ("2d", "a.up", "held", "queue a.up"),
            (
                "4d",
                "resume",
                "",
                "resumed ann | take | do one/leave/0 | do one/0/do/0 | one>two 2 (signal one/0) | do two/enter/0",
            ),
        ],
    );
    let began = world.execution().visit.began;
    assert_eq!(began.at, crate::helper::at("4d"));
    assert_eq!(began.occurred, crate::helper::at("2d"));
}

#[test]
fn the_queue_of_a_held_execution_has_a_limit() {
    let mut world = World::new(&[J]);
    world.step("0s", "a.start");
    world.step("1m", "hold");
    for _ in 0..limits::WAITING_SIGNALS {
        assert_eq!(world.step("2m", "a.back").0, "held");
    }
    let (answer, events) = world.step("3m", "a.back");
    assert!(
        answer.starts_with("refused: held queue full: 1000 signals wait"),
        "{answer}"
    );
    assert!(events.starts_with("refused held queue full"), "{events}");
    let (_, events) = world.step("4m", "resume");
    assert_eq!(
        events.matches("take | unmatched a.back").count(),
        limits::WAITING_SIGNALS
    );
    // And in bytes.
    let mut world = World::new(&[J]);
    world.step("0s", "a.start");
    world.step("1m", "hold");
    let big = format!(r#"a.back {{"text":"{}"}}"#, "x".repeat(200 * 1024));
    assert_eq!(world.step("2m", &big).0, "held");
    assert!(
        world
            .step("3m", &big)
            .0
            .starts_with("refused: held queue full")
    );
}

#[test]
fn a_held_journey_holds_all_its_executions_until_it_is_released() {
    let mut world = World::new(&[J]);
    world.step("0s", "a.start");
    let compiled = compile(J);
    let customer = world
        .simulation
        .customer(&key())
        .expect("a customer")
        .clone();
    let mut state = world.execution().clone();
    let closed = |at: Time| Moment {
        gate: Gate::Held,
        ..Moment::now(at)
    };
    let now = crate::helper::at("1h");
    let up = signal("a.up", "s", now);
    let mut apply = |input: Input<'_>, moment: Moment| {
        let events = decide(&compiled, &state, &customer, input, moment).expect("no refusal");
        for event in &events {
            sojourn_journey::evolve::evolve(&mut state, event);
        }
        (events, state.clone())
    };
    let (events, state) = apply(Input::Signal(&up), closed(now));
    assert_eq!(fate(&events), Fate::Held);
    assert!(
        owed(&state).contains(&Effect::Release),
        "what waits is owed"
    );
    let (events, _) = apply(Input::Release, closed(now));
    assert_eq!(
        events,
        Vec::new(),
        "while the journey is held nothing is released"
    );
    let (events, state) = apply(Input::Release, Moment::now(now));
    assert!(matches!(fate(&events), Fate::Moved { .. }), "{events:?}");
    assert_eq!(state.visit.stage, "two");
    assert!(!owed(&state).contains(&Effect::Release));
}

#[test]
fn stop_ends_without_actions() {
    let world = check(
        J,
        &[
            ENTER,
            ("1m", "stop", "", "stopped one - by ann"),
            ("2m", "a.up", "ended", ""),
        ],
    );
    let state = world.execution();
    assert!(state.timers.is_empty() && state.waiting.is_empty());
}

#[test]
fn each_command_has_the_word_that_records_bear() {
    let to = "open".to_owned();
    for (what, word) in [
        (
            ByHand::Override {
                to,
                run_actions: false,
            },
            "override",
        ),
        (ByHand::Hold, "hold"),
        (ByHand::Resume, "resume"),
        (ByHand::Stop { outcome: None }, "stop"),
        (
            ByHand::RetryAction {
                action: 1,
                new_key: false,
            },
            "retry_action",
        ),
        (ByHand::SkipAction { action: 1 }, "skip_action"),
    ] {
        assert_eq!(what.word(), word);
    }
}
