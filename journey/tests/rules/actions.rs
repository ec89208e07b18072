//! Actions: rendered when decided, owed until settled, and never in the way of a move.

use crate::helper::{World, check, key, signal};
use sojourn_journey::decide::{AttemptResult, Input, Moment, decide};
use sojourn_journey::event::What;
use sojourn_journey::owed::{Effect, owed};
use sojourn_journey::simulate::Key;

const SCORE: &str = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: scoring, await: score, body: { id: "{{ customer.id }}", n: 1, who: ["{{ signal.data.who }}"] } }
    transitions:
      - { to: two, when: 'action.score.status == "done"' }
      - { to: three, on: action.failed, where: 'signal.data.name == "score"' }
      - { to: one, on: a.again }
  - stage: two
    end: done
  - stage: three
    end: lost
"#;

#[test]
fn what_is_rendered_is_kept_until_it_is_settled() {
    let world = check(
        SCORE,
        &[(
            "0s",
            r#"a.start {"who":"ann"}"#,
            "started one",
            r#"start one 1 | do one/enter/0 | fact action.score.status="pending""#,
        )],
    );
    let state = world.execution();
    let action = match owed(state).as_slice() {
        [Effect::Action(owed)] => (*owed).clone(),
        other => panic!("one action is owed, not {other:?}"),
    };
    assert_eq!(action.action.to, "scoring");
    assert_eq!(
        String::from_utf8_lossy(&action.action.body),
        r#"{"id":"c1","n":1,"who":["ann"]}"#
    );
}

#[test]
fn the_result_of_an_awaited_action_is_a_fact() {
    check(
        SCORE,
        &[
            ("0s", r#"a.start {"who":"ann"}"#, "started one", "*"),
            ("1m", "retry score", "", "attempt 1 busy"),
            ("2m", "retry score", "", "attempt 2 busy"),
            (
                "3m",
                "done score",
                "",
                r#"done 200 | fact action.score.status="done" | one>two 2 (condition one/0) | completed two done"#,
            ),
        ],
    );
    // The result of an earlier visit is not the result of this one.
    check(
        SCORE,
        &[
            ("0s", r#"a.start {"who":"ann"}"#, "started one", "*"),
            (
                "1m",
                "skipped score",
                "",
                r#"skipped cap | fact action.score.status="skipped""#,
            ),
            (
                "2m",
                r#"a.again {"who":"bob"}"#,
                "moved one -> one",
                r#"one>one 2 (signal one/2) | do one/enter/0 | fact action.score.status="pending""#,
            ),
        ],
    );
}

#[test]
fn a_failed_action_is_an_incident_and_a_signal() {
    check(
        SCORE,
        &[
            ("0s", r#"a.start {"who":"ann"}"#, "started one", "*"),
            (
                "1m",
                "failed score",
                "",
                r#"failed no | incident one/enter/0: action failed at attempt 1: no | fact action.score.status="failed" | one>three 2 (signal one/1) | completed three lost"#,
            ),
        ],
    );
}

#[test]
fn the_result_of_another_attempt_changes_nothing() {
    let mut world = World::new(&[SCORE]);
    world.step("0s", r#"a.start {"who":"ann"}"#);
    let state = world.execution().clone();
    let compiled = crate::helper::compile(SCORE);
    let customer = world
        .simulation
        .customer(&key())
        .expect("a customer")
        .clone();
    let number = state.owed[0].number;
    for (action, attempt) in [(number, 0), (number, 2), (number + 1, 1)] {
        let input = Input::ActionResult {
            action,
            attempt,
            result: AttemptResult::Done {
                detail: String::new(),
            },
        };
        let events = decide(
            &compiled,
            &state,
            &customer,
            input,
            Moment::now(state.started.at),
        );
        assert_eq!(events, Ok(Vec::new()), "action {action} attempt {attempt}");
    }
}

#[test]
fn leaving_actions_outlive_the_execution() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
exit: [{ on: a.gone, outcome: gone }]
stages:
  - stage: one
    leave: [{ webhook: { to: crm, await: bye } }]
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#;
    check(
        journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            (
                "1m",
                "a.gone",
                "exited one (gone)",
                r#"do one/leave/0 | fact action.bye.status="pending" | exited one gone"#,
            ),
            ("2m", "retry bye", "", "attempt 1 busy"),
            // Nothing moves in an ended execution; the failure is recorded.
            (
                "3m",
                "failed bye",
                "",
                "failed no | incident one/leave/0: action failed at attempt 2: no",
            ),
        ],
    );
}

#[test]
fn what_is_not_connected_ends_at_once_as_skipped() {
    check(
        r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter: [{ email: { to: "x@example.org", template: welcome } }, { log: { text: hello } }]
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#,
        &[(
            "0s",
            "a.start",
            "started one",
            "start one 1 | do one/enter/0 | skipped not connected | do one/enter/1",
        )],
    );
}

#[test]
fn what_cannot_be_rendered_is_an_incident_and_the_move_stands() {
    let mut world = World::new(&[SCORE]);
    let (answer, events) = world.step("0s", "a.start");
    assert_eq!(answer, "started one");
    assert_eq!(
        events,
        "start one 1 | incident one/enter/0: action not owed: signal.data.who has never arrived"
    );
}

#[test]
fn an_action_keeps_its_place_and_number() {
    let mut world = World::new(&[SCORE]);
    world.simulation.signal(&signal(
        r#"a.start {"who":"ann"}"#,
        "s1",
        sojourn_journey::time::Time(crate::helper::START),
    ));
    let events = world.events();
    let (number, action) = events
        .iter()
        .find_map(|(_, e)| match &e.what {
            What::Action(action) => Some((e.number, action.clone())),
            _ => None,
        })
        .expect("an action");
    let recorded = &world.simulation.actions()[0];
    assert_eq!((recorded.number, &recorded.action), (number, &action));
    assert_eq!(recorded.execution, Key::of(world.execution()));
}

#[test]
fn an_exit_rule_may_test_the_result_of_an_action() {
    check(
        r#"
journey: j
entry: [{ on: a.start }]
exit: [{ when: 'action.score.status == "failed"', outcome: gone }]
stages:
  - stage: one
    enter: [{ webhook: { to: scoring, await: score } }]
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#,
        &[
            ("0s", "a.start", "started one", "*"),
            ("1m", "hold", "", "held ann"),
            (
                "2m",
                "failed score",
                "",
                r#"failed no | incident one/enter/0: action failed at attempt 1: no | fact action.score.status="failed""#,
            ),
            ("3m", "resume", "", "resumed ann | exited one gone"),
        ],
    );
}

#[test]
fn an_execution_owes_no_more_than_its_limit() {
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
    let (_, events) = world.step("300m", "wait");
    assert_eq!(
        world.execution().owed.len(),
        sojourn_journey::limits::OWED_ACTIONS
    );
    assert!(
        events.contains("incident one/repeat/0/do/0: action not owed: 256 are owed already"),
        "{events}"
    );
}

#[test]
fn within_one_list_the_next_waits_for_the_one_before() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: hook, await: first }
      - webhook: { to: hook, await: second }
    leave: [{ webhook: { to: hook, await: bye } }]
    transitions: [{ to: end, on: a.up }]
  - stage: end
    end: done
"#;
    let mut world = World::new(&[journey]);
    let ready = |world: &World| -> Vec<String> {
        let owed = sojourn_journey::owed::ready(world.execution());
        owed.map(|o| o.action.place.clone()).collect()
    };
    world.step("0s", "a.start");
    assert_eq!(ready(&world), ["stage/one/enter/0"]);
    world.step("1m", "retry first");
    assert_eq!(
        ready(&world),
        ["stage/one/enter/0"],
        "it is still owed, for later"
    );
    world.step("2m", "a.up");
    assert_eq!(ready(&world), ["stage/one/enter/0", "stage/one/leave/0"]);
    world.step("3m", "failed first");
    assert_eq!(
        ready(&world),
        ["stage/one/enter/1", "stage/one/leave/0"],
        "a failure does not stop the list"
    );
}
