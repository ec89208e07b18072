//! What a signal makes known of the customer wakes conditions, times and exit rules, in whichever execution asks for it.

use crate::helper::{Step, World, check, check_all};

/// Everything that may ask about the customer and needs no signal for it.
const CARE: &str = r#"
journey: care
entry: [{ on: a.start }]
exit: [{ when: 'customer.blocked', outcome: blocked }]
variables: { level: { from: customer.level } }
stages:
  - stage: one
    leave: [{ log: { text: bye } }]
    stalled_after: { field: customer.patience }
    transitions:
      - { to: gold, when: 'customer.tier == "gold"' }
      - { to: known, when: 'has(customer.email)' }
      - { to: high, when: 'vars.level > 3' }
      - { to: late, at: customer.due }
      - { to: late, on: a.up }
  - { stage: gold, end: gold }
  - { stage: known, end: known }
  - { stage: high, end: high }
  - { stage: late, end: late }
"#;

const ENTER: Step<'_> = ("0s", "a.start", "started one", "start one 1");

#[test]
fn an_attribute_wakes_the_execution_that_it_comes_to() {
    let cases: [&[Step<'_>]; 6] = [
        &[(
            "1h",
            r#"x.y attributes={"tier":"gold"}"#,
            "moved one -> gold",
            "do one/leave/0 | one>gold 2 (condition one/0) | completed gold gold",
        )],
        &[
            (
                "1h",
                r#"x.y attributes={"blocked":false}"#,
                "unmatched",
                "unmatched x.y",
            ),
            (
                "2h",
                r#"x.y attributes={"blocked":true}"#,
                "exited one (blocked)",
                "do one/leave/0 | exited one blocked",
            ),
        ],
        &[
            (
                "1h",
                r#"x.y attributes={"due":"2026-01-08T08:00:00Z"}"#,
                "unmatched",
                "arm one/3 3d",
            ),
            (
                "2h",
                r#"x.y attributes={"due":"2026-01-07T08:00:00Z"}"#,
                "unmatched",
                "arm one/3 2d #2",
            ),
            // The same again arms nothing.
            (
                "3h",
                r#"x.y attributes={"due":"2026-01-07T08:00:00Z"}"#,
                "unmatched",
                "unmatched x.y",
            ),
            (
                "2d",
                "wait",
                "",
                "fire one/3 | do one/leave/0 | one>late 2 (timer one/3) | completed late late",
            ),
        ],
        &[
            (
                "1h",
                r#"x.y attributes={"patience":"2026-01-06T08:00:00Z"}"#,
                "unmatched",
                "arm one/stalled_after 1d",
            ),
            ("1d", "wait", "", "fire one/stalled_after | stalled"),
        ],
        &[
            (
                "1h",
                r#"x.y attributes={"level":3}"#,
                "recorded",
                "var level=3",
            ),
            (
                "2h",
                r#"x.y attributes={"level":4}"#,
                "moved one -> high",
                "var level=4 | do one/leave/0 | one>high 2 (condition one/2) | completed high high",
            ),
        ],
        // A signal that names a transition opens that first; an older attribute changes nothing.
        &[(
            "2h",
            r#"a.up at=-3h attributes={"tier":"gold"}"#,
            "moved one -> late",
            "do one/leave/0 | one>late 2 (signal one/4) | completed late late",
        )],
    ];
    for steps in cases {
        check(CARE, &[&[ENTER], steps].concat());
    }
}

#[test]
fn an_identifier_that_becomes_known_wakes_too() {
    check(
        CARE,
        &[
            ENTER,
            ("1h", "x.y", "unmatched", "unmatched x.y"),
            (
                "2h",
                "x.y and=email:ann@example.org",
                "moved one -> known",
                "do one/leave/0 | one>known 2 (condition one/1) | completed known known",
            ),
        ],
    );
}

/// One execution for each order, and what is known of the customer concerns all of them.
fn orders() -> String {
    CARE.replace("entry:", "instance_key: signal.data.order\nentry:")
}

#[test]
fn the_other_instances_of_the_customer_wake_too_in_the_same_decision() {
    check(
        &orders(),
        &[
            (
                "0s",
                r#"a.start {"order":"o1"}"#,
                "started one",
                "start one 1",
            ),
            (
                "1m",
                r#"a.start {"order":"o2"}"#,
                "started one",
                "start one 1",
            ),
            // Nothing comes of it in the other: it has no part.
            (
                "1h",
                r#"x.y {"order":"o2"} attributes={"mood":1}"#,
                "unmatched",
                "unmatched x.y",
            ),
            (
                "2h",
                r#"x.y {"order":"o2"} attributes={"due":"2026-01-08T08:00:00Z"}"#,
                "unmatched & unmatched",
                "arm one/3 3d | arm one/3 3d",
            ),
            // Of an instance that is not there; and what is not new wakes nobody.
            (
                "3h",
                r#"x.y {"order":"o7"} attributes={"due":"2026-01-08T08:00:00Z"}"#,
                "no_match",
                "",
            ),
            (
                "4h",
                r#"x.y {"order":"o7"} attributes={"level":2}"#,
                "recorded & recorded",
                "var level=2 | var level=2",
            ),
            (
                "5h",
                r#"a.up {"order":"o2"} attributes={"tier":"gold"}"#,
                "moved one -> late & moved one -> gold",
                "do one/leave/0 | one>late 2 (signal one/4) | completed late late | \
                 do one/leave/0 | one>gold 2 (condition one/0) | completed gold gold",
            ),
        ],
    );
    check(
        &orders(),
        &[
            ("0s", r#"a.start {"order":"o1"}"#, "started one", "*"),
            (
                "1h",
                r#"a.start {"order":"o2"} attributes={"blocked":true}"#,
                "started one & exited one (blocked)",
                "start one 1 | do one/leave/0 | exited one blocked | do one/leave/0 | exited one blocked",
            ),
        ],
    );
}

#[test]
fn a_hundred_instances_take_part_in_one_decision() {
    let mut world = World::new(&[&orders()]);
    for n in 0..100 {
        let (answer, _) = world.step("0s", &format!(r#"a.start {{"order":"o{n}"}}"#));
        assert_eq!(answer, "started one");
    }
    let (answer, _) = world.step("1h", r#"x.y {"order":"o7"} attributes={"tier":"gold"}"#);
    assert_eq!(answer, ["moved one -> gold"; 100].join(" & "));
}

#[test]
fn journeys_that_do_not_ask_about_the_customer_are_not_told() {
    let deaf = r#"
journey: deaf
instance_key: signal.data.order
entry: [{ on: a.start }]
stages:
  - stage: one
    enter: [{ log: "{{ customer.id }}" }]
    transitions:
      - { to: end, on: a.up, when: 'customer.tier == "gold"' }
  - { stage: end, end: done }
"#;
    let world = check_all(
        &[deaf, &orders()],
        &[("0s", r#"a.start {"order":"o1"}"#, "started", "*")],
    );
    let asks = |name| world.simulation.journey(name).map(|j| j.wakes_on_customer);
    assert_eq!((asks("deaf"), asks("care")), (Some(false), Some(true)));
}

#[test]
fn what_becomes_known_while_it_is_held_counts_when_it_goes_on() {
    let journey = orders();
    // By a signal for another instance: nothing moves, times are those that are known now.
    let start: [Step<'_>; 3] = [
        ("0s", r#"a.start {"order":"o1"}"#, "started one", "*"),
        (
            "1m",
            r#"a.start {"order":"o2"} attributes={"due":"2026-01-07T08:00:00Z"}"#,
            "started one",
            "*",
        ),
        ("1h", "hold", "", "held ann"),
    ];
    let cases: [&[Step<'_>]; 3] = [
        &[
            (
                "2h",
                r#"x.y {"order":"o1"} attributes={"tier":"gold"}"#,
                "moved one -> gold",
                "do one/leave/0 | one>gold 2 (condition one/0) | completed gold gold",
            ),
            (
                "3h",
                "resume",
                "",
                "resumed ann | do one/leave/0 | one>gold 2 (condition one/0) | completed gold gold",
            ),
        ],
        &[
            (
                "2h",
                r#"x.y {"order":"o1"} attributes={"due":"2026-01-09T08:00:00Z"}"#,
                "unmatched & unmatched",
                "arm one/3 4d #2 | arm one/3 4d #2",
            ),
            ("3d", "resume", "", "resumed ann"),
            ("3d", "stop", "", "stopped one - by ann"),
        ],
        // What came due before stays due.
        &[
            (
                "2d",
                "wait",
                "",
                "fire one/3 | do one/leave/0 | one>late 2 (timer one/3) | completed late late | waits one/3",
            ),
            (
                "3d",
                r#"x.y {"order":"o1"} attributes={"due":"2026-01-20T08:00:00Z"}"#,
                "ended",
                "",
            ),
            (
                "4d",
                "resume",
                "",
                "resumed ann | fire one/3 | do one/leave/0 | one>late 2 (timer one/3) | completed late late",
            ),
        ],
    ];
    for steps in cases {
        check(&journey, &[&start, steps].concat());
    }
    // By a signal of its own, which waits.
    check(
        CARE,
        &[
            ENTER,
            ("1h", "hold", "", "held ann"),
            (
                "2h",
                r#"x.y attributes={"tier":"gold"}"#,
                "held",
                "queue x.y",
            ),
            (
                "3h",
                "resume",
                "",
                "resumed ann | take | do one/leave/0 | one>gold 2 (condition one/0) | completed gold gold",
            ),
        ],
    );
}
