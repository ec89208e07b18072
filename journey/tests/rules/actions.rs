//! Actions: rendered when decided, owed until settled, and never in the way of a move.

use crate::helper::{World, at, check, key, signal};
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::{AttemptResult, Input, Moment, decide};
use sojourn_journey::enter::enter;
use sojourn_journey::event::What;
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
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
            "start one 1 | do one/enter/0 | do one/enter/1 | skipped not connected",
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
        r#"start one 1 | incident one/enter/0: action not owed: signal.data.who has never arrived | fact action.score.status="failed""#
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

#[test]
fn one_delivery_that_fails_holds_up_its_own_list_and_nothing_else() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
variables: { who: { from: signal.data.who } }
stages:
  - stage: one
    repeat:
      - every: 1h
        do:
          - webhook: { to: hook, await: one }
          - webhook: { to: hook, body: { who: "{{ vars.who }}" }, await: two }
          - webhook: { to: hook, await: three }
    transitions: [{ to: one, on: a.again }, { to: end, on: a.up }]
  - stage: end
    end: done
"#;
    let compiled = crate::helper::compile(journey);
    let customer = Customer::new(key());
    let start = signal("a.start", "s1", at("0s"));
    let moment = Moment::of(&start, at("0s"));
    let events = enter(&compiled, 1, &customer, &start, None, 1, moment);
    let mut state = Execution::replay(&events).expect("a start");
    let decided = |state: &mut Execution, when: &str, input: Input<'_>| {
        let events = decide(&compiled, state, &customer, input, Moment::now(at(when)));
        let events = events.expect("no refusal");
        assert!(!events.is_empty(), "at {when}");
        events.iter().for_each(|e| evolve(state, e));
    };
    let round = |state: &mut Execution, when: &str| {
        let timer = state.timers.first().expect("a timer").clone();
        let input = Input::Timer {
            visit: timer.visit,
            place: &timer.place,
            round: timer.round,
        };
        decided(state, when, input);
    };
    let done = |state: &mut Execution, when: &str, action: u64| {
        let result = AttemptResult::Done {
            detail: "200".to_owned(),
        };
        let attempt = 1;
        let input = Input::ActionResult {
            action,
            attempt,
            result,
        };
        decided(state, when, input);
    };
    // What may be done now: which of its list, and its number.
    let free = |state: &Execution| -> Vec<(char, u64)> {
        sojourn_journey::owed::ready(state)
            .map(|o| (o.action.place.chars().last().expect("a place"), o.number))
            .collect()
    };
    round(&mut state, "1h");
    let [(_, stuck)] = free(&state)[..] else {
        panic!("one list, one action: {:?}", free(&state));
    };
    // The second of the list could not be rendered; the third waits for the first, which fails for hours. The next round
    // waits for neither.
    round(&mut state, "2h");
    let [first, (place, second)] = free(&state)[..] else {
        panic!("two rounds: {:?}", free(&state));
    };
    assert_eq!((first, place), (('0', stuck), '0'));
    done(&mut state, "2h", second);
    let [first, (place, third)] = free(&state)[..] else {
        panic!("the third of the second round: {:?}", free(&state));
    };
    assert_eq!((first, place), (('0', stuck), '2'));
    done(&mut state, "2h", third);
    assert_eq!(free(&state), [('0', stuck)]);
    // Another visit, with everything rendered: in order, and without the first.
    let again = signal(r#"a.again {"who":"ann"}"#, "s2", at("2h"));
    decided(&mut state, "2h", Input::Signal(&again));
    round(&mut state, "3h");
    for expected in ['0', '1', '2'] {
        let [first, (place, number)] = free(&state)[..] else {
            panic!("the round of the new visit: {:?}", free(&state));
        };
        assert_eq!((first, place), (('0', stuck), expected));
        done(&mut state, "3h", number);
    }
    // What stands behind the one that fails still waits.
    assert_eq!((free(&state), state.owed.len()), (vec![('0', stuck)], 2));
}

#[test]
fn what_cannot_be_rendered_has_failed_for_whoever_awaits_it() {
    check(
        r#"
journey: j
entry: [{ on: a.start }]
stages:
  - stage: one
    enter: [{ webhook: { to: hook, await: hail, body: { at: "{{ signal.data.where }}" } } }]
    transitions:
      - { to: end, when: 'action.hail.status == "failed"' }
      - { to: one, on: a.again }
  - stage: end
    end: lost
"#,
        &[
            (
                "0s",
                r#"a.start {"where":"here"}"#,
                "started one",
                r#"start one 1 | do one/enter/0 | fact action.hail.status="pending""#,
            ),
            (
                "1h",
                "a.again",
                "moved one -> end via one",
                r#"one>one 2 (signal one/1) | incident one/enter/0: action not owed: signal.data.where has never arrived | fact action.hail.status="failed" | one>end 3 (condition one/0) | completed end lost"#,
            ),
        ],
    );
}
