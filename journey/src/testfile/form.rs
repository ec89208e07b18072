//! The shape of a test file, read from its text with the place of every step.

use super::problem;
use crate::problem::Problem;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) tests: Vec<Spanned<Test>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    pub(super) test: String,
    pub(super) start: Option<String>,
    pub(super) customer: BTreeMap<String, String>,
    pub(super) steps: Vec<Spanned<Step>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) after: Option<String>,
    pub(super) at: Option<String>,
    pub(super) signal: Option<String>,
    pub(super) id: Option<String>,
    pub(super) source: Option<String>,
    pub(super) time: Option<String>,
    pub(super) data: Option<serde_json::Value>,
    pub(super) attributes: Option<serde_json::Value>,
    pub(super) customer: Option<BTreeMap<String, String>>,
    pub(super) result: Option<ActionEnd>,
    #[serde(rename = "override")]
    pub(super) moves: Option<String>,
    pub(super) hold: Option<String>,
    pub(super) resume: Option<String>,
    pub(super) stop: Option<String>,
    pub(super) expect: Option<Expect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionEnd {
    pub(super) action: String,
    pub(super) is: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) receipt: Option<String>,
    pub(super) stage: Option<String>,
    pub(super) status: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) actions: Option<Vec<String>>,
    pub(super) waits: Option<Vec<String>>,
    pub(super) due: Option<String>,
    pub(super) vars: Option<BTreeMap<String, serde_json::Value>>,
    pub(super) facts: Option<BTreeMap<String, serde_json::Value>>,
    pub(super) kept: Option<BTreeMap<String, serde_json::Value>>,
    pub(super) goal: Option<String>,
    pub(super) incident: Option<String>,
    pub(super) refused: Option<String>,
    pub(super) instance: Option<String>,
}

/// Reads a test file.
pub(super) fn read(text: &str) -> Result<File, Problem> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let place = error.location();
        let line = place.map_or(1, |l| l.line());
        let column = place.map_or(1, |l| l.column());
        // The reader adds a picture of the text; our problem carries the place itself.
        problem(line, column, error.without_snippet().to_string())
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 0, max_depth: 64, max_documents: 1 },
    }
}
