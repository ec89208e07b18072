//! Given a journey, lint tells this: one table, one helper.

use crate::compile::{Journey, Known};
use crate::problem::Severity;

/// What is told of a journey whose middle part is given; warnings of actions that are not connected are left out.
fn told(stages: &str) -> Vec<String> {
    let text = format!("journey: j\n{stages}");
    let problems = match Journey::compile(&text, &Known::default()) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems,
    };
    problems
        .iter()
        .map(|p| {
            format!(
                "{}{}:{} {}",
                if p.severity == Severity::Error {
                    "error "
                } else {
                    ""
                },
                p.line,
                p.path,
                p.message
            )
        })
        .collect()
}

fn expect(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        let found = told(text);
        let same = found.len() == expected.len()
            && found.iter().zip(*expected).all(|(f, e)| f.starts_with(e));
        assert!(same, "\n{text}\nexpected {expected:#?}\nfound {found:#?}");
    }
}

const ENTRY: &str = "entry: [{ on: a.b }]\n";

#[test]
fn where_executions_come_and_stay() {
    let with = |text: &str| format!("{ENTRY}{text}");
    let cases: Vec<(String, &[&str])> = vec![
        (with("stages: [{ stage: x, end: done }]"), &[]),
        (
            "stages: [{ stage: x, end: done }]".to_owned(),
            &["1: nothing starts an execution"],
        ),
        (
            with("stages: [{ stage: x, end: done }, { stage: y, end: done }]"),
            &["3:stages[1].stage the stage `y` cannot be reached"],
        ),
        (
            with("goal: { stage: y }\nstages: [{ stage: x, end: done }, { stage: y, end: done }]"),
            &[
                "3:goal the goal cannot be reached",
                "4:stages[1].stage the stage `y` cannot be reached",
            ],
        ),
        (
            with("stages: [{ stage: x }]"),
            &["3:stages[0].stage the stage `x` is a dead end"],
        ),
        (with("deadline: { after: 3d }\nstages: [{ stage: x }]"), &[]),
        // An exit rule may never hold, and the deadline that led here is past.
        (
            with("exit: [{ on: c.d }]\nstages: [{ stage: x }]"),
            &["4:stages[0].stage the stage `x` is a dead end: only an exit rule"],
        ),
        (
            with("deadline: { after: 3d, move: y }\nstages: [{ stage: x }, { stage: y }]"),
            &["4:stages[1].stage the stage `y` is a dead end"],
        ),
        (
            with(
                "deadline: { after: 3d, move: y }\nstages: [{ stage: x }, { stage: y, end: done }]",
            ),
            &[],
        ),
        (
            with(
                "stages: [{ stage: x, deadline: { after: 3d, move: x }, transitions: [{ to: x }] }]",
            ),
            &["3:stages[0].deadline the deadline moves to its own stage `x`"],
        ),
        (
            with(
                "stages:\n - { stage: x, transitions: [{ to: y, when: true }] }\n - { stage: y, transitions: [{ to: x, when: true }] }",
            ),
            &[
                "error 4:stages[0].transitions[0] a loop that never waits",
                "error 5:stages[1].transitions[0] a loop that never waits",
            ],
        ),
        (
            with(
                "stages:\n - { stage: x, transitions: [{ to: y, when: A.B.c == 1 }] }\n - { stage: y, transitions: [{ to: x, when: A.B.c == 2 }] }",
            ),
            &[
                "4:stages[0].transitions[0] a loop that may never wait",
                "5:stages[1].transitions[0] a loop that may never wait",
            ],
        ),
        (
            with(
                "stages:\n - { stage: x, transitions: [{ to: y, when: A.B.c == 1 }] }\n - { stage: y, transitions: [{ to: x, after: 1d }] }",
            ),
            &[],
        ),
        (
            with("stages: [{ stage: x, transitions: [{ to: x, when: A.B.c == 1 }] }]"),
            &["3:stages[0].transitions[0] a loop that may never wait"],
        ),
    ];
    for (text, expected) in &cases {
        expect(&[(text, expected)]);
    }
}

#[test]
fn what_can_never_be_first() {
    let with = |ways: &str| {
        format!(
            "{ENTRY}exit: [{{ on: gone.for.good }}]\nstages:\n - stage: x\n   transitions: [{ways}]\n - {{ stage: y, end: done }}"
        )
    };
    let never = "6:stages[0].transitions[1] this transition can never be first";
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("{ to: y, on: c.d }, { to: y, on: e.f }", vec![]),
        ("{ to: y, on: c.d }, { to: y, on: c.d }", vec![never]),
        ("{ to: y, on: [c.d, e.f] }, { to: y, on: c.d }", vec![never]),
        ("{ to: y, on: c.d }, { to: y, on: [c.d, e.f] }", vec![]),
        (
            "{ to: y, on: c.d, where: signal.data.a == 1 }, { to: y, on: c.d }",
            vec![],
        ),
        (
            "{ to: y, on: c.d, where: signal.data.a == 1 }, { to: y, on: c.d, where: signal.data.a == 1 }",
            vec![never],
        ),
        (
            "{ to: y, on: c.d }, { to: y, on: gone.for.good }",
            vec![never],
        ),
        (
            "{ to: y, when: A.B.c == 1 }, { to: y, when: A.B.c == 1 }",
            vec![never],
        ),
        (
            "{ to: y, when: A.B.c == 1 }, { to: y, when: A.B.c == 2 }",
            vec![],
        ),
        ("{ to: y, after: 1d }, { to: y, after: 3d }", vec![never]),
        (
            "{ to: y, after: 1d, when: A.B.c == 1 }, { to: y, after: 3d }",
            vec![],
        ),
        (
            "{ to: y, after: 3d }, { to: y, after: 1d }",
            vec!["6:stages[0].transitions[0] this transition can never be first"],
        ),
        (
            "{ to: y, on: c.d }, { to: y, on: e.f, when: false }",
            vec![never],
        ),
    ];
    for (ways, expected) in &cases {
        expect(&[(&with(ways), expected)]);
    }
    expect(&[
        (
            "entry: [{ on: a.b }, { on: a.b, where: signal.data.x == 1 }]\nstages: [{ stage: x, end: done }]",
            &["2:entry[1] this entry rule can never be first"],
        ),
        (
            "entry: [{ on: a.b }]\nstages: [{ stage: x, deadline: [{ after: 5d, move: y }, { after: 9d, move: y }] }, { stage: y, end: done }]",
            &["3:stages[0].deadline[1] this deadline can never be reached"],
        ),
    ]);
}

#[test]
fn names_that_nothing_stands_behind() {
    let with = |head: &str, way: &str| {
        format!(
            "{ENTRY}{head}\nstages:\n - stage: x\n   transitions: [{{ to: y, {way} }}]\n - {{ stage: y, end: done }}"
        )
    };
    let cases: Vec<(&str, &str, Vec<&str>)> = vec![
        (
            "title: t",
            "on: c.d, when: Status == 1",
            vec!["6:stages[0].transitions[0].when nothing provides `Status`"],
        ),
        (
            "title: t",
            "on: c.d, when: vars.a == 1",
            vec!["6:stages[0].transitions[0].when nothing provides `vars.a`"],
        ),
        (
            "variables: { a: { from: signal.data.a } }",
            "on: c.d, when: vars.a == 1",
            vec![],
        ),
        (
            "variables: { a: { type: number } }",
            "on: c.d, when: vars.a == 1",
            vec!["3:variables.a nothing gives the variable `a` a value"],
        ),
        (
            "title: t",
            "on: c.d, where: signal.kind == 1",
            vec!["6:stages[0].transitions[0].where nothing provides `signal.kind`"],
        ),
        (
            "title: t",
            "on: c.d, when: execution.stages == 1",
            vec!["6:stages[0].transitions[0].when nothing provides `execution.stages`"],
        ),
        (
            "title: t",
            "when: action.s.status == 1",
            vec!["6:stages[0].transitions[0].when nothing provides `action.s.status`"],
        ),
        (
            "title: t",
            "on: Books.Invoice.paid, when: books.invoice.Status == 1",
            vec![
                "6:stages[0].transitions[0].when `books.invoice.Status` differs by its case alone",
            ],
        ),
        (
            "title: t",
            "on: Books.Invoice.paid, when: Books.Invoice.Status == 1",
            vec![],
        ),
        (
            "title: t",
            "on: action.failed",
            vec!["1: nothing provides the signal `action.failed`"],
        ),
        (
            "title: t",
            "after: 3d, when: signal.data.x == 1",
            vec![
                "error 6:stages[0].transitions[0].when time opens this transition, so there is no `signal` and the condition never holds",
            ],
        ),
        (
            "exit: [{ when: now > customer.until }]",
            "on: c.d",
            vec!["3:exit[0] `now` in an exit rule without a signal"],
        ),
        (
            "instance_key: vars.x",
            "on: c.d",
            vec![
                "3:instance_key nothing provides `vars.x`",
                "3:instance_key `vars.…` is not known before",
            ],
        ),
        (
            "title: t",
            "on: c.d, do: [{ email: { to: a } }]",
            vec!["6:stages[0].transitions[0].do[0] the action `email` is recorded and skipped"],
        ),
        (
            "title: t",
            "on: c.d, do: [{ log: { text: \"{{ vars.nothing }}\" } }]",
            vec!["6:stages[0].transitions[0].do[0] nothing provides `vars.nothing`"],
        ),
    ];
    for (head, way, expected) in &cases {
        expect(&[(&with(head, way), expected)]);
    }
}

#[test]
fn a_signal_is_asked_for_where_there_is_none() {
    let with = |head: &str, inside: &str| {
        format!("{ENTRY}{head}\nstages:\n - stage: x\n   {inside}\n - {{ stage: y, end: done }}")
    };
    let way = |way: &str| with("title: t", &format!("transitions: [{{ to: y, {way} }}]"));
    let out = "transitions: [{ to: y, on: c.d }]";
    let cases: Vec<(String, &[&str])> = vec![
        (
            way("when: signal.data.x == 1"),
            &[
                "error 6:stages[0].transitions[0].when no signal opens this transition, so there is no `signal` and the condition never holds",
            ],
        ),
        (
            way("when: A.B.c == 1 && !(signal.data.x > 2)"),
            &["error 6:stages[0].transitions[0].when no signal opens"],
        ),
        // It may hold all the same.
        (
            way("when: A.B.c == 1 || signal.data.x == 1"),
            &[
                "6:stages[0].transitions[0].when no signal opens this transition, so there is no `signal`, and the condition asks",
            ],
        ),
        (
            way("when: \"!has(signal.data.x) && A.B.c == 1\""),
            &["6:stages[0].transitions[0].when no signal opens"],
        ),
        (
            way("absent: c.d, within: 1d, when: 'signal.data.x in [1, 2]'"),
            &["error 6:stages[0].transitions[0].when time opens"],
        ),
        // Where a signal opens it there is one.
        (
            way("all: [c.d, e.f], when: signal.data.x == 1, do: [{ log: \"{{ signal.id }}\" }]"),
            &[],
        ),
        (
            way("after: 1d, keep: { x: signal.data.x }, do: [{ log: \"{{ signal.id }}\" }]"),
            &[
                "6:stages[0].transitions[0].keep.x time opens this transition, so there is no `signal`, and `x` may never be kept",
                "error 6:stages[0].transitions[0].do[0] time opens this transition, so there is no `signal`, and the action can never be done",
            ],
        ),
        (
            with(
                "title: t",
                &format!(
                    "repeat: [{{ every: 1d, do: [{{ log: \"{{{{ signal.data.n + 1 }}}}\" }}] }}]\n   {out}"
                ),
            ),
            &["error 6:stages[0].repeat[0].do[0] a repeat has no signal"],
        ),
        (
            with(
                "title: t",
                &format!(
                    "deadline: {{ after: 1d, escalate: [{{ log: \"{{{{ has(signal.id) ? 1 : 2 }}}}\" }}] }}\n   {out}"
                ),
            ),
            &[
                "6:stages[0].deadline.escalate[0] a deadline has no signal, and the action asks for it",
            ],
        ),
        (
            with(
                "deadline: { after: 1d, escalate: [{ log: { to: \"{{ signal.source }}\" } }] }",
                out,
            ),
            &["error 3:deadline.escalate[0] a deadline has no signal"],
        ),
        (
            with("exit: [{ when: signal.data.x == 1 }]", out),
            &["3:exit[0] this exit rule names no signal"],
        ),
    ];
    for (text, expected) in &cases {
        expect(&[(text, expected)]);
    }
}
