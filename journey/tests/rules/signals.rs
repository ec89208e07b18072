//! What one signal does to one execution: rules 1 to 6.

use crate::helper::{Step, check};
use sojourn_journey::limits;

/// A loan of two stages and an end, with everything that a signal can meet.
const LOAN: &str = r#"
journey: loan
entry:
  - { on: a.start, where: 'signal.data.form == "loan"' }
exit:
  - { on: a.deleted, where: 'signal.data.really', outcome: withdrawn }
  - { when: 'Crm.Lead.Status == "Gone"', outcome: gone }
variables:
  amount: { type: number, from: signal.data.amount }
stages:
  - stage: one
    enter: [{ log: { text: "in one" } }]
    leave: [{ log: { text: "out of one" } }]
    transitions:
      - { to: two, on: [a.up, a.jump], where: 'signal.data.n > 1', when: 'vars.amount > 10' , do: [{ log: { text: go } }], keep: { n: signal.data.n } }
      - { to: three, on: [a.up, a.jump], where: 'signal.data.n > 0' }
      - { to: three, when: 'Books.Invoice.Status == "Paid" && Desk.Dept.State == "On"' }
  - stage: two
    enter: [{ log: { text: "in two" } }]
    transitions:
      - { to: one, on: a.back }
      - { to: three, when: 'vars.amount > 100' }
  - stage: three
    end: converted
"#;

const ENTER: Step<'_> = (
    "0s",
    r#"a.start {"form":"loan"}"#,
    "started one",
    "start one 1 | do one/enter/0",
);

#[test]
fn rule_1_a_duplicate_changes_nothing_and_gets_the_first_answer() {
    check(
        LOAN,
        &[
            ("0s", r#"a.start {"form":"loan"} id=x"#, "started one", "*"),
            ("1m", r#"a.up {"n":1} id=y"#, "moved one -> three", "*"),
            (
                "2m",
                r#"a.up {"n":1} id=y"#,
                "duplicate: moved one -> three",
                "",
            ),
            // Outlives the run, and has nothing to do with the content.
            (
                "3m",
                r#"a.start {"form":"other"} id=x"#,
                "duplicate: started one",
                "",
            ),
        ],
    );
}

#[test]
fn rule_2_facts_and_variables_are_updated() {
    check(
        LOAN,
        &[
            ENTER,
            (
                "1m",
                r#"Books.Invoice.updated {"Status":"Open","Other":1}"#,
                "recorded",
                r#"fact Books.Invoice.Status="Open""#,
            ),
            // The same value again is no change of a value.
            (
                "2m",
                r#"Books.Invoice.updated {"Status":"Open"}"#,
                "unmatched",
                r#"same Books.Invoice.Status="Open" | unmatched Books.Invoice.updated"#,
            ),
            // Newest wins by event time: an older one changes nothing.
            (
                "3m",
                r#"Books.Invoice.updated {"Status":"Paid"} at=-2m"#,
                "unmatched",
                "unmatched Books.Invoice.updated",
            ),
            // Of equal event times the later position wins.
            (
                "4m",
                r#"Books.Invoice.updated {"Status":"Sent"} at=-2m"#,
                "recorded",
                r#"fact Books.Invoice.Status="Sent""#,
            ),
            // A variable follows signals of any type.
            ("5m", r#"x.y {"amount":7}"#, "recorded", "var amount=7"),
            ("6m", r#"x.y {"amount":7}"#, "unmatched", "unmatched x.y"),
            (
                "7m",
                r#"x.y {"amount":"many"}"#,
                "unmatched",
                "incident variable/amount: variable `amount` is text: expected a number | unmatched x.y",
            ),
        ],
    );
}

#[test]
fn rule_3_exit_rules_come_first_and_run_leaving_actions() {
    check(
        LOAN,
        &[
            ENTER,
            (
                "1m",
                r#"a.deleted {"really":false}"#,
                "unmatched",
                "unmatched a.deleted",
            ),
            (
                "2m",
                r#"a.deleted {"really":true}"#,
                "exited one (withdrawn)",
                "do one/leave/0 | exited one withdrawn",
            ),
            ("3m", "a.back", "ended", ""),
        ],
    );
    // A rule without a signal: tried when a fact changed.
    check(
        LOAN,
        &[
            ENTER,
            (
                "1m",
                r#"Crm.Lead.updated {"Status":"Gone"}"#,
                "exited one (gone)",
                r#"fact Crm.Lead.Status="Gone" | do one/leave/0 | exited one gone"#,
            ),
        ],
    );
}

#[test]
fn rule_4_the_first_transition_that_names_the_signal_and_holds_is_taken_once() {
    check(
        LOAN,
        &[
            ENTER,
            // The first one's `when` is unknown: it does not hold, and is no error; the second is taken.
            (
                "1m",
                r#"a.up {"n":2}"#,
                "moved one -> three",
                "do one/leave/0 | one>three 2 (signal one/1) | completed three converted",
            ),
        ],
    );
    check(
        LOAN,
        &[
            ENTER,
            ("1m", r#"x.y {"amount":11}"#, "recorded", "var amount=11"),
            // A move is: leaving actions, values kept, transition actions, the new visit, entering actions.
            (
                "2m",
                r#"a.up {"n":2}"#,
                "moved one -> two",
                "do one/leave/0 | keep n=2 | do one/0/do/0 | one>two 2 (signal one/0) | do two/enter/0",
            ),
            (
                "3m",
                "a.back",
                "moved two -> one",
                "two>one 3 (signal two/0) | do one/enter/0",
            ),
            ("4m", r#"a.jump {"n":0}"#, "unmatched", "unmatched a.jump"),
        ],
    );
}

#[test]
fn rule_5_automatic_moves_follow_a_move_and_a_change_of_facts() {
    check(
        LOAN,
        &[
            ENTER,
            (
                "1m",
                r#"Books.Invoice.updated {"Status":"Paid"}"#,
                "recorded",
                r#"fact Books.Invoice.Status="Paid""#,
            ),
            (
                "2m",
                r#"Desk.Dept.updated {"State":"On"}"#,
                "moved one -> three",
                r#"fact Desk.Dept.State="On" | do one/leave/0 | one>three 2 (condition one/2) | completed three converted"#,
            ),
        ],
    );
    check(
        LOAN,
        &[
            ENTER,
            (
                "1m",
                r#"a.up {"n":2,"amount":500}"#,
                "moved one -> three via two",
                "var amount=500 | do one/leave/0 | keep n=2 | do one/0/do/0 | one>two 2 (signal one/0) | do two/enter/0 | \
              two>three 3 (condition two/1) | completed three converted",
            ),
        ],
    );
}

#[test]
fn rule_5_more_than_64_in_a_row_stays_with_an_incident() {
    let world = check(
        r#"
journey: ring
entry: [{ on: a.start }]
variables: { on: { type: bool, from: signal.data.go } }
stages:
  - stage: one
    transitions: [{ to: two, when: vars.on }]
  - stage: two
    transitions: [{ to: one, when: vars.on }, { to: end, on: a.end }]
  - stage: end
    end: done
"#,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            ("1m", r#"a.x {"go":true}"#, "moved one -> one via two", "*"),
        ],
    );
    let state = world.execution();
    assert_eq!(state.visit.number, 65, "64 moves after the first visit");
    let incident = state.incident.as_ref().expect("an incident");
    assert!(
        incident.message.contains("64 automatic moves"),
        "{incident:?}"
    );
}

#[test]
fn rule_6_no_match_is_recorded() {
    check(
        LOAN,
        &[
            ENTER,
            ("1m", "never.heard", "unmatched", "unmatched never.heard"),
        ],
    );
}

#[test]
fn an_error_is_an_incident_and_moves_nobody() {
    check(
        r#"
journey: broken
entry: [{ on: a.start }]
stages:
  - stage: one
    transitions:
      - { to: two, on: a.up, where: signal.data.n + "x" == "1x" }
      - { to: two, on: a.up }
  - stage: two
    end: done
"#
        .replace(
            r#"where: signal.data.n + "x" == "1x""#,
            r#"where: 'signal.data.n + "x" == "1x"'"#,
        )
        .as_str(),
        &[
            ("0s", "a.start", "started one", "start one 1"),
            ("1m", r#"a.up {"n":1}"#, "unmatched", "*"),
            // The same trouble again is the same incident.
            ("2m", r#"a.up {"n":1}"#, "unmatched", "unmatched a.up"),
            ("3m", r#"a.up {"n":"1"}"#, "moved one -> two", "*"),
        ],
    );
}

const PATTERNS: &str = r#"
journey: patterns
entry: [{ on: a.start }]
stages:
  - stage: one
    transitions:
      - { to: all, all: [p.a, p.b], where: 'signal.data.ok', within: 1d }
      - { to: row, sequence: [q.a, q.b, q.a] }
      - { to: one, on: a.again }
  - stage: all
    end: all
  - stage: row
    end: row
"#;

#[test]
fn a_pattern_of_all_opens_in_any_order_within_its_time() {
    let enter = ("0s", "a.start", "started one", "start one 1");
    check(
        PATTERNS,
        &[
            enter,
            ("1h", r#"p.b {"ok":true}"#, "unmatched", "saw one/0 #1"),
            ("2h", r#"p.b {"ok":true}"#, "unmatched", "unmatched p.b"),
            // `where` tests each signal by itself.
            ("3h", r#"p.a {"ok":false}"#, "unmatched", "unmatched p.a"),
            (
                "4h",
                r#"p.a {"ok":true}"#,
                "moved one -> all",
                "saw one/0 #0 | one>all 2 (signal one/0) | completed all all",
            ),
        ],
    );
    // Out of its window: progress is dropped, and nothing opens it in this visit.
    check(
        PATTERNS,
        &[
            enter,
            ("1h", r#"p.b {"ok":true}"#, "unmatched", "saw one/0 #1"),
            (
                "25h",
                r#"p.a {"ok":true}"#,
                "unmatched",
                "forgot one/0 | unmatched p.a",
            ),
            ("26h", r#"p.b {"ok":true}"#, "unmatched", "unmatched p.b"),
            // A new visit starts anew.
            (
                "27h",
                "a.again",
                "moved one -> one",
                "one>one 2 (signal one/2)",
            ),
            ("28h", r#"p.b {"ok":true}"#, "unmatched", "saw one/0 #1"),
            ("29h", r#"p.a {"ok":true}"#, "moved one -> all", "*"),
        ],
    );
    // Partial patterns are dropped on leaving.
    check(
        PATTERNS,
        &[
            enter,
            ("1h", r#"p.b {"ok":true}"#, "unmatched", "saw one/0 #1"),
            ("2h", "a.again", "moved one -> one", "*"),
            ("3h", r#"p.a {"ok":true}"#, "unmatched", "saw one/0 #0"),
        ],
    );
}

#[test]
fn a_sequence_opens_in_order_only() {
    check(
        PATTERNS,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            ("1h", "q.b", "unmatched", "unmatched q.b"),
            ("2h", "q.a", "unmatched", "saw one/1 #0"),
            ("3h", "q.a", "unmatched", "unmatched q.a"),
            ("4h", "q.b", "unmatched", "saw one/1 #1"),
            (
                "5h",
                "q.a",
                "moved one -> row",
                "saw one/1 #2 | one>row 2 (signal one/1) | completed row row",
            ),
        ],
    );
}

#[test]
fn a_signal_moves_each_of_several_journeys_once() {
    let other = LOAN.replace("journey: loan", "journey: other");
    crate::helper::check_all(
        &[LOAN, &other],
        &[
            (
                "0s",
                r#"a.start {"form":"loan"}"#,
                "started one & started one",
                "*",
            ),
            (
                "1m",
                r#"a.up {"n":1}"#,
                "moved one -> three & moved one -> three",
                "*",
            ),
            ("2m", "a.back", "ended & ended", ""),
        ],
    );
}

#[test]
fn what_an_execution_knows_has_a_limit() {
    let names: Vec<String> = (0..20).map(|n| format!("Big.Thing.f{n} == 1")).collect();
    let journey = format!(
        "journey: j\nentry: [{{ on: a.start }}]\nstages:\n  - stage: one\n    transitions: [{{ to: end, when: '{}' }}]\n  - stage: end\n    end: done\n",
        names.join(" || ")
    );
    let mut world = crate::helper::World::new(&[&journey]);
    world.step("0s", "a.start");
    let (_, events) = world.step(
        "1m",
        &format!(r#"Big.Thing.updated {{"f0":"{}"}}"#, "x".repeat(5000)),
    );
    assert_eq!(
        events,
        "incident facts: fact `Big.Thing.f0` has 5016 bytes: expected at most 4096 | unmatched Big.Thing.updated"
    );
    for n in 0..20 {
        world.step(
            "2m",
            &format!(r#"Big.Thing.updated {{"f{n}":"{}"}}"#, "x".repeat(4000)),
        );
    }
    let state = world.execution();
    assert!(
        state.weight() <= sojourn_journey::limits::STATE_BYTES,
        "{}",
        state.weight()
    );
    assert!(
        state.facts.len() > 14 && state.facts.len() < 20,
        "{}",
        state.facts.len()
    );
    let incident = state.incident.as_ref().expect("an incident");
    assert!(
        incident.message.contains("the execution would know"),
        "{incident:?}"
    );
}

/// A list in a list in a list …, as JSON.
fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[test]
fn what_nests_too_deep_is_not_taken_and_told() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
variables:
  v: { from: "Deep.Thing.x" }
stages:
  - stage: one
    transitions:
      - to: end
        on: b.go
        keep: { k: "signal.data.x" }
  - stage: end
    end: done
"#;
    let most = limits::VALUE_DEPTH;
    let signal = |kind: &str, levels: usize| format!(r#"{kind} {{"x":{}}}"#, nested(levels));
    let mut world = crate::helper::World::new(&[journey]);
    world.step("0s", "a.start");
    let (fate, _) = world.step("1m", &signal("Deep.Thing.updated", most));
    assert_eq!(fate, "recorded");
    let state = world.execution();
    assert_eq!(state.facts["Deep.Thing.x"].value.depth(), most);
    assert_eq!(state.vars["v"].depth(), most);
    let (fate, events) = world.step("2m", &signal("Deep.Thing.updated", most + 1));
    assert_eq!(fate, "unmatched");
    let text = format!(
        "incident facts: fact `Deep.Thing.x` nests {} levels: expected at most {most} | unmatched Deep.Thing.updated",
        most + 1
    );
    assert_eq!(events, text);
    // The move is made all the same: what is not taken moves nobody and stops nobody.
    let (fate, events) = world.step("3m", &signal("b.go", most + 1));
    assert!(fate.starts_with("moved one -> end"), "{fate}");
    assert!(
        events.contains(&format!("`k` nests {} levels", most + 1)),
        "{events}"
    );
    assert!(world.execution().kept.is_empty());
}

#[test]
fn a_variable_cannot_grow_deeper_without_end() {
    let journey = r#"
journey: j
entry: [{ on: a.start }]
variables:
  v: { from: "has(vars.v) ? [vars.v] : [1]" }
stages:
  - stage: one
    transitions: [{ to: end, on: b.end }]
  - stage: end
    end: done
"#;
    let mut world = crate::helper::World::new(&[journey]);
    world.step("0s", "a.start");
    for n in 1..2 * limits::VALUE_DEPTH {
        let before = world.execution().vars["v"].depth();
        assert_eq!(before, n.min(limits::VALUE_DEPTH));
        world.step("1m", "b.other");
    }
    let incident = world.execution().incident.as_ref().expect("an incident");
    assert_eq!(incident.place, "variable/v");
    assert!(incident.message.contains("nests 17 levels"), "{incident:?}");
}

#[test]
fn a_number_is_the_same_value_however_it_is_written() {
    check(
        LOAN,
        &[
            ENTER,
            (
                "1m",
                r#"Books.Invoice.updated {"Status":{"n":[5,1.5]},"amount":7}"#,
                "recorded",
                r#"fact Books.Invoice.Status={"n":[5,1.5]} | var amount=7"#,
            ),
            (
                "2m",
                r#"Books.Invoice.updated {"Status":{"n":[5.0,1.5]},"amount":7.0}"#,
                "unmatched",
                r#"same Books.Invoice.Status={"n":[5.0,1.5]} | unmatched Books.Invoice.updated"#,
            ),
            (
                "3m",
                r#"Books.Invoice.updated {"Status":{"n":[5.5,1.5]},"amount":"7"}"#,
                "recorded",
                "*",
            ),
            // Beyond 2^53 a whole number is not the nearest other number.
            (
                "4m",
                r#"Books.Invoice.updated {"Status":9007199254740993}"#,
                "recorded",
                "*",
            ),
            (
                "5m",
                r#"Books.Invoice.updated {"Status":9007199254740992.0}"#,
                "recorded",
                "*",
            ),
        ],
    );
}
