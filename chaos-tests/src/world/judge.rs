//! Whether what clients were told can be true: each promise is a checker under [`crate::invariants::world`].

use super::record::Call;
use crate::invariants::world as promises;
use sojourn_cluster::GroupId;
use std::collections::BTreeMap;

/// The lists of each group, as they are in the end.
pub type Finals = BTreeMap<GroupId, BTreeMap<u64, Vec<u64>>>;

/// What is not true of what clients were told.
pub fn judge(calls: &[Call], finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    broken.extend(promises::never_lost::check(calls, finals));
    broken.extend(promises::at_most_once::check(finals));
    broken.extend(promises::unknown_is_not_refused::check(calls, finals));
    broken.extend(promises::linearizable::check(calls, finals));
    broken
}
