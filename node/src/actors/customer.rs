//! One customer, on the owner: puts its inputs in order, recognises repetitions, has each execution decide its part,
//! and hands the whole as one decision to the proposer. It does not wait for it to be applied: the next input is
//! decided on the pending state.

mod draft;
mod part;

use self::draft::Draft;
use super::execution::{Decide, Start as StartExecution};
use super::live::{Live, Session};
use super::{Answer, Ask, CustomerKey, ExecutionKey, Request};
use crate::bugs;
use crate::convert::event::by_to;
use crate::history::{command_hash, id_hash};
use crate::shard::customer::{CustomerState, DecisionId, Recent, customer_of};
use crate::shard::decision::{Decision, Outcome, Part};
use crate::shard::owner::Duties;
use crate::shard::proposer::Proposal;
use crate::shard::read;
use crate::shard::receipt;
use crate::shard::state::Look;
use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use sojourn_journey::customer::Customer;
use sojourn_journey::execution::Execution;
use sojourn_proto::{stored, v1};
use std::collections::HashMap;
use std::sync::Arc;

/// The actor.
pub struct CustomerActor;

/// What it is started with.
pub struct Start {
    /// Who it is.
    pub customer: CustomerKey,
    /// What its shard gives it.
    pub duties: Arc<Duties>,
    /// The awake customers.
    pub live: Arc<Live>,
}

/// The pending state of a customer and of its executions.
pub struct Mind {
    me: CustomerKey,
    duties: Arc<Duties>,
    session: Arc<Session>,
    /// What it will be once everything decided is applied; `None`: nobody is known under this key.
    known: Option<CustomerState>,
    /// The packed customers of this hash while they are away: the next decision brings them back.
    returning: Option<Bytes>,
    /// What is known is not what is committed, and has to be read.
    unread: Unread,
    in_flight: HashMap<u128, DecisionId>,
    executions: HashMap<ExecutionKey, ActorRef<Decide>>,
}

impl Actor for CustomerActor {
    type Msg = Request;
    type State = Mind;
    type Arguments = Start;

    async fn pre_start(
        &self,
        _myself: ActorRef<Request>,
        start: Start,
    ) -> Result<Mind, ActorProcessingErr> {
        let session = start
            .live
            .session()
            .ok_or("this node does not own the shard any more")?;
        let me = start.customer;
        // the actor before this one ended while something that it had decided may still be applied; asked before looking, for
        // what is known to be applied is seen then
        let before = start.duties.pending.last_of(me.hash);
        // who trusts in numbers would not wait, and with this wait alone hardly any two decisions bear the same one
        let before = before.filter(|_| !bugs::has(bugs::Bug::SequenceNumber));
        // those away are read by the actor itself: here the whole shard would wait for the disk
        let look = start.duties.state.lock().look(me.hash)?;
        let (bucket, unread) = match look {
            Look::Nobody => (Arc::default(), Unread::No),
            Look::Here(bucket) => (bucket, Unread::No),
            Look::Away { .. } => (Arc::default(), Unread::Away),
        };
        let unread = before.map_or(unread, Unread::Until);
        let known = customer_of(&bucket, &me.workspace, &me.key).cloned();
        Ok(Mind {
            me,
            duties: start.duties,
            session,
            known,
            returning: None,
            unread,
            in_flight: HashMap::new(),
            executions: HashMap::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Request>,
        request: Request,
        mind: &mut Mind,
    ) -> Result<(), ActorProcessingErr> {
        mind.handle(&myself, request).await
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Request>,
        event: SupervisionEvent,
        mind: &mut Mind,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            tracing::error!(shard = mind.duties.shard, %error, "an execution's actor failed while deciding");
            mind.executions
                .retain(|_, actor| actor.get_id() != cell.get_id());
        }
        Ok(())
    }
}

/// Whether what an actor knows has to be read anew before it decides.
enum Unread {
    No,
    /// They are away.
    Away,
    /// By this decision they leave memory: what is pending lacks what only apply knows.
    Left(DecisionId),
    /// Until the fate of this decision is known, nothing is: it was made by an actor that is no more.
    Until(DecisionId),
}

impl Mind {
    async fn handle(
        &mut self,
        myself: &ActorRef<Request>,
        request: Request,
    ) -> Result<(), ActorProcessingErr> {
        let read = match self.unread {
            Unread::No => false,
            Unread::Until(before) => {
                if let Some(known) = self.duties.pending.fate_of(before) {
                    // whoever knew it dropped it: then it is known
                    let _ = known.await;
                }
                true
            }
            Unread::Away => true,
            // while they are still about to leave, a decision finds nobody there and is made again
            Unread::Left(by) => !self.duties.pending.waits(by),
        };
        if read && let Err(error) = self.read().await {
            request.answer(Answer::Internal(error.to_string()));
            return Err(error);
        }
        let Some(request) = self.unless_repeated(request)? else {
            return Ok(());
        };
        let ask = request.ask.clone();
        let drafted = match &*ask {
            Ask::Signal {
                signal,
                sent,
                content,
            } => self.signal(myself, &ask, signal, sent, *content).await,
            Ask::Command {
                execution,
                command,
                content,
            } => {
                let kind = command.what.word();
                let by = sojourn_journey::event::By {
                    actor: command.actor.clone(),
                    reason: command.reason.clone(),
                };
                let cause = |execution: String| {
                    stored::cause::Cause::Command(stored::CommandCause {
                        id: command.id.clone(),
                        kind: kind.into(),
                        by: Some(by_to(&by)),
                        execution,
                        content: *content,
                    })
                };
                self.one(myself, &ask, execution, cause, *content).await
            }
            Ask::Timer {
                execution,
                visit,
                place,
                round,
            } => {
                let timer = v1::event::TimerRef {
                    visit: *visit,
                    place: place.clone(),
                    round: *round,
                };
                let cause = |execution| {
                    stored::cause::Cause::Timer(stored::TimerCause {
                        execution,
                        timer: Some(timer.clone()),
                    })
                };
                self.one(myself, &ask, execution, cause, 0).await
            }
            Ask::ActionResult {
                execution,
                action,
                attempt,
                ..
            } => {
                let cause = |execution| {
                    stored::cause::Cause::Action(stored::ActionCause {
                        execution,
                        action: *action,
                        attempt: *attempt,
                    })
                };
                self.one(myself, &ask, execution, cause, 0).await
            }
            Ask::Release { execution } => {
                let cause =
                    |execution| stored::cause::Cause::Release(stored::ReleaseCause { execution });
                self.one(myself, &ask, execution, cause, 0).await
            }
            Ask::Leave => self.leave(),
        };
        match drafted {
            Ok(draft) => return self.propose(request, draft),
            Err(Answer::Internal(why)) => {
                // some executions may have gone ahead of what was decided: begin again from what is committed
                request.answer(Answer::Internal(why.clone()));
                return Err(why.into());
            }
            Err(answer) => {
                if matches!(answer, Answer::NotOwner | Answer::Refused(_)) {
                    self.let_executions_go();
                }
                // it stands on what is pending: not told before that is committed
                let last = self.known.as_ref().and_then(|k| k.last);
                let confirm = &self.session.confirm;
                let pending = &self.duties.pending;
                pending.answer_after(last, request, answer, confirm);
            }
        }
        Ok(())
    }

    /// Some may have decided their part of what was not proposed: the next input wakes them from what is pending.
    fn let_executions_go(&mut self) {
        for (_, actor) in self.executions.drain() {
            actor.stop(None);
        }
    }

    /// Begins from what is committed.
    async fn read(&mut self) -> Result<(), ActorProcessingErr> {
        let (duties, hash) = (self.duties.clone(), self.me.hash);
        let running = self.duties.seams.running.clone();
        let read = running.blocking(move || read::bucket(&*duties, hash));
        let (bucket, returning) = read.await??;
        self.known = customer_of(&bucket, &self.me.workspace, &self.me.key).cloned();
        self.returning = returning;
        self.unread = Unread::No;
        Ok(())
    }

    /// Answers a repetition with the first answer; gives anything else back.
    fn unless_repeated(&mut self, request: Request) -> Result<Option<Request>, ActorProcessingErr> {
        let hash = match &*request.ask {
            Ask::Signal { sent, .. } => id_hash(self.me.hash, &sent.source, &sent.id),
            Ask::Command { command, .. } => command_hash(self.me.hash, &command.id),
            Ask::Timer { .. } | Ask::ActionResult { .. } | Ask::Release { .. } | Ask::Leave => {
                return Ok(Some(request));
            }
        };
        let mut request = request;
        if let Some(id) = self.in_flight.get(&hash) {
            match self.duties.pending.follow(*id, request) {
                Ok(()) => return Ok(None),
                Err(back) => request = back,
            }
        }
        let Some(known) = &self.known else {
            return Ok(Some(request));
        };
        let recent = known.recent.iter().any(|r| r.hash == hash);
        if !recent && !known.recent_overflowed {
            return Ok(Some(request));
        }
        let first = match read::first_answer(&*self.duties, self.me.hash, hash) {
            Ok(first) => first,
            Err(error) => {
                request.answer(Answer::Internal(error.to_string()));
                return Err(error.into());
            }
        };
        match first {
            Some(first) => {
                let differs = first.content != request.content();
                let shown = receipt::of(&first.decision, self.duties.shard, first.index);
                request.answer(Answer::Receipt(receipt::duplicate(shown, differs)));
                Ok(None)
            }
            None => Ok(Some(request)),
        }
    }

    fn propose(&mut self, request: Request, draft: Draft) -> Result<(), ActorProcessingErr> {
        let id = self.session.next_id();
        let previous = self.known.as_ref().and_then(|k| k.last);
        bugs::decided(id, previous);
        let outcome = Outcome {
            customer: noted(draft.customer, &draft.parts),
            executions: draft.afters,
        };
        let mut decision = Decision {
            id,
            previous,
            workspace: self.me.workspace.to_string(),
            customer: self.me.key.clone(),
            hash: self.me.hash,
            at: draft.moment.at,
            occurred: draft.moment.occurred,
            id_hash: crate::shard::decision::id_hash_of(self.me.hash, &draft.cause),
            cause: draft.cause,
            change: draft.change,
            parts: draft.parts,
            catalog: draft.catalog,
            content: draft.content,
            time_ahead: draft.time_ahead,
            notes: draft.notes,
            returned: self.returning.take(),
            outcome: Some(outcome),
        };
        let bytes = decision.encode_own();
        if bytes.len() > crate::limits::DECISION_BYTES {
            let why = format!(
                "what it would do has {} bytes, at most {} are allowed; it concerns {} executions",
                bytes.len(),
                crate::limits::DECISION_BYTES,
                decision.parts.len()
            );
            let (pending, refused) = (&self.duties.pending, Answer::Refused(why.clone()));
            pending.answer_after(previous, request, refused, &self.session.confirm);
            // the executions have gone ahead of what was decided: begin again from what is committed
            return Err(why.into());
        }
        self.take_over(&decision);
        let leaves = matches!(decision.cause, stored::cause::Cause::Leave(_));
        self.unread = if leaves { Unread::Left(id) } else { Unread::No };
        if let Some(hash) = decision.id_hash {
            if self.in_flight.len() > 2 * crate::limits::IN_FLIGHT_CUSTOMER {
                let recent = self.known.iter().flat_map(|k| &k.recent);
                let keep: Vec<u128> = recent.map(|r| r.hash).collect();
                self.in_flight
                    .retain(|h, id| keep.contains(h) || self.duties.pending.waits(*id));
            }
            self.in_flight.insert(hash, id);
        }
        self.duties.pending.wait(id, request);
        let proposal = Proposal {
            decision: Arc::new(decision),
            bytes,
        };
        if self.session.proposals.send(proposal).is_err() {
            self.duties.pending.not_owner(&[id]);
        }
        Ok(())
    }

    /// The pending state becomes what it will be once the decision is applied.
    fn take_over(&mut self, decision: &Decision) {
        let Some(outcome) = &decision.outcome else {
            return;
        };
        let known = self.known.get_or_insert_with(|| {
            let fresh = Customer::new(self.me.key.clone());
            CustomerState::new(self.me.workspace.to_string(), fresh, 0)
        });
        known.customer = outcome.customer.clone();
        known.last = Some(decision.id);
        known.last_at = decision.at;
        if let Some(hash) = decision.id_hash {
            known.remember(Recent { hash, index: 0 });
        }
        for after in &outcome.executions {
            let same = |e: &Arc<Execution>| {
                e.run == after.run && e.journey == after.journey && e.instance == after.instance
            };
            let place = known.executions.iter().position(same);
            match (place, crate::convert::state::stays(after)) {
                (Some(i), true) => known.executions[i] = after.clone(),
                (Some(i), false) => {
                    known.executions.remove(i);
                }
                (None, true) => known.executions.push(after.clone()),
                (None, false) => {}
            }
        }
    }
}

/// The record with what the events of a decision change in its runs.
fn noted(mut customer: Arc<Customer>, parts: &[Part]) -> Arc<Customer> {
    for part in parts {
        for event in part.events.iter().filter(|e| Customer::heeds(e)) {
            let record = Arc::make_mut(&mut customer);
            record.note(&part.journey, part.instance.as_deref(), part.run, event);
        }
    }
    customer
}
