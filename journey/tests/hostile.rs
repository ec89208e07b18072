//! A hundred and more journeys that mean harm or are simply wrong: each gets an error that says where and what, none a
//! panic, none a second.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test may look at the clock: it measures the compiler

use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::problem::Severity;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// No compilation may take longer: a second, or what a debug build, some twenty times slower, makes of a part of it.
const A_SECOND: u64 = if cfg!(debug_assertions) { 8 } else { 1 };

/// A hostile journey, and a part of what must be said of it.
struct Case {
    text: String,
    says: &'static str,
}

/// A journey with one stage more than needed, one of whose parts is wrong.
fn whole(head: &str, stage: &str) -> String {
    format!(
        "journey: j\nentry: [{{ on: a.b }}]\n{head}\nstages:\n  - stage: x\n    {stage}\n  - {{ stage: y, end: done }}\n"
    )
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |text: String, says: &'static str| cases.push(Case { text, says });

    // no document, or one beyond its limits
    let bomb =
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b]\n";
    for (text, says) in [
        (String::new(), "expected"),
        ("# only a comment".to_owned(), "expected"),
        ("null".to_owned(), "a journey is expected, found nothing"),
        ("no".to_owned(), "a journey is expected, found a text"),
        (
            "42".to_owned(),
            "a journey is expected, found a whole number",
        ),
        ("[]".to_owned(), "a journey is expected, found a list"),
        ("{}".to_owned(), "a journey needs `journey`"),
        ("journey: j".to_owned(), "a journey needs `stages`"),
        ("{\"journey\": \"j\"".to_owned(), "cannot be read"),
        ("{\"journey\": \"j\",}}".to_owned(), "cannot be read"),
        ("journey: [".to_owned(), "cannot be read"),
        ("journey: 'open".to_owned(), "cannot be read"),
        ("journey: j\n\tstages: []".to_owned(), "cannot be read"),
        ("journey: j\n stages: []".to_owned(), "cannot be read"),
        ("journey: j: k".to_owned(), "cannot be read"),
        (
            "journey: j\n---\njourney: k".to_owned(),
            "several documents",
        ),
        (
            "journey: !!python/object:os.system x".to_owned(),
            "cannot be read",
        ),
        ("journey: !include /etc/passwd".to_owned(), "cannot be read"),
        ("journey: &j j\ntitle: *j".to_owned(), "anchors"),
        (bomb.to_owned(), "anchors"),
        ("<<: *base\njourney: j".to_owned(), "anchors"),
        (
            "<<: { journey: j }\nstages: []".to_owned(),
            "`<<` is no key",
        ),
        ("? { a: b }\n: c".to_owned(), "cannot be read"),
        ("journey: \u{0}".to_owned(), "cannot be read"),
        ("\u{feff}\u{feff}journey: j".to_owned(), "needs"),
        (
            format!("journey: {}", "x".repeat(1024 * 1024)),
            "bytes; a journey may have",
        ),
        (format!("journey: {}", "[".repeat(2_000)), "deeper than 64"),
        (
            format!("journey: {}1{}", "{ a: ".repeat(2_000), "}".repeat(2_000)),
            "deeper than 64",
        ),
        (
            format!("journey: j\nstages: [{}]", "[".repeat(60) + &"]".repeat(60)),
            "a stage is expected, found a list",
        ),
        (
            format!("- {}", "a\n- ".repeat(150_000)),
            "more than 100000 values",
        ),
        (
            format!(
                "journey: j\n{}",
                (0..5_000).map(|i| format!("k{i}: 1\n")).collect::<String>()
            ),
            "is no key of a journey",
        ),
        (format!("{}: 1", "k".repeat(5_000)), ""),
        (
            format!("journey: j\nstages:{}", "\n  - {}".repeat(20_000)),
            "a stage needs `stage`",
        ),
    ] {
        add(text, says);
    }

    // wrong words
    for name in [
        "Loan",
        "1a",
        "a-b",
        "a b",
        "ä",
        "''",
        "~",
        "[a]",
        "{ a: b }",
        "true story",
        &"a".repeat(33),
    ] {
        add(
            format!("journey: {name}\nstages: [{{ stage: x, end: y }}]"),
            "name",
        );
        add(
            whole("title: t", &format!("transitions: [{{ to: {name} }}]")),
            "",
        );
    }
    for (head, says) in [
        ("tilte: t", "`tilte` is no key of a journey"),
        ("title: [t]", "a text is expected, found a list"),
        ("title: t\ntitle: u", "`title` stands here a second time"),
        ("goal: x", "a goal is expected, found a text"),
        ("goal: { stage: z }", "there is no stage `z`"),
        ("goal: { stage: x, within: soon }", "`soon` is no duration"),
        ("deadline: { after: 3 }", "the unit is missing"),
        ("deadline: { move: x }", "a deadline needs `after`"),
        (
            "deadline: [{ after: 3d, move: nowhere }]",
            "there is no stage `nowhere`",
        ),
        ("deadline: []", "the list is empty"),
        (
            "deadline: { after: 99999999999999999999d }",
            "longer than a thousand years",
        ),
        ("deadline: { after: -3d }", "lies in the past"),
        ("identify_by: email", "a list is expected"),
        ("identify_by: [email, email]", "a second time"),
        ("instance_key: signal.data.", "is no expression"),
        ("instance_key: [a]", "an expression is expected"),
        (
            "reentry: { mode: always }",
            "`always` is no way of re-entry",
        ),
        (
            "reentry: { mode: never, wait: 1d }",
            "`wait` goes with after_exit only",
        ),
        ("reentry: { wait: { months: 1 } }", "an exact span"),
        ("variables: [a]", "a map of names is expected"),
        ("variables: { A: { from: vars.x } }", "`A` is no name"),
        ("variables: { a: { type: money } }", "`money` is no type"),
        ("variables: { a: { from: 'x +' } }", "is no expression"),
        ("exit: [{ outcome: lost }]", "an exit rule needs `on`"),
        (
            "exit: [{ where: signal.data.x == 1, when: A.b.c == 1 }]",
            "names none with `on`",
        ),
        ("exit: { on: a.b }", "a list is expected"),
        ("exit: [{ on: [] }]", "the list is empty"),
        ("exit: [{ on: 'a b' }]", "is no signal type"),
        ("exit: [{ on: signal.x }]", "cannot be a signal type"),
        ("exit: [{ on: now }]", "cannot be a signal type"),
        ("exit: [{ on: action.done }]", "cannot be a signal type"),
    ] {
        add(whole(head, "transitions: [{ to: y }]"), says);
    }

    // wrong stages and transitions
    for (stage, says) in [
        (
            "end: done\n    transitions: [{ to: y }]",
            "an end, where executions do not stay",
        ),
        ("transitions: { to: y }", "a list is expected"),
        ("transitions: [y]", "a transition is expected, found a text"),
        ("transitions: [{ on: c.d }]", "a transition needs `to`"),
        ("transitions: [{ to: z, on: c.d }]", "there is no stage `z`"),
        (
            "transitions: [{ to: y, onn: c.d }]",
            "`onn` is no key of a transition",
        ),
        (
            "transitions: [{ to: y, on: c.d, after: 3d }]",
            "at most one trigger",
        ),
        (
            "transitions: [{ to: y, all: [c.d], sequence: [e.f] }]",
            "at most one trigger",
        ),
        ("transitions: [{ to: y, all: [] }]", "is empty"),
        ("transitions: [{ to: y, all: [c.d, c.d] }]", "a second time"),
        (
            "transitions: [{ to: y, on: c.d, within: 3d }]",
            "`within` goes with",
        ),
        (
            "transitions: [{ to: y, absent: c.d }]",
            "`absent` needs `within`",
        ),
        (
            "transitions: [{ to: y, absent: c.d, within: 3d, after: 3d }]",
            "is no signal type",
        ),
        (
            "transitions: [{ to: y, absent: [c.d], within: 3d }]",
            "a signal type is expected",
        ),
        (
            "transitions: [{ to: y, after: 3x }]",
            "the unit is not known",
        ),
        (
            "transitions: [{ to: y, after: { days: 0 } }]",
            "a whole number from 1",
        ),
        (
            "transitions: [{ to: y, after: { days: 1, date: 2026-01-01 } }]",
            "has one of",
        ),
        (
            "transitions: [{ to: y, after: { days: 1, zone: Mars/Base } }]",
            "is no time zone",
        ),
        (
            "transitions: [{ to: y, after: { date: 2026-02-30 } }]",
            "is no date",
        ),
        (
            "transitions: [{ to: y, after: { business: 1h, hours: '17:00-09:00' } }]",
            "no opening hours",
        ),
        (
            "transitions: [{ to: y, after: { business: 1h, weekdays: [someday] } }]",
            "no day of the week",
        ),
        (
            "transitions: [{ to: y, after: { business: 99999h } }]",
            "10000 hours",
        ),
        (
            "transitions: [{ to: y, after: { days: 1, at: '25:00' } }]",
            "no time of the day",
        ),
        (
            "transitions: [{ to: y, where: signal.data.x == 1 }]",
            "names none",
        ),
        (
            "transitions: [{ to: y, when: now > execution.entered_at }]",
            "nothing would wake it",
        ),
        (
            "transitions: [{ to: y, on: c.d, when: '1 +' }]",
            "is no expression",
        ),
        ("transitions: [{ to: y, on: c.d, when: '' }]", "is empty"),
        (
            "transitions: [{ to: y, on: c.d, when: 'sise(vars.x) > 1' }]",
            "no function `sise`",
        ),
        (
            "transitions: [{ to: y, on: c.d, when: '[[1]].map(a, a.map(b, b)) == []' }]",
            "a macro within a macro",
        ),
        (
            "transitions: [{ to: y, on: c.d, keep: { Bad: vars.x } }]",
            "`Bad` is no name",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ webhok: { to: a } }] }]",
            "`webhok` is no kind of action",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ log: a, email: b }] }]",
            "a map with one key",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ webhook: { body: {} } }] }]",
            "a webhook needs `to`",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ webhook: { to: '{{ vars.x }}' } }] }]",
            "must be written out",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ webhook: { to: unknown } }] }]",
            "there is no endpoint `unknown`",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ log: '{{ vars.x' }] }]",
            "without `}}`",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ log: '{{ }}' }] }]",
            "is empty",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ log: { n: 99999999999999999999 } }] }]",
            "beyond 64 bits",
        ),
        (
            "transitions: [{ to: y, on: c.d, do: [{ log: { to: x, await: 3 } }] }]",
            "`await` takes true",
        ),
        ("transitions: [{ to: x, when: true }]", "never waits"),
        ("repeat: { every: 0s, do: [] }", "at least a second"),
        (
            "repeat: { every: { date: 2026-01-01 }, do: [] }",
            "is no rhythm",
        ),
        (
            "repeat: { every: 1d, at_most: 0, do: [] }",
            "a whole number from 1",
        ),
        (
            "repeat: { every: 1d, at_most: many, do: [] }",
            "a whole number from 1",
        ),
        ("repeat: { every: 1d }", "a repeat needs `do`"),
        ("stalled_after: [3d]", "a duration like"),
        (
            "deadline: { after: 3d, escalate: { log: a } }",
            "a list is expected",
        ),
        ("enter: log", "a list is expected"),
        ("enter: [log]", "an action is expected"),
        ("stage: x", "a second time"),
    ] {
        add(whole("title: t", stage), says);
    }

    // too much of something that is right
    let many =
        |n: usize, one: &dyn Fn(usize) -> String| (0..n).map(one).collect::<Vec<_>>().join("");
    let stages = many(1_001, &|i| format!("  - {{ stage: s{i}, end: done }}\n"));
    add(
        format!("journey: j\nstages:\n{stages}"),
        "1001 stages; at most 1000",
    );
    add(
        whole(
            "title: t",
            &format!(
                "transitions: [{}]",
                many(65, &|i| format!("{{ to: y, on: a.b{i} }},"))
            ),
        ),
        "65 transitions; at most 64",
    );
    add(
        whole(
            &format!(
                "variables: {{ {} }}",
                many(65, &|i| format!("v{i}: {{}}, "))
            ),
            "leave: []",
        ),
        "65 variables; at most 64",
    );
    add(
        whole(
            "title: t",
            &format!(
                "transitions: [{}]",
                many(60, &|i| format!(
                    "{{ to: y, on: a.b{i}, when: '{}true' }},",
                    many(5, &|j| format!("A.B.f{i}x{j} == 1 || "))
                ))
            ),
        ),
        "300 facts mentioned; at most 256",
    );
    add(
        whole(
            "title: t",
            &format!("enter: [{}]", "{ log: a },".repeat(65)),
        ),
        "65 actions in one list; at most 64",
    );

    // expressions that mean harm
    for expression in [
        ["1"; 20_000].join("+"),
        format!("{} == 1", "a".repeat(70_000)),
        "[0,1,2,3,4,5,6,7,8,9].map(a, ".repeat(6) + "a" + &")".repeat(6),
        format!("{}1{}", "(".repeat(500), ")".repeat(500)),
        format!("{}1{}", "[".repeat(500), "]".repeat(500)),
        format!("{}1{}", "-(".repeat(90), ")".repeat(90)),
        format!("a{}", ".a".repeat(1_500)),
        format!("a{}", "[0]".repeat(1_000)),
        format!("a{} == 1", " ? a : a".repeat(400)),
        ["a"; 1_000].join(" && "),
        "\"\".matches(\"((((a{99}){99}){99}){99})\")".to_owned(),
        "\u{202e}vars.x".to_owned(),
    ] {
        let quoted = expression.replace('\'', "''");
        add(
            whole(
                "title: t",
                &format!("transitions: [{{ to: y, on: c.d, when: '{quoted}' }}]"),
            ),
            "the expression ",
        );
        add(
            whole(
                "title: t",
                &format!("enter: [{{ log: '{{{{ {quoted} }}}}' }}]"),
            ),
            "the text ",
        );
    }
    cases
}

#[test]
fn every_hostile_journey_gets_a_located_error_and_no_panic() {
    let known = Known {
        endpoints: Some(BTreeSet::from(["crm".to_owned()])),
    };
    let cases = cases();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for Case { text, says } in &cases {
        let began = Instant::now();
        let result = Journey::compile(text, &known);
        let took = began.elapsed();
        let name: String = text.chars().take(300).collect();
        let problems = match result {
            Ok(_) => {
                wrong.push(format!("{name}\n  was accepted"));
                continue;
            }
            Err(problems) => problems,
        };
        let errors: Vec<_> = problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .collect();
        let told: Vec<String> = problems.iter().take(5).map(ToString::to_string).collect();
        let lines = u32::try_from(text.split('\n').count()).unwrap_or(u32::MAX);
        if !errors.iter().any(|p| p.message.contains(says)) {
            wrong.push(format!("{name}\n  should say {says:?}, says {told:#?}"));
        }
        if problems
            .iter()
            .any(|p| p.line < 1 || p.column < 1 || p.line > lines + 1 || p.message.len() > 600)
        {
            wrong.push(format!(
                "{name}\n  has a problem without a place, or too long a text: {told:#?}"
            ));
        }
        if problems.iter().any(|p| p.message.contains("please report")) {
            wrong.push(format!("{name}\n  panicked"));
        }
        if took > Duration::from_secs(A_SECOND) {
            wrong.push(format!("{name}\n  took {took:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// The most that the limits let through is compiled, or refused, in bounded time.
#[test]
fn the_largest_journeys_end_in_time() {
    let ways = |i: usize| {
        (0..60)
            .map(|j| format!("{{ to: s{}, on: a.b{j} }},", (i + 1) % 200))
            .collect::<String>()
    };
    let wide: String = (0..200)
        .map(|i| format!("  - {{ stage: s{i}, transitions: [{}] }}\n", ways(i)))
        .collect();
    let dense: String = (0..1_000)
        .map(|i| format!("  - {{ stage: s{i}, transitions: [{{ to: s{}, when: A.B.f > {i} && A.B.g.matches('^x{i}') }}] }}\n", (i + 7) % 1_000))
        .collect();
    let long = format!(
        "'A.B.f in [{}]'",
        (0..480)
            .map(|i| i.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    );
    let heavy: String = (0..60)
        .map(|i| format!("  - {{ stage: s{i}, transitions: [{{ to: s0, when: {long} }}] }}\n"))
        .collect();
    for (name, stages) in [("wide", wide), ("dense", dense), ("heavy", heavy)] {
        let text = format!("journey: j\nentry: [{{ on: a.b }}]\nstages:\n{stages}");
        let began = Instant::now();
        // refused or not: each is at the edge of one of the limits
        let _ = Journey::compile(&text, &Known::default());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(A_SECOND), "{name} took {took:?}");
    }
}
