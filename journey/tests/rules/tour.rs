//! The example of the language's page, from entry to end.

use crate::helper::check;

#[test]
fn the_example_in_full_colour_runs() {
    let text = include_str!("../../../examples/colour/journey.yaml");
    check(
        text,
        &[
            (
                "0s",
                r#"web.form.submitted {"form":"loan","application_id":"l1","amount":900}"#,
                "started applied",
                "*",
            ),
            (
                "1d",
                r#"docs.file.uploaded {"kind":"kyc","application_id":"l1"}"#,
                "unmatched",
                "*",
            ),
            (
                "2d",
                r#"docs.file.uploaded {"kind":"kyc","application_id":"l1","agent":"bo"} attributes={"country":"NL"}"#,
                "moved applied -> documents_submitted",
                "*",
            ),
            (
                "3d",
                r#"desk.check.passed {"application_id":"l1"}"#,
                "unmatched",
                "*",
            ),
            (
                "4d",
                r#"books.account.opened {"application_id":"l1"}"#,
                "moved documents_submitted -> live",
                "*",
            ),
            (
                "5d",
                r#"Books.Invoice.updated {"Status":"Paid"}"#,
                "recorded",
                "*",
            ),
            (
                "6d",
                r#"Desk.Department.updated {"Status":"Active"}"#,
                "moved live -> disbursed",
                "*",
            ),
            (
                "7d",
                r#"crm.lead.deleted {"application_id":"l1"}"#,
                "ended",
                "",
            ),
        ],
    );
}

#[test]
fn silence_in_the_example_is_an_absence_then_a_delay() {
    let text = include_str!("../../../examples/colour/journey.yaml");
    check(
        text,
        &[
            (
                "0s",
                r#"web.form.submitted {"form":"loan","application_id":"l1","amount":900}"#,
                "started applied",
                "*",
            ),
            ("3d", "wait", "", "*"),
            ("14d", "wait", "", "*"),
            ("15d", "crm.lead.lost", "ended", ""),
        ],
    );
}

#[test]
fn the_test_files_of_the_examples_pass() {
    let examples = [
        (
            include_str!("../../../examples/colour/journey.yaml"),
            include_str!("../../../examples/colour/colour.test.yaml"),
        ),
        (
            include_str!("../../../examples/loan/journey.yaml"),
            include_str!("../../../examples/loan/loan.test.yaml"),
        ),
    ];
    for (journey, tests) in examples {
        let report = sojourn_journey::testfile::run(tests, &crate::helper::compile(journey));
        let report = report.unwrap_or_else(|problem| panic!("no test file: {problem}"));
        let failures: Vec<String> = report
            .tests
            .iter()
            .flat_map(|t| t.failures.iter().map(|f| format!("{}: {f}", t.name)))
            .collect();
        assert!(report.passed(), "{failures:#?}");
    }
}
