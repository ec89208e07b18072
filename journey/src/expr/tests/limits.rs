//! Texts and data that mean harm: refused, in time.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test may look at the clock: it measures the work

use super::*;
use std::time::Instant;

#[test]
fn hostile_texts_are_refused_fast() {
    let terms = ["1"; 20_000].join("+");
    let columns = format!("{} ==", "a".repeat(70_000));
    let macros = "[0,1,2,3,4,5,6,7,8,9].map(a, ".repeat(6) + "a" + &")".repeat(6);
    let worst = [
        "!".repeat(MAX_SOURCE),
        "-".repeat(MAX_SOURCE),
        "(".repeat(MAX_SOURCE),
        "[".repeat(MAX_SOURCE),
        "{".repeat(MAX_SOURCE),
        "a?".repeat(MAX_SOURCE / 2),
        "a.".repeat(MAX_SOURCE / 2),
        "a(".repeat(MAX_SOURCE / 2),
        "1+".repeat(MAX_SOURCE / 2 - 1) + "1",
        "a&&".repeat(MAX_SOURCE / 3 - 1) + "a",
        "a||b&&".repeat(MAX_SOURCE / 6 - 1) + "a",
        "a[".repeat(MAX_SOURCE / 2),
        ")".repeat(MAX_SOURCE),
        "\u{0}".repeat(MAX_SOURCE),
        "\u{1F600}".repeat(MAX_SOURCE / 4),
        "'".repeat(MAX_SOURCE),
        "\"\\".repeat(MAX_SOURCE / 2),
    ];
    for text in [terms, columns, macros].iter().chain(&worst) {
        let began = Instant::now();
        let result = Expression::parse(text);
        let name = text.chars().take(12).collect::<String>();
        let took = began.elapsed();
        assert!(result.is_err(), "{name}… was accepted");
        let message = result.map_or_else(|r| r.message, |_| String::new());
        assert!(!message.contains("the parser failed"), "{name}…: {message}");
        assert!(took.as_millis() < 1_000, "{name}… took {took:?}");
    }
}

#[test]
fn evaluation_has_a_budget() {
    let list = format!(
        "[{}]",
        (0..MAX_LIST)
            .map(|i| i.to_string())
            .collect::<Vec<_>>()
            .join(",")
    );
    let text = "x".repeat(200_000);
    let mut signal = signal();
    signal.data.insert("list".to_owned(), json(&list));
    signal
        .data
        .insert("longer".to_owned(), json(&list.replace('[', "[0,")));
    signal.data.insert("text".to_owned(), Value::String(text));
    let customer = customer();
    let scope = Scope {
        signal: Some(&signal),
        customer: &customer,
        execution: None,
        now: Time(0),
    };
    let cases = [
        ("size(signal.data.list.map(x, x + 1)) == 1000", Ok(true)),
        ("signal.data.longer.all(x, x >= 0)", Err("at most 1000")),
        (
            "signal.data.list.map(x, signal.data.text + \"a\") == []",
            Err("too much work"),
        ),
        (
            "signal.data.list.all(x, signal.data.text.contains(\"y\") || true)",
            Err("too much work"),
        ),
        ("signal.data.list.all(x, x >= 0)", Ok(true)),
        (
            "signal.data.list.map(x, signal.data.list) == []",
            Err("too much work"),
        ),
        (
            "signal.data.text.replace(\"x\", signal.data.text) == \"\"",
            Err("too much work"),
        ),
        (
            "size(signal.data.text.split(\"\")) > 0",
            Err("too much work"),
        ),
    ];
    for (source, expected) in cases {
        let began = Instant::now();
        let found = Expression::parse(source)
            .unwrap()
            .holds(&Base::default(), &scope);
        match (&found, expected) {
            (Ok(held), Ok(wanted)) => assert_eq!(*held, wanted, "{source}"),
            (Err(Miss::Error(error)), Err(part)) => {
                assert!(error.contains(part), "{source}: {error}")
            }
            _ => panic!("{source}: {found:?}"),
        }
        assert!(
            began.elapsed().as_millis() < 1_000,
            "{source} took {:?}",
            began.elapsed()
        );
    }
}
