//! The rules of Sojourn: what a journey is and what a signal does to an execution.
//!
//! Pure: no async, no clock, no randomness, no files, no logging, no order of a hash map. Time and chance come in as data.
//! This crate does not know where executions live, who orders their inputs, and who acts on what they owe.
//!
//! # A tour
//!
//! An author's text becomes a [`compiled::Compiled`] journey by [`compile::Journey::compile`], with every problem located.
//! From then on:
//!
//! - [`plan::plan`] says whom one signal concerns: which executions of the customer, and which journeys it enters;
//! - [`enter::enter`] and [`decide::decide`] say what happens: an input on a state gives events, and nothing else happens;
//! - [`evolve::evolve`] makes of a state what it is after an event, without any definition: replicas do the same;
//! - [`owed::owed`] reads from the state what it owes the world: timers to fire, actions to do;
//! - [`receipt::fate`] reads from the events what became of the signal;
//! - [`why::why`] says why an execution is where it is, and [`report::Report`] where all of them are;
//! - [`simulate::Simulation`] does all of it with a virtual clock, and [`testfile::run`] compares that with a file.
//!
//! One signal, by hand:
//!
//! ```
//! use sojourn_journey::compile::{Journey, Known};
//! use sojourn_journey::customer::Customer;
//! use sojourn_journey::decide::{Input, Moment, decide};
//! use sojourn_journey::enter::enter;
//! use sojourn_journey::execution::Execution;
//! use sojourn_journey::owed::{Effect, owed};
//! use sojourn_journey::receipt::{Fate, fate};
//! use sojourn_journey::signal::{Identifier, Signal};
//! use sojourn_journey::time::Time;
//! use std::collections::BTreeMap;
//!
//! let checked = Journey::compile(
//!     r#"
//! journey: welcome
//! entry: [{ on: web.form.submitted }]
//! stages:
//!   - stage: greeted
//!     transitions:
//!       - { to: answered, on: mail.replied }
//!       - { to: silent, after: 3d }
//!   - stage: answered
//!     end: converted
//!   - stage: silent
//!     end: lost
//! "#,
//!     &Known::default(),
//! )
//! .map_err(|problems| problems[0].to_string())?;
//! let journey = checked.compiled;
//!
//! let ann = Identifier::new("email", "Ann@Example.org")?;
//! let signal = |id: &str, kind: &str| Signal {
//!     id: id.to_owned(),
//!     source: "web".to_owned(),
//!     kind: kind.to_owned(),
//!     time: None,
//!     identifiers: vec![ann.clone()],
//!     data: BTreeMap::new(),
//!     attributes: BTreeMap::new(),
//! };
//! let customer = Customer::new(ann.clone());
//!
//! // The entry: events, and the state that they make.
//! let now = Time::parse("2026-01-05T09:00:00Z")?;
//! let form = signal("1", "web.form.submitted");
//! let events = enter(&journey, 1, &customer, &form, None, 1, Moment::of(&form, now));
//! let state = Execution::replay(&events).ok_or("no start")?;
//! assert_eq!(state.visit.stage, "greeted");
//!
//! // It owes the world one timer.
//! let effects = owed(&state);
//! assert!(matches!(effects.as_slice(), [Effect::Timer(timer)] if timer.place.starts_with("stage/greeted/")));
//!
//! // An answer moves it.
//! let reply = signal("2", "mail.replied");
//! let events = decide(&journey, &state, &customer, Input::Signal(&reply), Moment::of(&reply, now))?;
//! assert_eq!(
//!     fate(&events),
//!     Fate::Moved { from: "greeted".to_owned(), to: "answered".to_owned(), via: vec![] }
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod compiled;
pub mod customer;
pub mod event;
pub mod execution;
pub mod signal;
pub mod time;
pub mod value;
// language (J1)
pub mod compile;
mod definition;
pub mod document;
pub mod expr;
pub mod graph;
mod lint;
pub mod problem;
pub mod schema;
pub mod template;
pub mod wait;
// rules (J2)
pub mod decide;
pub mod enter;
pub mod evolve;
pub mod identifier;
pub mod limits;
pub mod owed;
pub mod plan;
pub mod receipt;
pub mod report;
pub mod simulate;
pub mod testfile;
pub mod weight;
pub mod why;
