//! Entry: who starts what, and who may not.

use crate::helper::{check, check_all};

fn journey(top: &str) -> String {
    format!(
        r#"
journey: j
{top}
entry:
  - {{ on: a.start, where: 'signal.data.kind == "x"' }}
  - {{ on: a.start, where: 'signal.data.kind == "y"', when: 'customer.country == "NL"' }}
variables: {{ amount: {{ type: number, from: signal.data.amount }} }}
stages:
  - stage: one
    transitions:
      - {{ to: one, on: a.start }}
      - {{ to: two, on: a.up }}
      - {{ to: two, when: 'vars.amount > 100' }}
  - stage: two
    end: done
"#
    )
}

#[test]
fn nobody_known_and_no_entry_rule_is_no_match() {
    check(
        &journey(""),
        &[
            ("0s", "a.up", "no_match", ""),
            ("1m", r#"a.start {"kind":"z"}"#, "no_match", ""),
            ("2m", r#"a.start {"kind":"y"}"#, "no_match", ""),
            // What the signal itself brings of the customer counts.
            (
                "3m",
                r#"a.start {"kind":"y"} attributes={"country":"NL"}"#,
                "started one",
                "start one 1",
            ),
        ],
    );
}

#[test]
fn the_entry_signal_sets_variables_opens_no_transition_that_names_it_and_rule_5_runs() {
    check(
        &journey(""),
        &[(
            "0s",
            r#"a.start {"kind":"x","amount":5}"#,
            "started one",
            "start one 1 | var amount=5",
        )],
    );
    check(
        &journey(""),
        &[(
            "0s",
            r#"a.start {"kind":"x","amount":500}"#,
            "started two via one",
            "start one 1 | var amount=500 | one>two 2 (condition one/2) | completed two done",
        )],
    );
}

#[test]
fn an_active_execution_gets_the_signal_and_no_entry_rule_is_tried() {
    check(
        &journey(""),
        &[
            ("0s", r#"a.start {"kind":"x"}"#, "started one", "*"),
            (
                "1m",
                r#"a.start {"kind":"x"}"#,
                "moved one -> one",
                "one>one 2 (signal one/0)",
            ),
        ],
    );
}

#[test]
fn re_entry() {
    let up = ("1h", "a.up", "moved one -> two", "*");
    let start = (
        "0s",
        r#"a.start {"kind":"x"}"#,
        "started one",
        "start one 1",
    );
    // The default: after the end, without a wait.
    check(
        &journey(""),
        &[
            start,
            up,
            (
                "2h",
                r#"a.start {"kind":"x"}"#,
                "started one",
                "start one 2",
            ),
        ],
    );
    check(
        &journey("reentry: { mode: never }"),
        &[
            start,
            up,
            (
                "2h",
                r#"a.start {"kind":"x"}"#,
                "refused: re-entry: run 1 was the only one",
                "",
            ),
            ("3h", "a.up", "ended", ""),
        ],
    );
    check(
        &journey("reentry: { mode: after_exit, wait: 1d }"),
        &[
            start,
            up,
            ("2h", r#"a.start {"kind":"x"}"#, "refused: re-entry", ""),
            (
                "25h",
                r#"a.start {"kind":"x"}"#,
                "started one",
                "start one 2",
            ),
        ],
    );
    // Side by side: the active ones get the signal, and entry rules are tried too.
    check(
        &journey("reentry: { mode: concurrent }"),
        &[
            start,
            (
                "1m",
                r#"a.start {"kind":"x"}"#,
                "moved one -> one & started one",
                "one>one 2 (signal one/0) | start one 2",
            ),
            ("2m", "a.up", "moved one -> two & moved one -> two", "*"),
            (
                "3m",
                r#"a.start {"kind":"x"}"#,
                "started one",
                "start one 3",
            ),
        ],
    );
}

#[test]
fn an_instance_key_tells_instances_apart() {
    check(
        &journey("instance_key: signal.data.loan"),
        &[
            (
                "0s",
                r#"a.start {"kind":"x","loan":"l1"}"#,
                "started one",
                "start one 1",
            ),
            (
                "1m",
                r#"a.start {"kind":"x","loan":"l2"}"#,
                "started one",
                "start one 1",
            ),
            // Known: only that instance is concerned.
            (
                "2m",
                r#"a.start {"kind":"x","loan":"l2"}"#,
                "moved one -> one",
                "one>one 2 (signal one/0)",
            ),
            // Unknown: every active one of the customer.
            ("3m", "a.up", "moved one -> two & moved one -> two", "*"),
            ("4m", r#"a.up {"loan":"l1"}"#, "ended", ""),
            (
                "5m",
                r#"a.start {"kind":"x","loan":"l1"}"#,
                "started one",
                "start one 2",
            ),
            ("6m", r#"a.up {"loan":7.5}"#, "refused: instance_key", ""),
        ],
    );
}

#[test]
fn a_customer_has_a_limit_of_active_executions() {
    let journeys: Vec<String> = (0..101)
        .map(|n| journey("").replace("journey: j", &format!("journey: j{n:03}")))
        .collect();
    let texts: Vec<&str> = journeys.iter().map(String::as_str).collect();
    let mut world = check_all(&texts, &[]);
    let (answer, _) = world.step("1m", r#"a.start {"kind":"x"}"#);
    assert_eq!(answer.matches("started").count(), 100, "{answer}");
    assert!(answer.contains("refused: capped"), "{answer}");
}

#[test]
fn an_exit_rule_that_needs_no_signal_is_tried_at_entry_too() {
    let journey = r#"
journey: j
entry: [{ on: a.start }, { on: A.Deal.opened }]
exit:
  - { on: A.Deal.opened, outcome: named }
  - { when: 'A.Deal.state == "void"', outcome: void }
stages:
  - stage: one
    enter: [{ log: in }]
    leave: [{ log: out }]
    transitions: [{ to: end, when: 'A.Deal.state != "open"' }]
  - stage: end
    end: done
"#;
    let cases = [
        // The signal that enters is not one that ends.
        (
            "open",
            "start one 1 | fact A.Deal.state=\"open\" | do one/enter/0",
        ),
        (
            "void",
            "start one 1 | fact A.Deal.state=\"void\" | do one/enter/0 | do one/leave/0 | exited one void",
        ),
        (
            "won",
            "start one 1 | fact A.Deal.state=\"won\" | do one/enter/0 | do one/leave/0 | one>end 2 (condition one/0) | completed end done",
        ),
    ];
    for (state, events) in cases {
        let signal = format!(r#"A.Deal.opened {{"state":"{state}"}}"#);
        check(journey, &[("0s", &signal, "started", events)]);
    }
}
