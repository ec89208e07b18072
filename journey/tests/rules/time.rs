//! Timers in virtual time: absence, delays, stalled, deadlines, the goal.

use crate::helper::check;

const HEAD: &str = "journey: j\nentry: [{ on: a.start }]\n";

pub fn stage(inside: &str) -> String {
    format!(
        "{HEAD}stages:\n  - stage: one\n{inside}\n  - stage: two\n    transitions: [{{ to: one, on: a.back }}]\n  - stage: end\n    end: done\n"
    )
}

#[test]
fn a_delay_opens_after_its_time_and_leaving_cancels_it() {
    let journey = stage("    transitions: [{ to: end, after: 11d }, { to: two, on: a.up }]");
    check(
        &journey,
        &[
            (
                "0s",
                "a.start",
                "started one",
                "start one 1 | arm one/0 11d",
            ),
            ("10d", "wait", "", ""),
            (
                "11d",
                "wait",
                "",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
    check(
        &journey,
        &[
            (
                "0s",
                "a.start",
                "started one",
                "start one 1 | arm one/0 11d",
            ),
            (
                "10d",
                "a.up",
                "moved one -> two",
                "one>two 2 (signal one/1)",
            ),
            // The timer of the old visit is stale.
            ("12d", "wait", "", ""),
            // Re-entry starts anew.
            (
                "20d",
                "a.back",
                "moved two -> one",
                "two>one 3 (signal two/0) | arm one/0 31d",
            ),
            (
                "31d",
                "wait",
                "",
                "fire one/0 | one>end 4 (timer one/0) | completed end done",
            ),
        ],
    );
}

#[test]
fn a_timer_due_at_the_time_of_a_signal_fires_before_it() {
    check(
        &stage("    transitions: [{ to: end, after: 1d }, { to: two, on: a.up }]"),
        &[
            ("0s", "a.start", "started one", "*"),
            (
                "1d",
                "a.up",
                "ended",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
}

#[test]
fn a_delay_with_a_condition_is_tested_when_its_time_comes() {
    let journey = format!(
        "{HEAD}variables: {{ ok: {{ type: bool, from: signal.data.ok }} }}\nstages:\n  - stage: one\n    transitions: [{{ to: end, after: 1d, when: vars.ok }}]\n  - stage: end\n    end: done\n"
    );
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "*"),
            ("2d", "wait", "", "fire one/0"),
            ("3d", r#"a.x {"ok":true}"#, "recorded", "var ok=true"),
        ],
    );
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "*"),
            ("1h", r#"a.x {"ok":true}"#, "recorded", "var ok=true"),
            (
                "2d",
                "wait",
                "",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
}

#[test]
fn absence_opens_when_the_signal_stays_away() {
    let journey = stage(
        "    transitions: [{ to: end, absent: m.opened, within: 3d, where: 'signal.data.mail == 1' }, { to: two, on: a.up }]",
    );
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1 | arm one/0 3d"),
            (
                "1d",
                r#"m.opened {"mail":2}"#,
                "unmatched",
                "unmatched m.opened",
            ),
            (
                "3d",
                "wait",
                "",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "*"),
            ("1d", r#"m.opened {"mail":1}"#, "unmatched", "saw one/0 #0"),
            ("9d", "wait", "", ""),
        ],
    );
}

#[test]
fn absence_after_a_signal_starts_at_that_signal() {
    check(
        &stage("    transitions: [{ to: end, absent: m.replied, after: m.opened, within: 2d }]"),
        &[
            ("0s", "a.start", "started one", "start one 1"),
            ("1d", "m.replied", "unmatched", "unmatched m.replied"),
            ("5d", "m.opened", "unmatched", "saw one/0 #0 | arm one/0 7d"),
            ("6d", "m.replied", "unmatched", "saw one/0 #1"),
            (
                "8d",
                "m.opened",
                "unmatched",
                "saw one/0 #0 | arm one/0 10d #2",
            ),
            // The span runs from the first.
            ("9d", "m.opened", "unmatched", "unmatched m.opened"),
            (
                "10d",
                "wait",
                "",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
}

#[test]
fn a_point_in_time_follows_the_fact_that_gives_it() {
    let journey = stage("    transitions: [{ to: end, at: Crm.Deal.Due }]");
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            (
                "1h",
                r#"Crm.Deal.updated {"Due":"2026-01-08T08:00:00Z"}"#,
                "recorded",
                r#"fact Crm.Deal.Due="2026-01-08T08:00:00Z" | arm one/0 3d"#,
            ),
            (
                "2h",
                r#"Crm.Deal.updated {"Due":"2026-01-07T08:00:00Z"}"#,
                "recorded",
                r#"fact Crm.Deal.Due="2026-01-07T08:00:00Z" | arm one/0 2d #2"#,
            ),
            (
                "2d",
                "wait",
                "",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
    // A time that is past is due at once.
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            (
                "2d",
                r#"Crm.Deal.updated {"Due":"2026-01-06T08:00:00Z"}"#,
                "recorded",
                "*",
            ),
            (
                "2d",
                "wait",
                "",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
}

#[test]
fn stalled_and_overdue_are_flags_of_the_visit() {
    let world = check(
        &stage(
            "    stalled_after: 2d\n    deadline:\n      - { after: 3d, escalate: [{ log: { text: chase } }] }\n      - { after: 4d, move: two }\n    transitions: [{ to: end, on: a.up }]",
        ),
        &[
            (
                "0s",
                "a.start",
                "started one",
                "start one 1 | arm one/stalled_after 2d | arm one/deadline/0 3d | arm one/deadline/1 4d",
            ),
            ("2d", "wait", "", "fire one/stalled_after | stalled"),
            (
                "3d",
                "wait",
                "",
                "fire one/deadline/0 | overdue one/deadline/0 | do one/deadline/0/escalate/0",
            ),
            (
                "4d",
                "wait",
                "",
                "fire one/deadline/1 | overdue one/deadline/1 | one>two 2 (deadline one/deadline/1)",
            ),
        ],
    );
    let state = world.execution();
    assert!(!state.overdue && !state.stalled, "leaving clears the flags");
}

#[test]
fn the_journey_deadline_ends_or_moves() {
    check(
        &stage("    leave: [{ log: { text: bye } }]\n    transitions: [{ to: two, on: a.up }, { to: end, on: a.end }]")
            .replace("stages:", "deadline: { after: 90d, escalate: [{ log: { text: late } }] }\nstages:"),
        &[
            ("0s", "a.start", "started one", "start one 1 | arm deadline/0 90d"),
            ("1d", "a.up", "moved one -> two", "*"),
            // It runs from the start of the execution, whatever the visit.
            ("90d", "wait", "", "fire deadline/0 | do deadline/0/escalate/0 | expired two -"),
        ],
    );
    check(
        &stage("    leave: [{ log: { text: bye } }]\n    transitions: [{ to: two, on: a.up }]")
            .replace("stages:", "deadline: { after: 90d, move: end }\nstages:"),
        &[
            ("0s", "a.start", "started one", "*"),
            (
                "90d",
                "wait",
                "",
                "fire deadline/0 | do one/leave/0 | one>end 2 (deadline deadline/0) | completed end done",
            ),
        ],
    );
}

#[test]
fn the_goal_is_recorded_once_and_moves_nobody() {
    let journey = stage("    transitions: [{ to: two, on: a.up }, { to: end, on: a.end }]")
        .replace("stages:", "goal: { stage: two, within: 1d }\nstages:");
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            (
                "1h",
                "a.up",
                "moved one -> two",
                "one>two 2 (signal one/0) | goal in time",
            ),
            (
                "2h",
                "a.back",
                "moved two -> one",
                "two>one 3 (signal two/0)",
            ),
            ("3h", "a.up", "moved one -> two", "one>two 4 (signal one/0)"),
        ],
    );
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            (
                "2d",
                "a.up",
                "moved one -> two",
                "one>two 2 (signal one/0) | goal late",
            ),
        ],
    );
}

#[test]
fn a_time_that_the_first_signal_gives_is_armed_once_and_stays() {
    check(
        &stage("    transitions: [{ to: end, at: signal.data.due }, { to: two, at: vars.due }]")
            .replace(
                "stages:",
                "variables: { due: { type: time, from: signal.data.until } }\nstages:",
            ),
        &[
            (
                "0s",
                r#"a.start {"due":"2026-01-09T08:00:00Z","until":"2026-01-10T08:00:00Z"}"#,
                "started one",
                r#"start one 1 | var due="2026-01-10T08:00:00Z" | arm one/0 4d | arm one/1 5d"#,
            ),
            // Another signal's `due` is not that of the visit's begin; a variable is looked at again.
            (
                "1d",
                r#"a.x {"due":"2026-01-20T08:00:00Z","until":"2026-01-08T08:00:00Z"}"#,
                "recorded",
                r#"var due="2026-01-08T08:00:00Z" | arm one/1 3d #2"#,
            ),
            ("3d", "wait", "", "fire one/1 | one>two 2 (timer one/1)"),
        ],
    );
}

#[test]
fn a_deadline_may_stand_at_a_field() {
    let journey = stage(
        "    deadline: { after: { field: Crm.Deal.Due, offset: -1d }, move: two }\n    transitions: [{ to: end, on: a.up }]",
    );
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            (
                "1h",
                r#"Crm.Deal.updated {"Due":"2026-01-09T08:00:00Z"}"#,
                "recorded",
                r#"fact Crm.Deal.Due="2026-01-09T08:00:00Z" | arm one/deadline/0 3d"#,
            ),
            (
                "3d",
                "wait",
                "",
                "fire one/deadline/0 | overdue one/deadline/0 | one>two 2 (deadline one/deadline/0)",
            ),
        ],
    );
}

#[test]
fn an_absence_is_settled_once_whatever_becomes_of_its_time() {
    let journey = stage(
        "    transitions: [{ to: end, absent: m.opened, within: { field: vars.due } }, { to: two, on: a.up }]",
    )
    .replace(
        "stages:",
        "variables: { due: { type: time, from: signal.data.due }, n: { from: signal.data.n } }\nstages:",
    );
    // The signal came: another value, and another time, do not make it absent again.
    check(
        &journey,
        &[
            (
                "0s",
                r#"a.start {"due":"2026-01-09T08:00:00Z"}"#,
                "started one",
                "*",
            ),
            ("1d", "m.opened", "unmatched", "saw one/0 #0"),
            ("2d", r#"x.y {"n":1}"#, "recorded", "var n=1"),
            (
                "3d",
                r#"x.y {"due":"2026-01-15T08:00:00Z"}"#,
                "recorded",
                r#"var due="2026-01-15T08:00:00Z""#,
            ),
            ("30d", "wait", "", ""),
        ],
    );
    // It came before the time was known.
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            ("1d", "m.opened", "unmatched", "saw one/0 #0"),
            ("1d", "m.opened", "unmatched", "unmatched m.opened"),
            (
                "2d",
                r#"x.y {"due":"2026-01-09T08:00:00Z"}"#,
                "recorded",
                r#"var due="2026-01-09T08:00:00Z""#,
            ),
            ("30d", "wait", "", ""),
        ],
    );
    // It did not come, and the time became another.
    check(
        &journey,
        &[
            ("0s", "a.start", "started one", "start one 1"),
            (
                "2d",
                r#"x.y {"due":"2026-01-09T08:00:00Z"}"#,
                "recorded",
                r#"var due="2026-01-09T08:00:00Z" | arm one/0 4d"#,
            ),
            (
                "3d",
                r#"x.y {"due":"2026-01-10T08:00:00Z"}"#,
                "recorded",
                r#"var due="2026-01-10T08:00:00Z" | arm one/0 5d #2"#,
            ),
            (
                "5d",
                "wait",
                "",
                "fire one/0 | one>end 2 (timer one/0) | completed end done",
            ),
        ],
    );
}

#[test]
fn the_goal_goes_by_when_things_occurred() {
    let journey = stage("    transitions: [{ to: two, on: a.up }, { to: end, on: a.end }]")
        .replace("stages:", "goal: { stage: two, within: 1h }\nstages:");
    // (when the start is told and occurred, when the signal is told and occurred, in time)
    for (start, up, goal) in [
        ("a.start at=-30d", "a.up", "goal late"),
        ("a.start at=-30d", "a.up at=-32d", "goal in time"),
        ("a.start", "a.up at=-3d", "goal in time"),
    ] {
        let world = check(
            &journey,
            &[
                ("0s", start, "started one", "start one 1"),
                (
                    "2d",
                    up,
                    "moved one -> two",
                    &format!("one>two 2 (signal one/0) | {goal}"),
                ),
            ],
        );
        assert!(world.execution().goal.is_some());
    }
}
