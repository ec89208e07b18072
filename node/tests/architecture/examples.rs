//! The examples, and the journeys of the documents, do what they say.

use crate::{files, read, root};
use sojourn_journey::compile::{Checked, Journey, Known};
use sojourn_journey::testfile;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `lint` says of an example, beyond nothing: its folder and its warnings.
const WARNINGS: [(&str, &[&str]); 1] = [(
    "colour",
    &[
        "stages[0].enter[0]: the action `email` is recorded and skipped: not connected",
        "stages[0].repeat[0].do[0]: the action `email` is recorded and skipped: not connected",
        "stages[0].deadline[0].escalate[0]: the action `task` is recorded and skipped: not connected",
    ],
)];

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn compile(text: &str, what: &str) -> Checked {
    Journey::compile(text, &Known::default()).unwrap_or_else(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{what} does not compile:\n{}", told.join("\n"))
    })
}

fn passes(tests: &str, journey: Checked, what: &str) {
    let report = testfile::run(tests, &Arc::new(journey.compiled))
        .unwrap_or_else(|problem| panic!("{what}: {problem}"));
    assert!(!report.tests.is_empty(), "{what} tests nothing");
    let failures: Vec<String> = report
        .tests
        .iter()
        .flat_map(|t| t.failures.iter().map(|f| format!("{}: {f}", t.name)))
        .collect();
    assert!(failures.is_empty(), "{what}:\n{}", failures.join("\n"));
}

fn examples() -> Vec<PathBuf> {
    files(&root().join("examples"), &["journey.yaml"])
}

#[test]
fn every_example_lints_with_the_warnings_that_are_expected() {
    let examples = examples();
    assert!(examples.len() >= 3, "examples are missing: {examples:?}");
    for path in examples {
        let folder = path
            .parent()
            .and_then(Path::file_name)
            .and_then(|n| n.to_str())
            .expect("an example has a folder");
        let expected = WARNINGS
            .iter()
            .find(|(name, _)| *name == folder)
            .map_or(&[][..], |(_, warnings)| warnings);
        let checked = compile(&text(&path), folder);
        let found: Vec<String> = checked
            .warnings
            .iter()
            .map(|w| format!("{}: {}", w.path, w.message))
            .collect();
        assert_eq!(found, expected, "the warnings of {folder}");
    }
}

#[test]
fn every_test_file_of_an_example_passes() {
    let tests = files(&root().join("examples"), &[".test.yaml"]);
    assert!(tests.len() >= 2, "test files are missing: {tests:?}");
    for path in tests {
        let what = path.display().to_string();
        let journey = text(&path.with_file_name("journey.yaml"));
        passes(&text(&path), compile(&journey, &what), &what);
    }
}

/// The page for designers: each journey in it stands as it is, and each test file in it is for the journey above it.
#[test]
fn the_journeys_of_the_language_page_compile_and_pass() {
    let page = read("docs/language.md");
    let (mut journeys, mut tests) = (0, 0);
    let mut last: Option<String> = None;
    for block in blocks(&page, "yaml") {
        let what = format!("docs/language.md line {}", block.line);
        if block.text.starts_with("journey:") {
            let checked = compile(&block.text, &what);
            let unconnected = |w: &&sojourn_journey::problem::Problem| {
                !w.message
                    .ends_with("is recorded and skipped: not connected")
            };
            let warnings: Vec<String> = checked
                .warnings
                .iter()
                .filter(unconnected)
                .map(ToString::to_string)
                .collect();
            assert!(warnings.is_empty(), "{what}: {warnings:?}");
            last = Some(block.text);
            journeys += 1;
        } else {
            assert!(
                block.text.starts_with("tests:"),
                "{what}: neither a journey nor tests; nothing checks it"
            );
            let journey = last.as_deref().expect("tests stand below their journey");
            passes(&block.text, compile(journey, &what), &what);
            tests += 1;
        }
    }
    assert!(
        journeys >= 4 && tests >= 2,
        "{journeys} journeys, {tests} test files"
    );
}

/// A fenced block of a document.
pub struct Block {
    /// The line of its first line, from 1.
    pub line: usize,
    /// What is between the fences.
    pub text: String,
}

/// The fenced blocks of one language.
pub fn blocks(page: &str, language: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, Block)> = None;
    for (number, line) in page.lines().enumerate() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            match open.take() {
                Some((true, block)) => blocks.push(block),
                Some((false, _)) => {}
                None => {
                    let block = Block {
                        line: number + 2,
                        text: String::new(),
                    };
                    open = Some((fence.trim() == language, block));
                }
            }
        } else if let Some((_, block)) = &mut open {
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}
