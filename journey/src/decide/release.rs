//! What waited for a hold to end is taken one by one, in the order in which it came.

use super::{Deciding, Moment};
use crate::event::What;

impl Deciding<'_> {
    /// Takes the first that waits; when nothing waits any more, conditions are tried.
    pub(super) fn release(&mut self) {
        if self.is_still() {
            return;
        }
        // A timer that came due before the first waiting signal did goes first; timers among themselves by due time.
        let none = self.state.waiting.is_empty();
        let timer = self
            .state
            .timers
            .iter()
            .filter(|t| t.waits && (none || t.behind == 0))
            .min_by_key(|t| t.due);
        if let Some(timer) = timer.cloned() {
            self.fire(&timer);
        } else if let Some(signal) = self.state.waiting.first().cloned() {
            // It is decided now, and it occurred when it did.
            self.occurred = Moment::of(&signal, self.at).occurred;
            self.emit(What::SignalTaken);
            self.apply_signal(&signal, true);
        }
        if !self.state.is_ended() {
            self.go_on();
        }
    }
}
