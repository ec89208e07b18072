//! What holds whatever happens: worlds made by chance, with a journey that has everything in it.

use crate::helper::{World, compile, key};
use proptest::prelude::*;
use sojourn_journey::decide::{AttemptResult, Input, Moment, decide};
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
use sojourn_journey::owed::{Effect, next_due, owed};
use sojourn_journey::simulate::Key;
use std::collections::BTreeSet;

const EVERYTHING: &str = r#"
journey: j
entry: [{ on: a.start }]
exit: [{ on: a.gone, outcome: gone }]
deadline: { after: 40d, escalate: [{ log: { text: late } }], move: idle }
goal: { stage: two, within: 10d }
reentry: { mode: after_exit }
variables: { n: { type: number, from: signal.data.n } }
stages:
  - stage: one
    enter: [{ webhook: { to: hook, await: score } }, { log: { text: in } }]
    leave: [{ log: { text: out } }]
    repeat: [{ every: 1d, at_most: 5, do: [{ log: { text: again } }] }]
    stalled_after: 2d
    deadline: [{ after: 3d, escalate: [{ log: { text: chase } }] }, { after: 6d, move: idle }]
    transitions:
      - { to: two, on: a.up, where: 'signal.data.n > 2', keep: { n: signal.data.n } }
      - { to: two, when: 'action.score.status == "done" && vars.n > 4' }
      - { to: idle, on: action.failed }
      - { to: two, all: [a.p, a.q], within: 2d }
  - stage: two
    transitions:
      - { to: one, absent: a.p, within: 12h }
      - { to: idle, sequence: [a.p, a.q] }
      - { to: end, on: a.end }
  - stage: idle
    transitions:
      - { to: one, on: a.back }
      - { to: two, when: 'customer.tier > 3' }
      - { to: end, after: 5d }
  - stage: end
    end: done
"#;

/// What a world is made of: hours that pass, and what then happens.
fn steps() -> impl Strategy<Value = Vec<(u32, String)>> {
    let kinds = [
        "a.start", "a.up", "a.p", "a.q", "a.back", "a.end", "a.gone", "x.y",
    ];
    let signal = (prop::sample::select(kinds.to_vec()), 0..6, 0..4u32).prop_map(|(kind, n, id)| {
        // Some ids come twice.
        let id = if id == 0 {
            String::new()
        } else {
            format!(" id=twice-{kind}-{id}")
        };
        let tells = if kind == "x.y" {
            format!(r#" attributes={{"tier":{n}}}"#)
        } else {
            String::new()
        };
        format!(r#"{kind} {{"n":{n}}}{id}{tells}"#)
    });
    let by_hand = prop::sample::select(vec![
        "hold",
        "resume",
        "override one",
        "override two",
        "override+ two",
        "override nowhere",
        "stop",
        "done score",
        "failed score",
        "retry score",
        "again score",
        "again+ score",
        "skip score",
        "wait",
    ]);
    let what = prop_oneof![4 => signal, 3 => by_hand.prop_map(str::to_owned)];
    prop::collection::vec((0..60u32, what), 1..40)
}

fn run(steps: &[(u32, String)]) -> World {
    let mut world = World::new(&[EVERYTHING]);
    world.step("0s", r#"a.start {"n":1}"#);
    let mut hours = 0;
    for (pass, what) in steps {
        hours += pass;
        world.step(&format!("{hours}h"), what);
    }
    world
}

/// The states of one execution, from before its first event on.
fn states(world: &World, of: &Key) -> Vec<Execution> {
    let mut states: Vec<Execution> = Vec::new();
    for (key, event) in world.events() {
        if key == *of {
            let next = match states.last() {
                None => Execution::begin(&event).expect("a timeline begins with a start"),
                Some(state) => {
                    let mut state = state.clone();
                    evolve(&mut state, &event);
                    state
                }
            };
            states.push(next);
        }
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// `evolve` of decided events gives the state that decided them, number by number and without gaps.
    #[test]
    fn a_timeline_replayed_is_the_state(steps in steps()) {
        let world = run(&steps);
        for state in world.simulation.executions() {
            let key = Key::of(state);
            let events: Vec<_> = world.events().into_iter().filter(|(k, _)| *k == key).map(|(_, e)| e).collect();
            for (n, event) in events.iter().enumerate() {
                prop_assert_eq!(event.number, n as u64);
                prop_assert!(event.occurred <= event.at);
            }
            prop_assert!(events.windows(2).all(|w| w[0].at <= w[1].at));
            let replayed = Execution::replay(&events);
            prop_assert_eq!(replayed.as_ref(), Some(state));
        }
    }

    /// A duplicate changes nothing, at any point.
    #[test]
    fn a_duplicate_changes_nothing(steps in steps(), at in any::<prop::sample::Index>()) {
        let mut world = run(&steps);
        let mut hours: u32 = steps.iter().map(|s| s.0).sum();
        let now = |h: u32| format!("{h}h");
        let kind = ["a.up", "a.p", "a.back", "a.start"][at.index(4)];
        let what = format!(r#"{kind} {{"n":3}} id=again"#);
        let first = world.step(&now(hours), &what).0;
        let before: Vec<Execution> = world.simulation.executions().cloned().collect();
        let second = world.step(&now(hours), &what);
        if first != "no_match" {
            prop_assert_eq!(second, (format!("duplicate: {first}"), String::new()));
        }
        let after: Vec<Execution> = world.simulation.executions().cloned().collect();
        prop_assert_eq!(before, after);
        hours += 1;
        world.step(&now(hours), "wait");
    }

    /// What events say is owed, one by one, is what the state says is owed.
    #[test]
    fn effects_handed_out_step_by_step_are_what_is_owed(steps in steps()) {
        use sojourn_journey::event::{ActionOutcome, What};
        let world = run(&steps);
        for state in world.simulation.executions() {
            let key = Key::of(state);
            let mut actions: Vec<u64> = Vec::new();
            let mut failed: Vec<u64> = Vec::new();
            for (_, event) in world.events().iter().filter(|(k, _)| *k == key) {
                match &event.what {
                    What::Action(_) => actions.push(event.number),
                    What::Settled { action, outcome, .. } => {
                        actions.retain(|a| a != action);
                        if matches!(outcome, ActionOutcome::Failed { .. }) {
                            failed.push(*action);
                        }
                    }
                    What::Retried { action, .. } => {
                        failed.retain(|a| a != action);
                        actions.push(*action);
                        actions.sort_unstable();
                    }
                    What::Skipped { action, .. } => failed.retain(|a| a != action),
                    _ => {}
                }
            }
            let owes: Vec<u64> = owed(state).iter().filter_map(|e| match e {
                Effect::Action(owed) => Some(owed.number),
                _ => None,
            }).collect();
            prop_assert_eq!(owes, actions);
            let keeps: Vec<u64> = state.failed.iter().map(|f| f.number).collect();
            prop_assert_eq!(keeps, failed);
            let timers: Vec<_> = owed(state).iter().filter_map(|e| match e {
                Effect::Timer(timer) => Some(timer.due),
                _ => None,
            }).collect();
            prop_assert!(timers.windows(2).all(|w| w[0] <= w[1]));
            prop_assert_eq!(next_due(state), timers.first().copied());
            prop_assert!(!state.is_ended() || (timers.is_empty() && state.waiting.is_empty()));
        }
    }

    /// A timer that the state does not have, or of an old visit, or before its time, changes nothing.
    #[test]
    fn a_stale_or_early_timer_changes_nothing(steps in steps()) {
        let world = run(&steps);
        let compiled = compile(EVERYTHING);
        let customer = world.simulation.customer(&key()).expect("a customer");
        for end in world.simulation.executions() {
            let now = Moment::now(world.simulation.clock().expect("a time"));
            for old in states(&world, &Key::of(end)) {
                for timer in &old.timers {
                    let current = end.timers.iter().find(|t| (t.visit, &t.place, t.round) == (timer.visit, &timer.place, timer.round));
                    if current.is_some_and(|t| t.due <= now.at) {
                        continue;
                    }
                    let input = Input::Timer { visit: timer.visit, place: &timer.place, round: timer.round };
                    prop_assert_eq!(decide(&compiled, end, customer, input, now), Ok(Vec::new()));
                }
            }
        }
    }

    /// An action that is settled stays settled: a late second result changes nothing.
    #[test]
    fn a_late_result_changes_nothing(steps in steps()) {
        let world = run(&steps);
        let compiled = compile(EVERYTHING);
        let customer = world.simulation.customer(&key()).expect("a customer");
        for end in world.simulation.executions() {
            let now = Moment::now(world.simulation.clock().expect("a time"));
            for number in 0..end.next {
                if end.owed.iter().any(|o| o.number == number) {
                    continue;
                }
                let result = AttemptResult::Failed { error: "late".to_owned() };
                let input = Input::ActionResult { action: number, attempt: 1, result };
                prop_assert_eq!(decide(&compiled, end, customer, input, now), Ok(Vec::new()));
            }
        }
    }

    /// At every moment: an incident of an action stands for one that failed or is tried again by hand; no two things
    /// owed or failed have one number, nor one key.
    #[test]
    fn an_incident_of_an_action_stands_for_one(steps in steps()) {
        let world = run(&steps);
        for end in world.simulation.executions() {
            for state in states(&world, &Key::of(end)) {
                let open = !state.failed.is_empty() || state.owed.iter().any(|o| o.before > 0);
                let incident = state.incident.as_ref().and_then(|i| i.action);
                prop_assert!(open || incident.is_none(), "{:?}", state.incident);
                prop_assert!(state.failed.len() <= sojourn_journey::limits::FAILED_ACTIONS + 1);
                let owed = state.owed.iter().map(|o| (o.number, o.key));
                let all: Vec<(u64, u64)> = owed.chain(state.failed.iter().map(|f| (f.number, f.key))).collect();
                let numbers: BTreeSet<u64> = all.iter().map(|a| a.0).collect();
                let keys: BTreeSet<u64> = all.iter().map(|a| a.1).collect();
                prop_assert_eq!((numbers.len(), keys.len()), (all.len(), all.len()));
                prop_assert!(state.owed.windows(2).all(|w| w[0].number < w[1].number));
            }
        }
    }

    /// The same inputs give the same events.
    #[test]
    fn the_same_inputs_give_the_same_events(steps in steps()) {
        prop_assert_eq!(run(&steps).events(), run(&steps).events());
    }

    /// No event on no state makes `evolve` fail, also events that no rule would give there.
    #[test]
    fn evolve_is_total(one in steps(), other in steps()) {
        let (one, other) = (run(&one), run(&other));
        let mut state = one.execution().clone();
        for (_, event) in other.events().iter().rev() {
            evolve(&mut state, event);
            prop_assert_eq!(state.next, event.number + 1);
        }
    }
}
