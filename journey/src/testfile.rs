//! `journey test`: a file of signals and times, and the stages, actions and waits that are expected of them. It runs in
//! a [`Simulation`]. Knows no files: it is given their text.
//!
//! ```yaml
//! tests:
//!   - test: a form starts a loan, silence ends it
//!     start: 2026-01-05T09:00:00Z            # the clock at first; this is the default
//!     customer: { application_id: a-1 }      # the first is the customer key
//!     steps:
//!       - signal: web.form.submitted         # beside it: id, source, time, data, attributes, customer
//!         data: { form: loan }
//!         expect: { receipt: started, stage: applied, actions: [email], waits: [docs.file.uploaded] }
//!       - after: 3d                          # time passes; also before any other step, or `at: TIME`
//!         expect: { actions: [email] }
//!       - result: { action: score, is: done }     # of an action that is awaited: done, failed, skipped
//!       - override: applied                  # by hand: `override: STAGE`, `hold: WHY`, `resume: WHY`, `stop: OUTCOME`
//!         expect: { refused: already }       # a part of the answer's text
//!       - after: 20d
//!         expect: { status: completed, outcome: lost, stage: abandoned }
//! ```
//!
//! `expect` may name `receipt`, `stage`, `status`, `outcome`, `actions` (all that this step made, in order, each by kind or
//! by place), `waits` (types of signals that a way out waits for), `due` (when the next timer is due: a time, or a span
//! from the start of the test), `vars`, `facts` and `kept` (by name, each with its value), `goal` (`in_time`, `late` or
//! `none`), `incident` (a part of its place or text), `refused`, and `instance` (which one, where the customer has several).
//! An incident that is not expected fails the test, except of an action that the test itself had fail.

use crate::compiled::Compiled;
use crate::decide::{AttemptResult, ByHand, Command};
use crate::event::What;
use crate::execution::Execution;
use crate::problem::{Problem, Severity, short};
use crate::signal::{Identifier, Signal};
use crate::simulate::{Key, SignalOutcome, Simulation};
use crate::time::{Span, Time};
use crate::value::Value;
use crate::wait;
use serde_saphyr::Spanned;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

mod compare;
mod form;

use form::{ActionEnd, Step, Test};

/// Where the clock of a test stands at first, when it does not say.
pub const DEFAULT_START: &str = "2026-01-05T09:00:00Z";

/// What a run of a test file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestReport {
    /// One for every test, in order.
    pub tests: Vec<TestResult>,
}

/// What one test found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// Its name.
    pub name: String,
    /// The line where it stands.
    pub line: u32,
    /// How many steps were made.
    pub steps: usize,
    /// What was not as expected.
    pub failures: Vec<Failure>,
}

/// One thing that was not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step, from 1.
    pub step: usize,
    /// The line where it stands.
    pub line: u32,
    /// What was expected and what was found.
    pub message: String,
}

impl TestReport {
    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.tests.iter().all(|t| t.failures.is_empty())
    }
}

/// `line 12, step 3: …`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, step {}: {}",
            self.line, self.step, self.message
        )
    }
}

/// The most that a test file may weigh.
pub const TEST_FILE_BYTES: usize = 1024 * 1024;

/// Runs every test of a file on a journey.
///
/// # Errors
/// When the text is no test file: what is wrong and where. What is not as expected is no error but in the report.
pub fn run(text: &str, compiled: &Arc<Compiled>) -> Result<TestReport, Problem> {
    if text.len() > TEST_FILE_BYTES {
        return Err(problem(
            1,
            1,
            format!("{} bytes: expected at most {TEST_FILE_BYTES}", text.len()),
        ));
    }
    let file = form::read(text)?;
    let mut tests = Vec::new();
    for test in &file.tests {
        tests.push(Running::run(test, compiled)?);
    }
    Ok(TestReport { tests })
}

fn problem(line: u64, column: u64, message: String) -> Problem {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Problem {
        path: String::new(),
        line: small(line),
        column: small(column),
        message,
        help: None,
        severity: Severity::Error,
    }
}

/// One test while it runs.
struct Running<'c> {
    compiled: &'c Arc<Compiled>,
    simulation: Simulation<'static>,
    start: Time,
    key: Identifier,
    identifiers: Vec<Identifier>,
    signals: usize,
    noted: Rc<RefCell<Noted>>,
}

/// What a step did.
#[derive(Default)]
struct Did {
    receipt: Option<String>,
    refused: Option<String>,
    /// The incidents that it made, but for actions that the test itself had fail: `place: message`.
    incidents: Vec<String>,
}

/// What is noted of the events of a test.
#[derive(Default)]
struct Noted {
    incidents: Vec<String>,
    /// Whether the goal was reached in time, by execution.
    goals: BTreeMap<Key, bool>,
}

impl<'c> Running<'c> {
    fn run(test: &Spanned<Test>, compiled: &'c Arc<Compiled>) -> Result<TestResult, Problem> {
        let (line, column) = (test.referenced.line(), test.referenced.column());
        let here = |message: String| problem(line, column, message);
        let start = time(test.value.start.as_deref().unwrap_or(DEFAULT_START)).map_err(here)?;
        let identifiers = identifiers(&test.value.customer, compiled).map_err(here)?;
        let Some(key) = identifiers.first().cloned() else {
            return Err(here(
                "`customer` is empty: expected at least one identifier".to_owned(),
            ));
        };
        let mut simulation = Simulation::new([Arc::clone(compiled)], "test");
        let noted = Rc::new(RefCell::new(Noted::default()));
        let notes = Rc::clone(&noted);
        simulation.watch(move |happened| {
            let notes = &mut *notes.borrow_mut();
            match &happened.event.what {
                What::Incident {
                    place,
                    message,
                    action: None,
                } => notes.incidents.push(format!("{place}: {message}")),
                What::GoalReached { within } => {
                    notes.goals.insert(happened.key.clone(), *within);
                }
                _ => {}
            }
        });
        let mut running = Running {
            compiled,
            simulation,
            start,
            key,
            identifiers,
            signals: 0,
            noted,
        };
        running.simulation.advance(start);
        let mut failures = Vec::new();
        for (number, step) in test.value.steps.iter().enumerate() {
            let (line, column) = (step.referenced.line(), step.referenced.column());
            let from = running.simulation.actions().len();
            let mut did = running
                .step(&step.value)
                .map_err(|message| problem(line, column, message))?;
            did.incidents = std::mem::take(&mut running.noted.borrow_mut().incidents);
            let wrong = running
                .compare(&step.value, &did, from)
                .map_err(|message| problem(line, column, message))?;
            let line = u32::try_from(line).unwrap_or(u32::MAX);
            failures.extend(wrong.into_iter().map(|message| Failure {
                step: number + 1,
                line,
                message,
            }));
        }
        Ok(TestResult {
            name: test.value.test.clone(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            steps: test.value.steps.len(),
            failures,
        })
    }

    fn step(&mut self, step: &Step) -> Result<Did, String> {
        let kinds = [
            step.signal.is_some(),
            step.result.is_some(),
            step.moves.is_some(),
            step.hold.is_some(),
            step.resume.is_some(),
            step.stop.is_some(),
        ];
        let does = kinds.iter().filter(|k| **k).count();
        if does > 1 {
            return Err("a step does one thing: expected one of signal, result, override, hold, resume, stop".to_owned());
        }
        if step.after.is_some() && step.at.is_some() {
            return Err("a step has `after` or `at`, not both".to_owned());
        }
        if does == 0 && step.after.is_none() && step.at.is_none() && step.expect.is_none() {
            return Err(
                "an empty step: expected a signal, a time, something done by hand, or `expect`"
                    .to_owned(),
            );
        }
        let now = self.simulation.clock().unwrap_or(self.start);
        if let Some(after) = &step.after {
            self.simulation.advance(now.plus(span(after)?));
        }
        if let Some(at) = &step.at {
            let at = time(at)?;
            if at < now {
                return Err(format!(
                    "`at` is {at}, and the clock already stands at {now}: expected a later time"
                ));
            }
            self.simulation.advance(at);
        }
        let mut did = Did::default();
        if let Some(kind) = &step.signal {
            let outcome = self.signal(step, kind)?;
            did.receipt = Some(self.receipt(&outcome));
        } else if step.data.is_some()
            || step.attributes.is_some()
            || step.id.is_some()
            || step.source.is_some()
        {
            return Err(
                "`data`, `attributes`, `id` and `source` belong to a signal: expected `signal`"
                    .to_owned(),
            );
        }
        if let Some(end) = &step.result {
            self.result(step, end)?;
        }
        if let Some(command) = by_hand(step) {
            did.refused = self.command(step, command)?;
        }
        if let Some(trouble) = self.simulation.troubles().first() {
            return Err(trouble.clone());
        }
        Ok(did)
    }

    fn signal(&mut self, step: &Step, kind: &str) -> Result<SignalOutcome, String> {
        self.signals += 1;
        let now = self.simulation.clock().unwrap_or(self.start);
        let source = kind.split('.').next().unwrap_or(kind);
        let signal = Signal {
            id: step
                .id
                .clone()
                .unwrap_or_else(|| format!("test-{}", self.signals)),
            source: step.source.clone().unwrap_or_else(|| source.to_owned()),
            kind: kind.to_owned(),
            time: Some(step.time.as_deref().map_or(Ok(now), time)?),
            identifiers: step.customer.as_ref().map_or_else(
                || Ok(self.identifiers.clone()),
                |c| identifiers(c, self.compiled),
            )?,
            data: object("data", step.data.as_ref())?,
            attributes: object("attributes", step.attributes.as_ref())?,
        };
        if let Err(wrong) = signal.check() {
            let texts: Vec<String> = wrong
                .into_iter()
                .map(|(field, text)| format!("{field}: {text}"))
                .collect();
            return Err(texts.join("; "));
        }
        Ok(self.simulation.signal(&signal))
    }

    fn receipt(&self, outcome: &SignalOutcome) -> String {
        let mine = outcome
            .parts
            .iter()
            .map(|p| p.fate.word())
            .collect::<Vec<_>>();
        match (outcome.duplicate, mine.is_empty()) {
            (true, _) => "duplicate".to_owned(),
            (false, true) => "no_match".to_owned(),
            (false, false) => mine.join(" "),
        }
    }

    fn result(&mut self, step: &Step, end: &ActionEnd) -> Result<(), String> {
        let text = || "by the test".to_owned();
        let result = match end.is.as_str() {
            "done" => AttemptResult::Done { detail: text() },
            "failed" => AttemptResult::Failed { error: text() },
            "skipped" => AttemptResult::Skipped { reason: text() },
            other => {
                return Err(format!(
                    "`is` is {:?}: expected done, failed or skipped",
                    short(other)
                ));
            }
        };
        let key = Key::of(
            self.execution(step)?
                .ok_or("no execution has started: nothing can have a result")?,
        );
        if self.simulation.result(&key, &end.action, result) {
            return Ok(());
        }
        let state = self.simulation.execution(&key);
        let owed: Vec<&str> = state
            .into_iter()
            .flat_map(|s| &s.owed)
            .map(|o| o.action.place.as_str())
            .collect();
        Err(format!(
            "no action {:?} waits for a result: {}",
            short(&end.action),
            if owed.is_empty() {
                "none does".to_owned()
            } else {
                format!("these do: {}", owed.join(", "))
            }
        ))
    }

    fn command(&mut self, step: &Step, what: ByHand) -> Result<Option<String>, String> {
        let key = Key::of(
            self.execution(step)?
                .ok_or("no execution has started: nothing can be done by hand")?,
        );
        let command = Command {
            id: "by-hand".to_owned(),
            actor: "test".to_owned(),
            reason: step
                .hold
                .as_ref()
                .or(step.resume.as_ref())
                .cloned()
                .unwrap_or_else(|| "test".to_owned()),
            expected_visit: None,
            what,
        };
        Ok(self
            .simulation
            .command(&key, &command)
            .err()
            .map(|refusal| refusal.text))
    }

    /// The execution that a step looks at: of the instance that it names, or of all, the one that started last.
    fn execution(&self, step: &Step) -> Result<Option<&Execution>, String> {
        let key = match &step.customer {
            Some(customer) => identifiers(customer, self.compiled)?.into_iter().next(),
            None => None,
        };
        let instance = step.expect.as_ref().and_then(|e| e.instance.as_deref());
        let all = self
            .simulation
            .executions_of(key.as_ref().unwrap_or(&self.key));
        let mine = all.filter(|e| instance.is_none() || e.instance.as_deref() == instance);
        Ok(mine.max_by_key(|e| (e.started.at, e.run)))
    }
}

fn by_hand(step: &Step) -> Option<ByHand> {
    if let Some(to) = &step.moves {
        return Some(ByHand::Override {
            to: to.clone(),
            run_actions: false,
        });
    }
    if step.hold.is_some() {
        return Some(ByHand::Hold);
    }
    if step.resume.is_some() {
        return Some(ByHand::Resume);
    }
    let outcome = step.stop.as_ref()?;
    Some(ByHand::Stop {
        outcome: Some(outcome.clone()).filter(|o| !o.is_empty()),
    })
}

/// The identifiers of a customer: in the journey's order of precedence, then by name.
fn identifiers(
    customer: &BTreeMap<String, String>,
    compiled: &Compiled,
) -> Result<Vec<Identifier>, String> {
    let mut found = Vec::new();
    for (name, value) in customer {
        found.push(Identifier::new(name, value)?);
    }
    let rank = |i: &Identifier| {
        compiled
            .identify_by
            .iter()
            .position(|n| *n == i.name)
            .unwrap_or(usize::MAX)
    };
    found.sort_by_key(rank);
    Ok(found)
}

fn object(
    field: &str,
    json: Option<&serde_json::Value>,
) -> Result<BTreeMap<String, Value>, String> {
    let Some(json) = json else {
        return Ok(BTreeMap::new());
    };
    match Value::from_json(json.to_string().as_bytes())? {
        Value::Map(map) => Ok(map),
        _ => Err(format!("`{field}` is no map: expected names and values")),
    }
}

fn time(text: &str) -> Result<Time, String> {
    Time::parse(text).map_err(|_| {
        format!(
            "{:?} is no time: expected one such as {DEFAULT_START}",
            short(text)
        )
    })
}

fn span(text: &str) -> Result<Span, String> {
    wait::exact(text)
}
