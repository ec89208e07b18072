//! Whether a world of shards kept its promises: each is a checker under [`crate::invariants::world`].

use super::books::{Books, Bounds, Finals, What};
use crate::invariants::world as promises;

/// What is not true. `complete`: everything that was left to do in the end was done.
pub fn judge(books: &Books, finals: &Finals, bounds: &Bounds, complete: bool) -> Vec<String> {
    let (calls, sent) = (books.calls(), books.all_sent());
    let mut broken = Vec::new();
    broken.extend(promises::one_chain::check(finals));
    broken.extend(promises::decided_once::check(finals));
    broken.extend(promises::true_receipts::check(&calls, finals));
    broken.extend(promises::customers_seen::check(&calls, finals));
    broken.extend(promises::one_catalog::check(finals));
    broken.extend(promises::holds::check(finals));
    broken.extend(promises::timers::check(finals, bounds));
    broken.extend(promises::effects::check(&sent, finals));
    if !complete {
        broken.extend(promises::timers::lost(finals, bounds));
        broken.extend(promises::holds::forgotten(finals, bounds));
        broken.extend(promises::effects::forgotten(finals, bounds));
    }
    broken
}

/// How many timers fired, and how many actions were settled.
pub fn count(finals: &Finals) -> (u64, u64) {
    let (mut fired, mut settled) = (0, 0);
    let customers = finals.values().flat_map(|all| all.values());
    for event in customers.flat_map(|c| c.lines.iter().flat_map(|line| &line.events)) {
        fired += u64::from(matches!(event.what, What::Fired(_)));
        settled += u64::from(matches!(event.what, What::Settled(..)));
    }
    (fired, settled)
}

/// What is still to be done, some time after it should have been.
pub fn left_to_do(finals: &Finals, bounds: &Bounds) -> Vec<String> {
    let mut left = promises::timers::overdue(finals, bounds, 1_500_000);
    left.extend(promises::holds::left(finals, bounds, 1_500_000));
    left.extend(promises::effects::unsettled(finals, bounds, 3_000_000));
    left
}
