//! One shard's agenda, on its owner only: what is due when, worked off in order of due time, paced.
//!
//! Holds nothing that the states could not give again: a new owner makes it from ten bytes of each bucket.

use super::attempt::{Attempt, Outside};
use super::due::Due;
use super::gate::Gate;
use super::lanes::{Entered, Lanes, lane_of};
use crate::actors::live::Live;
use crate::actors::{Answer, Ask, CustomerKey, ExecutionKey, Refusal, Reply};
use crate::bugs;
use crate::shard::customer::{CustomerState, Slot};
use crate::shard::owner::Duties;
use crate::shard::state::AppliedDecision;
use futures::FutureExt;
use sojourn_journey::decide::AttemptResult;
use sojourn_journey::event::Action;
use sojourn_journey::execution::{Execution, Owed, Status};
use sojourn_journey::plan::{Catalog, JourneyState};
use sojourn_journey::time::{Span, Time};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Inputs of the agenda under way at once: after a long downtime timers fire late, and not all together.
const PACE: usize = 256;
/// Entries of things left alone before the old ones are thrown out.
const LEFT_ALONE: usize = 4_096;
/// Buckets looked at under one lock when the agenda is made.
const SCAN: usize = 4_096;
/// How long something that could not be done is left alone.
const LATER: Span = Span::from_seconds(5);
/// How long something is left alone that may be done in a moment, or is perhaps done already, unless its execution changes
/// before: then it is looked at again at once.
const SOON: Span = Span(500_000);
/// The longest sleep: the wall clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// An input of one execution that is under way.
struct Sent {
    customer: CustomerKey,
    key: ExecutionKey,
    /// The number of the execution's next event when it was sent.
    next: u64,
    /// The action whose result it is; `None`: a timer or a release.
    result_of: Option<u64>,
    /// Nothing may have been to be done: then it is not tried again.
    once: bool,
}

/// An execution with something that could not be done.
#[derive(Clone, Copy)]
struct LeftAlone {
    until: Time,
    /// The number of the execution's next event: once that is another, it is looked at again.
    unless_not: Option<u64>,
}

/// A journey that was held and lets its executions move again.
pub struct Reopened {
    /// The workspace.
    pub workspace: String,
    /// The journey.
    pub journey: String,
}

fn key_of(execution: &Execution) -> ExecutionKey {
    ExecutionKey {
        journey: execution.journey.clone(),
        instance: execution.instance.clone(),
        run: execution.run,
    }
}

struct Agenda {
    duties: Arc<Duties>,
    live: Arc<Live>,
    outside: Arc<dyn Outside>,
    due: Due,
    sent: HashMap<u64, Sent>,
    busy: HashSet<(CustomerKey, ExecutionKey)>,
    left_alone: HashMap<(CustomerKey, ExecutionKey), LeftAlone>,
    attempting: HashSet<(CustomerKey, ExecutionKey, u64)>,
    attempts: JoinSet<(Attempt, AttemptResult)>,
    lanes: Lanes,
    answers: mpsc::UnboundedSender<(u64, Answer)>,
    counter: u64,
    /// Executions of journeys that were let go again: each is given one release, for what it decided while held may
    /// have left a condition untried.
    releases: VecDeque<(CustomerKey, ExecutionKey)>,
}

/// Works the agenda off until its term of office ends.
pub async fn run(
    duties: Arc<Duties>,
    live: Arc<Live>,
    outside: Arc<dyn Outside>,
    mut applied: mpsc::UnboundedReceiver<AppliedDecision>,
    mut reopened: mpsc::UnboundedReceiver<Reopened>,
) {
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut agenda = Agenda {
        duties,
        live,
        outside,
        due: Due::default(),
        sent: HashMap::new(),
        busy: HashSet::new(),
        left_alone: HashMap::new(),
        attempting: HashSet::new(),
        attempts: JoinSet::new(),
        lanes: Lanes::default(),
        answers,
        counter: 0,
        releases: VecDeque::new(),
    };
    if !bugs::has(bugs::Bug::ForgottenTimers) {
        agenda.scan();
    }
    let mut batch = Vec::new();
    loop {
        agenda.work();
        let sleep = agenda.until_next();
        tokio::select! {
            n = applied.recv_many(&mut batch, 1_024) => {
                if n == 0 {
                    return;
                }
                for decision in batch.drain(..) {
                    agenda.look(decision.hash);
                }
            }
            Some(journey) = reopened.recv() => agenda.reopen(&journey),
            Some((token, answer)) = answered.recv() => agenda.answered(token, &answer),
            Some(done) = agenda.attempts.join_next(), if !agenda.attempts.is_empty() => {
                match done {
                    Ok((attempt, result)) => agenda.attempted(attempt, result),
                    // a panic is caught inside; it was cancelled, and its shard is closing
                    Err(error) => tracing::error!(%error, "an attempt at an action failed inside"),
                }
            }
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

impl Agenda {
    /// Makes the agenda from the states.
    fn scan(&mut self) {
        let mut from = Bound::Unbounded;
        loop {
            let found: Vec<(u64, Option<Time>)> = {
                let state = self.duties.state.lock();
                let range = state.buckets.range((from, Bound::Unbounded)).take(SCAN);
                range.map(|(hash, slot)| (*hash, slot.next_due())).collect()
            };
            let Some((last, _)) = found.last() else {
                return;
            };
            from = Bound::Excluded(*last);
            for (hash, due) in found {
                self.note(hash, due);
            }
        }
    }

    /// A journey lets its executions move again.
    fn reopen(&mut self, reopened: &Reopened) {
        let mut from = Bound::Unbounded;
        loop {
            let slots: Vec<(u64, Slot)> = {
                let state = self.duties.state.lock();
                let range = state.buckets.range((from, Bound::Unbounded)).take(SCAN);
                range.map(|(hash, slot)| (*hash, slot.clone())).collect()
            };
            let Some((last, _)) = slots.last() else {
                break;
            };
            from = Bound::Excluded(*last);
            for (hash, slot) in slots {
                let Ok(Some(bucket)) = slot.open() else {
                    continue;
                };
                for customer in bucket.iter().filter(|c| c.workspace == reopened.workspace) {
                    let ours = customer
                        .executions
                        .iter()
                        .filter(|e| e.journey == reopened.journey && e.status == Status::Active);
                    for execution in ours {
                        let who = CustomerKey {
                            hash,
                            workspace: customer.workspace.as_str().into(),
                            key: customer.customer.key.clone(),
                        };
                        self.releases.push_back((who, key_of(execution)));
                    }
                }
            }
        }
        self.left_alone.clear();
    }

    fn note(&mut self, hash: u64, due: Option<Time>) {
        self.due.note(hash, due);
    }

    /// Looks up anew when something of a bucket is due.
    fn look(&mut self, hash: u64) {
        let due = {
            let state = self.duties.state.lock();
            state.buckets.get(&hash).and_then(|slot| slot.next_due())
        };
        self.note(hash, due);
    }

    fn until_next(&mut self) -> Duration {
        let Some((due, _)) = self.due.first() else {
            return SLEEP_MAX;
        };
        let micros = due
            .since(self.duties.seams.clock.now())
            .0
            .clamp(0, SLEEP_MAX.as_micros() as i64);
        // what is due and waits for room is woken by an answer, not by the clock
        if micros == 0 && self.sent.len() >= PACE {
            return SLEEP_MAX;
        }
        Duration::from_micros(micros as u64)
    }

    /// Does what is due, as far as there is room.
    fn work(&mut self) {
        let now = self.duties.seams.clock.now();
        self.fill(now);
        // half of the room at most: timers go on meanwhile
        while self.sent.len() < PACE / 2 {
            let Some((who, key)) = self.releases.pop_front() else {
                break;
            };
            let ours = (who, key);
            if let Some(next) = self.next_of(&ours).filter(|_| !self.busy.contains(&ours)) {
                let ask = Ask::Release {
                    execution: ours.1.clone(),
                };
                self.start(ours.0, ours.1, next, ask, true);
            }
        }
        while self.sent.len() < PACE {
            let Some((due, hash)) = self.due.first() else {
                return;
            };
            if due > now {
                return;
            }
            self.note(hash, None);
            let next = self.examine(hash, now);
            self.note(hash, next);
        }
    }

    /// Looks again at customers who found no room in a lane that has some now.
    fn fill(&mut self, now: Time) {
        for key in self.lanes.crowded() {
            while let Some(hash) = self.lanes.next(&key) {
                self.note(hash, None);
                let next = self.examine(hash, now);
                self.note(hash, next);
            }
        }
    }

    /// Starts what is due in a bucket; answers when to look again (what is under way is looked at when it ends).
    fn examine(&mut self, hash: u64, now: Time) -> Option<Time> {
        let bucket = match self.duties.state.lock().here(hash) {
            Ok(bucket) => bucket.unwrap_or_default(),
            Err(error) => {
                tracing::error!(shard = self.duties.shard, %error, "a customer cannot be read");
                return None;
            }
        };
        let mut next: Option<Time> = None;
        for customer in bucket.iter() {
            for execution in &customer.executions {
                let due = self.examine_execution(hash, customer, execution, now);
                next = [next, due].into_iter().flatten().min();
            }
        }
        next
    }

    fn examine_execution(
        &mut self,
        hash: u64,
        customer: &CustomerState,
        execution: &Execution,
        now: Time,
    ) -> Option<Time> {
        let who = CustomerKey {
            hash,
            workspace: customer.workspace.as_str().into(),
            key: customer.customer.key.clone(),
        };
        let key = key_of(execution);
        let mut next: Option<Time> = None;
        let mut later = |t: Time| next = Some(next.map_or(t, |n| n.min(t)));
        let ours = (who, key);
        if let Some(left) = self.left_alone.get(&ours).copied() {
            if left.until > now && left.unless_not.is_none_or(|next| next == execution.next) {
                return Some(left.until);
            }
            self.left_alone.remove(&ours);
        }
        for owed in self.startable(&ours.0, &ours.1, execution) {
            match owed.next {
                Some(at) if at > now => later(at),
                _ => self.attempt(&ours.0, &ours.1, owed),
            }
        }
        if self.busy.contains(&ours) {
            // its answer looks again
            return next;
        }
        let (who, key) = ours;
        if execution.status == Status::Active && execution.has_waiting() {
            if self.gate_open(&who, &key) {
                let ask = Ask::Release {
                    execution: key.clone(),
                };
                self.start(who, key, execution.next, ask, false);
                return next;
            }
            // what is due meanwhile takes its place in the line of what waits
            later(now.plus(LATER));
        }
        let timer = execution
            .timers
            .iter()
            .filter(|t| !t.waits)
            .min_by_key(|t| t.due);
        if let Some(timer) = timer {
            if timer.due > now {
                later(timer.due);
            } else {
                let ask = Ask::Timer {
                    execution: key.clone(),
                    visit: timer.visit,
                    place: timer.place.clone(),
                    round: timer.round,
                };
                self.start(who, key, execution.next, ask, false);
            }
        }
        next
    }

    fn start(&mut self, customer: CustomerKey, key: ExecutionKey, next: u64, ask: Ask, once: bool) {
        self.busy.insert((customer.clone(), key.clone()));
        let sent = Sent {
            customer,
            key,
            next,
            result_of: None,
            once,
        };
        self.send(sent, ask);
    }

    /// Owed actions that may be tried: in listed order within their list.
    fn startable<'e>(
        &self,
        who: &CustomerKey,
        key: &ExecutionKey,
        execution: &'e Execution,
    ) -> Vec<&'e Owed> {
        let mut lists: Vec<&str> = Vec::new();
        let mut out = Vec::new();
        for owed in &execution.owed {
            let list = owed.action.place.rsplit_once('/').map_or("", |(l, _)| l);
            if lists.contains(&list) {
                continue;
            }
            lists.push(list);
            if !self
                .attempting
                .contains(&(who.clone(), key.clone(), owed.number))
            {
                out.push(owed);
            }
        }
        out
    }

    fn gate_open(&self, who: &CustomerKey, key: &ExecutionKey) -> bool {
        let view = self.duties.view();
        let state = view
            .workspace(&who.workspace)
            .map_or(JourneyState::Active, |w| w.state(&key.journey));
        matches!(state, JourneyState::Active | JourneyState::Draining)
    }

    fn send(&mut self, sent: Sent, ask: Ask) {
        self.counter += 1;
        let token = self.counter;
        let customer = sent.customer.clone();
        self.sent.insert(token, sent);
        let reply = Reply::stream(token, self.answers.clone(), None);
        if let Err(Refusal { reply, answer, .. }) =
            self.live.submit_inner(customer, Arc::new(ask), reply)
        {
            reply.give(answer);
        }
    }

    fn answered(&mut self, token: u64, answer: &Answer) {
        let Some(sent) = self.sent.remove(&token) else {
            return;
        };
        let hash = sent.customer.hash;
        let ours = (sent.customer, sent.key);
        let changed = self.next_of(&ours).is_none_or(|next| next != sent.next);
        match sent.result_of {
            Some(number) => {
                self.attempting
                    .remove(&(ours.0.clone(), ours.1.clone(), number));
            }
            None => {
                self.busy.remove(&ours);
            }
        }
        if !changed && !sent.once {
            // it could not be done now (a version that this build cannot compile, a shard that is closing)
            let word = match answer {
                Answer::Receipt(_) => "nothing to decide",
                Answer::Refused(why) | Answer::NotFound(why) => why,
                Answer::Unknown(why) | Answer::Internal(why) => why,
                Answer::Told(error) => &error.message,
                Answer::NotOwner | Answer::Overloaded { .. } => "the shard is busy or closing",
            };
            tracing::debug!(
                shard = self.duties.shard,
                journey = ours.1.journey,
                word,
                "left for later"
            );
            let now = self.duties.seams.clock.now();
            if self.left_alone.len() >= LEFT_ALONE {
                self.left_alone.retain(|_, left| left.until > now);
            }
            // an entry that is late may still be applied, and what follows need not wait then
            let passes = matches!(
                answer,
                Answer::Unknown(_) | Answer::NotOwner | Answer::Overloaded { .. }
            );
            let left = LeftAlone {
                until: now.plus(if passes { SOON } else { LATER }),
                unless_not: passes.then_some(sent.next),
            };
            self.left_alone.insert(ours, left);
        }
        self.look(hash);
    }

    /// The number of the next event of an execution, as committed.
    fn next_of(&self, (who, key): &(CustomerKey, ExecutionKey)) -> Option<u64> {
        let state = self.duties.state.lock();
        let customer = state.customer(who.hash, &who.workspace, &who.key).ok()??;
        let execution = customer.execution(&key.journey, key.instance.as_deref(), key.run)?;
        Some(execution.next)
    }

    /// Begins an attempt, or lines it up: behind those who wait already.
    fn attempt(&mut self, who: &CustomerKey, key: &ExecutionKey, owed: &Owed) {
        let lane = lane_of(who, &owed.action);
        let gate = self.gate(who, &owed.action);
        let behind = || gate.as_ref().map(Gate::behind);
        let entered = self.lanes.enter(&lane, who.hash, behind);
        if entered == Entered::Parked {
            return;
        }
        self.attempting
            .insert((who.clone(), key.clone(), owed.number));
        let attempt = Attempt {
            customer: who.clone(),
            key: key.clone(),
            number: owed.number,
            id: owed.key,
            attempt: owed.attempts.saturating_add(1),
            in_row: owed.attempts.saturating_sub(owed.before).saturating_add(1),
            action: owed.action.clone(),
        };
        if entered == Entered::Waits {
            self.lanes.wait(&lane, attempt, behind());
        } else {
            self.spawn(attempt);
        }
    }

    /// The line before the endpoint of an action; none where it needs none, or the endpoint does not exist.
    fn gate(&self, who: &CustomerKey, action: &Action) -> Option<Arc<Gate>> {
        if action.kind != "webhook" {
            return None;
        }
        self.outside.gate(&who.workspace, &action.to)
    }

    fn spawn(&mut self, attempt: Attempt) {
        let outside = self.outside.clone();
        // here and not in the task: tasks begin in any order
        let gate = self.gate(&attempt.customer, &attempt.action);
        let place = gate.map(|g| g.line_up());
        self.attempts.spawn(async move {
            let made = AssertUnwindSafe(outside.make(&attempt, place));
            let result = made.catch_unwind().await.unwrap_or_else(|panic| {
                let error = crate::shard::apply::panic_text(panic.as_ref());
                AttemptResult::Failed { error }
            });
            (attempt, result)
        });
    }

    fn attempted(&mut self, attempt: Attempt, result: AttemptResult) {
        let lane = lane_of(&attempt.customer, &attempt.action);
        if let Some(next) = self.lanes.ended(&lane) {
            self.spawn(next);
        }
        let ours = (attempt.customer, attempt.key);
        let Some(next) = self.next_of(&ours) else {
            // it is not there any more: nobody is owed this result
            let (who, key) = ours;
            let hash = who.hash;
            self.attempting.remove(&(who, key, attempt.number));
            self.look(hash);
            return;
        };
        let ask = Ask::ActionResult {
            execution: ours.1.clone(),
            action: attempt.number,
            attempt: attempt.attempt,
            result,
        };
        let sent = Sent {
            customer: ours.0,
            key: ours.1,
            next,
            // it stays marked as being attempted until its result is applied
            result_of: Some(attempt.number),
            once: false,
        };
        self.send(sent, ask);
    }
}
