//! The one helper: a table of steps on a simulation, with every event written short.

use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::decide::{AttemptResult, ByHand, Command};
use sojourn_journey::event::{ActionOutcome, Cause, Event, What};
use sojourn_journey::execution::Execution;
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::simulate::{Key, SignalOutcome, Simulation};
use sojourn_journey::time::{Span, Time};
use sojourn_journey::value::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Where every clock starts.
pub const START: i64 = 1_767_600_000_000_000;

/// One step: (when, since the start; what; which answer; which events).
///
/// What: `TYPE`, `TYPE {json}`, `TYPE {json} id=… at=-1h of=ID and=NAME:VALUE attributes={json}`, `wait`, `hold`, `resume`, `stop OUTCOME`,
/// `override STAGE`, `override+ STAGE` (with actions), `visit N override STAGE`, `done ACTION`, `failed ACTION`,
/// `skipped ACTION`, `retry ACTION`; by hand on the failed action of a name or place: `again ACTION`, `again+ ACTION`
/// (with a new key), `skip ACTION`.
/// Answer: the fates of a signal (joined by ` & `), `no_match`, or a part of a refusal, or nothing.
/// Events: everything that happened since the step before, joined by ` | `; `*` takes any.
pub type Step<'a> = (&'a str, &'a str, &'a str, &'a str);

pub fn compile(text: &str) -> Arc<Compiled> {
    match Journey::compile(text, &Known::default()) {
        Ok(checked) => Arc::new(checked.compiled),
        Err(problems) => panic!("the journey of the test is wrong: {problems:#?}\n{text}"),
    }
}

pub fn key() -> Identifier {
    Identifier::new("id", "c1").expect("an identifier")
}

pub fn after(text: &str) -> Span {
    sojourn_journey::wait::exact(text).expect("a span")
}

pub fn at(text: &str) -> Time {
    if text == "0s" {
        Time(START)
    } else {
        Time(START).plus(after(text))
    }
}

pub fn map(json: &str) -> BTreeMap<String, Value> {
    match Value::from_json(json.as_bytes()) {
        Ok(Value::Map(map)) => map,
        other => panic!("no JSON object: {json}: {other:?}"),
    }
}

/// A signal written short, at a time.
pub fn signal(text: &str, id: &str, now: Time) -> Signal {
    let (kind, mut rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut signal = Signal {
        id: id.to_owned(),
        source: "test".to_owned(),
        kind: kind.to_owned(),
        time: Some(now),
        identifiers: vec![key()],
        data: BTreeMap::new(),
        attributes: BTreeMap::new(),
    };
    if rest.starts_with('{') {
        let end = rest.find("} ").map_or(rest.len(), |i| i + 1);
        signal.data = map(&rest[..end]);
        rest = &rest[end..];
    }
    for word in rest.split_whitespace() {
        match word.split_once('=') {
            Some(("id", id)) => signal.id = id.to_owned(),
            Some(("at", shift)) => {
                let (sign, span) = shift.split_at(1);
                let span = after(span).0;
                signal.time = Some(now.plus(Span(if sign == "-" { -span } else { span })));
            }
            Some(("of", value)) => {
                signal.identifiers = vec![Identifier::new("id", value).expect("an identifier")]
            }
            Some(("and", other)) => {
                let (name, value) = other.split_once(':').expect("and=NAME:VALUE");
                let other = Identifier::new(name, value).expect("an identifier");
                signal.identifiers.push(other);
            }
            Some(("attributes", json)) => signal.attributes = map(json),
            _ => panic!("unknown word {word:?} in {text:?}"),
        }
    }
    signal
}

/// A simulation whose events are written down.
pub struct World {
    pub simulation: Simulation<'static>,
    log: Rc<RefCell<Vec<String>>>,
    all: Rc<RefCell<Vec<(Key, Event)>>>,
    count: usize,
}

impl World {
    pub fn new(journeys: &[&str]) -> World {
        let mut simulation = Simulation::new(journeys.iter().map(|j| compile(j)), "test");
        let (log, all) = (
            Rc::new(RefCell::new(Vec::new())),
            Rc::new(RefCell::new(Vec::new())),
        );
        let (write, keep) = (Rc::clone(&log), Rc::clone(&all));
        simulation.watch(move |happened| {
            if let Some(text) = short(happened.event) {
                write.borrow_mut().push(text);
            }
            keep.borrow_mut()
                .push((happened.key.clone(), happened.event.clone()));
        });
        simulation.advance(Time(START));
        World {
            simulation,
            log,
            all,
            count: 0,
        }
    }

    /// Every event so far, with its execution.
    pub fn events(&self) -> Vec<(Key, Event)> {
        self.all.borrow().clone()
    }

    /// The execution that commands are for: the latest.
    pub fn execution(&self) -> &Execution {
        let all = self.simulation.executions();
        all.max_by_key(|e| (e.started.at, e.run))
            .expect("an execution")
    }

    /// Makes one step; gives the answer and the events.
    pub fn step(&mut self, when: &str, what: &str) -> (String, String) {
        let now = at(when);
        assert!(
            self.simulation.clock() <= Some(now),
            "steps go forward: {when} {what}"
        );
        self.simulation.advance(now);
        let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
        let answer = match word {
            "wait" => String::new(),
            "hold" => self.command(ByHand::Hold, None),
            "resume" => self.command(ByHand::Resume, None),
            "stop" => self.command(
                ByHand::Stop {
                    outcome: Some(rest.to_owned()).filter(|r| !r.is_empty()),
                },
                None,
            ),
            "override" => self.command(
                ByHand::Override {
                    to: rest.to_owned(),
                    run_actions: false,
                },
                None,
            ),
            "override+" => self.command(
                ByHand::Override {
                    to: rest.to_owned(),
                    run_actions: true,
                },
                None,
            ),
            "visit" => {
                let (visit, to) = rest
                    .split_once(" override ")
                    .expect("visit N override STAGE");
                let visit = visit.parse().expect("a number");
                self.command(
                    ByHand::Override {
                        to: to.to_owned(),
                        run_actions: false,
                    },
                    Some(visit),
                )
            }
            "done" => self.result(
                rest,
                AttemptResult::Done {
                    detail: "200".to_owned(),
                },
            ),
            "failed" => self.result(
                rest,
                AttemptResult::Failed {
                    error: "no".to_owned(),
                },
            ),
            "skipped" => self.result(
                rest,
                AttemptResult::Skipped {
                    reason: "cap".to_owned(),
                },
            ),
            "again" | "again+" => {
                let what = ByHand::RetryAction {
                    action: self.failed(rest),
                    new_key: word == "again+",
                };
                self.command(what, None)
            }
            "skip" => {
                let action = self.failed(rest);
                self.command(ByHand::SkipAction { action }, None)
            }
            "retry" => {
                let next = now.plus(after("1m"));
                self.result(
                    rest,
                    AttemptResult::Retry {
                        error: "busy".to_owned(),
                        next,
                    },
                )
            }
            _ => {
                self.count += 1;
                let signal = signal(what, &format!("s{}", self.count), now);
                answer(&self.simulation.signal(&signal))
            }
        };
        (answer, self.log.take().join(" | "))
    }

    fn command(&mut self, what: ByHand, expected_visit: Option<u32>) -> String {
        let key = Key::of(self.execution());
        let text = |t: &str| t.to_owned();
        let command = Command {
            id: text("c"),
            actor: text("ann"),
            reason: text("why not"),
            expected_visit,
            what,
        };
        self.simulation
            .command(&key, &command)
            .err()
            .map(|r| r.text)
            .unwrap_or_default()
    }

    /// The number of a failed action; of one that has not failed, the number that is given, or 999.
    fn failed(&self, action: &str) -> u64 {
        let failed = self.execution().failed.iter();
        let mut of_name = failed
            .filter(|f| f.action.awaited.as_deref() == Some(action) || f.action.place == action);
        let given = || action.parse().unwrap_or(999);
        of_name.next().map_or_else(given, |f| f.number)
    }

    fn result(&mut self, action: &str, result: AttemptResult) -> String {
        let key = Key::of(self.execution());
        if self.simulation.result(&key, action, result) {
            String::new()
        } else {
            format!("nothing owes {action}")
        }
    }
}

/// The answer to a signal, written short.
pub fn answer(outcome: &SignalOutcome) -> String {
    let parts: Vec<String> = outcome.parts.iter().map(|p| p.fate.to_string()).collect();
    let text = if parts.is_empty() {
        "no_match".to_owned()
    } else {
        parts.join(" & ")
    };
    if outcome.duplicate {
        format!("duplicate: {text}")
    } else {
        text
    }
}

/// Given a journey, when these steps are made, then these answers and events.
pub fn check(journey: &str, steps: &[Step<'_>]) -> World {
    check_all(&[journey], steps)
}

/// The same with several journeys.
pub fn check_all(journeys: &[&str], steps: &[Step<'_>]) -> World {
    let mut world = World::new(journeys);
    for (number, (when, what, answer, events)) in steps.iter().enumerate() {
        let (found_answer, found_events) = world.step(when, what);
        let same_answer = if answer.is_empty() {
            found_answer.is_empty()
        } else {
            found_answer.contains(answer)
        };
        assert!(
            same_answer && (*events == "*" || *events == found_events),
            "step {number}: {when} {what}\n  expected {answer:?}: {events}\n  found    {found_answer:?}: {found_events}"
        );
    }
    assert_eq!(world.simulation.troubles(), &[] as &[String]);
    world
}

/// An event in a few letters; `None` for what the simulation itself adds (it does no actions).
pub fn short(event: &Event) -> Option<String> {
    let place = |p: &str| p.replace("stage/", "").replace("/transition/", "/");
    Some(match &event.what {
        What::Started { stage, run, .. } => format!("start {stage} {run}"),
        What::Fact {
            path,
            value,
            changed,
        } => format!(
            "{} {path}={}",
            if *changed { "fact" } else { "same" },
            value.to_json()
        ),
        What::Variable { name, value, .. } => format!("var {name}={}", value.to_json()),
        What::Kept { name, value } => format!("keep {name}={}", value.to_json()),
        What::Seen { place: p, step } => format!("saw {} #{step}", place(p)),
        What::Forgotten { place: p } => format!("forgot {}", place(p)),
        What::Moved {
            from,
            to,
            visit,
            cause,
        } => {
            let by = match cause {
                Cause::Signal { place: p } => format!("signal {}", place(p)),
                Cause::Condition { place: p } => format!("condition {}", place(p)),
                Cause::Timer { place: p } => format!("timer {}", place(p)),
                Cause::Deadline { place: p } => format!("deadline {}", place(p)),
                Cause::Override(by) => format!("override {}", by.actor),
            };
            format!("{from}>{to} {visit} ({by})")
        }
        What::TimerArmed(t) => {
            let minutes = t.due.since(Time(START)).0 / 60_000_000;
            let due = match (minutes % 1440, minutes % 60) {
                (0, _) => format!("{}d", minutes / 1440),
                (_, 0) => format!("{}h", minutes / 60),
                _ => format!("{minutes}m"),
            };
            format!(
                "arm {} {due}{}",
                place(&t.place),
                if t.round == 1 {
                    String::new()
                } else {
                    format!(" #{}", t.round)
                }
            )
        }
        What::TimerFired { place: p, .. } => format!("fire {}", place(p)),
        What::TimerWaits { place: p, .. } => format!("waits {}", place(p)),
        What::Action(a) => format!("do {}", place(&a.place)),
        What::Attempted { attempt, error, .. } => format!("attempt {attempt} {error}"),
        What::Settled {
            outcome: ActionOutcome::Skipped { reason },
            ..
        } if reason == "simulated" => return None,
        What::Settled { outcome, .. } => match outcome {
            ActionOutcome::Done { detail } => format!("done {detail}"),
            ActionOutcome::Failed { error } => format!("failed {error}"),
            ActionOutcome::Skipped { reason } => format!("skipped {reason}"),
        },
        What::Unmatched { kind } => format!("unmatched {kind}"),
        What::GoalReached { within } => {
            format!("goal {}", if *within { "in time" } else { "late" })
        }
        What::Overdue { place: p } => format!("overdue {}", place(p)),
        What::Stalled => "stalled".to_owned(),
        What::Incident {
            place: p, message, ..
        } => format!("incident {}: {message}", place(p)),
        What::Retried {
            action,
            new_key,
            by,
        } => {
            let key = if *new_key { " with a new key" } else { "" };
            format!("retried {action}{key} by {}", by.actor)
        }
        What::Skipped { action, by } => format!("skipped {action} by {}", by.actor),
        What::Held { actor, .. } => format!("held {actor}"),
        What::Resumed { actor, .. } => format!("resumed {actor}"),
        What::Refused { reason, .. } => format!("refused {reason}"),
        What::SignalWaits(signal) => format!("queue {}", signal.kind),
        What::SignalTaken => "take".to_owned(),
        What::Ended {
            status,
            stage,
            outcome,
            by,
        } => format!(
            "{} {stage} {}{}",
            status.word(),
            outcome.as_deref().unwrap_or("-"),
            by.as_ref()
                .map(|b| format!(" by {}", b.actor))
                .unwrap_or_default()
        ),
    })
}
