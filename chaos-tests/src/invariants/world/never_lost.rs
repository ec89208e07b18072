//! **What was acknowledged is never lost.** An append that was answered stands in the list for ever.

use crate::world::judge::Finals;
use crate::world::record::{Asked, Call, Told};

/// The appends that are missing.
pub fn check(calls: &[Call], finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for call in calls {
        let (Asked::Append { list, id }, Some((at, Told::Appended(position)))) =
            (call.asked, &call.told)
        else {
            continue;
        };
        let there = finals.get(&call.group).and_then(|lists| lists.get(&list));
        if !there.is_some_and(|ids| ids.contains(&id)) {
            broken.push(format!(
                "acknowledged is never lost: {id} of list {list} of {} was appended at {position}, as node {} said at \
                 {at} µs, and is not there",
                call.group, call.node
            ));
        }
    }
    broken
}
