//! The customers that are awake on the owner of a shard: who they are, and how a request reaches them in order.

use super::customer::CustomerActor;
use super::shard::ShardMsg;
use super::{Answer, Ask, CustomerKey, Gauge, Permit, Refusal, Reply, Request};
use crate::clock::Clock;
use crate::limits;
use crate::shard::confirm::Confirm;
use crate::shard::customer::DecisionId;
use crate::shard::proposer::Proposal;
use parking_lot::Mutex;
use ractor::{ActorId, ActorRef};
use sojourn_journey::time::Time;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// One term of office of the owner, in this process.
pub struct Session {
    /// The leader's term.
    pub term: u64,
    /// This node.
    pub node: u64,
    /// When it began, microseconds: never twice the same in one term.
    pub epoch: u64,
    /// Where decisions go.
    pub proposals: mpsc::UnboundedSender<Proposal>,
    /// Where answers go that no decision carries.
    pub confirm: Confirm,
    /// The actor that wakes customers.
    pub shard: ActorRef<ShardMsg>,
    counter: AtomicU64,
    wall: Clock,
    clock: AtomicI64,
}

impl Session {
    /// A new term of office. Its clock begins at its epoch, which is after the shard's last `at`: what it decides, once
    /// applied, keeps the epoch from being used again.
    pub fn new(
        (term, node, epoch): (u64, u64, u64),
        (proposals, confirm): (mpsc::UnboundedSender<Proposal>, Confirm),
        shard: ActorRef<ShardMsg>,
        wall: Clock,
    ) -> Session {
        Session {
            term,
            node,
            epoch,
            proposals,
            confirm,
            shard,
            counter: AtomicU64::new(0),
            wall,
            clock: AtomicI64::new(i64::try_from(epoch).unwrap_or(i64::MAX)),
        }
    }

    /// The next decision's id.
    pub fn next_id(&self) -> DecisionId {
        DecisionId {
            term: self.term,
            node: self.node,
            epoch: self.epoch,
            counter: self.counter.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// How many ids it has given.
    fn given(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// The larger of the wall clock and the shard's last `at`.
    pub fn at(&self) -> Time {
        let wall = self.wall.now().0;
        Time(wall.max(self.clock.fetch_max(wall, Ordering::AcqRel)))
    }
}

enum State {
    /// Being woken; what came meanwhile, in order.
    Waking(Vec<Request>),
    Awake(ActorRef<Request>),
}

struct Entry {
    gauge: Arc<Gauge>,
    state: State,
    used: Instant,
    /// How many ids had been given when it was made: what it decides has a later one.
    since: u64,
}

/// The awake customers of one shard.
pub struct Live {
    node_gauge: Arc<Gauge>,
    shard_gauge: Arc<Gauge>,
    inner: Mutex<Inner>,
}

/// A customer's key brings its hash along.
type ByHash = BuildHasherDefault<TakeHash>;

/// Takes the one 64-bit number that it is given as the hash.
#[derive(Default)]
struct TakeHash(u64);

impl Hasher for TakeHash {
    fn finish(&self) -> u64 {
        // the high bits of keys of one shard are alike, and the map looks at the highest
        self.0.rotate_left(32)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

#[derive(Default)]
struct Inner {
    session: Option<Arc<Session>>,
    customers: HashMap<CustomerKey, Entry, ByHash>,
    by_actor: HashMap<ActorId, CustomerKey>,
    /// Customers of whom something was under way when its term of office ended, or their actor was stopped.
    left: HashMap<CustomerKey, Arc<Gauge>, ByHash>,
}

impl Inner {
    /// Whether something of a customer is still under way with an actor that is no more: nothing may overtake it.
    fn is_left_behind(&mut self, customer: &CustomerKey) -> bool {
        if self.left.is_empty() {
            return false;
        }
        let busy = self.left.get(customer).is_some_and(|g| g.count() > 0);
        if !busy {
            self.left.remove(customer);
        }
        busy
    }
}

impl Live {
    /// Nobody awake, no owner.
    pub fn new(node_gauge: Arc<Gauge>) -> Live {
        Live {
            node_gauge,
            shard_gauge: Arc::default(),
            inner: Mutex::default(),
        }
    }

    /// Begins or ends a term of office. Customers of the one before are forgotten; their actors stop with the shard's.
    pub fn set_session(&self, session: Option<Arc<Session>>) {
        let mut inner = self.inner.lock();
        let mut old = std::mem::take(&mut *inner);
        inner.session = session;
        inner.left = std::mem::take(&mut old.left);
        inner.left.retain(|_, gauge| gauge.count() > 0);
        let busy = old.customers.iter().filter(|(_, e)| e.gauge.count() > 0);
        for (customer, entry) in busy {
            inner.left.insert(customer.clone(), entry.gauge.clone());
        }
        drop(inner);
        for (_, entry) in old.customers {
            if let State::Waking(requests) = entry.state {
                requests
                    .into_iter()
                    .for_each(|r| r.answer(Answer::NotOwner));
            }
        }
    }

    /// The term of office, while this node owns the shard.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.inner.lock().session.clone()
    }

    /// Sends a request to its customer, waking it if need be. Refused at once, with the reply given back, when too
    /// much is under way or this node does not own the shard.
    pub fn submit(
        &self,
        customer: CustomerKey,
        ask: Arc<Ask>,
        reply: Reply,
    ) -> Result<(), Refusal> {
        self.send(customer, ask, reply, true)
    }

    /// The same for what comes from inside (timers, results): not counted against the limits.
    pub fn submit_inner(
        &self,
        customer: CustomerKey,
        ask: Arc<Ask>,
        reply: Reply,
    ) -> Result<(), Refusal> {
        self.send(customer, ask, reply, false)
    }

    fn send(
        &self,
        customer: CustomerKey,
        ask: Arc<Ask>,
        reply: Reply,
        counted: bool,
    ) -> Result<(), Refusal> {
        let refusal = |customer, reply, answer| Refusal {
            customer,
            ask: ask.clone(),
            reply,
            answer,
        };
        let mut inner = self.inner.lock();
        let Some(session) = inner.session.clone() else {
            return Err(refusal(customer, reply, Answer::NotOwner));
        };
        if counted && inner.is_left_behind(&customer) {
            return Err(refusal(customer, reply, Answer::NotOwner));
        }
        let known = inner.customers.get(&customer);
        let gauge = known.map_or_else(Arc::default, |e| e.gauge.clone());
        let permit = if counted {
            match Permit::take(&self.node_gauge, &self.shard_gauge, &gauge) {
                Ok(permit) => Some(permit),
                Err(cause) => {
                    let retry_after = Duration::from_millis(20);
                    let answer = Answer::Overloaded { cause, retry_after };
                    return Err(refusal(customer, reply, answer));
                }
            }
        } else {
            None
        };
        let request = Request {
            customer,
            ask,
            reply,
            permit,
            decided: false,
        };
        self.pass(&mut inner, &session, gauge, request);
        Ok(())
    }

    /// Whether something of a customer is still under way with an actor that is no more.
    pub fn is_left_behind(&self, customer: &CustomerKey) -> bool {
        self.inner.lock().is_left_behind(customer)
    }

    /// Decides a request again that was ignored.
    pub fn again(&self, mut request: Request) {
        // known not to be applied
        request.decided = false;
        let mut inner = self.inner.lock();
        let Some(session) = inner.session.clone() else {
            drop(inner);
            return request.answer(Answer::NotOwner);
        };
        let known = inner.customers.get(&request.customer);
        let gauge = known.map_or_else(Arc::default, |e| e.gauge.clone());
        self.pass(&mut inner, &session, gauge, request);
    }

    fn pass(&self, inner: &mut Inner, session: &Session, gauge: Arc<Gauge>, request: Request) {
        let customer = request.customer.clone();
        match inner.customers.get_mut(&customer) {
            Some(entry) => {
                entry.used = Instant::now();
                match &mut entry.state {
                    State::Waking(requests) => requests.push(request),
                    // one that has stopped drops the request, which answers *unknown*
                    State::Awake(actor) => drop(actor.cast(request)),
                }
            }
            None => {
                let entry = Entry {
                    gauge,
                    state: State::Waking(vec![request]),
                    used: Instant::now(),
                    since: session.given(),
                };
                inner.customers.insert(customer.clone(), entry);
                // a shard's actor that has stopped takes the session with it
                let _ = session.shard.cast(ShardMsg::Wake(customer));
            }
        }
    }

    /// A customer is awake: hands over what came meanwhile, in order.
    pub fn awake(&self, customer: &CustomerKey, actor: ActorRef<Request>) {
        let mut inner = self.inner.lock();
        inner.by_actor.insert(actor.get_id(), customer.clone());
        let Some(entry) = inner.customers.get_mut(customer) else {
            // the term of office ended meanwhile
            actor.stop(None);
            return;
        };
        if let State::Waking(requests) =
            std::mem::replace(&mut entry.state, State::Awake(actor.clone()))
        {
            for request in requests {
                let _ = actor.cast(request);
            }
        }
    }

    /// A customer cannot be woken: whoever waits for it gets this answer.
    pub fn cannot_wake(&self, customer: &CustomerKey, answer: &Answer) {
        let Some(entry) = self.inner.lock().customers.remove(customer) else {
            // the term of office ended meanwhile
            return;
        };
        if let State::Waking(requests) = entry.state {
            for request in requests {
                request.answer(answer.clone());
            }
        }
    }

    /// A customer's actor has stopped by itself: the next request wakes a new one.
    pub fn gone(&self, actor: ActorId) {
        let mut inner = self.inner.lock();
        let Some(customer) = inner.by_actor.remove(&actor) else {
            return;
        };
        let mine = matches!(
            inner.customers.get(&customer),
            Some(Entry { state: State::Awake(now), .. }) if now.get_id() == actor
        );
        if mine {
            inner.customers.remove(&customer);
        }
    }

    /// Stops the customers of a hash that decided this, which was not applied: their pending state cannot be trusted. The
    /// next request wakes new ones from what is committed. Those that were woken since then stay.
    pub fn distrust(&self, hash: u64, decided: DecisionId) {
        let mut inner = self.inner.lock();
        let session = inner.session.as_ref();
        if session.is_none_or(|s| s.epoch != decided.epoch) {
            return;
        }
        let stale: Vec<CustomerKey> = inner
            .customers
            .iter()
            .filter(|(key, entry)| key.hash == hash && entry.since < decided.counter)
            .filter(|(_, entry)| matches!(entry.state, State::Awake(_)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in stale {
            if let Some(Entry {
                state: State::Awake(actor),
                gauge,
                ..
            }) = inner.customers.remove(&key)
            {
                inner.by_actor.remove(&actor.get_id());
                // what waits with it goes back only when it has ended: what comes until then must wait behind that
                if gauge.count() > 0 {
                    inner.left.insert(key, gauge);
                }
                actor.stop(None);
            }
        }
    }

    /// Passivates who has been idle since before `since`, and the longest idle beyond `keep`. Returns how many
    /// stay awake.
    pub fn passivate(&self, since: Instant, keep: usize) -> usize {
        let mut inner = self.inner.lock();
        let mut idle: Vec<(Instant, CustomerKey)> = inner
            .customers
            .iter()
            .filter(|(_, e)| matches!(e.state, State::Awake(_)) && e.gauge.count() == 0)
            .map(|(key, e)| (e.used, key.clone()))
            .collect();
        idle.sort_by_key(|(used, _)| *used);
        let beyond = inner.customers.len().saturating_sub(keep);
        for (i, (used, key)) in idle.into_iter().enumerate() {
            if used > since && i >= beyond {
                break;
            }
            if let Some(Entry {
                state: State::Awake(actor),
                ..
            }) = inner.customers.remove(&key)
            {
                inner.by_actor.remove(&actor.get_id());
                // after everything that was sent before, for sends happen under this lock
                let _ = actor.drain();
            }
        }
        inner.left.retain(|_, gauge| gauge.count() > 0);
        inner.customers.len()
    }

    /// How many customers are awake.
    pub fn count(&self) -> usize {
        self.inner.lock().customers.len()
    }

    /// What is under way in this shard.
    pub fn gauge(&self) -> Arc<Gauge> {
        self.shard_gauge.clone()
    }

    /// All that a request of this customer counts against.
    pub fn gauges(&self, customer: &CustomerKey) -> Vec<Arc<Gauge>> {
        let inner = self.inner.lock();
        let own = inner.customers.get(customer).map(|e| e.gauge.clone());
        let shared = [self.node_gauge.clone(), self.shard_gauge.clone()];
        shared.into_iter().chain(own).collect()
    }
}

/// So that the type of a customer's actor is named in one place.
pub type CustomerRef = ActorRef<<CustomerActor as ractor::Actor>::Msg>;

/// Room for the in-flight limits to be told apart from the idle time.
pub const PASSIVATE_EVERY: Duration = Duration::from_secs(5);

/// Since when an actor counts as idle.
pub fn idle_since(now: Instant) -> Instant {
    now.checked_sub(limits::IDLE).unwrap_or(now)
}
