//! Texts that were right until somebody's finger slipped: whatever comes of them, the compiler answers.

use proptest::prelude::*;
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::customer::Customer;
use sojourn_journey::expr::{Base, Expression, Scope};
use sojourn_journey::signal::Identifier;
use sojourn_journey::time::Time;
use std::collections::BTreeMap;

const COLOUR: &str = include_str!("../../examples/colour/journey.yaml");

/// What slips in.
const PIECES: [&str; 24] = [
    "", " ", "\n", "  ", ":", "- ", "[", "]", "{", "}", "\"", "'", "#", "&a", "*a", "!", "|", ">",
    "?", ",", "~", "0", "\t", "é",
];

/// What expressions are made of.
const TOKENS: [&str; 40] = [
    "a",
    "a.b",
    "a.b.c",
    "vars.x",
    "signal.data.y",
    "customer.id",
    "now",
    "1",
    "-1",
    "1.5",
    "\"t\"",
    "'t'",
    "true",
    "null",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "in",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "size",
    "has",
    ".map(x, x)",
    ".any(x, x == 1)",
];

fn customer() -> Customer {
    let key = Identifier {
        name: "id".to_owned(),
        value: "1".to_owned(),
    };
    Customer {
        identifiers: vec![key.clone()],
        key,
        attributes: BTreeMap::new(),
        runs: vec![],
        forgotten: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_journey_with_slips_is_accepted_or_told_what_is_wrong(
        slips in prop::collection::vec((0..COLOUR.len(), 0..8usize, 0..PIECES.len()), 1..4)
    ) {
        let mut text = COLOUR.to_owned();
        for (at, cut, piece) in slips {
            let start = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            let end = (start + cut..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
            text.replace_range(start..end, PIECES[piece]);
        }
        if let Err(problems) = Journey::compile(&text, &Known::default()) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(!problem.message.contains("please report"), "{problem}\n{text}");
                prop_assert!(problem.line >= 1 && problem.column >= 1, "{problem}");
            }
        }
    }

    #[test]
    fn an_expression_of_any_tokens_is_refused_or_has_an_answer(tokens in prop::collection::vec(0..TOKENS.len(), 1..12)) {
        let source: Vec<&str> = tokens.iter().map(|t| TOKENS[*t]).collect();
        for source in [source.join(" "), source.concat()] {
            match Expression::parse(&source) {
                Ok(expression) => {
                    let customer = customer();
                    let scope = Scope { signal: None, customer: &customer, execution: None, now: Time(0) };
                    let whole = expression.holds(&Base::default(), &scope);
                    let parts = expression.parts(&Base::default(), &scope);
                    // the parts agree with the whole
                    if whole == Ok(true) && !expression.any_part_is_enough() {
                        prop_assert!(parts.iter().all(|p| p.state == sojourn_journey::expr::Holds::Yes), "{source}: {parts:?}");
                    }
                }
                Err(refused) => prop_assert!(!refused.message.contains("please report"), "{source}: {}", refused.message),
            }
        }
    }
}
