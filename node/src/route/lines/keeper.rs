//! Keeps the lines: sees who owns each shard, sends what may go, takes answers, and answers what has waited too long.

use super::{Event, Handed, Item, Lines, RETRY_AFTER};
use crate::actors::{Answer, Ask, CustomerKey, Refusal, Reply};
use crate::core::submit_here;
use crate::place::topology::{Owner, Topology};
use crate::route::lane;
use crate::route::ways::Ways;
use crate::rpc::errors::{self, Moved, NOT_OWNER};
use prost::Message;
use sojourn_cluster::NodeId;
use sojourn_proto::v1;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A line that could not go on is looked at again after this long; sooner when an owner changes.
const AGAIN: Duration = Duration::from_millis(20);
/// What waits for an answer no longer than this is not sent any more.
const LAST_MOMENT: Duration = Duration::from_millis(10);
/// What is taken from a channel at once.
const AT_ONCE: usize = 256;

/// The signals of one customer, in order.
#[derive(Default)]
struct Line {
    items: VecDeque<Item>,
    under_way: usize,
    /// Those under way are on this node.
    here: bool,
    /// One of them came back: nothing goes until all have.
    came_back: bool,
    /// Something of the customer was left behind on this node when it was looked last.
    left_behind: bool,
    /// Nothing goes before this.
    pause: Option<Instant>,
}

struct Lane {
    address: String,
    signals: mpsc::UnboundedSender<v1::StreamRequest>,
    /// With the lane its stream ends: what waits for it comes back.
    _carries: DropGuard,
}

/// Keeps the lines of a node.
pub struct Keeper {
    lines: Arc<Lines>,
    topology: Arc<Topology>,
    ways: Arc<Ways>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Of signals that were handed to their customer on this node.
    answers: mpsc::UnboundedSender<(u64, Answer)>,
    answered: mpsc::UnboundedReceiver<(u64, Answer)>,
    customers: HashMap<Arc<CustomerKey>, Line>,
    numbers: HashMap<u64, Arc<CustomerKey>>,
    deadlines: BTreeSet<(Instant, u64)>,
    paused: HashSet<Arc<CustomerKey>>,
    lanes: HashMap<NodeId, Lane>,
}

impl Keeper {
    /// The keeper of these lines.
    pub fn new(
        lines: Arc<Lines>,
        handed: Handed,
        topology: Arc<Topology>,
        ways: Arc<Ways>,
    ) -> Keeper {
        let (answers, answered) = mpsc::unbounded_channel();
        Keeper {
            lines,
            topology,
            ways,
            events: handed.0,
            answers,
            answered,
            customers: HashMap::new(),
            numbers: HashMap::new(),
            deadlines: BTreeSet::new(),
            paused: HashSet::new(),
            lanes: HashMap::new(),
        }
    }

    /// Keeps them until the node stops; what waits is answered then.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut version = self.topology.version();
        let mut events = Vec::with_capacity(AT_ONCE);
        let mut answers = Vec::with_capacity(AT_ONCE);
        let mut look: Option<Instant> = None;
        loop {
            if self.paused.is_empty() {
                look = None;
            } else if look.is_none() {
                look = Some(Instant::now() + AGAIN);
            }
            let deadline = self.deadlines.first().map(|(until, _)| *until);
            let wake = look.into_iter().chain(deadline).min();
            tokio::select! {
                _ = self.events.recv_many(&mut events, AT_ONCE) => {
                    for event in events.drain(..) {
                        self.take(event);
                    }
                }
                _ = self.answered.recv_many(&mut answers, AT_ONCE) => {
                    for (number, answer) in answers.drain(..) {
                        self.answered(number, answer);
                    }
                }
                changed = version.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.leave_lost();
                    self.go_on_with_all(true);
                }
                () = sleep_until(wake) => {
                    look = None;
                    self.expire();
                    self.go_on_with_all(false);
                }
                () = stop.cancelled() => break,
            }
        }
        for line in std::mem::take(&mut self.customers).into_values() {
            for item in line.items {
                let answer = match item.under_way || item.maybe {
                    true => Answer::Unknown("this node stops".into()),
                    false => Answer::NotOwner,
                };
                self.lines.answer(item, answer);
            }
        }
    }

    /// Nodes that cannot be reached are not waited for: others may own their shards soon.
    fn leave_lost(&mut self) {
        if self.lanes.is_empty() {
            return;
        }
        let heard = self.topology.heard();
        let is_lost = |node: &NodeId| heard.get(node).is_some_and(|h| h.why.is_some());
        self.lanes.retain(|node, _| !is_lost(node));
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Handed(item) => {
                let customer = item.customer.clone();
                self.numbers.insert(item.number, customer.clone());
                self.deadlines.insert((item.until, item.number));
                let line = self.customers.entry(customer.clone()).or_default();
                if item.came_back {
                    line.came_back = true;
                    line.pause = Some(Instant::now() + AGAIN);
                }
                // one that comes back was before what came meanwhile
                let at = line.items.partition_point(|i| i.number < item.number);
                line.items.insert(at, item);
                self.go_on(&customer);
            }
            Event::Acks(acks) => {
                for ack in acks {
                    let answer = match ack.result.and_then(|r| r.result) {
                        Some(v1::item_result::Result::Receipt(receipt)) => Answer::Receipt(receipt),
                        Some(v1::item_result::Result::Error(error)) => answer_of(error),
                        None => Answer::Unknown("the owner's answer says nothing".into()),
                    };
                    self.answered(ack.number, answer);
                }
            }
            Event::Broken {
                why,
                unknown,
                unsent,
            } => {
                tracing::debug!(why, unknown = unknown.len(), unsent = unsent.len());
                for number in unknown {
                    if let Some(item) = self.item(number) {
                        item.maybe = true;
                    }
                    self.answered(number, Answer::NotOwner);
                }
                for number in unsent {
                    self.answered(number, Answer::NotOwner);
                }
            }
        }
    }

    fn item(&mut self, number: u64) -> Option<&mut Item> {
        let line = self.customers.get_mut(self.numbers.get(&number)?)?;
        let at = line.items.binary_search_by_key(&number, |i| i.number);
        line.items.get_mut(at.ok()?)
    }

    /// One that was under way is answered, or comes back.
    fn answered(&mut self, number: u64, answer: Answer) {
        // an answer to one that is not waited for any more
        let Some(customer) = self.numbers.get(&number).cloned() else {
            return;
        };
        let Some(line) = self.customers.get_mut(&customer) else {
            return;
        };
        let Ok(at) = line.items.binary_search_by_key(&number, |i| i.number) else {
            return;
        };
        let Some(item) = line.items.get_mut(at).filter(|i| i.under_way) else {
            return;
        };
        line.under_way -= 1;
        item.under_way = false;
        let again = match &answer {
            Answer::NotOwner => Some(AGAIN),
            Answer::Overloaded { retry_after, .. } if waits(&answer, &item.reply) => {
                Some(*retry_after)
            }
            _ => None,
        };
        match again {
            Some(pause) if Instant::now() < item.until => {
                line.came_back = true;
                line.pause = Some(Instant::now() + pause);
                self.paused.insert(customer.clone());
            }
            _ => {
                if let Some(item) = line.items.remove(at) {
                    self.close(item, answer);
                }
            }
        }
        self.go_on(&customer);
    }

    fn close(&mut self, item: Item, answer: Answer) {
        self.numbers.remove(&item.number);
        self.deadlines.remove(&(item.until, item.number));
        let answer = match answer {
            Answer::Receipt(_) | Answer::Unknown(_) => answer,
            // whatever a later attempt met
            _ if item.maybe => {
                Answer::Unknown("the way to the owner broke before it answered".into())
            }
            Answer::NotOwner => self.nowhere(&item.customer),
            other => other,
        };
        self.lines.answer(item, answer);
    }

    /// Nothing was done, and who owns the shard now, as far as is known.
    fn nowhere(&self, customer: &CustomerKey) -> Answer {
        let shard = self.lines.shards.of(customer.hash);
        let owner = match self.topology.owner(shard) {
            Owner::There(node) => Some(node),
            Owner::Here(_) | Owner::Unknown => None,
        };
        let moved = Moved {
            shard: Some(shard),
            owner,
            address: owner.and_then(|node| self.ways.address(node)),
        };
        Answer::Told(errors::item_error(&errors::not_owner(&moved)))
    }

    /// Answers what has waited too long.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((until, number)) = self.deadlines.first().copied() {
            if until > now {
                return;
            }
            self.deadlines.pop_first();
            let Some(customer) = self.numbers.get(&number).cloned() else {
                continue;
            };
            let Some(line) = self.customers.get_mut(&customer) else {
                continue;
            };
            let Ok(at) = line.items.binary_search_by_key(&number, |i| i.number) else {
                continue;
            };
            if let Some(item) = line.items.remove(at) {
                let answer = if item.under_way {
                    line.under_way -= 1;
                    Answer::Unknown("the owner has not answered within the deadline".into())
                } else {
                    Answer::NotOwner
                };
                self.close(item, answer);
            }
            self.go_on(&customer);
        }
    }

    fn go_on_with_all(&mut self, at_once: bool) {
        for customer in std::mem::take(&mut self.paused) {
            if at_once && let Some(line) = self.customers.get_mut(&customer) {
                line.pause = None;
            }
            self.go_on(&customer);
        }
    }

    fn go_on(&mut self, customer: &Arc<CustomerKey>) {
        let Some(mut line) = self.customers.remove(customer) else {
            return;
        };
        self.send_what_may_go(customer, &mut line);
        if line.items.is_empty() {
            self.paused.remove(customer);
            return;
        }
        if line.pause.is_some() {
            self.paused.insert(customer.clone());
        }
        self.customers.insert(customer.clone(), line);
    }

    fn send_what_may_go(&mut self, customer: &Arc<CustomerKey>, line: &mut Line) {
        let now = Instant::now();
        if line.pause.is_some_and(|until| until > now) {
            return;
        }
        line.pause = None;
        if line.under_way > 0 && (!line.here || line.came_back) {
            return;
        }
        let next = line.items.iter().find(|item| !item.under_way);
        // one whose time is over in a moment could only become unknown
        if next.is_none_or(|item| item.until <= now + LAST_MOMENT) {
            return;
        }
        let again = Some(now + AGAIN);
        let shard = self.lines.shards.of(customer.hash);
        let left_behind = self.lines.shards.local(shard);
        let left_behind = left_behind.is_some_and(|shard| shard.live.is_left_behind(customer));
        // what was left behind comes back a moment before it counts as such no more, and may not have been taken yet
        if left_behind || line.left_behind {
            line.left_behind = left_behind;
            line.pause = again;
            return;
        }
        match self.topology.owner(shard) {
            Owner::Here(_) => self.send_here(customer, line),
            Owner::There(node) if line.under_way == 0 => {
                line.came_back = false;
                line.here = false;
                let sent = line.items.front_mut().is_some_and(|item| {
                    let lane = lane_to(
                        &mut self.lanes,
                        &self.ways,
                        &self.lines,
                        &self.topology,
                        node,
                    );
                    item.under_way = lane.is_some_and(|lane| lane.send(frame(item)).is_ok());
                    item.under_way
                });
                if sent {
                    line.under_way = 1;
                } else {
                    self.lanes.remove(&node);
                    line.pause = again;
                }
            }
            Owner::There(_) => {}
            Owner::Unknown => line.pause = again,
        }
    }

    /// Hands to the customer on this node all that waits, in order.
    fn send_here(&mut self, customer: &Arc<CustomerKey>, line: &mut Line) {
        if line.under_way == 0 {
            line.came_back = false;
            line.here = true;
        }
        let mut at = 0;
        while let Some(item) = line.items.get_mut(at) {
            if item.under_way {
                at += 1;
                continue;
            }
            let reply = Reply::stream(item.number, self.answers.clone(), None);
            let (who, ask) = (CustomerKey::clone(customer), item.ask.clone());
            let handed = submit_here(&self.lines.shards, &self.lines.disk_full, who, ask, reply);
            let Err(Refusal { reply, answer, .. }) = handed else {
                item.under_way = true;
                line.under_way += 1;
                at += 1;
                continue;
            };
            reply.withdraw();
            if matches!(answer, Answer::NotOwner) || waits(&answer, &item.reply) {
                line.pause = Some(Instant::now() + AGAIN);
                return;
            }
            if let Some(item) = line.items.remove(at) {
                self.close(item, answer);
            }
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Whether one that is refused so waits for its turn instead.
fn waits(answer: &Answer, reply: &Reply) -> bool {
    const OF_TURNS: [&str; 3] = ["overloaded_customer", "overloaded_shard", "overloaded_node"];
    let Answer::Overloaded { cause, .. } = answer else {
        return false;
    };
    reply.waits_its_turn() && OF_TURNS.contains(cause)
}

/// What another node's error says to a line.
fn answer_of(error: v1::ItemError) -> Answer {
    if error.cause == NOT_OWNER {
        return Answer::NotOwner;
    }
    let cause = match error.cause.as_str() {
        "overloaded_customer" => "overloaded_customer",
        "overloaded_shard" => "overloaded_shard",
        "overloaded_node" => "overloaded_node",
        _ => return Answer::Told(error),
    };
    let millis = u64::try_from(error.retry_after_ms).unwrap_or(0);
    Answer::Overloaded {
        cause,
        retry_after: Duration::from_millis(millis).max(RETRY_AFTER),
    }
}

/// A signal as it goes to another node.
fn frame(item: &Item) -> v1::StreamRequest {
    let signal = match &*item.ask {
        Ask::Signal { sent, .. } => sent.encode_to_vec().into(),
        // only signals are handed to the lines
        Ask::Command { .. }
        | Ask::Timer { .. }
        | Ask::ActionResult { .. }
        | Ask::Release { .. }
        | Ask::Leave => bytes::Bytes::new(),
    };
    v1::StreamRequest {
        number: item.number,
        workspace: item.customer.workspace.to_string(),
        signal,
    }
}

fn lane_to<'a>(
    lanes: &'a mut HashMap<NodeId, Lane>,
    ways: &Ways,
    lines: &Lines,
    topology: &Topology,
    node: NodeId,
) -> Option<&'a mpsc::UnboundedSender<v1::StreamRequest>> {
    let way = match ways.to(node) {
        Ok(way) => way,
        Err(why) => {
            tracing::debug!(node, why, "signals wait");
            return None;
        }
    };
    if lanes
        .get(&node)
        .is_none_or(|lane| lane.address != way.address)
    {
        let (signals, waiting) = mpsc::unbounded_channel();
        let address = way.address.clone();
        let given_up = CancellationToken::new();
        let lane = lane::run(
            topology.me,
            way,
            waiting,
            lines.events.clone(),
            given_up.clone(),
        );
        tokio::spawn(lane);
        let lane = Lane {
            address,
            signals,
            _carries: given_up.drop_guard(),
        };
        lanes.insert(node, lane);
    }
    lanes.get(&node).map(|lane| &lane.signals)
}
