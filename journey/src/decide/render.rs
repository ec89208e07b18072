//! Actions become bytes when they are decided: every attempt sends the same, and no definition is needed to send it.

use super::Deciding;
use crate::compiled::{Action, Body, FactPath};
use crate::event::{self, ActionOutcome, What};
use crate::expr::{Base, Miss, Scope};
use crate::limits;
use crate::signal::Signal;
use crate::value::Value;

/// The path of the fact that holds how an awaited action ended: `action.<name>.status`.
pub(crate) fn status_path(name: &str) -> String {
    FactPath(vec![
        "action".to_owned(),
        name.to_owned(),
        "status".to_owned(),
    ])
    .to_string()
}

impl Deciding<'_> {
    /// Owes every action of a list, or says why one cannot be. Their events follow one another without others between
    /// them: by that [`crate::owed::ready`] knows what belongs to one list.
    pub(super) fn owe(&mut self, actions: &[Action], signal: Option<&Signal>) {
        let mut after = Vec::with_capacity(actions.len());
        for action in actions {
            let connected = limits::CONNECTED_ACTIONS.contains(&action.kind.as_str());
            let number = self.state.next;
            match self.rendered(action, connected, signal) {
                Ok(owed) => {
                    self.emit(What::Action(owed));
                    after.push((action, Ok((number, connected))));
                }
                Err(why) => after.push((action, Err(why))),
            }
        }
        for (action, owed) in after {
            let status = match owed {
                Ok((_, true)) => "pending",
                Ok((number, false)) => {
                    let outcome = ActionOutcome::Skipped {
                        reason: "not connected".to_owned(),
                    };
                    self.emit(What::Settled {
                        action: number,
                        attempt: 0,
                        outcome,
                    });
                    "skipped"
                }
                Err(why) => {
                    self.incident(&action.place, format!("action not owed: {why}"));
                    "failed"
                }
            };
            if let Some(name) = &action.awaited {
                // The result of an earlier run of the same action is no result of this one.
                self.set_fact(status_path(name), Value::String(status.to_owned()));
            }
        }
    }

    /// The action as it is to be done, or why it cannot be.
    fn rendered(
        &self,
        action: &Action,
        connected: bool,
        signal: Option<&Signal>,
    ) -> Result<event::Action, String> {
        let (to, body) = render(action, &self.compiled.base, &self.scope(signal)).map_err(
            |miss| match miss {
                Miss::Unknown(missing) => format!("{} has never arrived", missing.join(", ")),
                Miss::Error(error) => error,
            },
        )?;
        if let Some(full) = self.owes_too_much(body.len()).filter(|_| connected) {
            return Err(full);
        }
        Ok(event::Action {
            place: action.place.clone(),
            kind: action.kind.clone(),
            to,
            body,
            awaited: action.awaited.clone(),
        })
    }

    pub(super) fn owes_too_much(&self, more: usize) -> Option<String> {
        let count = self.state.owed.len();
        let bytes = self
            .state
            .owed
            .iter()
            .map(|o| o.action.body.len())
            .sum::<usize>()
            + more;
        (count >= limits::OWED_ACTIONS || bytes > limits::OWED_BYTES).then(|| {
            format!(
                "{count} are owed already, at most {} or {} bytes may be",
                limits::OWED_ACTIONS,
                limits::OWED_BYTES
            )
        })
    }
}

fn render(action: &Action, base: &Base, scope: &Scope<'_>) -> Result<(String, Vec<u8>), Miss> {
    let to = action
        .to
        .as_ref()
        .map_or(Ok(String::new()), |to| to.render(base, scope))?;
    let body = fill(&action.body, base, scope)?.to_json().into_bytes();
    if body.len() > limits::ACTION_BYTES {
        let text = format!(
            "its body has {} bytes: expected at most {}",
            body.len(),
            limits::ACTION_BYTES
        );
        return Err(Miss::Error(text));
    }
    Ok((to, body))
}

fn fill(body: &Body, base: &Base, scope: &Scope<'_>) -> Result<Value, Miss> {
    Ok(match body {
        Body::Plain(value) => value.clone(),
        Body::Text(template) => Value::String(template.render(base, scope)?),
        Body::List(items) => Value::List(
            items
                .iter()
                .map(|i| fill(i, base, scope))
                .collect::<Result<_, _>>()?,
        ),
        Body::Map(map) => {
            let pairs = map
                .iter()
                .map(|(name, part)| Ok((name.clone(), fill(part, base, scope)?)));
            Value::Map(pairs.collect::<Result<_, Miss>>()?)
        }
    })
}
