//! The book of a lane: which signals wait, which are under way, and whose turn it is. Pure bookkeeping: knows no network
//! and no clock; the time is handed in.
//!
//! Of one customer at most one signal is under way; the next goes only when the earlier is answered. That is what keeps
//! their order when one of them is refused for overload, or sent again after a broken connection.

use crate::error::{Code, Error};
use crate::receipt::{Outcome, Receipt};
use prost::Message as _;
use sojourn_proto::v1;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Signals under way at once.
pub(crate) const WINDOW: usize = 1_024;
/// Bytes of signals under way at once; one signal may always go, however large.
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
}

struct Entry {
    workspace: Arc<str>,
    signal: v1::Signal,
    bytes: usize,
    customer: u64,
    deadline: Instant,
    /// `None`: the caller was answered "unknown" and the signal is still asked after.
    reply: Option<oneshot::Sender<Answer>>,
    state: State,
    attempts: u32,
    /// A server may have taken it, though none has said so.
    maybe: bool,
    last: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind an earlier signal of the same customer.
    Queued,
    /// In `ready`.
    Ready,
    /// Given to the connection.
    Sent,
    /// In `delayed`, until its pause is over.
    Pausing,
}

/// All signals that have no final answer yet.
#[derive(Default)]
pub(crate) struct Book {
    entries: HashMap<u64, Entry>,
    customers: HashMap<u64, VecDeque<u64>>,
    /// The earliest handed over goes first: whoever waits for answers in order waits least.
    ready: BinaryHeap<Reverse<u64>>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    next_number: u64,
    sent: usize,
    sent_bytes: usize,
    held_bytes: usize,
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
        if self.held_bytes >= QUEUE_BYTES {
            0
        } else {
            QUEUE.saturating_sub(self.entries.len())
        }
    }

    /// Whether no caller waits for an answer. Looks at every signal.
    pub fn is_idle(&self) -> bool {
        self.entries
            .values()
            .all(|e| e.reply.as_ref().is_none_or(oneshot::Sender::is_closed))
    }

    /// Whether a connection is needed: something waits to be sent.
    pub fn wants_connection(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes a signal in.
    pub fn add(&mut self, submit: Submit) {
        let number = self.next_number;
        self.next_number += 1;
        let customer = customer_hash(&submit.workspace, &submit.signal);
        let bytes = prost::Message::encoded_len(&submit.signal);
        let queue = self.customers.entry(customer).or_default();
        queue.push_back(number);
        let state = if queue.len() == 1 {
            State::Ready
        } else {
            State::Queued
        };
        if state == State::Ready {
            self.ready.push(Reverse(number));
        }
        self.deadlines.push(Reverse((submit.deadline, number)));
        self.held_bytes += bytes;
        self.entries.insert(
            number,
            Entry {
                workspace: submit.workspace,
                signal: submit.signal,
                bytes,
                customer,
                deadline: submit.deadline,
                reply: Some(submit.reply),
                state,
                attempts: 0,
                maybe: false,
                last: None,
            },
        );
    }

    /// The next signal to send, if one waits and the window has room.
    pub fn next(&mut self) -> Option<v1::StreamRequest> {
        loop {
            let Reverse(number) = *self.ready.peek()?;
            let Some(entry) = self
                .entries
                .get_mut(&number)
                .filter(|e| e.state == State::Ready)
            else {
                self.ready.pop();
                continue;
            };
            if self.sent >= WINDOW
                || (self.sent > 0 && self.sent_bytes + entry.bytes > WINDOW_BYTES)
            {
                return None;
            }
            self.ready.pop();
            entry.state = State::Sent;
            self.sent += 1;
            self.sent_bytes += entry.bytes;
            return Some(v1::StreamRequest {
                number,
                workspace: entry.workspace.to_string(),
                signal: entry.signal.encode_to_vec().into(),
            });
        }
    }

    /// A server answered signal `number`.
    pub fn answer(&mut self, number: u64, result: Option<v1::item_result::Result>, now: Instant) {
        // An answer to what is not under way: a late one of a signal that was given up.
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        if entry.state != State::Sent {
            return;
        }
        self.sent -= 1;
        self.sent_bytes -= entry.bytes;
        let error = match result {
            Some(v1::item_result::Result::Receipt(receipt)) => {
                self.trouble.set(None);
                self.finish(number, Ok(Outcome::Done(Receipt::of_wire(receipt))));
                return;
            }
            Some(v1::item_result::Result::Error(item)) => Error::of_item(&item),
            None => Error::new(
                Code::Internal,
                "the server sent an answer without a result; is it newer than this client?",
            )
            .unknown(),
        };
        entry.maybe |= error.is_unknown();
        if error.is_retryable() {
            let pause = pause(entry.attempts, error.retry_after());
            entry.attempts += 1;
            entry.state = State::Pausing;
            self.trouble.set(Some(error.clone()));
            entry.last = Some(error);
            self.delayed.push(Reverse((now + pause, number)));
        } else if entry.maybe {
            // an earlier attempt may have been taken, whatever this one met
            self.finish(number, Ok(Outcome::Unknown(error.unknown())));
        } else {
            self.finish(number, Ok(Outcome::Refused(error)));
        }
    }

    /// The connection broke: what was under way may or may not have been taken, and is sent again, in the old order.
    pub fn broke(&mut self) {
        for (number, entry) in &mut self.entries {
            if entry.state == State::Sent {
                entry.state = State::Ready;
                entry.maybe = true;
                self.ready.push(Reverse(*number));
            }
        }
        self.sent = 0;
        self.sent_bytes = 0;
    }

    /// No connection, and none will come: everything is answered with this error.
    pub fn give_up(&mut self, error: &Error) {
        let mut numbers: Vec<u64> = self.entries.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let maybe = self
                .entries
                .get(&number)
                .is_some_and(|e| e.maybe || e.state == State::Sent);
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
                .is_some_and(|e| e.state == State::Pausing);
            if pausing && due > now {
                break;
            }
            self.delayed.pop();
            if pausing {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.state = State::Ready;
                }
                self.ready.push(Reverse(number));
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
        match (first(&self.delayed), first(&self.deadlines)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The deadline of a signal has passed.
    fn expire(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let sent = entry.state == State::Sent;
        if entry.reply.is_none() || !(entry.maybe || sent) {
            // a ghost whose time is over, or a signal that no server has seen: known not to have happened
            if sent {
                self.sent -= 1;
                self.sent_bytes -= entry.bytes;
            }
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
                .map(|queue| queue.iter().copied().filter(|n| *n != number).collect())
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
        self.held_bytes -= entry.bytes;
        if let Some(queue) = self.customers.get_mut(&entry.customer) {
            queue.retain(|n| *n != number);
            match queue.front() {
                None => {
                    self.customers.remove(&entry.customer);
                }
                Some(next) => {
                    if let Some(follower) = self.entries.get_mut(next)
                        && follower.state == State::Queued
                    {
                        follower.state = State::Ready;
                        self.ready.push(Reverse(*next));
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
    let mut hasher = std::hash::DefaultHasher::new();
    workspace.hash(&mut hasher);
    if let Some(key) = signal.identifiers.first() {
        key.name.hash(&mut hasher);
        // the server normalises values; folding here joins all that it may join
        key.value.trim().to_lowercase().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
