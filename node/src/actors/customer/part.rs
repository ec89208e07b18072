//! One execution's part of a decision: finds or wakes its actor, asks it, and copes when it fails.

use super::{Mind, StartExecution};
use crate::actors::execution::{Decide, Decided, ExecutionActor};
use crate::actors::{Answer, Ask, ExecutionKey, Request};
use crate::catalog::WorkspaceView;
use crate::shard::customer::CustomerState;
use crate::shard::decision::Part;
use ractor::{Actor, ActorRef, ActorStatus};
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::{Gate, Moment};
use sojourn_journey::event::{Event, What};
use sojourn_journey::execution::Execution;
use sojourn_journey::plan::{Catalog, JourneyState};
use sojourn_journey::receipt::Fate;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a part is decided with.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub ask: &'a Arc<Ask>,
    pub customer: &'a Arc<Customer>,
    pub workspace: &'a WorkspaceView,
    pub moment: Moment,
    /// The signal is for others: this execution is only told that the customer record became another.
    pub touched: bool,
}

impl Asked<'_> {
    fn starts(&self, key: &ExecutionKey, known: Option<&CustomerState>) -> bool {
        known.is_none_or(|k| {
            k.execution(&key.journey, key.instance.as_deref(), key.run)
                .is_none()
        })
    }
}

impl Mind {
    /// Has one execution decide its part.
    pub(super) async fn part(
        &mut self,
        myself: &ActorRef<Request>,
        asked: Asked<'_>,
        key: ExecutionKey,
        start: Option<StartExecution>,
    ) -> Result<(Part, Option<Arc<Execution>>), Answer> {
        let refused = |key: ExecutionKey, reason: String| {
            let run = if asked.starts(&key, self.known.as_ref()) {
                0
            } else {
                key.run
            };
            Part::bare(key.journey, key.instance, run, &Fate::Refused { reason })
        };
        let instance = key.instance.as_deref();
        let pending = self
            .known
            .as_ref()
            .and_then(|k| k.execution(&key.journey, instance, key.run))
            .cloned();
        let quarantined = self
            .known
            .as_ref()
            .and_then(|k| k.quarantine(&key.journey, instance, key.run));
        if let Some(q) = quarantined {
            let reason = format!("quarantined at log index {}: {}", q.index, q.why);
            return Ok((refused(key, reason), None));
        }
        let version = start
            .as_ref()
            .map(|s| s.version)
            .or(pending.as_ref().map(|e| e.version));
        let Some(version) = version else {
            return Ok((refused(key, "it is not in memory".into()), None));
        };
        let Some(compiled) = asked.workspace.version(&key.journey, version) else {
            let reason = format!("version {version} cannot be compiled by this build of Sojourn");
            return Ok((refused(key, reason), None));
        };
        let held = matches!(
            asked.workspace.state(&key.journey),
            JourneyState::Held | JourneyState::Dropped
        );
        let moment = Moment {
            gate: if held { Gate::Held } else { Gate::Open },
            ..asked.moment
        };
        let actor = match self.executions.get(&key) {
            Some(actor) => actor.clone(),
            None => {
                let spawned =
                    Actor::spawn_linked(None, ExecutionActor, pending.clone(), myself.get_cell())
                        .await;
                match spawned {
                    Ok((actor, _)) => {
                        self.executions.insert(key.clone(), actor.clone());
                        actor
                    }
                    // the term of office ends just now: nothing has been proposed, and the next owner decides
                    Err(_) if myself.get_status() >= ActorStatus::Draining => {
                        return Err(Answer::NotOwner);
                    }
                    Err(error) => return Err(Answer::Internal(error.to_string())),
                }
            }
        };
        let (tx, rx) = oneshot::channel();
        let decide = Decide {
            ask: asked.ask.clone(),
            customer: asked.customer.clone(),
            compiled,
            moment,
            start,
            touched: asked.touched,
            reply: tx,
        };
        // one that stopped drops the sender, which is told apart just below
        let _ = actor.cast(decide);
        let run = key.run;
        match rx.await {
            Ok(Ok(Decided { events, after })) => {
                if after.as_ref().is_none_or(|e| e.is_ended()) {
                    self.executions.remove(&key);
                    actor.stop(None);
                }
                let part = Part {
                    journey: key.journey,
                    instance: key.instance,
                    run,
                    events,
                    fate: None,
                };
                Ok((part, after))
            }
            Ok(Err(refusal)) => Err(Answer::Refused(refusal.text)),
            Err(_) => {
                self.executions.remove(&key);
                Ok(incident(key, pending, moment, asked.ask.is_from_outside()))
            }
        }
    }
}

/// Deciding panicked: recorded as an incident of that execution; nothing else of the signal is lost. What the shard's own
/// hands ask is asked again as long as it is due: the same incident over again is nothing new then, and is not recorded.
fn incident(
    key: ExecutionKey,
    pending: Option<Arc<Execution>>,
    moment: Moment,
    from_outside: bool,
) -> (Part, Option<Arc<Execution>>) {
    let message = "deciding this input failed: a bug of Sojourn; the input is in this record";
    let Some(mut execution) = pending else {
        let reason = message.to_owned();
        let part = Part::bare(key.journey, key.instance, 0, &Fate::Refused { reason });
        return (part, None);
    };
    let place = format!("stage/{}", execution.visit.stage);
    let known = execution
        .incident
        .as_ref()
        .is_some_and(|i| i.place == place && i.message == message);
    if known && !from_outside {
        let part = Part {
            journey: key.journey,
            instance: key.instance,
            run: key.run,
            events: Vec::new(),
            fate: None,
        };
        return (part, None);
    }
    let event = Event {
        number: execution.next,
        at: moment.at,
        occurred: moment.occurred.min(moment.at),
        what: What::Incident {
            place,
            message: message.into(),
            action: None,
        },
    };
    sojourn_journey::evolve::evolve(Arc::make_mut(&mut execution), &event);
    let part = Part {
        journey: key.journey,
        instance: key.instance,
        run: key.run,
        events: vec![event],
        fate: None,
    };
    (part, Some(execution))
}
