//! The promises of the simulated worlds, each with its statement: what clients were told, against the lists, or the history
//! of customers, as they are in the end.

pub mod at_most_once;
pub mod customers_seen;
pub mod decided_once;
pub mod effects;
pub mod holds;
pub mod linearizable;
pub mod never_lost;
pub mod one_catalog;
pub mod one_chain;
#[cfg(test)]
mod testing;
pub mod timers;
pub mod true_receipts;
pub mod unknown_is_not_refused;

use std::collections::BTreeMap;

/// Where each id of a list stands, and how often it is there.
fn places(list: &[u64]) -> BTreeMap<u64, (usize, usize)> {
    let mut places = BTreeMap::new();
    for (place, id) in list.iter().enumerate() {
        places.entry(*id).or_insert((place, 0)).1 += 1;
    }
    places
}
