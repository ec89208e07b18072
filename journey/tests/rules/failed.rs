//! A failed action is kept until somebody retries or skips it by hand.

use crate::helper::{World, check};
use sojourn_journey::event::What;
use sojourn_journey::limits;
use sojourn_journey::owed::{owed, ready};

const SCORE: &str = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: scoring, await: score }
      - webhook: { to: scoring, await: other }
    transitions:
      - { to: two, when: 'action.score.status == "done"' }
      - { to: end, on: a.up }
      - { to: one, on: a.again }
  - stage: two
    end: done
  - stage: end
    enter: [{ webhook: { to: bye, await: bye } }]
    end: gone
"#;

const FAILED: &str = r#"failed no | incident one/enter/0: action failed at attempt 1: no | fact action.score.status="failed""#;

/// The first action has failed.
fn failed_once() -> World {
    let mut world = World::new(&[SCORE]);
    world.step("0s", "a.start");
    assert_eq!(world.step("1m", "failed score").1, FAILED);
    world
}

#[test]
fn a_retried_action_is_owed_again_and_its_result_moves_on() {
    let mut world = failed_once();
    let failed = world.execution().failed.clone();
    assert_eq!((failed.len(), failed[0].attempts), (1, 1));
    assert_eq!(failed[0].error, "no");
    assert_eq!(failed[0].at, crate::helper::at("1m"));
    let incident = world.execution().incident.clone().expect("an incident");
    assert_eq!(incident.action, Some(failed[0].number));

    let (answer, events) = world.step("2m", "again score");
    assert_eq!(answer, "");
    assert_eq!(
        events,
        r#"retried 1 by ann | fact action.score.status="pending""#
    );
    let state = world.execution();
    assert!(state.failed.is_empty());
    assert!(
        state.incident.is_some(),
        "tried again is not yet done: the incident stays"
    );
    let again = &state.owed[0];
    assert_eq!(
        (again.number, again.key, again.attempts, again.before),
        (1, 1, 1, 1),
        "its key stays, its attempts are numbered on"
    );
    // the result of the attempt that failed is no result of the one that follows
    let (_, events) = world.step("3m", "retry score");
    assert_eq!(events, "attempt 2 busy");
    let (_, events) = world.step("4m", "done score");
    assert_eq!(
        events,
        r#"done 200 | fact action.score.status="done" | one>two 2 (condition one/0) | completed two done"#
    );
    assert_eq!(
        world.execution().incident,
        None,
        "every failed action is settled"
    );
}

#[test]
fn a_new_key_is_the_number_of_the_retry_and_stays_for_its_attempts() {
    let mut world = failed_once();
    let next = world.execution().next;
    let (_, events) = world.step("2m", "again+ score");
    assert!(
        events.starts_with("retried 1 with a new key by ann"),
        "{events}"
    );
    let key = |world: &World| {
        (
            world.execution().owed[0].number,
            world.execution().owed[0].key,
        )
    };
    assert_eq!(key(&world), (1, next));
    world.step("3m", "retry score");
    assert_eq!(key(&world), (1, next));
    // it fails once more, and is retried with the key that it has
    world.step("4m", "failed score");
    assert_eq!(world.execution().failed[0].attempts, 3);
    world.step("5m", "again score");
    assert_eq!(key(&world), (1, next));
    assert_eq!(world.execution().owed[0].before, 3);
}

#[test]
fn a_skipped_action_is_settled_and_the_incident_with_the_last_of_them() {
    check(
        SCORE,
        &[
            ("0s", "a.start", "started one", "*"),
            ("1m", "failed score", "", FAILED),
            ("1m", "failed other", "", "*"),
            (
                "2m",
                "skip score",
                "",
                r#"skipped 1 by ann | fact action.score.status="skipped""#,
            ),
            (
                "3m",
                "skip 1",
                "action 1 has not failed: expected one of 2",
                "",
            ),
        ],
    );
    let mut world = failed_once();
    world.step("1m", "failed other");
    world.step("2m", "skip score");
    assert!(world.execution().incident.is_some(), "one is left");
    world.step("3m", "again other");
    assert!(world.execution().incident.is_some(), "it is tried again");
    world.step("4m", "failed other");
    world.step("5m", "skip other");
    assert_eq!(world.execution().incident, None);
    assert!(world.execution().failed.is_empty());
}

#[test]
fn what_has_not_failed_is_neither_retried_nor_skipped() {
    check(
        SCORE,
        &[
            ("0s", "a.start", "started one", "*"),
            (
                "1m",
                "again 1",
                "action 1 has not failed: it is owed still, after 0 attempts",
                "",
            ),
            (
                "2m",
                "skip 17",
                "action 17 has not failed: no action of this execution has",
                "",
            ),
            ("3m", "failed score", "", FAILED),
            (
                "4m",
                "again 17",
                "action 17 has not failed: expected one of 1",
                "",
            ),
        ],
    );
}

#[test]
fn an_ended_execution_keeps_its_failed_actions() {
    let mut world = World::new(&[SCORE]);
    world.step("0s", "a.start");
    world.step("1m", "done other");
    world.step("1m", "skipped score");
    world.step("2m", "a.up");
    assert!(world.execution().is_ended());
    let (_, events) = world.step("3m", "failed bye");
    assert_eq!(
        events,
        "failed no | incident end/enter/0: action failed at attempt 1: no"
    );
    let number = world.execution().failed[0].number;
    // other commands are refused as ever
    assert!(
        world
            .step("4m", "hold")
            .0
            .contains("the execution ended at")
    );
    let (answer, events) = world.step("4m", "again bye");
    assert_eq!(
        (answer.as_str(), events),
        ("", format!("retried {number} by ann"))
    );
    let (_, events) = world.step("5m", "failed bye");
    assert_eq!(
        events,
        "failed no | incident end/enter/0: action failed at attempt 2: no"
    );
    let (_, events) = world.step("6m", "skip bye");
    assert_eq!(events, format!("skipped {number} by ann"));
    assert_eq!(world.execution().incident, None);
    assert!(owed(world.execution()).is_empty());
}

#[test]
fn a_retried_action_takes_its_place_in_its_list() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: hook, await: first }
      - webhook: { to: hook, await: second }
      - webhook: { to: hook, await: third }
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#;
    let mut world = World::new(&[journey]);
    let ready = |world: &World| -> Vec<String> {
        let owed = ready(world.execution());
        owed.map(|o| o.action.awaited.clone().unwrap_or_default())
            .collect()
    };
    world.step("0s", "a.start");
    world.step("1m", "failed first");
    assert_eq!(ready(&world), ["second"]);
    world.step("2m", "again first");
    assert_eq!(ready(&world), ["first"]);
    world.step("3m", "done first");
    assert_eq!(ready(&world), ["second"]);
}

#[test]
fn the_result_of_an_earlier_visit_does_not_cover_that_of_a_later_one() {
    let mut world = failed_once();
    world.step("2m", "a.again");
    let (_, events) = world.step("3m", "skip score");
    assert_eq!(events, "skipped 1 by ann", "the later one is pending");
}

#[test]
fn a_retry_moves_nobody_who_is_held() {
    check(
        SCORE,
        &[
            ("0s", "a.start", "started one", "*"),
            ("1m", "failed score", "", FAILED),
            ("2m", "hold", "", "held ann"),
            (
                "3m",
                "again score",
                "",
                r#"retried 1 by ann | fact action.score.status="pending""#,
            ),
            (
                "4m",
                "done score",
                "",
                r#"done 200 | fact action.score.status="done""#,
            ),
            (
                "5m",
                "resume",
                "",
                "resumed ann | one>two 2 (condition one/0) | completed two done",
            ),
        ],
    );
}

#[test]
fn an_override_resolves_the_incident_and_keeps_the_action() {
    let mut world = failed_once();
    world.step("2m", "override one");
    assert_eq!(world.execution().incident, None);
    assert_eq!(world.execution().failed.len(), 1);
    let (answer, _) = world.step("3m", "skip score");
    assert_eq!(answer, "");
}

#[test]
fn an_incident_of_another_kind_is_not_resolved_by_a_skip() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter: [{ webhook: { to: scoring, await: score } }]
    transitions:
      - { to: end, on: a.up, when: '1 / signal.data.n == 1' }
  - stage: end
    end: done
"#;
    let mut world = World::new(&[journey]);
    world.step("0s", "a.start");
    world.step("1m", "failed score");
    let (_, events) = world.step("2m", r#"a.up {"n":0}"#);
    assert!(events.contains("incident"), "{events}");
    world.step("3m", "skip score");
    let incident = world.execution().incident.as_ref().expect("it stays");
    assert_eq!(incident.action, None);
}

#[test]
fn no_more_failed_actions_are_kept_than_the_limit() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    repeat: [{ every: 1m, do: [{ webhook: { to: hook, await: ping } }] }]
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#;
    let mut world = World::new(&[journey]);
    world.step("0s", "a.start");
    let most = limits::FAILED_ACTIONS;
    for minute in 1..=most {
        let (_, events) = world.step(&format!("{minute}m"), "failed ping");
        assert!(!events.contains("skipped"), "{events}");
    }
    let oldest = world.execution().failed[0].number;
    let (_, events) = world.step(&format!("{}m", most + 1), "failed ping");
    assert!(
        events.contains(&format!("skipped {oldest} by sojourn")),
        "{events}"
    );
    assert_eq!(world.execution().failed.len(), most);
    assert!(world.execution().incident.is_some());
    let reasons = world
        .events()
        .into_iter()
        .filter_map(|(_, e)| match e.what {
            What::Skipped { by, .. } => Some(by.reason),
            _ => None,
        });
    let reasons: Vec<String> = reasons.collect();
    assert_eq!(
        reasons,
        ["at most 64 failed actions or 262144 bytes of them are kept"]
    );
}

#[test]
fn what_failed_is_not_retried_while_too_much_is_owed() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter: [{ webhook: { to: hook, await: first } }]
    repeat: [{ every: 1m, do: [{ webhook: { to: hook, await: ping } }] }]
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#;
    let mut world = World::new(&[journey]);
    world.step("0s", "a.start");
    world.step("10s", "failed first");
    world.step("300m", "wait");
    let (answer, events) = world.step("300m", "again first");
    assert!(answer.contains("256 are owed already"), "{answer}");
    assert_eq!(events, "");
    assert_eq!(world.execution().failed.len(), 1, "it is kept");
}

#[test]
fn why_names_what_is_to_be_retried_or_skipped() {
    let world = failed_once();
    let compiled = crate::helper::compile(SCORE);
    let customer = world
        .simulation
        .customer(&crate::helper::key())
        .expect("a customer");
    let why = sojourn_journey::why::why(
        &compiled,
        world.execution(),
        customer,
        crate::helper::at("2m"),
    );
    assert!(
        why.text.ends_with(
            "; to be retried or skipped by hand: failed action 1 (stage/one/enter/0 after 1 attempts)"
        ),
        "{}",
        why.text
    );
    assert_eq!(why.failed, world.execution().failed);
}
