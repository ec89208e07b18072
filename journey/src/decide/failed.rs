//! What is done by hand to an action that failed: it is tried again, or skipped. An execution that has ended keeps its
//! failed actions, so both can be done then too; nothing in it moves by that.

use super::render::status_path;
use super::{Deciding, Refusal};
use crate::event::{By, What};
use crate::execution::Failed;
use crate::limits;
use crate::value::Value;

/// Who skips what there is no room for.
const NOBODY: &str = "sojourn";

impl Deciding<'_> {
    /// A failed action is owed again.
    pub(super) fn retry_action(
        &mut self,
        number: u64,
        new_key: bool,
        by: By,
    ) -> Result<(), Refusal> {
        let failed = self.failed_action(number)?;
        if let Some(full) = self.owes_too_much(failed.action.body.len()) {
            return Err(Refusal::new(format_args!(
                "{full}: retry it when some of them are settled"
            )));
        }
        self.emit(What::Retried {
            action: number,
            new_key,
            by,
        });
        self.tell(&failed, "pending");
        Ok(())
    }

    /// A failed action is not wanted any more.
    pub(super) fn skip_action(&mut self, number: u64, by: By) -> Result<(), Refusal> {
        let failed = self.failed_action(number)?;
        self.emit(What::Skipped { action: number, by });
        self.tell(&failed, "skipped");
        Ok(())
    }

    /// Keeps no more failed actions than there is room for; the latest stays in any case.
    pub(super) fn forget_failed(&mut self) {
        loop {
            let failed = &self.state.failed;
            let bytes: usize = failed.iter().map(|f| f.action.body.len()).sum();
            let full = failed.len() > limits::FAILED_ACTIONS || bytes > limits::FAILED_BYTES;
            let Some(first) = failed.first().filter(|_| full && failed.len() > 1) else {
                return;
            };
            let action = first.number;
            let reason = format!(
                "at most {} failed actions or {} bytes of them are kept",
                limits::FAILED_ACTIONS,
                limits::FAILED_BYTES
            );
            self.emit(What::Skipped {
                action,
                by: By {
                    actor: NOBODY.to_owned(),
                    reason,
                },
            });
        }
    }

    /// The failed action of a number, or what would be accepted.
    fn failed_action(&self, number: u64) -> Result<Failed, Refusal> {
        let failed = &self.state.failed;
        if let Some(found) = failed.iter().find(|f| f.number == number) {
            return Ok(found.clone());
        }
        if let Some(owed) = self.state.owed.iter().find(|o| o.number == number) {
            let attempts = owed.attempts;
            return Err(Refusal::new(format_args!(
                "action {number} has not failed: it is owed still, after {attempts} attempts, and is tried by itself"
            )));
        }
        let numbers: Vec<String> = failed.iter().map(|f| f.number.to_string()).collect();
        Err(Refusal::new(if numbers.is_empty() {
            format!("action {number} has not failed: no action of this execution has")
        } else {
            format!(
                "action {number} has not failed: expected one of {}",
                numbers.join(", ")
            )
        }))
    }

    /// Where the journey awaits the action, it is told how it now stands, unless the same action was owed again since:
    /// then that one's result counts.
    fn tell(&mut self, failed: &Failed, status: &str) {
        let Some(name) = &failed.action.awaited else {
            return;
        };
        let newer = |number: u64, awaited: &Option<String>| {
            number > failed.number && awaited.as_ref() == Some(name)
        };
        let owed = self.state.owed.iter();
        let superseded = owed
            .map(|o| (o.number, &o.action.awaited))
            .chain(
                self.state
                    .failed
                    .iter()
                    .map(|f| (f.number, &f.action.awaited)),
            )
            .any(|(number, awaited)| newer(number, awaited));
        if self.state.is_ended() || superseded {
            return;
        }
        self.set_fact(status_path(name), Value::String(status.to_owned()));
        if self.unsettled {
            self.go_on();
        }
    }
}
