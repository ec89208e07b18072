//! A run with a clock that only the inputs move: the base of `journey test`, of `simulate` and of the sandbox. It calls
//! the same `plan`, `enter` and `decide` as a server does. It acts on nothing: actions are recorded as they would have
//! been, and settled at once as skipped, except those whose result the journey waits for; these wait for [`Simulation::result`].

use crate::compiled::Compiled;
use crate::customer::Customer;
use crate::decide::{AttemptResult, Command, Input, Moment, Refusal, decide};
use crate::enter::enter;
use crate::event::{Action, Event, What};
use crate::evolve::evolve;
use crate::execution::{Execution, Timer};
use crate::identifier::ExecutionId;
use crate::limits;
use crate::owed::{Effect, owed};
use crate::plan::{Catalog, Part, Touched, plan};
use crate::receipt::{Fate, fate};
use crate::signal::{Identifier, Signal};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

mod journeys;

use journeys::Journeys;

/// Timers of one execution that may fire at one point of time; beyond it the execution is put aside.
const FIRED_AT_ONCE: u32 = 10_000;

/// The key of an execution. Its order is that in which executions with timers due at one time go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The customer key.
    pub customer: Identifier,
    /// The journey.
    pub journey: String,
    /// The instance key.
    pub instance: Option<String>,
    /// The run.
    pub run: u32,
}

/// The fate of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalOutcome {
    /// The same source and id came before: nothing happened, and the parts are the first answer.
    pub duplicate: bool,
    /// One for every execution that it concerned. None: `no_match`.
    pub parts: Vec<PartOutcome>,
}

/// The fate of a signal in one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOutcome {
    /// The journey.
    pub journey: String,
    /// The instance key.
    pub instance: Option<String>,
    /// The run; 0 where none started.
    pub run: u32,
    /// The fate.
    pub fate: Fate,
}

/// An action as it would have been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The execution that owed it.
    pub execution: Key,
    /// The number of the event that made it.
    pub number: u64,
    /// When.
    pub at: Time,
    /// The action.
    pub action: Action,
}

/// One event, told to whoever watches.
#[derive(Clone, Copy, Debug)]
pub struct Happened<'a> {
    /// The execution.
    pub key: &'a Key,
    /// The execution before the event; `None` before a start.
    pub before: Option<&'a Execution>,
    /// The event.
    pub event: &'a Event,
}

/// Told of every event.
pub type Watcher<'w> = Box<dyn FnMut(Happened<'_>) + 'w>;

/// A run with a virtual clock.
pub struct Simulation<'w> {
    workspace: String,
    journeys: Journeys,
    clock: Option<Time>,
    people: BTreeMap<Identifier, Person>,
    queue: BTreeSet<Due>,
    actions: Vec<Recorded>,
    watcher: Option<Watcher<'w>>,
    fired: BTreeMap<Key, u32>,
    troubles: Vec<String>,
}

struct Person {
    customer: Arc<Customer>,
    executions: BTreeMap<Slot, Execution>,
    answers: BTreeMap<u128, Vec<PartOutcome>>,
}

type Slot = (String, Option<String>, u32);

/// A timer in the queue; its order is the order of firing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    due: Time,
    key: Key,
    armed: u64,
    visit: u32,
    place: String,
    round: u32,
}

impl<'w> Simulation<'w> {
    /// A run of these journeys, each as version 1, before anything has happened. Of two with one name the later counts.
    pub fn new(
        journeys: impl IntoIterator<Item = Arc<Compiled>>,
        workspace: &str,
    ) -> Simulation<'w> {
        Simulation {
            workspace: workspace.to_owned(),
            journeys: Journeys::new(journeys),
            clock: None,
            people: BTreeMap::new(),
            queue: BTreeSet::new(),
            actions: Vec::new(),
            watcher: None,
            fired: BTreeMap::new(),
            troubles: Vec::new(),
        }
    }

    /// Tells `watcher` of every event from now on.
    pub fn watch(&mut self, watcher: impl FnMut(Happened<'_>) + 'w) {
        self.watcher = Some(Box::new(watcher));
    }

    /// The time; `None` before the first input.
    pub fn clock(&self) -> Option<Time> {
        self.clock
    }

    /// Takes one signal. The clock goes to its time, and timers due by then fire first; one that is earlier than the
    /// clock is taken now, with its own time as `occurred`. Ids are remembered for the whole run: a file of years is read
    /// in seconds, and a server that reads it has not forgotten the first line at the last.
    pub fn signal(&mut self, signal: &Signal) -> SignalOutcome {
        let at = self.reach(signal.time);
        let Some(key) = signal.identifiers.first() else {
            return SignalOutcome {
                duplicate: false,
                parts: Vec::new(),
            };
        };
        let id = hash(&signal.source, &signal.id);
        if let Some(parts) = self.people.get(key).and_then(|p| p.answers.get(&id)) {
            return SignalOutcome {
                duplicate: true,
                parts: parts.clone(),
            };
        }
        let known = self.people.get(key).map(|p| &p.customer);
        let planned = plan(&self.journeys, known, key, signal, at);
        if planned.parts.is_empty() && known.is_none() {
            return SignalOutcome {
                duplicate: false,
                parts: Vec::new(),
            };
        }
        let person = self.people.entry(key.clone()).or_insert_with(|| Person {
            customer: Arc::new(Customer::new(key.clone())),
            executions: BTreeMap::new(),
            answers: BTreeMap::new(),
        });
        // Every part is decided on the customer as the signal leaves it.
        person.customer = planned.customer;
        let moment = Moment::of(signal, at);
        let mut parts: Vec<PartOutcome> = planned
            .parts
            .into_iter()
            .map(|p| self.part(key, p, signal, moment))
            .collect();
        let touched = planned.touched.into_iter();
        parts.extend(touched.filter_map(|t| self.touched(key, t, moment)));
        if let Some(person) = self.people.get_mut(key).filter(|_| !parts.is_empty()) {
            person.answers.insert(id, parts.clone());
        }
        SignalOutcome {
            duplicate: false,
            parts,
        }
    }

    /// Lets time pass: every timer due by then fires, at its own due time, in the order of due time, execution, arming.
    pub fn advance(&mut self, to: Time) {
        while let Some(first) = self.queue.first().filter(|d| d.due <= to) {
            let due = first.clone();
            self.queue.remove(&due);
            let at = self.tick(due.due);
            let fired = self.fired.entry(due.key.clone()).or_default();
            *fired += 1;
            if *fired > FIRED_AT_ONCE {
                let trouble = format!(
                    "execution {} of journey `{}`: {FIRED_AT_ONCE} timers fired at {at} and more are due (last {}): \
                     it is put aside",
                    due.key.id(&self.workspace),
                    due.key.journey,
                    due.place
                );
                self.troubles.push(trouble);
                self.queue.retain(|d| d.key != due.key);
                continue;
            }
            let input = Input::Timer {
                visit: due.visit,
                place: &due.place,
                round: due.round,
            };
            // Timers are never refused.
            let _ = self.input(&due.key, input, Moment::now(at));
        }
        self.tick(to);
    }

    /// Gives the result of the oldest action of this name, or at this place, that an execution still owes. Whether there
    /// was one.
    pub fn result(&mut self, key: &Key, action: &str, result: AttemptResult) -> bool {
        let Some(state) = self.execution(key) else {
            return false;
        };
        let is = |a: &Action| a.awaited.as_deref() == Some(action) || a.place == action;
        let Some(owed) = state.owed.iter().find(|o| is(&o.action)) else {
            return false;
        };
        let input = Input::ActionResult {
            action: owed.number,
            attempt: owed.attempts.saturating_add(1),
            result,
        };
        let at = self.reach(None);
        self.input(key, input, Moment::now(at)).is_ok()
    }

    /// Gives a command.
    ///
    /// # Errors
    /// When the execution refuses it, or there is none.
    pub fn command(&mut self, key: &Key, command: &Command) -> Result<(), Refusal> {
        let at = self.reach(None);
        self.input(key, Input::Command(command), Moment::now(at))
    }

    /// One execution.
    pub fn execution(&self, key: &Key) -> Option<&Execution> {
        self.people.get(&key.customer)?.executions.get(&key.slot())
    }

    /// A customer, by its key.
    pub fn customer(&self, key: &Identifier) -> Option<&Customer> {
        self.people.get(key).map(|p| &*p.customer)
    }

    /// One journey.
    pub fn journey(&self, name: &str) -> Option<&Arc<Compiled>> {
        self.journeys.named(name)
    }

    /// All executions, ended ones too, in the order of customer, journey, instance, run.
    pub fn executions(&self) -> impl Iterator<Item = &Execution> {
        self.people.values().flat_map(|p| p.executions.values())
    }

    /// The executions of one customer, ended ones too.
    pub fn executions_of(&self, customer: &Identifier) -> impl Iterator<Item = &Execution> {
        self.people
            .get(customer)
            .into_iter()
            .flat_map(|p| p.executions.values())
    }

    /// Every action so far, in the order made.
    pub fn actions(&self) -> &[Recorded] {
        &self.actions
    }

    /// What could not be simulated: executions that never wait.
    pub fn troubles(&self) -> &[String] {
        &self.troubles
    }

    /// The time when the next timer is due.
    pub fn next_due(&self) -> Option<Time> {
        self.queue.first().map(|d| d.due)
    }

    /// The clock after an input that bears this time; timers due by then have fired.
    fn reach(&mut self, time: Option<Time>) -> Time {
        let now = self.clock.unwrap_or_default();
        let to = time.map_or(now, |t| if self.clock.is_some() { t.max(now) } else { t });
        self.advance(to);
        self.tick(to)
    }

    fn tick(&mut self, to: Time) -> Time {
        let now = self.clock.map_or(to, |now| now.max(to));
        if self.clock != Some(now) {
            self.fired.clear();
        }
        self.clock = Some(now);
        now
    }

    fn part(
        &mut self,
        customer: &Identifier,
        part: Part,
        signal: &Signal,
        moment: Moment,
    ) -> PartOutcome {
        let (journey, instance, run, fate) = match part {
            Part::Refused {
                journey,
                instance,
                reason,
            } => (journey, instance, 0, Fate::Refused { reason }),
            Part::Ended {
                journey,
                instance,
                run,
            } => (journey, instance, run, Fate::Ended),
            Part::Existing {
                journey,
                instance,
                run,
                ..
            } => {
                let key = Key {
                    customer: customer.clone(),
                    journey,
                    instance,
                    run,
                };
                let events = self
                    .decide(&key, Input::Signal(signal), moment)
                    .unwrap_or_default();
                let fate = fate(&events);
                self.commit(&key, events);
                (key.journey, key.instance, run, fate)
            }
            Part::Enter {
                journey,
                version,
                instance,
                run,
            } => {
                let key = Key {
                    customer: customer.clone(),
                    journey,
                    instance,
                    run,
                };
                let events = match (
                    self.journeys.version(&key.journey, version),
                    self.people.get(customer),
                ) {
                    (Some(compiled), Some(person)) => {
                        let instance = key.instance.as_deref();
                        enter(
                            &compiled,
                            version,
                            &person.customer,
                            signal,
                            instance,
                            run,
                            moment,
                        )
                    }
                    _ => Vec::new(),
                };
                let fate = fate(&events);
                self.commit(&key, events);
                (key.journey, key.instance, run, fate)
            }
        };
        PartOutcome {
            journey,
            instance,
            run,
            fate,
        }
    }

    /// The part of an execution that is only told of the customer; none where nothing comes of it.
    fn touched(
        &mut self,
        customer: &Identifier,
        touched: Touched,
        moment: Moment,
    ) -> Option<PartOutcome> {
        let Touched {
            journey,
            instance,
            run,
        } = touched;
        let key = Key {
            customer: customer.clone(),
            journey,
            instance,
            run,
        };
        let events = self.decide(&key, Input::Customer, moment).ok()?;
        if events.is_empty() {
            return None;
        }
        let fate = fate(&events);
        self.commit(&key, events);
        Some(PartOutcome {
            journey: key.journey,
            instance: key.instance,
            run,
            fate,
        })
    }

    fn decide(&self, key: &Key, input: Input<'_>, moment: Moment) -> Result<Vec<Event>, Refusal> {
        let person = self.people.get(&key.customer);
        let found = person.and_then(|p| p.executions.get(&key.slot()).map(|e| (p, e)));
        let Some((person, state)) = found else {
            return Err(Refusal::new(format_args!(
                "there is no execution {}",
                key.id(&self.workspace)
            )));
        };
        let Some(compiled) = self.journeys.version(&key.journey, state.version) else {
            return Err(Refusal::new(format_args!(
                "there is no journey `{}`",
                key.journey
            )));
        };
        decide(&compiled, state, &person.customer, input, moment)
    }

    fn input(&mut self, key: &Key, input: Input<'_>, moment: Moment) -> Result<(), Refusal> {
        let events = self.decide(key, input, moment)?;
        self.commit(key, events);
        Ok(())
    }

    /// Takes decided events in, settles what is only recorded, and lets go on what waited for a hold to end.
    fn commit(&mut self, key: &Key, events: Vec<Event>) {
        let mut events = events;
        while !events.is_empty() {
            let moment = Moment::now(self.clock.unwrap_or_default());
            for action in self.take_all(key, &events) {
                let result = AttemptResult::Skipped {
                    reason: "simulated".to_owned(),
                };
                let input = Input::ActionResult {
                    action,
                    attempt: 1,
                    result,
                };
                let settled = self.decide(key, input, moment).unwrap_or_default();
                self.take_all(key, &settled);
            }
            let waits = |e: &Execution| owed(e).contains(&Effect::Release);
            if !self.execution(key).is_some_and(waits) {
                break;
            }
            events = self.decide(key, Input::Release, moment).unwrap_or_default();
        }
    }

    /// Takes events in; gives the numbers of the actions that nobody waits for.
    fn take_all(&mut self, key: &Key, events: &[Event]) -> Vec<u64> {
        let mut unawaited = Vec::new();
        for event in events {
            self.take(key, event);
            if let What::Action(action) = &event.what {
                self.actions.push(Recorded {
                    execution: key.clone(),
                    number: event.number,
                    at: event.at,
                    action: action.clone(),
                });
                if action.awaited.is_none()
                    && limits::CONNECTED_ACTIONS.contains(&action.kind.as_str())
                {
                    unawaited.push(event.number);
                }
            }
        }
        unawaited
    }

    fn take(&mut self, key: &Key, event: &Event) {
        let Some(person) = self.people.get_mut(&key.customer) else {
            return;
        };
        let slot = key.slot();
        let before = person.executions.get_mut(&slot);
        if let Some(watcher) = &mut self.watcher {
            watcher(Happened {
                key,
                before: before.as_deref(),
                event,
            });
        }
        match before {
            Some(state) => evolve(state, event),
            None => {
                if let Some(state) = Execution::begin(event) {
                    person.executions.insert(slot, state);
                }
            }
        }
        Arc::make_mut(&mut person.customer).note(
            &key.journey,
            key.instance.as_deref(),
            key.run,
            event,
        );
        if let What::TimerArmed(Timer {
            visit,
            place,
            due,
            round,
            ..
        }) = &event.what
        {
            self.queue.insert(Due {
                due: *due,
                key: key.clone(),
                armed: event.number,
                visit: *visit,
                place: place.clone(),
                round: *round,
            });
        }
    }
}

impl Key {
    /// The key of an execution.
    pub fn of(state: &Execution) -> Key {
        Key {
            customer: state.customer.clone(),
            journey: state.journey.clone(),
            instance: state.instance.clone(),
            run: state.run,
        }
    }

    /// Its id in a workspace.
    pub fn id(&self, workspace: &str) -> ExecutionId {
        ExecutionId::new(
            workspace,
            &self.customer,
            &self.journey,
            self.instance.as_deref(),
            self.run,
        )
    }

    fn slot(&self) -> Slot {
        (self.journey.clone(), self.instance.clone(), self.run)
    }
}

/// A number for (source, id) that two different ones will not share.
fn hash(source: &str, id: &str) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(source.len() as u64).to_be_bytes());
    hash.update(source.as_bytes());
    hash.update(id.as_bytes());
    hash.digest128()
}
