//! Entering: the first events of an execution. Whether it may start is decided in `plan`.

use crate::compiled::Compiled;
use crate::customer::Customer;
use crate::decide::{Deciding, Moment};
use crate::event::{Event, What};
use crate::execution::Execution;
use crate::signal::Signal;

/// The events of a new execution: it starts in the first stage, the signal sets facts and variables, visit 1 begins, and
/// what needs no signal follows. The signal opens no transition that names it.
///
/// A compiled journey has a stage; without one there is nothing to enter, and no events are given.
pub fn enter(
    compiled: &Compiled,
    version: u32,
    customer: &Customer,
    signal: &Signal,
    instance: Option<&str>,
    run: u32,
    moment: Moment,
) -> Vec<Event> {
    let Some(first) = compiled.stages.first() else {
        return Vec::new();
    };
    let started = Event {
        number: 0,
        at: moment.at,
        occurred: moment.occurred.min(moment.at),
        what: What::Started {
            journey: compiled.name.clone(),
            version,
            customer: customer.key.clone(),
            instance: instance.map(str::to_owned),
            run,
            stage: first.name.clone(),
        },
    };
    let Some(state) = Execution::begin(&started) else {
        return Vec::new();
    };
    let mut deciding = Deciding::new(compiled, customer, state, moment);
    deciding.events.push(started);
    deciding.begin(signal);
    deciding.events
}
