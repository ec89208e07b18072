//! Journeys that compile, and what is said of those that do not: one table, one helper.

use super::*;
use crate::compiled::{Body, Reentry, Trigger};

const COLOUR: &str = include_str!("../../../examples/colour/journey.yaml");
const LOAN: &str = include_str!("../../../examples/loan/journey.yaml");

fn told(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("  {p}\n")).collect()
}

fn checked(text: &str) -> Checked {
    match Journey::compile(text, &Known::default()) {
        Ok(checked) => checked,
        Err(problems) => panic!("\n{}", told(&problems)),
    }
}

#[test]
fn the_example_in_full_colour_compiles_as_it_is() {
    let Checked { compiled, warnings } = checked(COLOUR);
    let told: Vec<(u32, &str)> = warnings.iter().map(|w| (w.line, w.path.as_str())).collect();
    let not_connected = [
        (19, "stages[0].enter[0]"),
        (23, "stages[0].repeat[0].do[0]"),
        (26, "stages[0].deadline[0].escalate[0]"),
    ];
    assert_eq!(told, not_connected);
    assert_eq!(compiled.name, "loan");
    assert_eq!(compiled.title, "Quick loan");
    assert_eq!(compiled.stages.len(), 7);
    assert_eq!(
        compiled.reentry,
        Reentry::AfterExit {
            wait: crate::time::Span::from_seconds(86_400)
        }
    );
    assert_eq!(
        compiled.identify_by,
        ["application_id", "lead_id", "email", "phone"]
    );
    let facts: Vec<String> = compiled
        .facts
        .paths
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(facts, ["Books.Invoice.Status", "Desk.Department.Status"]);
    assert!(
        compiled.listens.contains("email.opened")
            && compiled.listens.contains("desk.ticket.closed")
    );
    let applied = &compiled.stages[0];
    assert_eq!(applied.transitions[0].place, "stage/applied/transition/0");
    assert_eq!(
        applied.transitions[0].actions[0].place,
        "stage/applied/transition/0/do/0"
    );
    assert_eq!(
        applied.deadlines[0].escalate[0].place,
        "stage/applied/deadline/0/escalate/0"
    );
    assert_eq!(
        applied.repeats[0].actions[0].place,
        "stage/applied/repeat/0/do/0"
    );
    assert!(matches!(
        applied.transitions[1].trigger,
        Trigger::Absent { .. }
    ));
    assert!(
        matches!(&applied.transitions[0].actions[0].body, Body::Map(map) if map.contains_key("id"))
    );
    assert_eq!(compiled.deadlines[0].to, Some(6));
    assert_eq!(compiled.stages[4].end.as_deref(), Some("converted"));
}

#[test]
fn a_compiled_journey_is_shared_between_threads() {
    fn shared<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    shared(&checked(LOAN).compiled);
}

#[test]
fn the_loan_compiles_without_a_warning() {
    let Checked { compiled, warnings } = checked(LOAN);
    assert!(warnings.is_empty(), "{}", told(&warnings));
    assert_eq!(compiled.stages.len(), 9);
    assert_eq!(compiled.listens.len(), 10);
}

#[test]
fn json_is_read_as_yaml_is() {
    let text = r#"{"journey": "j", "entry": [{"on": "a.b"}], "stages": [
        {"stage": "x", "transitions": [{"to": "y", "on": ["c.d", "e.f"], "where": "signal.data.n == 1"}]},
        {"stage": "y", "end": "done"}]}"#;
    let compiled = checked(text).compiled;
    assert_eq!(compiled.stages[0].transitions[0].to, 1);
    let problems = Journey::compile(&text.replace("== 1", "== "), &Known::default()).unwrap_err();
    assert_eq!(
        (problems[0].line, problems[0].path.as_str()),
        (2, "stages[0].transitions[0].where")
    );
}

#[test]
fn no_is_a_text() {
    let text = "journey: no\ntitle: off\nentry: [{ on: a.b }]\nstages: [{ stage: yes, end: on }]";
    let compiled = checked(text).compiled;
    assert_eq!(
        (compiled.name.as_str(), compiled.title.as_str()),
        ("no", "off")
    );
    assert_eq!(
        (
            compiled.stages[0].name.as_str(),
            compiled.stages[0].end.as_deref()
        ),
        ("yes", Some("on"))
    );
}

#[test]
fn every_problem_is_told_with_its_place() {
    let text = "\
journey: Loan
tilte: x
entry:
  - on: [a.b, signal.x]
    where: signal.data.form ==
stages:
  - stage: one
    transitons: []
    transitions:
      - { to: towo, on: c.d }
      - { to: two, on: c.d, after: 3d }
      - { to: two, when: now > vars.x }
  - stage: two
    end: done
  - stage: two
    end: done
";
    let problems = Journey::compile(text, &Known::default()).unwrap_err();
    let found: Vec<(u32, u32, &str)> = problems
        .iter()
        .map(|p| (p.line, p.column, p.path.as_str()))
        .collect();
    // a name that cannot be read leaves no journey to check further, so the rest comes when it is right
    assert_eq!(
        found,
        [
            (1, 10, "journey"),
            (2, 1, "tilte"),
            (8, 5, "stages[0].transitons")
        ]
    );
    assert_eq!(problems[1].help.as_deref(), Some("did you mean `title`?"));

    let problems = Journey::compile(
        &text.replace("journey: Loan", "journey: loan"),
        &Known::default(),
    )
    .unwrap_err();
    let found: Vec<(u32, u32, &str)> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .map(|p| (p.line, p.column, p.path.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (2, 1, "tilte"),
            (4, 15, "entry[0].on[1]"),
            (5, 31, "entry[0].where"),
            (8, 5, "stages[0].transitons"),
            (10, 15, "stages[0].transitions[0].to"),
            (11, 9, "stages[0].transitions[1]"),
            (12, 26, "stages[0].transitions[2].when"),
            (15, 12, "stages[2].stage"),
        ]
    );
}

/// When a delay that is written so is over, counted from Friday 2026-11-20 at 15:00 in Amsterdam.
fn due(wait: &str) -> String {
    let text = format!(
        "journey: j\nentry: [{{ on: a.b }}]\nstages:\n - {{ stage: x, transitions: [{{ to: y, after: {wait} }}] }}\n - {{ stage: y, end: z }}"
    );
    let compiled = match Journey::compile(&text, &Known::default()) {
        Ok(checked) => checked.compiled,
        Err(problems) => return problems[0].message.clone(),
    };
    let key = crate::signal::Identifier {
        name: "id".to_owned(),
        value: "1".to_owned(),
    };
    let since = crate::customer::Attribute {
        value: crate::value::Value::String("2026-12-24T18:00:00Z".to_owned()),
        occurred: crate::time::Time(0),
    };
    let customer = crate::customer::Customer {
        identifiers: vec![key.clone()],
        key,
        attributes: BTreeMap::from([("renewal".to_owned(), since)]),
        runs: vec![],
        forgotten: 0,
    };
    let now = crate::time::Time::parse("2026-11-20T14:00:00Z").unwrap();
    let scope = crate::expr::Scope {
        signal: None,
        customer: &customer,
        execution: None,
        now,
    };
    match &compiled.stages[0].transitions[0].trigger {
        Trigger::After(wait) => match wait.due(now, &compiled.base, &scope) {
            Ok(time) => format!("{time} ({})", wait.source),
            Err(miss) => format!("{miss:?}"),
        },
        other => format!("{other:?}"),
    }
}

#[test]
fn waits_have_these_forms() {
    let cases = [
        ("90s", "2026-11-20T14:01:30Z (90s)"),
        ("1w2d", "2026-11-29T14:00:00Z (1w2d)"),
        ("{ days: 1 }", "2026-11-21T14:00:00Z (1 days)"),
        (
            "{ months: 5, zone: Europe/Amsterdam }",
            "2027-04-20T13:00:00Z (5 months in Europe/Amsterdam)",
        ),
        (
            "{ years: 1, months: 1, weeks: 1, days: 1, at: '09:00', zone: Europe/Amsterdam }",
            "2027-12-28T08:00:00Z (1 years 1 months 1 weeks 1 days at 09:00 in Europe/Amsterdam)",
        ),
        ("{ date: 2027-03-01 }", "2027-03-01T00:00:00Z (2027-03-01)"),
        (
            "{ date: 2027-03-01, at: '09:30', zone: America/New_York }",
            "2027-03-01T14:30:00Z (2027-03-01 at 09:30 in America/New_York)",
        ),
        (
            "{ field: customer.renewal, offset: -3d }",
            "2026-12-21T18:00:00Z (customer.renewal offset -3d)",
        ),
        (
            "{ field: customer.nothing }",
            "Unknown([\"customer.nothing\"])",
        ),
        (
            "{ field: customer.id }",
            "Error(\"`customer.id` is no time; expected a time like 2026-03-01T09:00:00Z or a date like 2026-03-01, found `1`\")",
        ),
        (
            "{ business: 4h, zone: Europe/Amsterdam }",
            "2026-11-23T10:00:00Z (4h of business time in Europe/Amsterdam)",
        ),
        (
            "{ business: 4h, hours: '08:00-12:00', weekdays: [sat], holidays: [2026-11-21], zone: UTC }",
            "2026-11-28T12:00:00Z (4h of business time in UTC)",
        ),
    ];
    for (wait, expected) in cases {
        assert_eq!(due(wait), expected, "{wait}");
    }
}

#[test]
fn actions_keep_what_the_author_gave() {
    let text = "
journey: j
entry: [{ on: a.b }]
stages:
  - stage: x
    end: done
    enter:
      - webhook: { to: crm, await: scored, body: { id: \"{{ customer.id }}\", n: 1.50, list: [no, true, ~] } }
      - webhook: { to: crm, await: true }
      - log: \"hello {{ customer.id }}\"
      - log:
      - task: { to: \"{{ vars.team }}\", title: t, await: false }
";
    let known = |names: &[&str]| Known {
        endpoints: Some(names.iter().map(|n| (*n).to_owned()).collect()),
    };
    let compiled = Journey::compile(text, &known(&["crm"])).unwrap().compiled;
    let shown: Vec<String> = compiled.stages[0]
        .enter
        .iter()
        .map(|a| {
            format!(
                "{} {} {:?} {:?}",
                a.place,
                a.kind,
                a.to.as_ref().map(|t| &t.source),
                a.awaited
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "stage/x/enter/0 webhook Some(\"crm\") Some(\"scored\")",
            "stage/x/enter/1 webhook Some(\"crm\") Some(\"webhook\")",
            "stage/x/enter/2 log None None",
            "stage/x/enter/3 log None None",
            "stage/x/enter/4 task Some(\"{{ vars.team }}\") None",
        ]
    );
    let Body::Map(body) = &compiled.stages[0].enter[0].body else {
        panic!("the body is a map")
    };
    assert!(matches!(&body["id"], Body::Text(t) if t.source == "{{ customer.id }}"));
    assert!(matches!(&body["n"], Body::Plain(crate::value::Value::Double(n)) if *n == 1.5));
    let Body::List(list) = &body["list"] else {
        panic!("the list is a list")
    };
    assert!(matches!(&list[0], Body::Plain(crate::value::Value::String(no)) if no == "no"));
    assert!(matches!(
        &list[1],
        Body::Plain(crate::value::Value::Bool(true))
    ));
    assert!(matches!(&list[2], Body::Plain(crate::value::Value::Null)));

    let problems = Journey::compile(text, &known(&["crn"])).unwrap_err();
    let help: Vec<_> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .map(|p| (p.line, p.help.clone()))
        .collect();
    assert_eq!(
        help,
        [
            (8, Some("did you mean `crn`?".to_owned())),
            (9, Some("did you mean `crn`?".to_owned()))
        ]
    );
}

#[test]
fn a_problem_within_an_expression_is_told_where_it_stands() {
    let at = |when: &str| {
        let text = format!(
            "journey: j\nstages:\n  - stage: x\n    transitions:\n      - to: x\n        on: a.b\n        when: {when}\n"
        );
        let problems = Journey::compile(&text, &Known::default()).unwrap_err();
        let error = problems
            .iter()
            .find(|p| p.severity == Severity::Error)
            .unwrap();
        (error.line, error.column)
    };
    assert_eq!(at("vars.a == )"), (7, 25));
    assert_eq!(at("'vars.a == )'"), (7, 26));
    assert_eq!(at("|\n          vars.a == )"), (8, 21));
    // a text of several lines does not stand in the document as it is, so its beginning is told
    assert_eq!(at("|\n          vars.a ==\n          )"), (8, 11));
}

#[test]
fn what_is_empty_or_in_the_wrong_place_is_told_where_it_stands() {
    let head = "journey: j\nentry: [{ on: a.b }]\n";
    let stage = |inside: &str| {
        format!("{head}stages:\n - {{ stage: x, {inside} }}\n - {{ stage: y, end: done }}")
    };
    // (text, everything that is told)
    let cases: Vec<(String, &[&str])> = vec![
        (
            format!("{head}stages: []"),
            &["1:1 a journey needs at least one stage"],
        ),
        (
            format!("{head}goal: {{ stage: y }}\nstages: []"),
            &[
                "1:1 a journey needs at least one stage",
                "3:16 there is no stage `y`",
            ],
        ),
        (
            stage("transitions: [{ to: y, on: [] }]"),
            &["4:43 the list is empty; at least one is expected"],
        ),
        (
            stage("transitions: [{ to: y, on: c.d, do: [] }], enter: [], leave: []"),
            &[],
        ),
        (
            stage("repeat: [{ every: { days: 0 }, do: [] }], transitions: [{ to: y, on: c.d }]"),
            &["4:42 a whole number from 1 to 1000000 is expected, found 0"],
        ),
        (
            stage("transitions: [{ to: y, after: { weeks: -2, zone: UTC } }]"),
            &["4:55 a whole number from 1 to 1000000 is expected, found -2"],
        ),
        (
            stage("transitions: [{ to: y, after: { zone: UTC } }]"),
            &["4:46 a wait that is a map has one of"],
        ),
        (
            stage(
                "enter: [{ log: { text: hi }, await: greeting }], transitions: [{ to: y, on: c.d }]",
            ),
            &["4:45 `await` stands beside the action, and belongs into its map"],
        ),
        (
            stage("transitions: [{ to: y, on: c.d, when: '\"NL\"' }]"),
            &["4:54 a condition is true or false, found a text (`\"NL\"`)"],
        ),
        (
            stage("transitions: [{ to: y, on: c.d, where: 3 }, { to: y, when: 'true' }]"),
            &["4:55 a condition is true or false, found a whole number (`3`)"],
        ),
    ];
    for (text, expected) in cases {
        let problems = match Journey::compile(&text, &Known::default()) {
            Ok(checked) => checked.warnings,
            Err(problems) => problems,
        };
        let found: Vec<String> = problems
            .iter()
            .map(|p| format!("{}:{} {}", p.line, p.column, p.message))
            .collect();
        let same = found.len() == expected.len()
            && found.iter().zip(expected).all(|(f, e)| f.starts_with(e));
        assert!(same, "\n{text}\nexpected {expected:#?}\nfound {found:#?}");
    }
}
