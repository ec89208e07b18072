//! Whose turn it is on an agenda: customers by the time when something of theirs is due. What is due at once goes before
//! everything else, in the order in which it came to be.

use sojourn_journey::time::Time;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Due at once, as [`crate::shard::customer::due`] says it.
const AT_ONCE: Time = Time(i64::MIN);

/// Hashes of customers, each at most once.
#[derive(Default)]
pub struct Due {
    /// With their numbers; one whose number is not that of `numbers` is there no more.
    at_once: VecDeque<(u64, u64)>,
    numbers: HashMap<u64, u64>,
    counter: u64,
    later: BTreeSet<(Time, u64)>,
    times: HashMap<u64, Time>,
}

impl Due {
    /// Something of a customer is due then; `None`: nothing. What was noted before counts no more, but one that is still
    /// due at once keeps its place.
    pub fn note(&mut self, hash: u64, due: Option<Time>) {
        if let Some(old) = self.times.remove(&hash) {
            self.later.remove(&(old, hash));
        }
        match due {
            Some(AT_ONCE) => {
                if !self.numbers.contains_key(&hash) {
                    self.counter += 1;
                    self.numbers.insert(hash, self.counter);
                    self.at_once.push_back((hash, self.counter));
                }
                return;
            }
            Some(due) => {
                self.times.insert(hash, due);
                self.later.insert((due, hash));
            }
            None => {}
        }
        self.numbers.remove(&hash);
        if self.numbers.is_empty() {
            self.at_once.clear();
        }
    }

    /// The first, and when it is due.
    pub fn first(&mut self) -> Option<(Time, u64)> {
        while let Some((hash, number)) = self.at_once.front().copied() {
            if self.numbers.get(&hash) == Some(&number) {
                return Some((AT_ONCE, hash));
            }
            self.at_once.pop_front();
        }
        self.later.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(due: &mut Due) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some((_, hash)) = due.first() {
            due.note(hash, None);
            order.push(hash);
        }
        order
    }

    #[test]
    fn at_once_goes_first_and_in_the_order_of_coming() {
        let mut due = Due::default();
        due.note(5, Some(Time(10)));
        due.note(4, Some(Time(20)));
        for hash in [9, 3, 7, 9, 1] {
            due.note(hash, Some(AT_ONCE));
        }
        assert_eq!(due.first(), Some((AT_ONCE, 9)));
        assert_eq!(drain(&mut due), [9, 3, 7, 1, 5, 4]);
        assert!(due.numbers.is_empty() && due.times.is_empty() && due.at_once.is_empty());
    }

    #[test]
    fn what_is_noted_anew_has_the_place_of_its_new_time() {
        let mut due = Due::default();
        for hash in [1, 2, 3] {
            due.note(hash, Some(AT_ONCE));
        }
        due.note(1, Some(Time(5)));
        due.note(2, None);
        due.note(1, Some(AT_ONCE));
        due.note(2, Some(Time(7)));
        assert_eq!(drain(&mut due), [3, 1, 2]);
    }
}
