//! **Applied at most once.** No id stands in its list twice, whatever was sent again by whomever.

use super::places;
use crate::world::judge::Finals;

/// The ids that stand there more than once.
pub fn check(finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for (group, lists) in finals {
        for (list, ids) in lists {
            for (id, (_, times)) in places(ids) {
                if times > 1 {
                    broken.push(format!(
                        "applied at most once: {id} stands {times} times in list {list} of {group}"
                    ));
                }
            }
        }
    }
    broken
}
