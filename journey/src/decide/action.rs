//! The result of an attempt at an action. It never undoes the move that owed it.

use super::{AttemptResult, Deciding};
use crate::event::{ActionOutcome, What};
use crate::execution::Owed;
use crate::signal::Signal;
use crate::value::Value;
use std::collections::BTreeMap;

use super::render::status_path;

/// The type of the signal that a failed action makes.
pub const ACTION_FAILED: &str = "action.failed";

impl Deciding<'_> {
    /// One result. Fenced by attempt: that of another attempt than the current one changes nothing.
    pub(super) fn action_result(&mut self, number: u64, attempt: u32, result: AttemptResult) {
        let current = |o: &&Owed| o.number == number && o.attempts.saturating_add(1) == attempt;
        let Some(owed) = self.state.owed.iter().find(current).cloned() else {
            return;
        };
        let (outcome, status) = match result {
            AttemptResult::Retry { error, next } => {
                self.emit(What::Attempted {
                    action: number,
                    attempt,
                    error,
                    next,
                });
                return;
            }
            AttemptResult::Done { detail } => (ActionOutcome::Done { detail }, "done"),
            AttemptResult::Failed { error } => (ActionOutcome::Failed { error }, "failed"),
            AttemptResult::Skipped { reason } => (ActionOutcome::Skipped { reason }, "skipped"),
        };
        let error = match &outcome {
            ActionOutcome::Failed { error } => Some(error.clone()),
            ActionOutcome::Done { .. } | ActionOutcome::Skipped { .. } => None,
        };
        self.emit(What::Settled {
            action: number,
            attempt,
            outcome,
        });
        if let Some(error) = &error {
            let message = format!("action failed at attempt {attempt}: {error}");
            self.forget_failed();
            self.emit(What::Incident {
                place: owed.action.place.clone(),
                message,
                action: Some(number),
            });
        }
        if self.state.is_ended() {
            return;
        }
        if let Some(name) = &owed.action.awaited {
            self.set_fact(status_path(name), Value::String(status.to_owned()));
        }
        if let Some(error) = error {
            self.failed(&owed, &error);
        }
        // While it is held, what is due is done when it is let go.
        if self.unsettled && !self.state.is_ended() {
            self.go_on();
        }
    }

    /// A failed action is a signal that the journey may handle.
    fn failed(&mut self, owed: &Owed, error: &str) {
        if !self.compiled.listens.contains(ACTION_FAILED) {
            return;
        }
        let text = |t: &str| Value::String(t.to_owned());
        let name = owed.action.awaited.as_deref().unwrap_or_default();
        let data = [
            ("name", name),
            ("place", &owed.action.place),
            ("kind", &owed.action.kind),
            ("error", error),
        ];
        let signal = Signal {
            id: format!("{ACTION_FAILED}/{}", owed.number),
            source: "sojourn".to_owned(),
            kind: ACTION_FAILED.to_owned(),
            time: Some(self.occurred),
            identifiers: vec![self.state.customer.clone()],
            data: data
                .into_iter()
                .map(|(k, v)| (k.to_owned(), text(v)))
                .collect(),
            attributes: BTreeMap::new(),
        };
        if self.must_wait() {
            self.queue(&signal);
        } else {
            self.apply_signal(&signal, false);
        }
    }
}
