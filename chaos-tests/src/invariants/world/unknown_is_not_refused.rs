//! **Unknown is never called failed.** An append that was refused is not in the list, now or ever: whoever was told so may
//! send it anew under another id.

use crate::world::judge::Finals;
use crate::world::record::{Asked, Call, Told};

/// The appends that were refused and are there.
pub fn check(calls: &[Call], finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for call in calls {
        let (Asked::Append { list, id }, Some((at, Told::Refused))) = (call.asked, &call.told)
        else {
            continue;
        };
        let there = finals.get(&call.group).and_then(|lists| lists.get(&list));
        if there.is_some_and(|ids| ids.contains(&id)) {
            broken.push(format!(
                "unknown is never called failed: {id} of list {list} of {} was refused by node {} at {at} µs, and is there",
                call.group, call.node
            ));
        }
    }
    broken
}
