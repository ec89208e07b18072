//! Gathers decisions while the last entry is in flight, proposes them as one entry, and sees that every asker is
//! answered: by apply, or as *unknown*.

use super::confirm::Confirm;
use super::customer::DecisionId;
use super::decision::Decision;
use super::pace::Pace;
use super::receipt;
use super::state::Verdict;
use crate::actors::{Answer, Request};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use sojourn_cluster::id::Position;
use sojourn_cluster::{EntryKind, Group, ProposeError};
use sojourn_proto::stored;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Decisions in one entry, at most.
const BATCH_DECISIONS: usize = 1_024;
/// Bytes in one entry, about.
const BATCH_BYTES: usize = 1 << 20;

/// A decision on its way to the log.
pub struct Proposal {
    /// The decision.
    pub decision: Arc<Decision>,
    /// Its stored bytes.
    pub bytes: Bytes,
}

/// Somebody who waits for a decision's fate.
struct Waiter {
    /// Who asked; nobody any more, once they were told that its fate is unknown.
    request: Option<Request>,
    /// Of whom it is.
    hash: u64,
    /// Repetitions, which share its fate.
    followers: Vec<Request>,
    /// Dropped, and so told, with this: actors that decide only when its fate is known.
    watched: Vec<oneshot::Sender<()>>,
    /// Requests that changed nothing and were decided on this decision: their answers leave when it is applied, and their
    /// term of office has confirmed them.
    after: Vec<(Request, Answer, Confirm)>,
    /// Its decision is in an entry that was given to the log.
    proposed: bool,
}

/// Answers once the term of office that decided it is confirmed; it may have ended.
fn answer_confirmed(request: Request, answer: Answer, confirm: &Confirm) {
    if !request.ask.is_from_outside() {
        return request.answer(answer);
    }
    if let Err(back) = confirm.send((request, answer)) {
        back.0.0.answer(Answer::NotOwner);
    }
}

/// Nobody learns what becomes of a decision; what was only answered behind it can be asked again.
fn answer_unknown(waiter: Waiter, why: &str) {
    for request in waiter.request.into_iter().chain(waiter.followers) {
        request.answer(Answer::Unknown(why.to_owned()));
    }
    for (request, ..) in waiter.after {
        request.answer(Answer::NotOwner);
    }
}

impl Waiter {
    fn all(self) -> impl Iterator<Item = Request> {
        let after = self.after.into_iter().map(|(request, ..)| request);
        let asked = self.request.into_iter().chain(self.followers);
        asked.chain(after)
    }
}

/// Decisions under way, by the epoch and the number of their entry.
type Entries = HashMap<(u64, u64), Vec<Arc<Decision>>>;

/// Those who wait, by the decision that they wait for.
#[derive(Default)]
struct Waiters {
    by_id: HashMap<DecisionId, Waiter>,
    /// Those of each customer's hash, in the order in which they were made.
    by_hash: HashMap<u64, Vec<DecisionId>>,
}

impl Waiters {
    fn insert(&mut self, id: DecisionId, waiter: Waiter) {
        self.by_hash.entry(waiter.hash).or_default().push(id);
        self.by_id.insert(id, waiter);
    }

    fn remove(&mut self, id: DecisionId) -> Option<Waiter> {
        let waiter = self.by_id.remove(&id)?;
        if let Entry::Occupied(mut of_hash) = self.by_hash.entry(waiter.hash) {
            of_hash.get_mut().retain(|other| *other != id);
            if of_hash.get().is_empty() {
                of_hash.remove();
            }
        }
        Some(waiter)
    }
}

/// What this process decided and has not seen applied.
#[derive(Default)]
pub struct Pending {
    entries: Mutex<Entries>,
    waiters: Mutex<Waiters>,
    /// Where requests go that must be decided again.
    again: Mutex<Option<mpsc::UnboundedSender<(DecisionId, Request)>>>,
}

impl Pending {
    /// Ignored decisions' requests go to `again`.
    pub fn decide_again_by(&self, again: mpsc::UnboundedSender<(DecisionId, Request)>) {
        *self.again.lock() = Some(again);
    }

    /// Registers who asked, before the decision is proposed.
    pub fn wait(&self, id: DecisionId, mut request: Request) {
        request.decided = true;
        let waiter = Waiter {
            hash: request.customer.hash,
            request: Some(request),
            followers: Vec::new(),
            watched: Vec::new(),
            after: Vec::new(),
            proposed: false,
        };
        self.waiters.lock().insert(id, waiter);
    }

    /// A repetition of a request in flight shares its fate; gives the request back when that is known already.
    pub fn follow(&self, id: DecisionId, mut request: Request) -> Result<(), Request> {
        match self.waiters.lock().by_id.get_mut(&id) {
            Some(waiter) => {
                request.decided = true;
                waiter.followers.push(request);
                Ok(())
            }
            None => Err(request),
        }
    }

    /// The last decision of a customer's hash whose fate is not known yet.
    pub fn last_of(&self, hash: u64) -> Option<DecisionId> {
        self.waiters.lock().by_hash.get(&hash)?.last().copied()
    }

    /// Ends when the fate of a decision is known, or nothing more is to be heard of it; `None` when that is so already.
    pub fn fate_of(&self, id: DecisionId) -> Option<oneshot::Receiver<()>> {
        let mut waiters = self.waiters.lock();
        let waiter = waiters.by_id.get_mut(&id)?;
        let (known, told) = oneshot::channel();
        waiter.watched.push(known);
        Some(told)
    }

    /// An answer that no decision carries, but that may have been decided on one in flight: it leaves when that is applied
    /// and the term of office that decided it is confirmed to last still. Else the request goes back: nothing was proposed.
    pub fn answer_after(
        &self,
        id: Option<DecisionId>,
        request: Request,
        answer: Answer,
        confirm: &Confirm,
    ) {
        let mut waiters = self.waiters.lock();
        match id.and_then(|id| waiters.by_id.get_mut(&id)) {
            Some(waiter) => waiter.after.push((request, answer, confirm.clone())),
            None => {
                drop(waiters);
                answer_confirmed(request, answer, confirm);
            }
        }
    }

    /// The decisions of an entry of ours, so that they need not be decoded.
    pub fn take_entry(&self, entry: &stored::Decisions) -> Option<Vec<Arc<Decision>>> {
        let mine = self.entries.lock().remove(&(entry.epoch, entry.entry))?;
        let same = mine.len() == entry.decisions.len()
            && mine.first().is_none_or(|d| d.id.node == entry.node);
        same.then_some(mine)
    }

    /// A decision was applied or ignored: answers whoever waits for it.
    pub fn resolve(&self, shard: u16, decision: &Arc<Decision>, verdict: Verdict) {
        let Some(waiter) = self.waiters.lock().remove(decision.id) else {
            return;
        };
        match verdict {
            Verdict::Applied { index, .. } => {
                let receipt = receipt::of(decision, shard, index);
                for follower in waiter.followers {
                    let differs = follower.content() != decision.content;
                    let again = receipt::duplicate(receipt.clone(), differs);
                    follower.answer(Answer::Receipt(again));
                }
                if let Some(request) = waiter.request {
                    request.answer(Answer::Receipt(receipt));
                }
                for (request, answer, confirm) in waiter.after {
                    answer_confirmed(request, answer, &confirm);
                }
            }
            Verdict::Ignored => {
                let again = self.again.lock().clone();
                for request in waiter.all() {
                    match &again {
                        Some(again) => {
                            if let Err(back) = again.send((decision.id, request)) {
                                back.0.1.answer(Answer::NotOwner);
                            }
                        }
                        None => request.answer(Answer::NotOwner),
                    }
                }
            }
        }
    }

    /// A state from another node has taken the place of this one's: what was proposed here may be in it, and is not seen
    /// being applied.
    pub fn overtaken(&self) {
        self.entries.lock().clear();
        let waiters = self.waiters.lock();
        let proposed = waiters.by_id.iter().filter(|(_, w)| w.proposed);
        let mut proposed: Vec<DecisionId> = proposed.map(|(id, _)| *id).collect();
        drop(waiters);
        proposed.sort_unstable();
        self.unknown(&proposed, "a later state came from another node");
    }

    fn mark_proposed(&self, ids: &[DecisionId]) {
        let mut waiters = self.waiters.lock();
        for id in ids {
            if let Some(waiter) = waiters.by_id.get_mut(id) {
                waiter.proposed = true;
            }
        }
    }

    /// The term of office has ended: what was not given to the log is known not to be applied; the rest is answered when it
    /// is applied, or once it is known to be lost; what is neither within the deadline is unknown.
    ///
    /// It is lost once an entry of a later leader is applied here. The leaders of a log's entries never go back: an entry of
    /// one leader follows none of a later one. Entries are applied in the order of the log, so behind that entry there is
    /// none of an earlier leader. And a decision in an entry of another leader than the one that decided it is ignored on
    /// every replica, so one that came into the log after its node had lost and regained the leadership is lost too. A
    /// state that came from another node proves nothing, for what was proposed may be in it; see
    /// [`Pending::overtaken`].
    pub fn abandon(self: &Arc<Self>, mut applied: watch::Receiver<Option<Position>>) {
        let mut waiters = self.waiters.lock();
        let ids = waiters.by_id.keys().copied();
        let (mut proposed, mut waiting): (Vec<DecisionId>, Vec<DecisionId>) =
            ids.partition(|id| waiters.by_id[id].proposed);
        // in one order in every run of a simulated world
        waiting.sort_unstable();
        let orphans: Vec<Waiter> = waiting
            .iter()
            .filter_map(|id| waiters.remove(*id))
            .collect();
        drop(waiters);
        for request in orphans.into_iter().flat_map(Waiter::all) {
            request.answer(Answer::NotOwner);
        }
        // an entry that is applied without them is decoded
        self.entries.lock().clear();
        proposed.sort_unstable();
        let Some(latest) = proposed.last().map(|id| (id.term, id.node)) else {
            return;
        };
        let pending = self.clone();
        tokio::spawn(async move {
            let later =
                move |at: &Option<Position>| at.is_some_and(|at| (at.term, at.node) > latest);
            let soon = tokio::time::timeout(crate::limits::DEADLINE, async {
                applied.wait_for(later).await.map(drop)
            });
            let lost = match soon.await {
                Ok(lost) => lost,
                Err(_) => {
                    pending.late(&proposed, "not applied before the term of office ended");
                    applied.wait_for(later).await.map(drop)
                }
            };
            match lost {
                Ok(()) => pending.not_owner(&proposed),
                Err(_) => pending.unknown(&proposed, "the shard closed before it was applied"),
            }
        });
    }

    /// Whether somebody waits for a decision.
    pub fn waits(&self, id: DecisionId) -> bool {
        self.waiters.lock().by_id.contains_key(&id)
    }

    /// Known not to be applied: whoever waits may try elsewhere.
    pub fn not_owner(&self, ids: &[DecisionId]) {
        for id in ids {
            let removed = self.waiters.lock().remove(*id);
            for request in removed.into_iter().flat_map(Waiter::all) {
                request.answer(Answer::NotOwner);
            }
        }
    }

    /// The fate of these stayed unknown until their deadline, and is waited for no more.
    fn unknown(&self, ids: &[DecisionId], why: &str) {
        for id in ids {
            let removed = self.waiters.lock().remove(*id);
            if let Some(waiter) = removed {
                answer_unknown(waiter, why);
            }
        }
    }

    /// The same, while this term of office lasts: they may still be applied, so whatever comes for their customers is decided
    /// only then, or when the term of office ends.
    fn late(&self, ids: &[DecisionId], why: &str) {
        for id in ids {
            let mut waiters = self.waiters.lock();
            let Some(waiter) = waiters.by_id.get_mut(id) else {
                continue;
            };
            let told = Waiter {
                request: waiter.request.take(),
                hash: waiter.hash,
                followers: std::mem::take(&mut waiter.followers),
                watched: Vec::new(),
                after: std::mem::take(&mut waiter.after),
                proposed: true,
            };
            drop(waiters);
            answer_unknown(told, why);
        }
    }
}

/// Proposes what it is given until the channel closes, or the group says that this node is not the owner. `stale` is told of customers whose pending state cannot be
/// trusted any more.
pub async fn run(
    group: Group,
    pending: Arc<Pending>,
    node: u64,
    epoch: u64,
    mut proposals: mpsc::UnboundedReceiver<Proposal>,
    stale: mpsc::UnboundedSender<(u64, DecisionId)>,
    (mut pace, deadline): (Pace, Duration),
) {
    let mut gathered: Vec<Proposal> = Vec::new();
    let mut entry = 0u64;
    loop {
        if gathered.is_empty() && proposals.recv_many(&mut gathered, BATCH_DECISIONS).await == 0 {
            return;
        }
        // customers that are deciding this very moment get into the same entry: an entry costs as much for one
        // decision as for many
        tokio::task::yield_now().await;
        while gathered.len() < BATCH_DECISIONS
            && let Ok(more) = proposals.try_recv()
        {
            gathered.push(more);
        }
        let mut bytes = 0;
        let fits = gathered
            .iter()
            .take_while(|p| {
                let first = bytes == 0;
                bytes += p.bytes.len();
                first || bytes <= BATCH_BYTES
            })
            .count();
        let batch: Vec<Proposal> = gathered.drain(..fits).collect();
        let ids: Vec<DecisionId> = batch.iter().map(|p| p.decision.id).collect();
        entry += 1;
        let message = stored::Decisions {
            decisions: batch.iter().map(|p| p.bytes.clone()).collect(),
            node,
            epoch,
            entry,
        };
        let decisions: Vec<Arc<Decision>> = batch.into_iter().map(|p| p.decision).collect();
        let hashes: Vec<(u64, DecisionId)> = decisions.iter().map(|d| (d.hash, d.id)).collect();
        pending.entries.lock().insert((epoch, entry), decisions);
        let body: Bytes = message.encode_to_vec().into();
        let until = Instant::now() + deadline;
        pending.mark_proposed(&ids);
        let begun = Instant::now();
        let outcome = group.propose(EntryKind::Decisions, body, until).await;
        pace.entry(begun.elapsed());
        let Err(error) = outcome else { continue };
        for decided in hashes {
            // the owner's loop may have ended: then every actor has
            let _ = stale.send(decided);
        }
        match error {
            ProposeError::NotOwner { .. }
            | ProposeError::TooLarge { .. }
            | ProposeError::Closed { .. } => {
                pending.entries.lock().remove(&(epoch, entry));
                tracing::warn!(%error, "an entry was not proposed");
                pending.not_owner(&ids);
                if matches!(error, ProposeError::NotOwner { .. }) {
                    // nor would the next be: what is decided now would only be refused
                    return;
                }
            }
            error => {
                tracing::warn!(%error, decisions = ids.len(), "the fate of an entry is unknown");
                // it may still be applied, and then its askers are answered by apply
                let (pending, why) = (pending.clone(), error.to_string());
                tokio::spawn(async move {
                    tokio::time::sleep_until(until).await;
                    pending.late(&ids, &why);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::{Ask, CustomerKey, Reply};
    use sojourn_journey::signal::Identifier;
    use tokio::sync::oneshot;

    fn asked(
        pending: &Pending,
        (term, node, counter): (u64, u64, u64),
    ) -> oneshot::Receiver<Answer> {
        let (tx, answer) = oneshot::channel();
        let key = Identifier {
            name: "id".into(),
            value: counter.to_string(),
        };
        let request = Request {
            customer: CustomerKey::new("default", key),
            ask: Arc::new(Ask::Leave),
            reply: Reply::once(tx),
            permit: None,
            decided: false,
        };
        let epoch = 7;
        let id = DecisionId {
            term,
            node,
            epoch,
            counter,
        };
        pending.wait(id, request);
        pending.mark_proposed(&[id]);
        answer
    }

    #[tokio::test]
    async fn an_entry_of_a_later_leader_ends_the_wait_for_those_of_earlier_ones() {
        let pending: Arc<Pending> = Arc::default();
        let at = |term, node, index| Some(Position { term, node, index });
        let (applied, seen) = watch::channel(at(3, 1, 10));
        let mut first = asked(&pending, (3, 1, 1));
        pending.abandon(seen.clone());
        applied.send_replace(at(3, 1, 11));
        tokio::task::yield_now().await;
        assert!(first.try_recv().is_err(), "its own leader");
        applied.send_replace(at(3, 2, 12));
        assert!(matches!(first.await, Ok(Answer::NotOwner)));
        let second = asked(&pending, (4, 1, 2));
        pending.abandon(seen);
        pending.overtaken();
        assert!(matches!(second.await, Ok(Answer::Unknown(_))));
    }
}
