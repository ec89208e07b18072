//! The supervision tree: [`node`] → [`shard`] → [`customer`] → [`execution`], and what they are asked.
//!
//! ractor's mailboxes are unbounded, so a [`Permit`] is taken before anything is sent to them.

pub mod customer;
pub mod execution;
pub mod live;
pub mod node;
pub mod shard;

use sojourn_journey::decide::{AttemptResult, Command};
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_proto::v1;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

/// Which execution, within one customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutionKey {
    /// The journey.
    pub journey: String,
    /// The instance key.
    pub instance: Option<String>,
    /// The run.
    pub run: u32,
}

/// One input for one customer, with whoever asked.
pub struct Request {
    /// The customer.
    pub customer: CustomerKey,
    /// What is asked.
    pub ask: Arc<Ask>,
    /// Who is to be answered.
    pub reply: Reply,
    /// Held until the answer is given.
    pub permit: Option<Permit>,
    /// It was decided on, and may be proposed: who drops it from then on does not know what became of it.
    pub decided: bool,
}

impl Drop for Request {
    fn drop(&mut self) {
        // the actor that had it stopped before it decided; one that panicked would do so again
        let nothing_done = !self.decided && !std::thread::panicking();
        if nothing_done && self.reply.to.is_some() && !self.go_back() {
            self.reply.give_once(Answer::NotOwner);
        }
    }
}

/// Which customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerKey {
    /// See [`sojourn_journey::identifier::customer_hash`].
    pub hash: u64,
    /// The workspace.
    pub workspace: Arc<str>,
    /// The customer key.
    pub key: Identifier,
}

impl std::hash::Hash for CustomerKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl CustomerKey {
    /// The key of a customer.
    pub fn new(workspace: &str, key: Identifier) -> CustomerKey {
        CustomerKey {
            hash: sojourn_journey::identifier::customer_hash(workspace, &key),
            workspace: workspace.into(),
            key,
        }
    }
}

/// Everything that can be asked of a customer.
#[derive(Debug)]
pub enum Ask {
    /// A signal: as the rules see it, and as it was sent.
    Signal {
        /// For the rules.
        signal: Box<Signal>,
        /// For the record.
        sent: Box<v1::Signal>,
        /// Hash of its content.
        content: u64,
    },
    /// A command of an operator.
    Command {
        /// The execution; run 0: the latest of this journey and instance.
        execution: ExecutionKey,
        /// The command.
        command: Box<Command>,
        /// Hash of its content.
        content: u64,
    },
    /// A timer came due.
    Timer {
        /// The execution.
        execution: ExecutionKey,
        /// The timer's visit.
        visit: u32,
        /// Its place.
        place: String,
        /// Its round.
        round: u32,
    },
    /// An attempt at an action ended.
    ActionResult {
        /// The execution.
        execution: ExecutionKey,
        /// The action's number.
        action: u64,
        /// Which attempt.
        attempt: u32,
        /// How it ended.
        result: AttemptResult,
    },
    /// A hold has ended: what waits is taken, one at a time.
    Release {
        /// The execution.
        execution: ExecutionKey,
    },
    /// Nothing of theirs has been active for long: they may leave memory.
    Leave,
}

impl Ask {
    /// Somebody outside waits for the answer, and takes it as what is true now.
    pub fn is_from_outside(&self) -> bool {
        match self {
            Ask::Signal { .. } | Ask::Command { .. } => true,
            Ask::Timer { .. } | Ask::ActionResult { .. } | Ask::Release { .. } | Ask::Leave => {
                false
            }
        }
    }

    /// Hash of the content, by which a repeated id with other content is told.
    pub fn content(&self) -> u64 {
        match self {
            Ask::Signal { content, .. } | Ask::Command { content, .. } => *content,
            Ask::Timer { .. } | Ask::ActionResult { .. } | Ask::Release { .. } | Ask::Leave => 0,
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Applied: what became of it.
    Receipt(v1::Receipt),
    /// A command that cannot be done, with the reason.
    Refused(String),
    /// No such execution.
    NotFound(String),
    /// This node does not own the shard; known not to have been proposed.
    NotOwner,
    /// It may or may not be applied.
    Unknown(String),
    /// Too much is under way.
    Overloaded {
        /// A word for programs.
        cause: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// Our bug; says where.
    Internal(String),
    /// What another node answered instead of a receipt, as it said it.
    Told(v1::ItemError),
}

/// A request that was not taken: known not to be proposed.
pub struct Refusal {
    /// The customer.
    pub customer: CustomerKey,
    /// What was asked.
    pub ask: Arc<Ask>,
    /// Who is to be answered.
    pub reply: Reply,
    /// Why it was not taken.
    pub answer: Answer,
}

/// Takes requests back that turn out not to be proposed, though they were taken: their shard has another owner now.
pub trait TakeBack: Send + Sync {
    /// The request, and what it was handed over with.
    fn take_back(&self, request: Refusal, number: u64, until: Instant);
}

/// To whom a request goes back.
#[derive(Clone)]
pub struct Back {
    /// Whoever takes it. Not kept by it: what waits in a node that has stopped would keep the node's files open.
    pub to: Weak<dyn TakeBack>,
    /// Its place in the order of what came through the door.
    pub number: u64,
    /// Until when it can wait for an owner.
    pub until: Instant,
}

/// Where an answer goes. One that is dropped unanswered (an actor stopped) answers *unknown* by itself.
pub struct Reply {
    to: Option<ReplyTo>,
    back: Option<Back>,
}

enum ReplyTo {
    Once(oneshot::Sender<Answer>),
    /// The place is let go with the answer.
    Stream(
        u64,
        mpsc::UnboundedSender<(u64, Answer)>,
        Option<OwnedSemaphorePermit>,
    ),
}

impl Reply {
    /// To one who waits.
    pub fn once(tx: oneshot::Sender<Answer>) -> Reply {
        Reply::to(ReplyTo::Once(tx))
    }

    fn to(to: ReplyTo) -> Reply {
        Reply {
            to: Some(to),
            back: None,
        }
    }

    /// To a stream, under the client's number; `place` is the room that the signal takes in the stream's window.
    pub fn stream(
        number: u64,
        tx: mpsc::UnboundedSender<(u64, Answer)>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Reply {
        Reply::to(ReplyTo::Stream(number, tx, place))
    }

    /// To nobody.
    pub fn nobody() -> Reply {
        Reply {
            to: None,
            back: None,
        }
    }

    /// The same, for a request that goes back instead of being answered that there is another owner.
    pub fn returning(mut self, back: Option<Back>) -> Reply {
        self.back = back;
        self
    }

    /// Whether it is one of several that wait for their turn rather than be refused.
    pub fn waits_its_turn(&self) -> bool {
        matches!(self.to, Some(ReplyTo::Stream(..)))
    }

    /// Answers nothing: somebody else does.
    pub fn withdraw(mut self) {
        self.to = None;
    }

    /// Gives an answer to a request that was not taken.
    pub fn give(mut self, answer: Answer) {
        self.give_once(answer);
    }

    fn give_once(&mut self, answer: Answer) {
        match self.to.take() {
            // whoever asked may be gone
            Some(ReplyTo::Once(tx)) => drop(tx.send(answer)),
            Some(ReplyTo::Stream(number, tx, _place)) => drop(tx.send((number, answer))),
            None => {}
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.give_once(Answer::Unknown(
            "the actor that decided it stopped; send the same id again".into(),
        ));
    }
}

impl Request {
    /// Gives the answer and lets the permit go.
    pub fn answer(mut self, answer: Answer) {
        if !matches!(answer, Answer::NotOwner) || !self.go_back() {
            self.reply.give_once(answer);
        }
    }

    /// Goes back to where it can wait for an owner; says whether there is such a place.
    fn go_back(&mut self) -> bool {
        let Some(Back { to, number, until }) = self.reply.back.take() else {
            return false;
        };
        let Some(to) = to.upgrade() else {
            return false;
        };
        // while it is held, nothing of the customer overtakes what was left behind: so not let go before it waits elsewhere
        let permit = self.permit.take();
        let request = Refusal {
            customer: self.customer.clone(),
            ask: self.ask.clone(),
            reply: std::mem::replace(&mut self.reply, Reply::nobody()),
            answer: Answer::NotOwner,
        };
        to.take_back(request, number, until);
        drop(permit);
        true
    }

    /// Hash of the content.
    pub fn content(&self) -> u64 {
        self.ask.content()
    }
}

/// Counts what is under way, and tells when there is less of it.
#[derive(Debug, Default)]
pub struct Gauge {
    count: AtomicUsize,
    /// A limit below the one that has a name; 0: none.
    limit: AtomicUsize,
    freed: Notify,
}

impl Gauge {
    /// How many are under way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until something ends after this future is first polled (or `enable`d).
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// From now on so many may be under way, if that is less than the limit that has a name. What is under way stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many may be under way, if that is less than the limit that has a name.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    fn try_take(&self, limit: usize) -> bool {
        let limit = match self.limit() {
            0 => limit,
            less => less.min(limit),
        };
        let taken = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| {
                (n < limit).then_some(n + 1)
            });
        taken.is_ok()
    }

    fn release(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.freed.notify_waiters();
    }
}

/// A place among what is under way: in the node, the shard, the customer.
#[derive(Debug)]
pub struct Permit {
    gauges: [Arc<Gauge>; 3],
}

impl Permit {
    /// Takes a place in all three, or names the one that is full.
    pub fn take(
        node: &Arc<Gauge>,
        shard: &Arc<Gauge>,
        customer: &Arc<Gauge>,
    ) -> Result<Permit, &'static str> {
        use crate::limits::{IN_FLIGHT_CUSTOMER, IN_FLIGHT_NODE, IN_FLIGHT_SHARD};
        let wanted = [
            (node, IN_FLIGHT_NODE, "overloaded_node"),
            (shard, IN_FLIGHT_SHARD, "overloaded_shard"),
            (customer, IN_FLIGHT_CUSTOMER, "overloaded_customer"),
        ];
        for (i, (gauge, limit, cause)) in wanted.iter().enumerate() {
            if !gauge.try_take(*limit) {
                // without a word: nothing has ended, and one who waits for that would be woken by its own try, for ever
                for (taken, ..) in &wanted[..i] {
                    taken.count.fetch_sub(1, Ordering::AcqRel);
                }
                return Err(cause);
            }
        }
        Ok(Permit {
            gauges: wanted.map(|(gauge, ..)| gauge.clone()),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for gauge in &self.gauges {
            gauge.release();
        }
    }
}
