//! Repeats in virtual time: their rhythm, how often, and what was missed.

use crate::helper::{World, check, signal};
use crate::time::stage;
use sojourn_journey::time::Time;

#[test]
fn a_repeat_fires_in_its_rhythm_at_most_so_often() {
    let journey = stage(
        "    repeat: [{ every: 3d, at_most: 3, do: [{ log: { text: again } }] }]\n    transitions: [{ to: end, on: a.up }]",
    );
    check(
        &journey,
        &[
            (
                "0s",
                "a.start",
                "started one",
                "start one 1 | arm one/repeat/0 3d",
            ),
            (
                "3d",
                "wait",
                "",
                "fire one/repeat/0 | do one/repeat/0/do/0 | arm one/repeat/0 6d #2",
            ),
            (
                "20d",
                "wait",
                "",
                "fire one/repeat/0 | do one/repeat/0/do/0 | arm one/repeat/0 9d #3 | fire one/repeat/0 | do one/repeat/0/do/0",
            ),
        ],
    );
}

#[test]
fn a_repeat_that_missed_several_fires_once_and_goes_on_in_its_rhythm() {
    // While it is held, its time passes three times.
    check(
        &stage(
            "    repeat: [{ every: 3d, do: [{ log: { text: again } }] }]\n    transitions: [{ to: end, on: a.up }]",
        ),
        &[
            (
                "0s",
                "a.start",
                "started one",
                "start one 1 | arm one/repeat/0 3d",
            ),
            ("1d", "hold", "", "held ann"),
            (
                "10d",
                "resume",
                "",
                "waits one/repeat/0 | resumed ann | fire one/repeat/0 | do one/repeat/0/do/0 | arm one/repeat/0 12d #2",
            ),
            (
                "12d",
                "wait",
                "",
                "fire one/repeat/0 | do one/repeat/0/do/0 | arm one/repeat/0 15d #3",
            ),
        ],
    );
}

#[test]
fn a_repeat_by_the_calendar_counts_from_its_begin() {
    // (every, when the visit begins, at what times it fires)
    let cases: [(&str, &str, &[&str]); 4] = [
        (
            "{ months: 1, zone: Europe/Amsterdam }",
            "2027-12-31T08:00:00Z",
            &[
                "2028-01-31T08:00:00Z",
                "2028-02-29T08:00:00Z",
                "2028-03-31T07:00:00Z",
                "2028-04-30T07:00:00Z",
                "2028-05-31T07:00:00Z",
            ],
        ),
        (
            "{ days: 1, zone: Europe/Amsterdam }",
            "2027-03-26T01:30:00Z",
            // Clocks skip 02:00 to 03:00 on the 28th.
            &[
                "2027-03-27T01:30:00Z",
                "2027-03-28T01:00:00Z",
                "2027-03-29T00:30:00Z",
                "2027-03-30T00:30:00Z",
            ],
        ),
        (
            "{ years: 1 }",
            "2028-02-29T12:00:00Z",
            &[
                "2029-02-28T12:00:00Z",
                "2030-02-28T12:00:00Z",
                "2031-02-28T12:00:00Z",
                "2032-02-29T12:00:00Z",
            ],
        ),
        (
            "{ weeks: 1, at: \"18:15\", zone: America/New_York }",
            "2026-10-30T03:00:00Z",
            &["2026-11-05T23:15:00Z", "2026-11-12T23:15:00Z"],
        ),
    ];
    for (every, begin, times) in cases {
        let journey = stage(&format!(
            "    repeat: [{{ every: {every}, do: [{{ log: {{ text: again }} }}] }}]\n    transitions: [{{ to: end, on: a.up }}]"
        ));
        let mut world = World::new(&[&journey]);
        let begin = Time::parse(begin).expect("a time");
        world.simulation.signal(&signal("a.start", "s", begin));
        let last = times.last().expect("times");
        world.simulation.advance(Time::parse(last).expect("a time"));
        let made = world.simulation.actions().iter();
        let found: Vec<String> = made.map(|m| m.at.to_string()).collect();
        assert_eq!(found, times, "every {every} from {begin}");
    }
}

#[test]
fn a_repeat_by_the_calendar_that_missed_several_goes_on_in_its_rhythm() {
    let journey = stage(
        "    repeat: [{ every: { days: 2 }, do: [{ log: { text: again } }] }]\n    transitions: [{ to: end, on: a.up }]",
    );
    check(
        &journey,
        &[
            (
                "0s",
                "a.start",
                "started one",
                "start one 1 | arm one/repeat/0 2d",
            ),
            ("1d", "hold", "", "held ann"),
            (
                "9d",
                "resume",
                "",
                "waits one/repeat/0 | resumed ann | fire one/repeat/0 | do one/repeat/0/do/0 | arm one/repeat/0 10d #2",
            ),
        ],
    );
}
