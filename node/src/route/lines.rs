//! Signals that cannot be decided on this node at once: they wait for the owner of their shard, or for its answer from
//! another node, in one line per customer.
//!
//! Of one customer one signal at a time goes to another node: were the second taken after the first was refused, their
//! order would be lost. On this node they may follow one another at once, for one actor takes them in order; if one comes
//! back, the line waits until all have. One that another node may have got when the way to it broke is sent again, with the
//! same id, before any later one: that is safe, for a signal that was decided is answered with its first receipt. It is
//! *unknown* only when its deadline passes like that.
//!
//! It does not know what a signal means, nor how it travels.

mod keeper;

pub use keeper::Keeper;

use crate::actors::{Answer, Ask, Back, CustomerKey, Refusal, Reply, TakeBack};
use crate::core::submit_here;
use crate::limits;
use crate::place::shards::Shards;
use parking_lot::Mutex;
use prost::Message;
use sojourn_proto::v1;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// A full limit is worth another try after this long.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// What happens to the lines.
pub(super) enum Event {
    /// A signal is handed over to them.
    Handed(Item),
    /// Another node answers.
    Acks(Vec<v1::Ack>),
    /// A stream broke.
    Broken {
        /// Where, and why.
        why: String,
        /// Signals that the other node may have.
        unknown: HashSet<u64>,
        /// Signals that it cannot have.
        unsent: HashSet<u64>,
    },
}

/// One signal.
pub(super) struct Item {
    number: u64,
    customer: Arc<CustomerKey>,
    ask: Arc<Ask>,
    reply: Reply,
    until: Instant,
    bytes: usize,
    /// It is with somebody who will answer.
    under_way: bool,
    /// Another node may have decided it and has not said so.
    maybe: bool,
    /// It was with its customer on this node before; others may come back behind it that were before it.
    came_back: bool,
}

/// What the lines hold, by number and bytes.
#[derive(Default)]
struct Held {
    signals: usize,
    bytes: usize,
    /// By the hash of the customer.
    customers: HashMap<u64, usize>,
}

/// The way of signals through this node: at once to their customer here, else into the lines.
pub struct Lines {
    shards: Arc<Shards>,
    disk_full: Arc<AtomicBool>,
    /// By shard: signals in the lines. While there are none, nothing can be overtaken, and nobody needs to look who it is.
    waiting: Vec<AtomicUsize>,
    numbers: AtomicU64,
    held: Mutex<Held>,
    freed: Notify,
    events: mpsc::UnboundedSender<Event>,
}

impl Lines {
    /// Empty lines, and what [`Keeper`] keeps them with.
    pub fn new(shards: Arc<Shards>, disk_full: Arc<AtomicBool>) -> (Arc<Lines>, Handed) {
        let (events, handed) = mpsc::unbounded_channel();
        let count = usize::from(shards.count());
        let lines = Lines {
            shards,
            disk_full,
            waiting: std::iter::repeat_with(AtomicUsize::default)
                .take(count)
                .collect(),
            numbers: AtomicU64::new(1),
            held: Mutex::default(),
            freed: Notify::new(),
            events,
        };
        (Arc::new(lines), Handed(handed))
    }

    /// How many signals wait in the lines.
    pub fn count(&self) -> usize {
        self.held.lock().signals
    }

    /// Waits until one of them is answered after this future is first polled (or `enable`d).
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// Sends a signal to its customer, wherever that one is decided, in the order of the calls. While nobody owns the
    /// shard it waits until `until`, and is answered `NotOwner` then. Refused at once when too much is under way.
    pub fn submit(
        self: &Arc<Self>,
        customer: CustomerKey,
        ask: Arc<Ask>,
        reply: Reply,
        until: Instant,
    ) -> Result<(), Refusal> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let to: Weak<Lines> = Arc::downgrade(self);
        let back = Back { to, number, until };
        let reply = reply.returning(Some(back));
        let refusal = if self.waits_of(customer.hash) {
            let answer = Answer::NotOwner;
            Refusal {
                customer,
                ask,
                reply,
                answer,
            }
        } else {
            match submit_here(&self.shards, &self.disk_full, customer, ask, reply) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            }
        };
        if !matches!(refusal.answer, Answer::NotOwner) {
            return Err(refusal);
        }
        let bytes = bytes_of(&refusal.ask);
        if let Err(cause) = self.hold(refusal.customer.hash, bytes, false) {
            let answer = Answer::Overloaded {
                cause,
                retry_after: RETRY_AFTER,
            };
            return Err(Refusal { answer, ..refusal });
        }
        self.hand_over(refusal, number, until, bytes, false);
        Ok(())
    }

    fn waits_of(&self, hash: u64) -> bool {
        let shard = usize::from(self.shards.of(hash));
        let waiting = self.waiting.get(shard);
        waiting.is_some_and(|n| n.load(Ordering::Acquire) > 0)
            // only of the same customer something can be overtaken: were all of the shard to wait behind these, the lines
            // would not be empty again before a moment without load
            && self.held.lock().customers.contains_key(&hash)
    }

    fn hold(&self, customer: u64, bytes: usize, all_the_same: bool) -> Result<(), &'static str> {
        let mut held = self.held.lock();
        let full = held.signals >= limits::IN_FLIGHT_HOP
            || (held.signals > 0 && held.bytes + bytes > limits::HOP_BYTES);
        let of_customer = held.customers.entry(customer).or_default();
        if !all_the_same && *of_customer >= limits::IN_FLIGHT_CUSTOMER {
            return Err("overloaded_customer");
        }
        if !all_the_same && full {
            if *of_customer == 0 {
                held.customers.remove(&customer);
            }
            return Err("overloaded_hop");
        }
        *of_customer += 1;
        held.signals += 1;
        held.bytes += bytes;
        Ok(())
    }

    fn hand_over(
        &self,
        request: Refusal,
        number: u64,
        until: Instant,
        bytes: usize,
        came_back: bool,
    ) {
        let Refusal {
            customer,
            ask,
            reply,
            ..
        } = request;
        if let Some(waiting) = self.waiting.get(usize::from(self.shards.of(customer.hash))) {
            waiting.fetch_add(1, Ordering::AcqRel);
        }
        let item = Item {
            number,
            customer: Arc::new(customer),
            ask,
            reply: reply.returning(None),
            until,
            bytes,
            under_way: false,
            maybe: false,
            came_back,
        };
        // without a keeper the node stops: what is dropped answers *unknown*, and is
        let _ = self.events.send(Event::Handed(item));
    }

    /// Answers a signal and lets its room go.
    fn answer(&self, item: Item, answer: Answer) {
        {
            let mut held = self.held.lock();
            held.signals = held.signals.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(item.bytes);
            if let Some(n) = held.customers.get_mut(&item.customer.hash) {
                *n = n.saturating_sub(1);
                if *n == 0 {
                    held.customers.remove(&item.customer.hash);
                }
            }
        }
        let shard = usize::from(self.shards.of(item.customer.hash));
        item.reply.give(answer);
        if let Some(waiting) = self.waiting.get(shard) {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
        self.freed.notify_waiters();
    }
}

impl TakeBack for Lines {
    fn take_back(&self, request: Refusal, number: u64, until: Instant) {
        let bytes = bytes_of(&request.ask);
        // it had its place before
        let _ = self.hold(request.customer.hash, bytes, true);
        self.hand_over(request, number, until, bytes, true);
    }
}

/// What was handed over, for the keeper.
pub struct Handed(mpsc::UnboundedReceiver<Event>);

fn bytes_of(ask: &Ask) -> usize {
    match ask {
        Ask::Signal { sent, .. } => sent.encoded_len(),
        Ask::Command { .. }
        | Ask::Timer { .. }
        | Ask::ActionResult { .. }
        | Ask::Release { .. }
        | Ask::Leave => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sojourn_journey::signal::Identifier;

    #[test]
    fn only_who_is_in_the_lines_is_waited_for() {
        let shards = Arc::new(Shards::new(1));
        let (lines, _handed) = Lines::new(shards, Arc::default());
        let key = |value: &str| {
            let name = "id".to_owned();
            let value = value.to_owned();
            CustomerKey::new("default", Identifier { name, value })
        };
        let (first, other) = (key("first"), key("other"));
        assert!(!lines.waits_of(first.hash));
        let back = Refusal {
            customer: first.clone(),
            ask: Arc::new(Ask::Leave),
            reply: Reply::nobody(),
            answer: Answer::NotOwner,
        };
        lines.take_back(back, 1, Instant::now());
        assert!(lines.waits_of(first.hash));
        assert!(!lines.waits_of(other.hash), "of the same shard");
    }
}
