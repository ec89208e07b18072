//! What an execution owes the world, read from its state alone: no definition, no clock.

use crate::execution::{Execution, Owed, Status, Timer};
use crate::time::Time;

/// One thing owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// A timer to fire when it is due.
    Timer(&'a Timer),
    /// An action to do; [`ready`] says which may be done now.
    Action(&'a Owed),
    /// Something waited for a hold that has ended: give [`crate::decide::Input::Release`], until this is no longer owed.
    /// While the journey itself is held, not yet.
    Release,
}

/// Everything that is owed (an action that failed is not: it waits for somebody to retry or skip it): timers in the order of due time, then arming; actions in order; then the release.
pub fn owed(state: &Execution) -> Vec<Effect<'_>> {
    let mut timers: Vec<&Timer> = state.timers.iter().filter(|t| !t.waits).collect();
    timers.sort_by_key(|t| t.due);
    let mut effects: Vec<Effect<'_>> = timers.into_iter().map(Effect::Timer).collect();
    effects.extend(state.owed.iter().map(Effect::Action));
    if state.status == Status::Active && state.has_waiting() {
        effects.push(Effect::Release);
    }
    effects
}

/// When the next timer is due that does not wait for a hold to end.
pub fn next_due(state: &Execution) -> Option<Time> {
    state
        .timers
        .iter()
        .filter(|t| !t.waits)
        .map(|t| t.due)
        .min()
}

/// The actions that may be done now: within one list of one decision the next waits until the one before is settled.
/// Different lists do not wait for each other, nor do rounds of a repeat, or visits: one delivery that fails for hours
/// holds up nothing but what the author put behind it.
pub fn ready(state: &Execution) -> impl Iterator<Item = &Owed> {
    state.owed.iter().enumerate().filter_map(move |(n, owed)| {
        let waits = state.owed[..n].iter().any(|b| is_behind(b, owed));
        (!waits).then_some(owed)
    })
}

/// Whether `owed` stands behind `before` in one list of one decision. The actions of a list are events without others
/// between them, except that one that could not be rendered leaves no event: then a number is nearer than its place.
fn is_behind(before: &Owed, owed: &Owed) -> bool {
    let (Some((list, first)), Some((other, place))) = (in_list(before), in_list(owed)) else {
        return false;
    };
    list == other
        && first < place
        && owed.number.saturating_sub(before.number) <= place.saturating_sub(first)
}

/// The list of an action and its place in it.
fn in_list(owed: &Owed) -> Option<(&str, u64)> {
    let (list, place) = owed.action.place.rsplit_once('/')?;
    Some((list, place.parse().ok()?))
}
