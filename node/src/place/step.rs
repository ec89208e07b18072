//! Which step brings a group nearer to the voters that the layout wants, and which has to wait.
//!
//! Pure but for [`Around::of`]. It takes no step.

use super::{Place, leaders};
use sojourn_cluster::NodeId;
use sojourn_proto::cluster as wire;
use std::collections::BTreeSet;
use wire::step_request::Step;

/// How a group is, at its owner.
#[derive(Debug)]
pub struct Truth {
    /// Who owns it.
    pub owner: NodeId,
    /// Who votes; between two sets of voters, those of both.
    pub voters: BTreeSet<NodeId>,
    /// Who listens.
    pub learners: BTreeSet<NodeId>,
    /// Whether its members are being changed, or were by an entry that the owner has not applied.
    pub changing: bool,
    /// Between two sets of voters: who votes when that has ended.
    pub target: BTreeSet<NodeId>,
    /// The position of the catalog that it decides with.
    pub catalog: u64,
}

/// Why a shard cannot be moved on now.
#[derive(Debug)]
pub struct Waits {
    /// In words.
    pub why: String,
    /// The node that has to come back first, if it is that.
    pub node: Option<NodeId>,
}

impl From<String> for Waits {
    fn from(why: String) -> Waits {
        Waits { why, node: None }
    }
}

/// Who is there.
#[derive(Default)]
pub struct Around {
    /// Who cannot be reached now.
    pub away: BTreeSet<NodeId>,
    /// Who could own the shard now.
    pub able: BTreeSet<NodeId>,
}

impl Around {
    /// As far as this node knows.
    pub fn of(place: &Place, shard: u16, truth: &Truth) -> Around {
        let able = |node: &NodeId| leaders::can_own(place, *node, shard, truth.catalog);
        Around {
            away: super::auto::away(place).into_keys().collect(),
            able: truth.voters.iter().filter(|n| able(n)).copied().collect(),
        }
    }
}

/// What brings a group nearer to its voters.
#[derive(Debug)]
pub enum Next {
    /// Nothing: it has them.
    Moved,
    /// A step.
    Take(Step),
    /// A step that cannot be taken now.
    Wait(Waits),
}

/// The next step that brings a group nearer to its voters. `caught_up`: who has everything.
pub fn next_step(
    truth: &Truth,
    target: &[NodeId],
    caught_up: &BTreeSet<NodeId>,
    around: &Around,
) -> Next {
    let wanted: BTreeSet<NodeId> = target.iter().copied().collect();
    let is_away = |node: &NodeId| around.away.contains(node);
    let belongs = |n: &NodeId| truth.voters.contains(n) || truth.learners.contains(n);
    let mut strangers = wanted.iter().filter(|n| !belongs(n));
    if let Some(node) = strangers.find(|n| !is_away(n)) {
        return Next::Take(Step::AddLearner(*node));
    }
    if truth.voters == wanted && !truth.changing {
        let left = truth.learners.iter().find(|n| !wanted.contains(n));
        return left.map_or(Next::Moved, |node| Next::Take(Step::RemoveLearner(*node)));
    }
    // each has everything before it votes
    let mut behind = wanted
        .iter()
        .filter(|n| !truth.voters.contains(n) && !caught_up.contains(n));
    if let Some(node) = behind.clone().find(|n| !is_away(n)) {
        return Next::Take(Step::AwaitCaughtUp(*node));
    }
    if let Some(node) = behind.next() {
        return Next::Wait(Waits {
            why: format!("node {node} is to get a replica and cannot be reached"),
            node: Some(*node),
        });
    }
    // an owner that leaves would leave its group without one: it hands over first
    let mut voters = wanted.clone();
    if !wanted.contains(&truth.owner) {
        let mut heirs = target.iter().filter(|n| truth.voters.contains(n));
        match heirs.find(|n| around.able.contains(n)) {
            Some(heir) if !truth.changing => return Next::Take(Step::Transfer(*heir)),
            // there will be no other heir
            None if wanted.is_subset(&truth.voters) && !truth.changing => {
                return Next::Wait(Waits {
                    why: format!("none of nodes {target:?} can take over from its owner now"),
                    node: target.iter().find(|n| is_away(n)).copied(),
                });
            }
            _ => drop(voters.insert(truth.owner)),
        }
    }
    // what has begun is finished, for it needs both majorities until it is
    let lost: Vec<NodeId> = voters.iter().filter(|n| is_away(n)).copied().collect();
    if !truth.changing && lost.len() * 2 >= voters.len() {
        return Next::Wait(Waits {
            why: format!(
                "without {lost:?}, which cannot be reached, {voters:?} would have no majority"
            ),
            node: lost.first().copied(),
        });
    }
    Next::Take(Step::ChangeVoters(wire::StepVoters {
        voters: voters.into_iter().collect(),
    }))
}

/// A step in words.
pub fn describe(step: &Step) -> String {
    match step {
        Step::AddLearner(node) => format!("add node {node} as a learner"),
        Step::AwaitCaughtUp(node) => format!("wait until node {node} has caught up"),
        Step::ChangeVoters(set) => format!("make {:?} the voters", set.voters),
        Step::RemoveLearner(node) => format!("take node {node} out"),
        Step::Transfer(node) => format!("give the ownership to node {node}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    fn truth(owner: NodeId, voters: &[NodeId], target: &[NodeId]) -> Truth {
        let new = target.iter().filter(|n| !voters.contains(n));
        Truth {
            owner,
            voters: set(voters),
            learners: new.copied().collect(),
            changing: false,
            target: BTreeSet::new(),
            catalog: 0,
        }
    }

    #[test]
    fn an_owner_that_leaves_hands_over_to_one_that_can_own() {
        for (voters, target, all_able, without_1) in [
            // the preferred one cannot: the next takes over
            (vec![1, 2, 3, 4], vec![1, 2, 4], "to node 1", "to node 2"),
            // the only one that votes already cannot: others are made voters first
            (vec![1, 3], vec![1, 4], "to node 1", "make [1, 3, 4]"),
            // there will be no other: it is waited for
            (vec![1, 3], vec![1], "to node 1", "wait for 1"),
            (vec![1, 2, 3], vec![1], "to node 1", "wait for 1"),
        ] {
            let truth = truth(3, &voters, &target);
            let caught_up = set(&[4]);
            for (away, expected) in [(vec![], all_able), (vec![1], without_1)] {
                let away = set(&away);
                let around = Around {
                    able: truth.voters.difference(&away).copied().collect(),
                    away,
                };
                let step = said(next_step(&truth, &target, &caught_up, &around));
                assert!(step.contains(expected), "{voters:?} to {target:?}: {step}");
            }
        }
    }

    #[test]
    fn nobody_who_is_away_is_made_a_voter() {
        for (voters, target, caught_up, away, expected) in [
            // those that are there catch up first
            (
                vec![1],
                vec![4, 5],
                vec![4],
                vec![4],
                "until node 5 has caught up",
            ),
            (vec![1], vec![4, 5], vec![5], vec![4], "wait for 4"),
            (vec![1], vec![4, 5], vec![4, 5], vec![], "make [1, 4, 5]"),
            // one that voted before may be away, a majority may not
            (
                vec![1, 2, 3],
                vec![1, 2, 4],
                vec![4],
                vec![2],
                "make [1, 2, 4]",
            ),
            (vec![1, 2, 3], vec![1, 2], vec![], vec![2], "wait for 2"),
        ] {
            let truth = truth(1, &voters, &target);
            let around = Around {
                able: BTreeSet::new(),
                away: set(&away),
            };
            let mut caught_up = set(&caught_up);
            caught_up.retain(|n| !away.contains(n));
            let step = said(next_step(&truth, &target, &caught_up, &around));
            assert!(step.contains(expected), "{voters:?} to {target:?}: {step}");
        }
    }

    fn said(next: Next) -> String {
        match next {
            Next::Moved => "moved".to_owned(),
            Next::Take(step) => describe(&step),
            Next::Wait(waits) => format!("wait for {}: {}", waits.node.unwrap_or(0), waits.why),
        }
    }
}
