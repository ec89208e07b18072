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

/// Everything that is owed: timers in the order of due time, then arming; actions in order; then the release.
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

/// The actions that may be done now: within one list (the same place but for its last part) the next waits until the one
/// before is settled; different lists do not wait for each other.
pub fn ready(state: &Execution) -> impl Iterator<Item = &Owed> {
    let list = |owed: &Owed| owed.action.place.rfind('/').unwrap_or(0);
    state.owed.iter().enumerate().filter_map(move |(n, owed)| {
        let mine = &owed.action.place[..list(owed)];
        let before = &state.owed[..n];
        let free = before.iter().all(|b| b.action.place[..list(b)] != *mine);
        free.then_some(owed)
    })
}
