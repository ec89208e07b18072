//! What is done by hand: override, hold, resume, stop. The only input that can be refused. What is done by hand to a
//! failed action stands in `failed`.

use super::moves::Why;
use super::{ByHand, Command, Deciding, Refusal};
use crate::compiled::Stage;
use crate::event::{By, Cause, What};
use crate::execution::Status;

impl Deciding<'_> {
    /// One command.
    pub(super) fn command(&mut self, command: &Command) -> Result<(), Refusal> {
        if let Some(ended) = self.state.ended
            && !command.what.is_of_action()
        {
            return Err(Refusal::new(format_args!(
                "the execution ended at {} in stage `{}`: only active and held ones take commands",
                ended.at, self.state.visit.stage
            )));
        }
        let visit = self.state.visit.number;
        if let Some(expected) = command.expected_visit.filter(|e| *e != visit) {
            return Err(Refusal::new(format_args!(
                "the command was given for visit {expected}, and it is now in visit {visit} (stage `{}`): look again, \
                 then give it for that visit or without one",
                self.state.visit.stage
            )));
        }
        let by = By {
            actor: command.actor.clone(),
            reason: command.reason.clone(),
        };
        match &command.what {
            ByHand::Override { to, run_actions } => self.override_to(to, *run_actions, by),
            ByHand::Hold => self.hold(by),
            ByHand::Resume => self.resume(by),
            ByHand::Stop { outcome } => self.stop(outcome.as_deref(), by),
            ByHand::RetryAction { action, new_key } => self.retry_action(*action, *new_key, by),
            ByHand::SkipAction { action } => self.skip_action(*action, by),
        }
    }

    fn override_to(&mut self, to: &str, run_actions: bool, by: By) -> Result<(), Refusal> {
        let compiled = self.compiled;
        let Some(number) = compiled.by_name.get(to).copied() else {
            return Err(Refusal::new(unknown_stage(to, &compiled.stages)));
        };
        let mut transition = None;
        if run_actions {
            let stage = self.stage();
            transition = stage.and_then(|s| s.transitions.iter().find(|t| t.to == number));
            if transition.is_none() {
                return Err(Refusal::new(format_args!(
                    "no transition leads from `{}` to `{to}`, so there are no actions of it to run: give the override \
                     without them",
                    self.state.visit.stage
                )));
            }
        }
        self.go(
            number,
            Cause::Override(by),
            Why {
                transition,
                signal: None,
            },
        );
        // Nothing follows by itself while it is held, or before those that wait.
        if !self.state.has_waiting() {
            self.settle();
        }
        Ok(())
    }

    fn hold(&mut self, by: By) -> Result<(), Refusal> {
        if let Some(holder) = &self.state.hold {
            return Err(Refusal::new(format_args!(
                "it is already held by {} ({}): resume it first",
                holder.actor, holder.reason
            )));
        }
        self.emit(What::Held {
            actor: by.actor,
            reason: by.reason,
        });
        Ok(())
    }

    fn resume(&mut self, by: By) -> Result<(), Refusal> {
        if self.state.status != Status::Held {
            return Err(Refusal::new(
                "it is not held: only a held execution can be resumed",
            ));
        }
        self.emit(What::Resumed {
            actor: by.actor,
            reason: by.reason,
        });
        // What waits is taken one by one; without any, conditions may have come to hold meanwhile.
        self.go_on();
        Ok(())
    }

    fn stop(&mut self, outcome: Option<&str>, by: By) -> Result<(), Refusal> {
        if let Some(bad) = outcome.filter(|o| !is_slug(o)) {
            return Err(Refusal::new(format_args!(
                "the outcome {:?} is no slug: expected a lower-case letter, then at most 31 lower-case letters, digits \
                 and `_`",
                crate::problem::short(bad)
            )));
        }
        self.end(Status::Stopped, outcome.map(str::to_owned), Some(by));
        Ok(())
    }
}

fn is_slug(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Names the stage that was meant, or some of those that there are.
fn unknown_stage(to: &str, stages: &[Stage]) -> String {
    let names = || stages.iter().map(|s| s.name.as_str());
    let hint = match crate::problem::nearest(to, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let some: Vec<&str> = names().take(20).collect();
            let more = if stages.len() > some.len() {
                ", …"
            } else {
                ""
            };
            format!("expected one of {}{more}", some.join(", "))
        }
    };
    format!(
        "this version has no stage {:?}: {hint}",
        crate::problem::short(to)
    )
}
