//! Given a scope, when an expression is evaluated, then this is its answer: one table, one helper.

use super::*;
use crate::customer::Attribute;
use crate::execution::{Fact, Stamp, Status, Visit};
use crate::signal::Identifier;
use std::collections::BTreeMap;

mod limits;

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

fn object(text: &str) -> BTreeMap<String, Value> {
    match json(text) {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

fn identifier(name: &str, value: &str) -> Identifier {
    Identifier {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn customer() -> Customer {
    let attribute = |text: &str| Attribute {
        value: json(text),
        occurred: Time(0),
    };
    Customer {
        key: identifier("email", "a@b.nl"),
        identifiers: vec![
            identifier("email", "a@b.nl"),
            identifier("phone", "1"),
            identifier("phone", "2"),
        ],
        attributes: BTreeMap::from([
            ("country".to_owned(), attribute("\"NL\"")),
            (
                "address".to_owned(),
                attribute("{\"city\":\"Utrecht\",\"line two\":null}"),
            ),
            ("id".to_owned(), attribute("\"not the key\"")),
        ]),
        runs: vec![],
        forgotten: 0,
    }
}

fn signal() -> Signal {
    Signal {
        id: "s1".to_owned(),
        source: "books".to_owned(),
        kind: "Books.Invoice.updated".to_owned(),
        time: Some(Time(2_000_000)),
        identifiers: vec![],
        data: object(
            r#"{"amount":100,"rate":1.5,"kind":"kyc","lines":[{"n":1},{"n":2},{"m":3}],"none":null,"when":"2026-03-01T09:00:00Z"}"#,
        ),
        attributes: BTreeMap::new(),
    }
}

fn execution() -> Execution {
    let fact = |text: &str| Fact {
        value: json(text),
        occurred: Time(0),
        position: 0,
    };
    let stamp = Stamp {
        at: Time(1_000_000),
        occurred: Time(1_000_000),
    };
    Execution {
        journey: "loan".to_owned(),
        version: 1,
        customer: identifier("email", "a@b.nl"),
        instance: None,
        run: 1,
        next: 5,
        status: Status::Active,
        outcome: None,
        started: Stamp::default(),
        ended: None,
        visit: Visit {
            number: 3,
            stage: "live".to_owned(),
            began: stamp,
        },
        facts: BTreeMap::from([
            ("Books.Invoice.Status".to_owned(), fact("\"Paid\"")),
            (
                "Books.Invoice[\"Due Date\"]".to_owned(),
                fact("\"2026-01-01\""),
            ),
            ("action.scoring.status".to_owned(), fact("\"done\"")),
        ]),
        vars: object(r#"{"amount":5000}"#),
        kept: BTreeMap::new(),
        patterns: BTreeMap::new(),
        timers: vec![],
        owed: vec![],
        failed: vec![],
        overdue: false,
        stalled: false,
        incident: None,
        goal: None,
        hold: None,
        waiting: vec![],
    }
}

/// The answer as a text: JSON, `unknown: paths`, or `error: text`.
fn answer(source: &str) -> String {
    let (customer, signal, execution) = (customer(), signal(), execution());
    let scope = Scope {
        signal: Some(&signal),
        customer: &customer,
        execution: Some(&execution),
        now: Time(3_000_000),
    };
    let expression = match Expression::parse(source) {
        Ok(expression) => expression,
        Err(refused) => return format!("refused: {}", refused.message),
    };
    match expression.eval(&Base::default(), &scope) {
        Ok(value) => value.to_json(),
        Err(Miss::Unknown(paths)) => format!("unknown: {}", paths.join(", ")),
        Err(Miss::Error(error)) => format!("error: {error}"),
    }
}

fn expect(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(source, expected)| {
            let found = answer(source);
            let same = match expected.strip_suffix('…') {
                Some(start) => found.starts_with(start),
                None => found == *expected,
            };
            (!same).then(|| format!("{source}\n  expected {expected}\n  found    {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn names_stand_for_what_is_known() {
    expect(&[
        ("signal.id", "\"s1\""),
        ("signal.type", "\"Books.Invoice.updated\""),
        ("signal.source", "\"books\""),
        ("signal.time", "\"1970-01-01T00:00:02Z\""),
        ("signal.data.lines[1].n", "2"),
        ("signal.data[\"kind\"]", "\"kyc\""),
        ("signal[\"data\"].kind", "\"kyc\""),
        ("size(signal.data)", "6"),
        ("\"kind\" in signal.data", "true"),
        ("signal.data.none == null", "true"),
        ("customer.id", "\"a@b.nl\""),
        ("customer.phone", "\"1\""),
        ("customer.country", "\"NL\""),
        ("customer.address.city", "\"Utrecht\""),
        ("vars.amount", "5000"),
        ("execution.stage", "\"live\""),
        ("execution.visits", "3"),
        ("now - execution.entered_at", "\"2s\""),
        ("now > execution.started_at", "true"),
        ("Books.Invoice.Status", "\"Paid\""),
        ("Books.Invoice[\"Due Date\"]", "\"2026-01-01\""),
        ("action.scoring.status", "\"done\""),
    ]);
}

#[test]
fn what_never_arrived_is_unknown_and_named() {
    expect(&[
        (
            "Desk.Department.Status == \"Active\"",
            "unknown: Desk.Department.Status",
        ),
        ("Desk.A.x == Desk.B.y", "unknown: Desk.A.x, Desk.B.y"),
        ("Books.invoice.Status", "unknown: Books.invoice.Status"),
        ("signal.data.nothing", "unknown: signal.data.nothing"),
        (
            "signal.data.nothing.below",
            "unknown: signal.data.nothing.below",
        ),
        ("signal.data.none.below", "unknown: signal.data.none.below"),
        ("signal.data.lines[9].n", "unknown: signal.data.lines[9]"),
        ("signal.data.lines[2].n", "unknown: signal.data.lines[2].n"),
        (
            "signal.data[\"due date\"]",
            "unknown: signal.data[\"due date\"]",
        ),
        ("customer.shoe", "unknown: customer.shoe"),
        (
            "customer.address[\"line two\"].x",
            "unknown: customer.address[\"line two\"].x",
        ),
        ("vars.other", "unknown: vars.other"),
        ("execution.nothing", "unknown: execution.nothing"),
        ("nothing", "unknown: nothing"),
        ("!Desk.A.x", "unknown: Desk.A.x"),
        ("-Desk.A.x", "unknown: Desk.A.x"),
        ("Desk.A.x + 1", "unknown: Desk.A.x"),
        ("1 / 0 + Desk.A.x", "unknown: Desk.A.x"),
        ("[Desk.A.x, Desk.B.y]", "unknown: Desk.A.x, Desk.B.y"),
        ("{\"a\": Desk.A.x}", "unknown: Desk.A.x"),
        ("size(Desk.A.x)", "unknown: Desk.A.x"),
        ("Desk.A.x ? 1 : 2", "unknown: Desk.A.x"),
        ("true ? 1 : Desk.A.x", "1"),
        ("Desk.A.x.matches(\"a\")", "unknown: Desk.A.x"),
    ]);
}

#[test]
fn logic_absorbs_unknown_and_errors_on_both_sides() {
    expect(&[
        ("Desk.A.x || true", "true"),
        ("true || Desk.A.x", "true"),
        ("Desk.A.x || false", "unknown: Desk.A.x"),
        ("false || Desk.A.x", "unknown: Desk.A.x"),
        ("Desk.A.x && false", "false"),
        ("false && Desk.A.x", "false"),
        ("Desk.A.x && true", "unknown: Desk.A.x"),
        (
            "Desk.A.x && Desk.B.y && Desk.A.x",
            "unknown: Desk.A.x, Desk.B.y",
        ),
        ("1 / 0 == 1 || true", "true"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 || false", "error: division by zero"),
        ("1 / 0 == 1 || Desk.A.x", "unknown: Desk.A.x"),
        ("Desk.A.x || 1 / 0 == 1", "unknown: Desk.A.x"),
        ("1 || true", "true"),
        (
            "1 && true",
            "error: `&&` needs true or false, found a whole number",
        ),
        ("signal.data.lines.any(l, l.n == 2)", "true"),
        ("signal.data.lines.exists(l, l.n == 7)", "unknown: ….n"),
        ("signal.data.lines.any(l, l.m == 3)", "true"),
        ("signal.data.lines.all(l, l.n == 1)", "false"),
        ("signal.data.lines.all(l, l.n > 0)", "unknown: ….n"),
        ("[].all(l, l.n)", "true"),
        ("[].any(l, l.n)", "false"),
        ("[1, 2, 3].exists_one(x, x > 2)", "true"),
        ("[1, 2, 3].exists_one(x, x > 1)", "false"),
        ("[1, 2, 3].map(x, x * 2)", "[2,4,6]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4,6]"),
        ("[1, 2, 3].filter(x, x != 2)", "[1,3]"),
        ("{\"b\": 1, \"a\": 2}.map(k, k)", "[\"a\",\"b\"]"),
        ("[1, 2].map(x, x + Desk.A.x)", "unknown: Desk.A.x"),
        ("[1, 2, 3].filter(x, x > 1).map(x, x + 1)", "[3,4]"),
        ("[{\"signal\": 1}].any(signal, signal.signal == 1)", "true"),
    ]);
}

#[test]
fn has_is_false_where_nothing_arrived() {
    expect(&[
        ("has(Books.Invoice.Status)", "true"),
        ("has(Desk.Department.Status)", "false"),
        ("has(signal.data.none)", "true"),
        ("has(signal.data.nothing.at.all)", "false"),
        ("has(Books.Invoice[\"Due Date\"])", "true"),
        ("has(signal.data.lines[0].n)", "true"),
        ("has(signal.data.lines[0].x)", "false"),
        ("has(signal.data.amount.x)", "false"),
        ("has(customer.phone) && !has(customer.fax)", "true"),
    ]);
}

#[test]
fn operators_and_functions() {
    expect(&[
        ("1 + 2 * 3 - 4", "3"),
        ("7 / 2", "3"),
        ("-7 % 3", "-1"),
        ("vars.amount * 1.5", "7500.0"),
        ("signal.data.amount == 100.0", "true"),
        ("9007199254740993 == 9007199254740992.0", "false"),
        ("9223372036854775807 < 9223372036854775808.0", "true"),
        ("1 == \"1\"", "false"),
        ("[1, [2]] == [1.0, [2]]", "true"),
        ("{\"a\": 1} == {\"a\": 1.0}", "true"),
        ("\"a\" < \"b\"", "true"),
        (
            "1 < \"b\"",
            "error: a whole number cannot be compared with a text",
        ),
        (
            "9223372036854775807 + 1",
            "error: a whole number became too large",
        ),
        (
            "-9223372036854775808 / -1",
            "error: a whole number became too large",
        ),
        ("1.0 / 0.0", "error: division by zero"),
        ("1e308 * 10.0", "error: a number became too large"),
        ("2 in [1, 2]", "true"),
        ("\"c\" in {\"d\": 1}", "false"),
        (
            "1 in 2",
            "error: `in` needs a list or a map on its right, found a whole number",
        ),
        ("customer.country in [\"NL\", \"BE\"]", "true"),
        ("size(\"é€\")", "2"),
        (
            "\"Hello\".contains(\"ell\") && \"Hello\".startsWith(\"H\") && \"Hello\".endsWith(\"o\")",
            "true",
        ),
        ("\"abc\".matches(\"^a.c$\")", "true"),
        ("\"Ab\".lowerAscii() + \"Ab\".upperAscii()", "\"abAB\""),
        ("\" x \".trim().replace(\"x\", \"yy\")", "\"yy\""),
        ("\"a,b\".split(\",\")", "[\"a\",\"b\"]"),
        ("[\"a\", \"b\"].join(\"-\")", "\"a-b\""),
        ("\"hello\".substring(1, 3)", "\"el\""),
        (
            "\"hello\".substring(9)",
            "error: `substring` reaches outside…",
        ),
        ("\"hello\".indexOf(\"l\")", "2"),
        ("int(\"12\") + int(1.9)", "13"),
        (
            "int(\"x\")",
            "error: the text `x` cannot be read as a whole number",
        ),
        ("double(\"1.5\")", "1.5"),
        ("string(1.0) + string(true)", "\"1true\""),
        ("bool(\"true\")", "true"),
        (
            "timestamp(signal.data.when) + duration(\"1d\")",
            "\"2026-03-02T09:00:00Z\"",
        ),
        (
            "timestamp(signal.data.when).getHours(\"Europe/Amsterdam\")",
            "10",
        ),
        ("timestamp(signal.data.when).getDayOfWeek()", "0"),
        (
            "timestamp(signal.data.when).getHours(\"Mars/Base\")",
            "error: `Mars/Base` is no time zone…",
        ),
        ("duration(\"90m\").getHours()", "1"),
        (
            "timestamp(\"x\")",
            "error: the text `x` cannot be read as a time…",
        ),
        ("signal.data.amount.x", "unknown: signal.data.amount.x"),
        ("[1].x", "error: `.x` needs a map, found a list"),
        ("dyn(1)", "1"),
    ]);
}

#[test]
fn what_is_no_expression_is_refused() {
    let long = format!("\"{}\"", "x".repeat(MAX_SOURCE));
    let parts = format!("[{}]", ["1"; MAX_NODES].join(","));
    let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
    let nested = format!("{}1{}", "[".repeat(80), "]".repeat(80));
    let sum = ["1"; MAX_DEPTH + 5].join("+");
    let path = format!("a{}", ".a".repeat(MAX_DEPTH));
    let selects = format!("f(){}", ".a".repeat(MAX_DEPTH + 5));
    expect(&[
        ("", "refused: is empty…"),
        ("a ==", "refused: is no expression: …"),
        ("a b", "refused: is no expression: …"),
        ("\"open", "refused: is no expression: …"),
        (
            "sise(x)",
            "refused: there is no function `sise`; did you mean `size`?",
        ),
        ("x.zzzzzz()", "refused: there is no function `zzzzzz`"),
        ("size(1, 2)", "refused: `size` takes 1 arguments…"),
        (
            "\"a\".matches(x)",
            "refused: the pattern of `matches` must be written out…",
        ),
        (
            "\"a\".matches(\"(\")",
            "refused: `(` is no regular expression…",
        ),
        (
            "\"a\".matches(\"((a{1000}){1000}){1000}\")",
            "refused: `((a{1000}){1000}){1000}` is no regular…",
        ),
        ("1u", "refused: `1u`: there are no unsigned numbers here…"),
        ("A{b: 1}", "refused: `A{…}` makes a message…"),
        ("a.?b", "refused: is no expression: …"),
        (
            "[1].map(x, [2].map(y, x))",
            "refused: has a macro within a macro…",
        ),
        ("[1].map(x.y, x)", "refused: the first argument of all…"),
        ("[1].map(x)", "refused: all, any, exists…"),
        (&long, "refused: has 4098 bytes…"),
        (&parts, "refused: has more than 500 parts…"),
        (&deep, "refused: nests deeper than 64 levels"),
        (&nested, "refused: nests deeper than 64 levels"),
        (&sum, "refused: nests deeper than 64 levels"),
        (&path, "refused: nests deeper than 64 levels"),
        (&selects, "refused: nests deeper than 64 levels"),
    ]);
}

#[test]
fn a_condition_is_told_in_its_parts() {
    let (customer, signal, execution) = (customer(), signal(), execution());
    let scope = Scope {
        signal: Some(&signal),
        customer: &customer,
        execution: Some(&execution),
        now: Time(3_000_000),
    };
    let parts = |source: &str| -> Vec<String> {
        let expression = Expression::parse(source).unwrap();
        expression
            .parts(&Base::default(), &scope)
            .into_iter()
            .map(|p| format!("{} -> {:?}", p.source, p.state))
            .collect()
    };
    assert_eq!(
        parts("Books.Invoice.Status == \"Paid\" && Desk.Department.Status == \"Active\""),
        [
            "Books.Invoice.Status == \"Paid\" -> Yes",
            "Desk.Department.Status == \"Active\" -> Unknown { missing: [\"Desk.Department.Status\"] }",
        ]
    );
    assert_eq!(parts("vars.amount > 9000"), ["vars.amount > 9000 -> No"]);
    assert_eq!(parts("a.b || 1 / 0 == 1").len(), 2);
    let any = Expression::parse("a.b || c.d").unwrap();
    assert!(any.any_part_is_enough());
    assert!(
        !Expression::parse("a.b && c.d")
            .unwrap()
            .any_part_is_enough()
    );
    // as many parts as operands, however they are grouped
    for source in [
        "a && b && c && d && e",
        "(a && b) && (c && (d && e))",
        "a || b || (c || d) || e",
    ] {
        assert_eq!(
            Expression::parse(source).unwrap().parts.len(),
            5,
            "{source}"
        );
    }
}

#[test]
fn mentions_are_the_facts() {
    let expression = Expression::parse(
        "Books.Invoice.Status == \"Paid\" && has(Desk.T[\"Due Date\"]) && A.B.lines[0].n > 1 && A.B.name.contains(\"x\") \
         && vars.amount > 1 && [1].any(x, x.y == Z.z) && lonely == 1",
    )
    .unwrap();
    let mentions: Vec<String> = expression
        .mentions()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        mentions,
        [
            "A.B.lines",
            "A.B.name",
            "Books.Invoice.Status",
            "Desk.T[\"Due Date\"]",
            "Z.z"
        ]
    );
    assert!(expression.uses("vars") && !expression.uses("now"));
    assert_eq!(
        expression.names_alone().iter().collect::<Vec<_>>(),
        ["lonely"]
    );
    for path in expression.mentions() {
        assert_eq!(path.to_string().parse::<FactPath>().as_ref(), Ok(path));
    }
    for text in [
        "",
        ".a",
        "a.",
        "a..b",
        "a[b]",
        "a[\"b\"",
        "a[\"b\"]c",
        "a b",
        "1a",
    ] {
        assert!(text.parse::<FactPath>().is_err(), "{text}");
    }
}
