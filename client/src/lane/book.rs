//! The book of a lane: which signals wait, which are under way, and whose turn it is. Pure bookkeeping: knows no network
//! and no clock; the time is handed in.
//!
//! Of one customer at most one signal is under way, whichever node it was given to; the next goes only when the earlier
//! is answered. That is what keeps their order when one of them is refused for overload, sent again after a broken
//! connection, or asked of another node because its shard has moved.

use super::routes::{LinkId, Routes};
use crate::error::{Code, Error};
use crate::receipt::{Outcome, Receipt};
use crate::topology;
use prost::Message as _;
use sojourn_proto::v1;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Signals under way at once on one link.
pub(crate) const WINDOW: usize = 1_024;
/// Bytes of signals under way at once on one link; one signal may always go, however large.
pub(crate) const WINDOW_BYTES: usize = 4 << 20;
/// Signals taken from callers and not yet answered; beyond it callers wait.
pub(crate) const QUEUE: usize = 16_384;
/// Bytes of them.
pub(crate) const QUEUE_BYTES: usize = 64 << 20;
/// How long a signal whose caller was told "unknown" is asked after.
pub(crate) const GHOST: Duration = Duration::from_secs(60);
/// The first pause before a signal is sent again; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a link may be mute about a signal before another is asked, where there is one; it doubles with each time.
pub(crate) const TRY: Duration = Duration::from_secs(2);
/// How often it is looked whether a link is mute; and how long one may be mute that would not be chosen now, because its
/// shard has another owner.
const TRY_LOOK: Duration = Duration::from_millis(500);

/// The last trouble of a lane, for all who look; none since the last answer.
#[derive(Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<Error>>>);

impl Trouble {
    pub fn set(&self, error: Option<Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub fn get(&self) -> Option<Error> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What a caller gets.
pub(crate) type Answer = Result<Outcome, Error>;

/// A signal as a caller hands it in.
pub(crate) struct Submit {
    pub workspace: Arc<str>,
    pub signal: v1::Signal,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Answer>,
    /// The room that it takes among the bytes that callers may have handed over; let go with its final answer.
    pub room: Option<OwnedSemaphorePermit>,
}

struct Entry {
    workspace: Arc<str>,
    signal: v1::Signal,
    bytes: usize,
    /// Its place among those of the cluster, and whose turn it takes.
    customer: u64,
    deadline: Instant,
    /// `None`: the caller was answered "unknown" and the signal is still asked after.
    reply: Option<oneshot::Sender<Answer>>,
    state: State,
    attempts: u32,
    /// How often a link was mute about it.
    mute: u32,
    /// Who could not take it: another is asked, where there is one.
    avoid: Option<LinkId>,
    /// A server may have taken it, though none has said so.
    maybe: bool,
    last: Option<Error>,
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind an earlier signal of the same customer.
    Queued,
    /// In `ready` under this link, or in `homeless` while no link is open.
    Ready(Option<LinkId>),
    /// Given to this link then.
    Sent(LinkId, Instant),
    /// In `delayed`, until its pause is over then.
    Pausing(Instant),
}

/// What is under way on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    signals: usize,
    bytes: usize,
}

/// All signals that have no final answer yet.
#[derive(Default)]
pub(crate) struct Book {
    entries: HashMap<u64, Entry>,
    customers: HashMap<u64, VecDeque<u64>>,
    routes: Routes,
    /// By link. The earliest handed over goes first: whoever waits for answers in order waits least.
    ready: HashMap<LinkId, BinaryHeap<Reverse<u64>>>,
    /// Ready, and no link is open. Like those of `ready`, a number may be there that is ready no more.
    homeless: Vec<u64>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    next_number: u64,
    sent: HashMap<LinkId, Load>,
    look_at: Option<Instant>,
    /// Why signals wait: there is no connection, or the server has too much to do. For those who ask while they wait.
    pub trouble: Trouble,
}

impl Book {
    /// An empty book that tells its trouble there.
    pub fn new(trouble: Trouble) -> Book {
        Book {
            trouble,
            ..Book::default()
        }
    }

    /// How many more signals may be taken from callers.
    pub fn room(&self) -> usize {
        QUEUE.saturating_sub(self.entries.len())
    }

    /// Whether no caller waits for an answer. Looks at every signal.
    pub fn is_idle(&self) -> bool {
        self.entries
            .values()
            .all(|e| e.reply.as_ref().is_none_or(oneshot::Sender::is_closed))
    }

    /// Whether a connection is needed: something has no final answer yet.
    pub fn wants_connection(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Whether nothing is under way on a link.
    pub fn is_calm(&self, link: LinkId) -> bool {
        self.sent.get(&link).is_none_or(|load| load.signals == 0)
    }

    /// Which link a signal goes to has changed: those that are ready change over, and those that pause because who was
    /// asked could not take them go at once where there is somebody new to ask.
    pub fn set_routes(&mut self, routes: Routes) {
        if routes == self.routes {
            return;
        }
        let before = std::mem::replace(&mut self.routes, routes);
        let moved = self.entries.iter().filter(|(_, e)| {
            matches!(e.state, State::Pausing(_))
                && e.avoid.is_some()
                && before.link(e.customer, None) != self.routes.link(e.customer, None)
        });
        let moved: Vec<u64> = moved.map(|(number, _)| *number).collect();
        for number in moved {
            self.make_ready(number);
        }
        let waiting = std::mem::take(&mut self.ready).into_values();
        let mut numbers: Vec<u64> = waiting.flatten().map(|Reverse(number)| number).collect();
        numbers.append(&mut self.homeless);
        for number in numbers {
            if matches!(self.entries.get(&number), Some(e) if matches!(e.state, State::Ready(_))) {
                self.make_ready(number);
            }
        }
    }

    /// It is its turn: it goes to the link of its customer, once that has room.
    fn make_ready(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let link = self.routes.link(entry.customer, entry.avoid);
        entry.state = State::Ready(link);
        match link {
            Some(link) => self.ready.entry(link).or_default().push(Reverse(number)),
            None => self.homeless.push(number),
        }
    }

    /// It is not under way any more on the link that it was given to.
    fn take_back(&mut self, number: u64) {
        if let Some(entry) = self.entries.get(&number)
            && let State::Sent(link, _) = entry.state
            && let Some(load) = self.sent.get_mut(&link)
        {
            load.signals -= 1;
            load.bytes -= entry.bytes;
        }
    }

    /// Takes a signal in.
    pub fn add(&mut self, submit: Submit) {
        let number = self.next_number;
        self.next_number += 1;
        let customer = customer_hash(&submit.workspace, &submit.signal);
        let bytes = prost::Message::encoded_len(&submit.signal);
        let queue = self.customers.entry(customer).or_default();
        queue.push_back(number);
        let first = queue.len() == 1;
        self.deadlines.push(Reverse((submit.deadline, number)));
        self.entries.insert(
            number,
            Entry {
                workspace: submit.workspace,
                signal: submit.signal,
                bytes,
                customer,
                deadline: submit.deadline,
                reply: Some(submit.reply),
                state: State::Queued,
                attempts: 0,
                mute: 0,
                avoid: None,
                maybe: false,
                last: None,
                _room: submit.room,
            },
        );
        if first {
            self.make_ready(number);
        }
    }

    /// The next signal to send on a link, if one waits for it and its window has room.
    pub fn next(&mut self, link: LinkId, now: Instant) -> Option<v1::StreamRequest> {
        let ready = self.ready.get_mut(&link)?;
        let load = self.sent.entry(link).or_default();
        loop {
            let Reverse(number) = *ready.peek()?;
            let Some(entry) = self
                .entries
                .get_mut(&number)
                .filter(|e| e.state == State::Ready(Some(link)))
            else {
                ready.pop();
                continue;
            };
            if load.signals >= WINDOW
                || (load.signals > 0 && load.bytes + entry.bytes > WINDOW_BYTES)
            {
                return None;
            }
            ready.pop();
            entry.state = State::Sent(link, now);
            load.signals += 1;
            load.bytes += entry.bytes;
            if self.look_at.is_none() && self.routes.has_choice() {
                self.look_at = Some(now + TRY_LOOK);
            }
            return Some(v1::StreamRequest {
                number,
                workspace: entry.workspace.to_string(),
                signal: entry.signal.encode_to_vec().into(),
            });
        }
    }

    /// The node at the end of a link answered signal `number`.
    pub fn answer(
        &mut self,
        link: LinkId,
        number: u64,
        result: Option<v1::item_result::Result>,
        now: Instant,
    ) {
        // An answer to what is not under way: a late one of a signal that was given up.
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let expected = matches!(entry.state, State::Sent(to, _) if to == link);
        if !expected && !entry.maybe {
            return;
        }
        let error = match result {
            Some(v1::item_result::Result::Receipt(receipt)) => {
                // a receipt ends it whoever gives it: also a link that was thought mute
                self.take_back(number);
                self.trouble.set(None);
                self.finish(number, Ok(Outcome::Done(Receipt::of_wire(receipt))));
                return;
            }
            // any other late answer is about an attempt that another has followed
            _ if !expected => return,
            Some(v1::item_result::Result::Error(item)) => Error::of_item(&item),
            None => Error::new(
                Code::Internal,
                "the server sent an answer without a result; is it newer than this client?",
            )
            .unknown(),
        };
        entry.maybe |= error.is_unknown();
        let maybe = entry.maybe;
        if error.is_retryable() {
            let pause = pause(entry.attempts, error.retry_after());
            entry.attempts += 1;
            // who has no owner to hand it to may have been told of one too late: another is asked. Who has too much to
            // do is asked again.
            entry.avoid = (error.code() == Code::Unreachable).then_some(link);
            self.trouble.set(Some(error.clone()));
            entry.last = Some(error);
            self.take_back(number);
            self.delay(number, now + pause);
        } else {
            self.take_back(number);
            // an earlier attempt may have been taken, whatever this one met
            let outcome = if maybe {
                Outcome::Unknown(error.unknown())
            } else {
                Outcome::Refused(error)
            };
            self.finish(number, Ok(outcome));
        }
    }

    fn delay(&mut self, number: u64, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.state = State::Pausing(until);
            self.delayed.push(Reverse((until, number)));
        }
    }

    /// A link broke: what was under way on it may or may not have been taken, and is sent again, in the old order.
    pub fn broke(&mut self, link: LinkId) {
        self.sent.remove(&link);
        let lost: Vec<u64> = self
            .entries
            .iter_mut()
            .filter(|(_, e)| matches!(e.state, State::Sent(to, _) if to == link))
            .map(|(number, entry)| {
                entry.maybe = true;
                *number
            })
            .collect();
        for number in lost {
            self.make_ready(number);
        }
    }

    /// Signals that a link has been mute about for too long are asked of another, where there is one: it may hang, or
    /// be cut off from the others.
    fn ask_others(&mut self, now: Instant) {
        let mut mute = Vec::new();
        for (number, entry) in &mut self.entries {
            let State::Sent(link, since) = entry.state else {
                continue;
            };
            let moved = self.routes.link(entry.customer, entry.avoid) != Some(link);
            let patience = if moved {
                TRY_LOOK
            } else {
                TRY.saturating_mul(1 << entry.mute.min(5))
            };
            if now >= since + patience {
                entry.maybe = true;
                entry.mute += 1;
                entry.avoid = Some(link);
                mute.push(*number);
            }
        }
        for number in mute {
            self.take_back(number);
            self.make_ready(number);
        }
    }

    /// No connection, and none will come: everything is answered with this error.
    pub fn give_up(&mut self, error: &Error) {
        let mut numbers: Vec<u64> = self.entries.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let maybe = self
                .entries
                .get(&number)
                .is_some_and(|e| e.maybe || matches!(e.state, State::Sent(..)));
            self.take_back(number);
            let answer = if maybe {
                Ok(Outcome::Unknown(error.clone().unknown()))
            } else {
                Err(error.clone())
            };
            self.remove_and_answer(number, answer);
        }
    }

    /// What is due now: pauses that are over, deadlines that have passed.
    pub fn tick(&mut self, now: Instant) {
        while let Some(Reverse((due, number))) = self.delayed.peek().copied() {
            let pausing = self
                .entries
                .get(&number)
                .is_some_and(|e| e.state == State::Pausing(due));
            if pausing && due > now {
                break;
            }
            self.delayed.pop();
            if pausing {
                self.make_ready(number);
            }
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            if self.routes.has_choice() {
                self.ask_others(now);
                let under_way = self.sent.values().any(|load| load.signals > 0);
                self.look_at = under_way.then(|| now + TRY_LOOK);
            }
        }
        while let Some(Reverse((due, number))) = self.deadlines.peek().copied() {
            let live = self.entries.get(&number).is_some_and(|e| e.deadline == due);
            if live && due > now {
                break;
            }
            self.deadlines.pop();
            if live {
                self.expire(number);
            }
        }
    }

    /// When [`Book::tick`] has something to do next.
    pub fn wake(&self) -> Option<Instant> {
        let first =
            |heap: &BinaryHeap<Reverse<(Instant, u64)>>| heap.peek().map(|Reverse((due, _))| *due);
        let heaps = [first(&self.delayed), first(&self.deadlines), self.look_at];
        heaps.into_iter().flatten().min()
    }

    /// The deadline of a signal has passed.
    fn expire(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let sent = matches!(entry.state, State::Sent(..));
        if entry.reply.is_none() || !(entry.maybe || sent) {
            // a ghost whose time is over, or a signal that no server has seen: known not to have happened
            self.take_back(number);
            let error = self.not_sent(number);
            self.finish(number, Err(error));
            return;
        }
        let error = entry
            .last
            .take()
            .or_else(|| self.trouble.get())
            .map_or_else(
                || Error::new(Code::Deadline, "no answer came in time"),
                |last| {
                    Error::new(
                        Code::Deadline,
                        format!("no answer came in time; last: {last}"),
                    )
                },
            );
        entry.maybe = true;
        entry.deadline += GHOST;
        self.deadlines.push(Reverse((entry.deadline, number)));
        if let Some(reply) = entry.reply.take() {
            // a caller that has gone needs no answer
            let _ = reply.send(Ok(Outcome::Unknown(error.unknown())));
        }
    }

    /// Why a signal that no server has taken was given up.
    fn not_sent(&self, number: u64) -> Error {
        let entry = self.entries.get(&number);
        if let Some(last) = entry.and_then(|e| e.last.clone()) {
            return last;
        }
        if let Some(trouble) = self.trouble.get() {
            return trouble;
        }
        let behind = entry.is_some_and(|e| e.state == State::Queued);
        let why = if behind {
            "it was not sent in time: an earlier signal of the same customer has no answer yet"
        } else {
            "it was not sent in time: too many signals are under way; send fewer at once or allow a longer deadline"
        };
        Error::new(Code::Overloaded, why)
    }

    /// The final answer. After one that says what became of it the next signal of the customer may go. After one that
    /// does not, those behind it are given up too: they were to happen after it.
    fn finish(&mut self, number: u64, answer: Answer) {
        if answer.is_err()
            && let Some(entry) = self.entries.get(&number)
        {
            let behind: Vec<u64> = self
                .customers
                .get(&entry.customer)
                .map(|queue| {
                    // whoever has a longer deadline may stand before it, and be under way
                    let from = queue.iter().copied().skip_while(|n| *n != number);
                    from.skip(1).collect()
                })
                .unwrap_or_default();
            for follower in behind {
                let error = Error::new(
                    Code::Overloaded,
                    "it was not sent: an earlier signal of the same customer was not taken",
                );
                self.remove_and_answer(follower, Err(error));
            }
        }
        self.remove_and_answer(number, answer);
    }

    fn remove_and_answer(&mut self, number: u64, answer: Answer) {
        if let Some(reply) = self.remove(number) {
            // a caller that has gone needs no answer
            let _ = reply.send(answer);
        }
    }

    fn remove(&mut self, number: u64) -> Option<oneshot::Sender<Answer>> {
        let entry = self.entries.remove(&number)?;
        if let Some(queue) = self.customers.get_mut(&entry.customer) {
            queue.retain(|n| *n != number);
            match queue.front() {
                None => {
                    self.customers.remove(&entry.customer);
                }
                Some(next) => {
                    let next = *next;
                    if matches!(self.entries.get(&next), Some(e) if e.state == State::Queued) {
                        self.make_ready(next);
                    }
                }
            }
        }
        entry.reply
    }
}

/// Growing, with jitter, and never shorter than the server asked for.
pub(crate) fn pause(attempts: u32, asked: Option<Duration>) -> Duration {
    let full = PAUSE_FIRST
        .saturating_mul(1 << attempts.min(10))
        .min(PAUSE_MAX);
    let jitter = full.mul_f64(rand::random_range(0.5..1.0));
    asked.unwrap_or_default() + jitter
}

/// Which customer a signal is of. Two customers with one hash merely wait for each other.
fn customer_hash(workspace: &str, signal: &v1::Signal) -> u64 {
    use std::hash::{Hash, Hasher};
    let key = signal.identifiers.first();
    if let Some(place) = key.and_then(|k| topology::place(workspace, &k.name, &k.value)) {
        return place;
    }
    // it will be refused wherever it goes; until then it takes its turn
    let mut hasher = std::hash::DefaultHasher::new();
    key.map(|k| (&k.name, &k.value)).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
