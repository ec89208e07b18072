//! What a customer decides, before it has an id: a signal for all executions that it concerns, an input of one
//! execution, or that the customer leaves memory. Proposes nothing.

use super::Mind;
use super::part::Asked;
use crate::actors::execution::Start as StartExecution;
use crate::actors::{Answer, Ask, ExecutionKey, Request};
use crate::catalog::WorkspaceView;
use crate::shard::decision::Part;
use ractor::ActorRef;
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::Moment;
use sojourn_journey::execution::Execution;
use sojourn_journey::plan;
use sojourn_journey::receipt::Fate;
use sojourn_journey::signal::Signal;
use sojourn_journey::time::Time;
use sojourn_proto::{stored, v1};
use std::sync::Arc;

/// What a decision is made of, before it has an id.
pub(super) struct Draft {
    pub(super) cause: stored::cause::Cause,
    pub(super) moment: Moment,
    pub(super) customer: Arc<Customer>,
    pub(super) change: sojourn_journey::customer::CustomerChange,
    pub(super) parts: Vec<Part>,
    pub(super) afters: Vec<Arc<Execution>>,
    pub(super) content: u64,
    pub(super) time_ahead: bool,
    pub(super) notes: Vec<String>,
    /// The position of the catalog that it was made with.
    pub(super) catalog: u64,
}

impl Mind {
    pub(super) async fn signal(
        &mut self,
        myself: &ActorRef<Request>,
        ask: &Arc<Ask>,
        signal: &Signal,
        sent: &v1::Signal,
        content: u64,
    ) -> Result<Draft, Answer> {
        let at = self.session.at();
        let moment = Moment::of(signal, at);
        let time_ahead = signal.time.is_some_and(|t| t > at);
        let view = self.duties.view();
        let empty = WorkspaceView::default();
        let workspace = view.workspace(&self.me.workspace).unwrap_or(&empty);
        let record = self.known.as_ref().map(|k| &k.customer);
        let plan = plan::plan(workspace, record, &self.me.key, signal, at);
        if plan.parts.is_empty() && self.known.is_none() {
            return Err(Answer::Receipt(self.no_match(sent, moment, time_ahead)));
        }
        let left_out = plan.change.left_out.iter();
        let notes = left_out
            .map(|name| format!("`{name}` was left out: the customer record has no room for it"))
            .collect();
        let customer = plan.customer;
        let mut parts = Vec::with_capacity(plan.parts.len());
        let mut afters = Vec::new();
        for part in plan.parts {
            let (key, start) = match part {
                plan::Part::Existing {
                    journey,
                    instance,
                    run,
                    ..
                } => (
                    ExecutionKey {
                        journey,
                        instance,
                        run,
                    },
                    None,
                ),
                plan::Part::Enter {
                    journey,
                    version,
                    instance,
                    run,
                } => {
                    let start = StartExecution {
                        version,
                        instance: instance.clone(),
                        run,
                    };
                    let key = ExecutionKey {
                        journey,
                        instance,
                        run,
                    };
                    (key, Some(start))
                }
                plan::Part::Refused {
                    journey,
                    instance,
                    reason,
                } => {
                    parts.push(Part::bare(journey, instance, 0, &Fate::Refused { reason }));
                    continue;
                }
                plan::Part::Ended {
                    journey,
                    instance,
                    run,
                } => {
                    parts.push(Part::bare(journey, instance, run, &Fate::Ended));
                    continue;
                }
            };
            let asked = Asked {
                ask,
                customer: &customer,
                workspace,
                moment,
                touched: false,
            };
            let (part, after) = self.part(myself, asked, key, start).await?;
            parts.push(part);
            afters.extend(after);
        }
        for touched in plan.touched {
            let key = ExecutionKey {
                journey: touched.journey,
                instance: touched.instance,
                run: touched.run,
            };
            let asked = Asked {
                ask,
                customer: &customer,
                workspace,
                moment,
                touched: true,
            };
            let (part, after) = self.part(myself, asked, key, None).await?;
            // it takes part only where something comes of it
            if !part.events.is_empty() {
                parts.push(part);
                afters.extend(after);
            }
        }
        if parts.is_empty() {
            self.duties.no_match(&self.me.workspace, sent, at);
        }
        Ok(Draft {
            cause: stored::cause::Cause::Signal(sent.clone()),
            moment,
            customer,
            change: plan.change,
            parts,
            afters,
            content,
            time_ahead,
            notes,
            catalog: view.position,
        })
    }

    /// An input for one execution. One that changes nothing is not proposed.
    pub(super) async fn one(
        &mut self,
        myself: &ActorRef<Request>,
        ask: &Arc<Ask>,
        execution: &ExecutionKey,
        cause: impl Fn(String) -> stored::cause::Cause,
        content: u64,
    ) -> Result<Draft, Answer> {
        let moment = Moment::now(self.session.at());
        let known = self.known.as_ref();
        let customer = known.map(|k| k.customer.clone());
        let Some(customer) = customer else {
            return Err(Answer::NotFound(format!(
                "no customer {} is known in workspace {}",
                self.me.key, self.me.workspace
            )));
        };
        let by_hand = matches!(&**ask, Ask::Command { .. });
        // a failed action keeps its execution in memory after its end, and also when a later run has begun
        let of_action =
            matches!(&**ask, Ask::Command { command, .. } if command.what.is_of_action());
        let instance = execution.instance.as_deref();
        let in_memory =
            known.and_then(|k| k.execution(&execution.journey, instance, execution.run));
        // what the shard's hands ask is about an execution in memory, whether or not the record still names its run
        let run = if by_hand && !(of_action && in_memory.is_some()) {
            customer
                .runs
                .iter()
                .filter(|r| r.journey == execution.journey && r.instance == execution.instance)
                .filter(|r| execution.run == 0 || r.run == execution.run)
                .max_by_key(|r| r.run)
                .map(|r| (r.run, r.is_active()))
        } else {
            in_memory.map(|e| (e.run, true))
        };
        let Some((run, active)) = run else {
            return Err(Answer::NotFound(format!(
                "customer {} has no such execution of journey {}",
                self.me.key, execution.journey
            )));
        };
        let key = ExecutionKey {
            run,
            ..execution.clone()
        };
        if !active && of_action {
            return Err(Answer::Refused(format!(
                "run {run} of journey {} has ended, and no action of it is left that failed",
                key.journey
            )));
        }
        if !active {
            return Err(Answer::Refused(format!(
                "run {run} of journey {} has ended: a command needs one that is active or held",
                key.journey
            )));
        }
        let view = self.duties.view();
        let empty = WorkspaceView::default();
        let workspace = view.workspace(&self.me.workspace).unwrap_or(&empty);
        let asked = Asked {
            ask,
            customer: &customer,
            workspace,
            moment,
            touched: false,
        };
        let (part, after) = self.part(myself, asked, key.clone(), None).await?;
        if let (true, Some(fate)) = (by_hand, &part.fate)
            && let Some(v1::fate::Fate::Refused(refused)) = &fate.fate
        {
            return Err(Answer::Refused(refused.reason.clone()));
        }
        let Some(first) = part.events.first() else {
            return Err(Answer::Receipt(v1::Receipt::default()));
        };
        // a signal that had waited brings its own time: all events of its release bear it
        let moment = Moment {
            occurred: first.occurred,
            ..moment
        };
        let id = self.execution_id(&key);
        Ok(Draft {
            cause: cause(id),
            moment,
            customer,
            change: Default::default(),
            parts: vec![part],
            afters: after.into_iter().collect(),
            content,
            time_ahead: false,
            notes: Vec::new(),
            catalog: view.position,
        })
    }

    /// The customer leaves memory, if nothing of theirs is active and nothing was decided within the dedup window.
    pub(super) fn leave(&self) -> Result<Draft, Answer> {
        let moment = Moment::now(self.session.at());
        let long_ago = Time(moment.at.0.saturating_sub(self.duties.dedup_window.0));
        let here = self.known.as_ref().filter(|_| self.returning.is_none());
        let Some(known) = here.filter(|k| k.is_idle() && k.last_at < long_ago) else {
            return Err(Answer::Receipt(v1::Receipt::default()));
        };
        Ok(Draft {
            cause: stored::cause::Cause::Leave(stored::LeaveCause {}),
            moment,
            customer: known.customer.clone(),
            change: Default::default(),
            parts: Vec::new(),
            afters: Vec::new(),
            content: 0,
            time_ahead: false,
            notes: Vec::new(),
            catalog: self.duties.view().position,
        })
    }

    fn execution_id(&self, key: &ExecutionKey) -> String {
        sojourn_journey::identifier::ExecutionId::new(
            &self.me.workspace,
            &self.me.key,
            &key.journey,
            key.instance.as_deref(),
            key.run,
        )
        .to_string()
    }

    /// The answer when nobody is known and no entry rule took the signal: counted, not recorded.
    fn no_match(&self, sent: &v1::Signal, moment: Moment, time_ahead: bool) -> v1::Receipt {
        self.duties.no_match(&self.me.workspace, sent, moment.at);
        v1::Receipt {
            signal_id: sent.id.clone(),
            source: sent.source.clone(),
            customer: Some(crate::convert::value::identifier_to(&self.me.key)),
            position: Some(v1::Position {
                shard: self.duties.shard.into(),
                index: self.duties.state.lock().applied,
            }),
            at: moment.at.0,
            occurred: moment.occurred.0,
            no_match: true,
            time_ahead,
            ..v1::Receipt::default()
        }
    }
}
