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
    println!("{}", told(&warnings));
    assert_eq!(compiled.name, "loan");
    assert_eq!(compiled.title, "Quick loan");
    assert_eq!(compiled.stages.len(), 7);
    assert_eq!(compiled.reentry, Reentry::AfterExit { wait: crate::time::Span::from_seconds(86_400) });
    assert_eq!(compiled.identify_by, ["application_id", "lead_id", "email", "phone"]);
    let facts: Vec<String> = compiled.facts.paths.iter().map(ToString::to_string).collect();
    assert_eq!(facts, ["Books.Invoice.Status", "Desk.Department.Status"]);
    assert!(compiled.listens.contains("email.opened") && compiled.listens.contains("desk.ticket.closed"));
    let applied = &compiled.stages[0];
    assert_eq!(applied.transitions[0].place, "stage/applied/transition/0");
    assert_eq!(applied.transitions[0].actions[0].place, "stage/applied/transition/0/do/0");
    assert_eq!(applied.deadlines[0].escalate[0].place, "stage/applied/deadline/0/escalate/0");
    assert_eq!(applied.repeats[0].actions[0].place, "stage/applied/repeat/0/do/0");
    assert!(matches!(applied.transitions[1].trigger, Trigger::Absent { .. }));
    assert!(matches!(&applied.transitions[0].actions[0].body, Body::Map(map) if map.contains_key("id")));
    assert_eq!(compiled.deadlines[0].to, Some(6));
    assert_eq!(compiled.stages[4].end.as_deref(), Some("converted"));
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
    assert_eq!((problems[0].line, problems[0].path.as_str()), (2, "stages[0].transitions[0].where"));
}

#[test]
fn no_is_a_text() {
    let text = "journey: no\ntitle: off\nentry: [{ on: a.b }]\nstages: [{ stage: yes, end: on }]";
    let compiled = checked(text).compiled;
    assert_eq!((compiled.name.as_str(), compiled.title.as_str()), ("no", "off"));
    assert_eq!((compiled.stages[0].name.as_str(), compiled.stages[0].end.as_deref()), ("yes", Some("on")));
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
    let found: Vec<(u32, u32, &str)> = problems.iter().map(|p| (p.line, p.column, p.path.as_str())).collect();
    println!("{}", told(&problems));
    // a name that cannot be read leaves no journey to check further, so the rest comes when it is right
    assert_eq!(found, [(1, 10, "journey"), (2, 1, "tilte"), (8, 5, "stages[0].transitons")]);
    assert_eq!(problems[1].help.as_deref(), Some("did you mean `title`?"));

    let problems = Journey::compile(&text.replace("journey: Loan", "journey: loan"), &Known::default()).unwrap_err();
    println!("{}", told(&problems));
    let found: Vec<(u32, u32, &str)> =
        problems.iter().filter(|p| p.severity == Severity::Error).map(|p| (p.line, p.column, p.path.as_str())).collect();
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
