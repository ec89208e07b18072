//! One customer, on the owner: puts its inputs in order, recognises repetitions, has each execution decide its part,
//! and hands the whole as one decision to the proposer. It does not wait for it to be applied: the next input is
//! decided on the pending state.

mod part;

use self::part::Asked;
use super::execution::{Decide, Start as StartExecution};
use super::live::{Live, Session};
use super::{Answer, Ask, CustomerKey, ExecutionKey, Request};
use crate::catalog::WorkspaceView;
use crate::convert::event::by_to;
use crate::history::{command_hash, id_hash};
use crate::shard::customer::{CustomerState, DecisionId, Recent, customer_of};
use crate::shard::decision::{Decision, Part};
use crate::shard::owner::Duties;
use crate::shard::proposer::Proposal;
use crate::shard::read;
use crate::shard::receipt;
use crate::shard::state::Look;
use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::Moment;
use sojourn_journey::execution::Execution;
use sojourn_journey::plan;
use sojourn_journey::receipt::Fate;
use sojourn_journey::signal::Signal;
use sojourn_journey::time::Time;
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
        // those away are read by the actor itself: here the whole shard would wait for the disk
        let look = start.duties.state.lock().look(me.hash)?;
        let (bucket, unread) = match look {
            Look::Nobody => (Arc::default(), Unread::No),
            Look::Here(bucket) => (bucket, Unread::No),
            Look::Away { .. } => (Arc::default(), Unread::Away),
        };
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
}

/// What a decision is made of, before it has an id.
struct Draft {
    cause: stored::cause::Cause,
    moment: Moment,
    customer: Arc<Customer>,
    change: sojourn_journey::customer::CustomerChange,
    parts: Vec<Part>,
    afters: Vec<Arc<Execution>>,
    content: u64,
    time_ahead: bool,
    notes: Vec<String>,
}

impl Mind {
    async fn handle(
        &mut self,
        myself: &ActorRef<Request>,
        request: Request,
    ) -> Result<(), ActorProcessingErr> {
        let read = match self.unread {
            Unread::No => false,
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
                // it stands on what is pending: not told before that is committed
                let last = self.known.as_ref().and_then(|k| k.last);
                self.duties.pending.answer_after(last, request, answer);
            }
        }
        Ok(())
    }

    /// Begins from what is committed.
    async fn read(&mut self) -> Result<(), ActorProcessingErr> {
        let (duties, hash) = (self.duties.clone(), self.me.hash);
        let read = tokio::task::spawn_blocking(move || read::bucket(&*duties, hash));
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
        match read::first_answer(&*self.duties, self.me.hash, hash)? {
            Some(first) => {
                let differs = first.content != request.content();
                let shown = receipt::of(&first.decision, self.duties.shard, first.index);
                request.answer(Answer::Receipt(receipt::duplicate(shown, differs)));
                Ok(None)
            }
            None => Ok(Some(request)),
        }
    }

    async fn signal(
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
        let record = self.known.as_ref().map(|k| &*k.customer);
        let plan = plan::plan(workspace, record, &self.me.key, signal, at);
        if plan.parts.is_empty() && self.known.is_none() {
            return Err(Answer::Receipt(self.no_match(sent, moment, time_ahead)));
        }
        let left_out = plan.change.left_out.iter();
        let notes = left_out
            .map(|name| format!("`{name}` was left out: the customer record has no room for it"))
            .collect();
        let customer = Arc::new(plan.customer);
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
        })
    }

    /// An input for one execution. One that changes nothing is not proposed.
    async fn one(
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
        })
    }

    /// The customer leaves memory, if nothing of theirs is active and nothing was decided within the dedup window.
    fn leave(&self) -> Result<Draft, Answer> {
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
        })
    }

    fn propose(&mut self, request: Request, draft: Draft) -> Result<(), ActorProcessingErr> {
        let id = self.session.next_id();
        let previous = self.known.as_ref().and_then(|k| k.last);
        let decision = Arc::new(Decision {
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
            catalog: self.duties.view().position,
            content: draft.content,
            time_ahead: draft.time_ahead,
            notes: draft.notes,
            returned: self.returning.take(),
        });
        let bytes = decision.encode();
        if bytes.len() > crate::limits::DECISION_BYTES {
            let why = format!(
                "what it would do has {} bytes, at most {} are allowed; it concerns {} executions",
                bytes.len(),
                crate::limits::DECISION_BYTES,
                decision.parts.len()
            );
            request.answer(Answer::Refused(why.clone()));
            // the executions have gone ahead of what was decided: begin again from what is committed
            return Err(why.into());
        }
        self.take_over(&decision, draft.customer, draft.afters);
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
        let proposal = Proposal { decision, bytes };
        if self.session.proposals.send(proposal).is_err() {
            self.duties.pending.not_owner(&[id]);
        }
        Ok(())
    }

    /// The pending state becomes what it will be once the decision is applied.
    fn take_over(
        &mut self,
        decision: &Decision,
        mut customer: Arc<Customer>,
        afters: Vec<Arc<Execution>>,
    ) {
        let record = Arc::make_mut(&mut customer);
        for part in &decision.parts {
            for event in &part.events {
                record.note(&part.journey, part.instance.as_deref(), part.run, event);
            }
        }
        let known = self.known.get_or_insert_with(|| {
            let fresh = Customer::new(self.me.key.clone());
            CustomerState::new(self.me.workspace.to_string(), fresh, 0)
        });
        known.customer = customer;
        known.last = Some(decision.id);
        known.last_at = decision.at;
        if let Some(hash) = decision.id_hash {
            known.remember(Recent { hash, index: 0 });
        }
        for after in afters {
            let same = |e: &Arc<Execution>| {
                e.run == after.run && e.journey == after.journey && e.instance == after.instance
            };
            let place = known.executions.iter().position(same);
            match (place, crate::convert::state::stays(&after)) {
                (Some(i), true) => known.executions[i] = after,
                (Some(i), false) => {
                    known.executions.remove(i);
                }
                (None, true) => known.executions.push(after),
                (None, false) => {}
            }
        }
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
