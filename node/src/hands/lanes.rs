//! The attempts of one shard, by endpoint (or by kind, where there is none): some are under way, some wait with what they
//! will send, and beyond those only the customers who owe them are remembered. First come, first served.
//!
//! It makes no attempt and knows no state: it says who goes next. What an endpoint lets through is said by
//! [`super::gate`], for all shards together.

use super::attempt::Attempt;
use super::gate::Behind;
use crate::actors::CustomerKey;
use sojourn_journey::event::Action;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Attempts under way at once in one lane: one that hangs holds up nobody else.
pub const RUNNING: usize = 16;
/// Attempts that wait in one lane with what they will send (at most 64 KiB each); beyond, customers do, eight bytes each.
pub const WAITING: usize = 1_024;

/// The workspace, and the kind with the endpoint.
pub type LaneKey = (Arc<str>, String);

/// The lane of an action.
pub fn lane_of(who: &CustomerKey, action: &Action) -> LaneKey {
    let endpoint = format!("{} {}", action.kind, action.to);
    (who.workspace.clone(), endpoint)
}

/// What becomes of an attempt that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It begins.
    Begins,
    /// It waits: it is to be given to [`Lanes::wait`].
    Waits,
    /// Its customer is remembered, and comes out of [`Lanes::next`].
    Parked,
}

/// All lanes of a shard.
#[derive(Default)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    /// Those in which customers are parked.
    parking: BTreeSet<LaneKey>,
    /// The one whose parked customers are looked at: they go before everybody else.
    filling: Option<LaneKey>,
}

#[derive(Default)]
struct Lane {
    running: usize,
    waiting: VecDeque<(Attempt, Option<Behind>)>,
    parked: VecDeque<(u64, Option<Behind>)>,
    is_parked: HashSet<u64>,
}

impl Lane {
    fn has_room(&self) -> bool {
        self.running < RUNNING || self.waiting.len() < WAITING
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty() && self.parked.is_empty()
    }
}

impl Lanes {
    /// An attempt of the customer of a hash is due. `behind` counts it while it is parked.
    pub fn enter(
        &mut self,
        key: &LaneKey,
        hash: u64,
        behind: impl FnOnce() -> Option<Behind>,
    ) -> Entered {
        let filling = self.filling.as_ref() == Some(key);
        let lane = self.lanes.entry(key.clone()).or_default();
        if !lane.has_room() || !(filling || lane.parked.is_empty()) {
            if lane.is_parked.insert(hash) {
                lane.parked.push_back((hash, behind()));
            }
            self.parking.insert(key.clone());
            return Entered::Parked;
        }
        if lane.running >= RUNNING {
            return Entered::Waits;
        }
        lane.running += 1;
        Entered::Begins
    }

    /// Takes an attempt that waits; `behind` counts it meanwhile.
    pub fn wait(&mut self, key: &LaneKey, attempt: Attempt, behind: Option<Behind>) {
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.waiting.push_back((attempt, behind));
    }

    /// An attempt has ended; gives the one that begins in its place.
    pub fn ended(&mut self, key: &LaneKey) -> Option<Attempt> {
        let lane = self.lanes.get_mut(key)?;
        if let Some((next, _)) = lane.waiting.pop_front() {
            return Some(next);
        }
        lane.running = lane.running.saturating_sub(1);
        self.sweep(key);
        None
    }

    /// The lanes in which customers are parked.
    pub fn crowded(&self) -> Vec<LaneKey> {
        self.parking.iter().cloned().collect()
    }

    /// The customer who has been parked longest in a lane, when there is room in it: what it owes there goes before
    /// everybody else, until this says that there is nobody.
    pub fn next(&mut self, key: &LaneKey) -> Option<u64> {
        let lane = self.lanes.get_mut(key).filter(|l| l.has_room());
        if let Some(lane) = lane
            && let Some((hash, _)) = lane.parked.pop_front()
        {
            lane.is_parked.remove(&hash);
            self.filling = Some(key.clone());
            return Some(hash);
        }
        self.filling = None;
        self.sweep(key);
        None
    }

    fn sweep(&mut self, key: &LaneKey) {
        let lane = self.lanes.get(key);
        if lane.is_none_or(|l| l.parked.is_empty()) {
            self.parking.remove(key);
        }
        if lane.is_some_and(Lane::is_idle) {
            self.lanes.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::ExecutionKey;
    use sojourn_journey::signal::Identifier;

    fn attempt(hash: u64) -> Attempt {
        let key = Identifier::new("id", &format!("c{hash}")).expect("an identifier");
        Attempt {
            customer: CustomerKey {
                hash,
                workspace: "default".into(),
                key,
            },
            key: ExecutionKey {
                journey: "j".into(),
                instance: None,
                run: 1,
            },
            number: 1,
            id: 1,
            attempt: 1,
            in_row: 1,
            action: Action {
                place: "stage/one/enter/0".into(),
                kind: "webhook".into(),
                to: "hook".into(),
                body: Vec::new(),
                awaited: None,
            },
        }
    }

    fn lane() -> LaneKey {
        ("default".into(), "webhook hook".into())
    }

    /// An attempt is due; gives its hash when it begins.
    fn due(lanes: &mut Lanes, hash: u64) -> Option<u64> {
        match lanes.enter(&lane(), hash, || None) {
            Entered::Begins => return Some(hash),
            Entered::Waits => lanes.wait(&lane(), attempt(hash), None),
            Entered::Parked => {}
        }
        None
    }

    #[test]
    fn everybody_goes_in_the_order_of_coming_however_many_they_are() {
        let mut lanes = Lanes::default();
        let many = (RUNNING + WAITING + 500) as u64;
        let mut begun: VecDeque<u64> = (0..many).filter_map(|n| due(&mut lanes, n)).collect();
        assert_eq!(begun.len(), RUNNING);
        // who is parked and looked at again meanwhile keeps its place
        assert_eq!(due(&mut lanes, many - 1), None);
        let (mut order, mut late) = (Vec::new(), false);
        while let Some(hash) = begun.pop_front() {
            order.push(hash);
            begun.extend(lanes.ended(&lane()).map(|a| a.customer.hash));
            if order.len() == 10 {
                // one that comes when there is room does not go before those who are parked
                late = due(&mut lanes, many).is_none();
            }
            for key in lanes.crowded() {
                while let Some(hash) = lanes.next(&key) {
                    begun.extend(due(&mut lanes, hash));
                }
            }
        }
        assert!(late);
        assert_eq!(order, (0..=many).collect::<Vec<_>>());
        assert!(lanes.lanes.is_empty() && lanes.parking.is_empty());
    }

    #[test]
    fn a_parked_customer_who_owes_nothing_any_more_holds_up_nobody() {
        let mut lanes = Lanes::default();
        let many = (RUNNING + WAITING + 3) as u64;
        let begun: Vec<u64> = (0..many).filter_map(|n| due(&mut lanes, n)).collect();
        let mut left = begun.len() + WAITING;
        while left > 0 {
            lanes.ended(&lane());
            left -= 1;
            for key in lanes.crowded() {
                while lanes.next(&key).is_some() {}
            }
        }
        assert!(lanes.lanes.is_empty() && lanes.parking.is_empty());
        assert_eq!(due(&mut lanes, 1), Some(1));
    }
}
