//! Whom one signal concerns: which executions of the customer, and which journeys it enters. Only journeys whose entry
//! names the signal's type are looked at, and those in which the customer has a run.

use crate::compiled::{Compiled, Entry, Reentry};
use crate::customer::{Customer, CustomerChange, Run};
use crate::expr::{Miss, Scope};
use crate::limits;
use crate::signal::{Identifier, Signal};
use crate::time::Time;
use crate::value::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The journeys that there are, as the rules need them.
pub trait Catalog {
    /// The live version of a journey and its number; `None` when there is no such journey or none is live.
    fn live(&self, journey: &str) -> Option<(u32, Arc<Compiled>)>;

    /// One version of a journey.
    fn version(&self, journey: &str, version: u32) -> Option<Arc<Compiled>>;

    /// The journeys of which an entry rule of the live version names this signal type, in a fixed order. From an index.
    fn listening(&self, kind: &str) -> Vec<String>;

    /// Whether the journey takes signals and entries.
    fn state(&self, journey: &str) -> JourneyState;
}

/// Whether a journey takes signals and entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JourneyState {
    /// Both.
    #[default]
    Active,
    /// Deactivated with `hold`: signals wait, nobody enters.
    Held,
    /// Deactivated with `drop`: signals are dropped, nobody enters.
    Dropped,
    /// Deactivated with `drain`: those inside go on, nobody enters.
    Draining,
}

/// What a signal concerns.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// One for every execution that it concerns, starts, or cannot start. None: `no_match`.
    pub parts: Vec<Part>,
    /// Active executions that it does not concern, whose journeys ask about the customer that it changes: each decides on
    /// [`crate::decide::Input::Customer`], and has a part in the decision if, and only if, that gives events.
    pub touched: Vec<Touched>,
    /// What it changes in the customer record.
    pub change: CustomerChange,
    /// The customer with that change: what every part is decided on.
    pub customer: Arc<Customer>,
}

/// One execution that a signal concerns only by what it changes in the customer record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The journey.
    pub journey: String,
    /// The instance key.
    pub instance: Option<String>,
    /// The run.
    pub run: u32,
}

/// One execution that a signal concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It goes to an active (or held) execution.
    Existing {
        /// The journey.
        journey: String,
        /// The instance key.
        instance: Option<String>,
        /// The run.
        run: u32,
        /// The version it is on.
        version: u32,
    },
    /// It starts an execution.
    Enter {
        /// The journey.
        journey: String,
        /// The live version.
        version: u32,
        /// The instance key.
        instance: Option<String>,
        /// The run.
        run: u32,
    },
    /// It would start one, or go to one, and may not.
    Refused {
        /// The journey.
        journey: String,
        /// The instance key.
        instance: Option<String>,
        /// Why.
        reason: String,
    },
    /// The customer has only an ended execution there.
    Ended {
        /// The journey.
        journey: String,
        /// The instance key.
        instance: Option<String>,
        /// The run.
        run: u32,
    },
}

/// Works out whom a signal concerns. `customer` is `None` when nobody is known under `key`.
pub fn plan(
    catalog: &dyn Catalog,
    customer: Option<&Arc<Customer>>,
    key: &Identifier,
    signal: &Signal,
    at: Time,
) -> Plan {
    let mut customer = customer
        .cloned()
        .unwrap_or_else(|| Arc::new(Customer::new(key.clone())));
    let change = customer.change(signal, at);
    let changes = change.is_felt(&customer);
    if !change.is_empty() {
        Arc::make_mut(&mut customer).apply(&change);
    }
    let mut journeys: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for run in &customer.runs {
        if known.insert(run.journey.as_str()) {
            journeys.push(run.journey.clone());
        }
    }
    journeys.extend(
        catalog
            .listening(&signal.kind)
            .into_iter()
            .filter(|j| !known.contains(j.as_str())),
    );
    let mut planning = Planning {
        catalog,
        signal,
        at,
        changes,
        active: customer.runs.iter().filter(|r| r.is_active()).count(),
        parts: Vec::new(),
        touched: Vec::new(),
    };
    for journey in &journeys {
        planning.journey(&customer, journey);
    }
    Plan {
        parts: planning.parts,
        touched: planning.touched,
        change,
        customer,
    }
}

struct Planning<'a> {
    catalog: &'a dyn Catalog,
    signal: &'a Signal,
    at: Time,
    /// The signal changes what is known of the customer.
    changes: bool,
    active: usize,
    parts: Vec<Part>,
    touched: Vec<Touched>,
}

/// The instance that a signal is for.
enum Instance {
    Known(Option<String>),
    Unknown,
    Wrong(String),
}

impl Planning<'_> {
    fn journey(&mut self, customer: &Customer, journey: &str) {
        let runs: Vec<&Run> = customer
            .runs
            .iter()
            .filter(|r| r.journey == journey)
            .collect();
        let live = self.catalog.live(journey);
        let state = self.catalog.state(journey);
        let mut concerned = false;
        for run in runs.iter().filter(|r| r.is_active()) {
            concerned |= self.existing(customer, run, state);
        }
        let Some((version, compiled)) = live else {
            if !concerned {
                self.ended(&runs, &Instance::Unknown);
            }
            return;
        };
        let instance = instance_of(&compiled, customer, self.signal, self.at);
        let enters = !concerned || compiled.reentry == Reentry::Concurrent;
        if enters
            && compiled
                .entry
                .iter()
                .any(|e| e.on.contains(&self.signal.kind))
        {
            match entry_of(&compiled, customer, self.signal, self.at) {
                Ok(Some(_)) => {
                    self.enter(&compiled, version, customer, &runs, instance, state);
                    return;
                }
                Ok(None) => {}
                Err(reason) => {
                    self.refuse(journey, None, reason);
                    return;
                }
            }
        }
        if !concerned {
            self.ended(&runs, &instance);
        }
    }

    /// Whether an active run is concerned.
    fn existing(&mut self, customer: &Customer, run: &Run, state: JourneyState) -> bool {
        // The version that it is on says what tells instances apart.
        let compiled = self.catalog.version(&run.journey, run.version);
        let instance = compiled
            .as_ref()
            .map(|c| instance_of(c, customer, self.signal, self.at));
        match instance {
            Some(Instance::Known(instance)) if instance != run.instance => {
                let asks = compiled.is_some_and(|c| c.wakes_on_customer);
                if self.changes && asks && state != JourneyState::Dropped {
                    self.touched.push(Touched {
                        journey: run.journey.clone(),
                        instance: run.instance.clone(),
                        run: run.run,
                    });
                }
                return false;
            }
            Some(Instance::Wrong(reason)) => {
                self.refuse(&run.journey, run.instance.clone(), reason);
                return true;
            }
            _ => {}
        }
        let journey = run.journey.clone();
        let instance = run.instance.clone();
        if state == JourneyState::Dropped {
            self.refuse(
                &journey,
                instance,
                "the journey is deactivated and drops signals".to_owned(),
            );
        } else {
            self.parts.push(Part::Existing {
                journey,
                instance,
                run: run.run,
                version: run.version,
            });
        }
        true
    }

    fn enter(
        &mut self,
        compiled: &Compiled,
        version: u32,
        customer: &Customer,
        runs: &[&Run],
        instance: Instance,
        state: JourneyState,
    ) {
        let journey = &compiled.name;
        let instance = match instance {
            Instance::Known(instance) => instance,
            Instance::Unknown => None,
            Instance::Wrong(reason) => return self.refuse(journey, None, reason),
        };
        let closed = match state {
            JourneyState::Active => None,
            JourneyState::Held => Some("the journey is held: nobody enters until it is activated"),
            JourneyState::Dropped => Some("the journey is deactivated and drops signals"),
            JourneyState::Draining => Some("the journey is draining: it is closed to entry"),
        };
        if let Some(reason) = closed {
            return self.refuse(journey, instance, reason.to_owned());
        }
        let last = runs
            .iter()
            .filter(|r| r.instance == instance)
            .max_by_key(|r| r.run);
        if let Some(reason) = last.and_then(|last| reentry_refuses(compiled.reentry, last, self.at))
        {
            return self.refuse(journey, instance, reason);
        }
        if self.active >= limits::ACTIVE_EXECUTIONS {
            let reason = format!(
                "capped: the customer {} has {} active executions, at most {} are allowed",
                customer.key,
                self.active,
                limits::ACTIVE_EXECUTIONS
            );
            return self.refuse(journey, instance, reason);
        }
        self.active += 1;
        let known = last.map_or(0, |r| r.run);
        let run = known.max(customer.forgotten).saturating_add(1);
        self.parts.push(Part::Enter {
            journey: journey.clone(),
            version,
            instance,
            run,
        });
    }

    /// Only ended ones are left: the last of them answers.
    fn ended(&mut self, runs: &[&Run], instance: &Instance) {
        let mine = |r: &&&Run| match instance {
            Instance::Known(instance) => r.instance == *instance,
            Instance::Unknown | Instance::Wrong(_) => true,
        };
        let last = runs
            .iter()
            .filter(|r| !r.is_active())
            .filter(mine)
            .max_by_key(|r| (r.ended, r.run));
        if let Some(run) = last {
            self.parts.push(Part::Ended {
                journey: run.journey.clone(),
                instance: run.instance.clone(),
                run: run.run,
            });
        }
    }

    fn refuse(&mut self, journey: &str, instance: Option<String>, reason: String) {
        self.parts.push(Part::Refused {
            journey: journey.to_owned(),
            instance,
            reason,
        });
    }
}

/// The first entry rule that holds.
fn entry_of<'c>(
    compiled: &'c Compiled,
    customer: &Customer,
    signal: &Signal,
    at: Time,
) -> Result<Option<&'c Entry>, String> {
    let scope = Scope {
        signal: Some(signal),
        customer,
        execution: None,
        now: at,
    };
    for entry in compiled
        .entry
        .iter()
        .filter(|e| e.on.contains(&signal.kind))
    {
        let mut holds = true;
        for condition in [&entry.where_, &entry.when].into_iter().flatten() {
            match condition.holds(&compiled.base, &scope) {
                Ok(true) => {}
                Ok(false) | Err(Miss::Unknown(_)) => holds = false,
                Err(Miss::Error(error)) => {
                    return Err(format!(
                        "{}: `{}` cannot be computed: {error}",
                        entry.place, condition.source
                    ));
                }
            }
            if !holds {
                break;
            }
        }
        if holds {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn instance_of(compiled: &Compiled, customer: &Customer, signal: &Signal, at: Time) -> Instance {
    let Some(key) = &compiled.instance_key else {
        return Instance::Known(None);
    };
    let scope = Scope {
        signal: Some(signal),
        customer,
        execution: None,
        now: at,
    };
    let text = match key.eval(&compiled.base, &scope) {
        Err(Miss::Unknown(_)) | Ok(Value::Null) => return Instance::Unknown,
        Err(Miss::Error(error)) => {
            return Instance::Wrong(format!(
                "instance_key: `{}` cannot be computed: {error}",
                key.source
            ));
        }
        Ok(Value::String(text)) => text.trim().to_owned(),
        Ok(Value::Int(number)) => number.to_string(),
        Ok(_) => {
            return Instance::Wrong("instance_key: expected text or a whole number".to_owned());
        }
    };
    if text.is_empty() || text.len() > limits::INSTANCE_KEY_BYTES {
        return Instance::Wrong(format!(
            "instance_key: {} bytes: expected 1 to {}",
            text.len(),
            limits::INSTANCE_KEY_BYTES
        ));
    }
    Instance::Known(Some(text))
}

fn reentry_refuses(reentry: Reentry, last: &Run, at: Time) -> Option<String> {
    match reentry {
        Reentry::Concurrent => None,
        Reentry::Never => Some(format!(
            "re-entry: run {} was the only one allowed (`never`)",
            last.run
        )),
        Reentry::AfterExit { wait } => match last.ended {
            None => Some(format!(
                "re-entry: run {} has not ended (`after_exit`)",
                last.run
            )),
            Some(ended) => {
                let from = ended.plus(wait);
                (at < from).then(|| {
                    format!("re-entry: run {} ended at {ended}; the next may start from {from} (`after_exit`)", last.run)
                })
            }
        },
    }
}
