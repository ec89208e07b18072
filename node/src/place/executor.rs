//! Carries out the change under way: moves each group's membership, which is the truth, towards the layout, which is the
//! intent. Only the owner of the catalog does, one step at a time per shard and a few shards at a time; each step is
//! recorded before and after, and looks at the membership first, so that whoever owns the catalog next goes on.
//!
//! It does not know why the layout is as it is.

use super::{Place, changes, service};
use crate::catalog::ClusterState;
use crate::catalog::cluster::{change_state, layout_to_stored, state_of};
use crate::clock;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sojourn_cluster::layout::Layout;
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use sojourn_proto::{stored, v1};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use stored::catalog_change::Change;
use stored::change_progress::Progress;
use tokio::time::Instant;
use wire::step_request::Step;

/// Shards that are moved at the same time: snapshots take the disk and the wire from those who work.
const AT_ONCE: usize = 4;
/// How long one step may take before the shard is looked at again.
const STEP_WITHIN: Duration = Duration::from_secs(20);
/// How much longer the answer of another node may take.
const LATE: Duration = Duration::from_secs(1);
/// A shard that could not be moved on is looked at again after this long.
const AGAIN: Duration = Duration::from_millis(200);
/// How long recording a step may take.
const RECORD_WITHIN: Duration = Duration::from_secs(10);

/// How a group is, at its owner.
struct Truth {
    owner: NodeId,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    changing: bool,
}

/// Carries out changes while this node owns the catalog, until it stops.
pub async fn run(place: Arc<Place>) {
    let mut cluster = place.catalog.cluster();
    let mut role = place.catalog.group().role();
    loop {
        let now = cluster.borrow_and_update().clone();
        role.borrow_and_update();
        let running = now
            .changing()
            .is_some_and(|c| change_state(c) == v1::ChangeState::Running);
        let work = async {
            if place.owns_catalog() && running {
                carry_out(&place, &now).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        // every record of a step changes the catalog: the work is not begun anew for that, but asks itself
        let id = now.change.as_ref().map(|c| (c.id.clone(), c.state));
        let mut others = place.catalog.cluster();
        let other =
            others.wait_for(|new| new.change.as_ref().map(|c| (c.id.clone(), c.state)) != id);
        tokio::select! {
            () = work => {}
            changed = other => if changed.is_err() { return },
            changed = role.changed() => if changed.is_err() { return },
            () = place.stopping.cancelled() => return,
        }
    }
}

/// Moves every shard of the change that has not moved yet, then ends the change.
async fn carry_out(place: &Arc<Place>, cluster: &ClusterState) {
    let (Some(change), Ok(layout)) = (&cluster.change, cluster.layout()) else {
        return;
    };
    let left = change.shards.iter().filter(|s| !change.moved.contains(s));
    let mut left: VecDeque<u16> = left.filter_map(|s| u16::try_from(*s).ok()).collect();
    let mut moving = FuturesUnordered::new();
    loop {
        while moving.len() < AT_ONCE
            && let Some(shard) = left.pop_front()
        {
            moving.push(move_shard(place, &change.id, &layout, shard));
        }
        if moving.next().await.is_none() {
            break;
        }
    }
    end(place, &change.id).await;
}

/// Moves one shard; returns when it has moved.
async fn move_shard(place: &Arc<Place>, change: &str, layout: &Layout, shard: u16) {
    let target: Vec<NodeId> = layout.voters(ShardId(shard)).to_vec();
    let mut recorded = String::new();
    let mut told = String::new();
    let mut caught_up = BTreeSet::new();
    loop {
        let outcome = match truth(place, shard).await {
            Ok(truth) => match next_step(&truth, &target, &caught_up, &away(place)) {
                None => match record(place, change, Progress::Moved(shard.into()), String::new())
                    .await
                {
                    Ok(()) => return,
                    Err(why) => Err(why),
                },
                Some(step) => {
                    let name = describe(&step);
                    let begun = if recorded == name {
                        Ok(())
                    } else {
                        let step = stored::ChangeStep {
                            shard: shard.into(),
                            step: name.clone(),
                            since: clock::wall().0,
                        };
                        record(place, change, Progress::Begun(step), String::new()).await
                    };
                    match begun {
                        Ok(()) => {
                            recorded = name;
                            let waits_for = match step {
                                Step::AwaitCaughtUp(node) => Some(node),
                                _ => None,
                            };
                            let mut taken = take(place, truth.owner, shard, step).await;
                            if let (Ok(()), Some(node)) = (&taken, waits_for) {
                                taken = has_history(place, node, shard).await;
                                caught_up.extend(taken.is_ok().then_some(node));
                            }
                            taken
                        }
                        Err(why) => Err(why),
                    }
                }
            },
            Err(why) => Err(why),
        };
        if let Err(why) = outcome {
            if why != told {
                tracing::info!(shard, why, "a move has to wait");
                told = why;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The next step that brings a group nearer to its voters; `None` when it has them. `caught_up`: who has everything.
/// `away`: who cannot be reached now.
fn next_step(
    truth: &Truth,
    target: &[NodeId],
    caught_up: &BTreeSet<NodeId>,
    away: &BTreeSet<NodeId>,
) -> Option<Step> {
    let wanted: BTreeSet<NodeId> = target.iter().copied().collect();
    let strangers = wanted
        .iter()
        .find(|n| !truth.voters.contains(n) && !truth.learners.contains(n));
    if let Some(node) = strangers {
        return Some(Step::AddLearner(*node));
    }
    if truth.voters == wanted && !truth.changing {
        let left = truth.learners.iter().find(|n| !wanted.contains(n));
        return left.map(|node| Step::RemoveLearner(*node));
    }
    // each has everything before it votes
    let behind = wanted
        .iter()
        .find(|n| truth.learners.contains(n) && !caught_up.contains(n));
    if let Some(node) = behind {
        return Some(Step::AwaitCaughtUp(*node));
    }
    // an owner that leaves would leave its group without one: it hands over first
    if !wanted.contains(&truth.owner) {
        let mut heirs = target.iter().filter(|n| truth.voters.contains(n));
        // one that is away would be waited for in vain, unless there will be no other
        let heir = match heirs.clone().find(|n| !away.contains(n)) {
            None if wanted.is_subset(&truth.voters) => heirs.next(),
            heir => heir,
        };
        return Some(match heir {
            Some(heir) if !truth.changing => Step::Transfer(*heir),
            _ => Step::ChangeVoters(wire::StepVoters {
                voters: wanted.iter().copied().chain([truth.owner]).collect(),
            }),
        });
    }
    Some(Step::ChangeVoters(wire::StepVoters {
        voters: wanted.into_iter().collect(),
    }))
}

/// Who cannot be reached now.
fn away(place: &Place) -> BTreeSet<NodeId> {
    super::auto::away(place).into_keys().collect()
}

/// Whether a node has the history of its replica too, asked of itself.
async fn has_history(place: &Place, node: NodeId, shard: u16) -> Result<(), String> {
    let groups = groups_of(place, node).await?;
    let id = service::group_of(shard).0;
    match groups.into_iter().find(|g| g.group == id) {
        Some(group) if group.history_whole => Ok(()),
        Some(_) => Err(format!("node {node} has not the whole history yet")),
        None => Err(format!("node {node} has not opened its replica yet")),
    }
}

/// How the groups of a node are, asked of itself.
pub async fn groups_of(place: &Place, node: NodeId) -> Result<Vec<wire::GroupStatus>, String> {
    if node == place.me {
        return Ok(service::statuses(place));
    }
    let channel = place.transport.channel(node).map_err(|e| e.to_string())?;
    let request = wire::StatusRequest {
        cluster: place.cluster.clone(),
        from: place.me,
        seen: 0,
        within_ms: 0,
    };
    let mut client = NodesClient::new(channel);
    let asked = tokio::time::timeout(LATE, client.status(request)).await;
    let status = asked
        .map_err(|_| format!("node {node} does not answer"))?
        .map_err(|e| format!("node {node}: {}", e.message()))?;
    Ok(status.into_inner().groups)
}

/// How a group is, asked of its owner.
async fn truth(place: &Place, shard: u16) -> Result<Truth, String> {
    let owner = match place.topology.owner(shard) {
        super::topology::Owner::Here(_) => place.me,
        super::topology::Owner::There(owner) => owner,
        super::topology::Owner::Unknown => return Err("nobody is known to own it now".into()),
    };
    let groups = groups_of(place, owner).await?;
    let id = service::group_of(shard).0;
    let group = groups.into_iter().find(|g| g.group == id);
    let group = group.filter(|g| g.role == "owner");
    let group = group.ok_or_else(|| format!("node {owner} does not own it any more"))?;
    Ok(Truth {
        owner,
        voters: group.voters.into_iter().collect(),
        learners: group.learners.into_iter().collect(),
        changing: group.changing,
    })
}

/// Has the owner of a shard take a step.
pub async fn take(place: &Place, owner: NodeId, shard: u16, step: Step) -> Result<(), String> {
    let name = describe(&step);
    let answer = if owner == place.me {
        let local = place.shards.local(shard);
        let local = local.ok_or_else(|| format!("{name}: the replica is gone"))?;
        service::take_step(&local.group, step, Instant::now() + STEP_WITHIN).await
    } else {
        let channel = place.transport.channel(owner).map_err(|e| e.to_string())?;
        let request = wire::StepRequest {
            shard: shard.into(),
            step: Some(step),
            within_ms: STEP_WITHIN.as_millis() as u32,
        };
        let mut client = NodesClient::new(channel);
        let asked = tokio::time::timeout(STEP_WITHIN + LATE, client.step(request)).await;
        asked
            .map_err(|_| format!("{name}: node {owner} does not answer"))?
            .map_err(|e| format!("{name}: {}", e.message()))?
            .into_inner()
    };
    if answer.not_owner {
        return Err(format!("{name}: node {owner} does not own it any more"));
    }
    match (answer.refused, answer.unknown) {
        (refused, _) if !refused.is_empty() => Err(format!("{name}: {refused}")),
        (_, unknown) if !unknown.is_empty() => Err(format!("{name}: {unknown}")),
        _ => Ok(()),
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::AddLearner(node) => format!("add node {node} as a learner"),
        Step::AwaitCaughtUp(node) => format!("wait until node {node} has caught up"),
        Step::ChangeVoters(set) => format!("make {:?} the voters", set.voters),
        Step::RemoveLearner(node) => format!("take node {node} out"),
        Step::Transfer(node) => format!("give the ownership to node {node}"),
    }
}

async fn record(
    place: &Place,
    change: &str,
    progress: Progress,
    note: String,
) -> Result<(), String> {
    let change = change.to_owned();
    let recorded = place.catalog.change_cluster("", RECORD_WITHIN, |_| {
        Ok(Some(Change::ChangeProgress(stored::ChangeProgress {
            id: change,
            progress: Some(progress),
            note,
            layout: None,
            nodes: Vec::new(),
        })))
    });
    recorded.await.map(drop).map_err(|e| e.to_string())
}

/// Ends a change whose shards have all moved: nodes that were to be removed are gone now.
async fn end(place: &Place, id: &str) {
    let ended = place.catalog.change_cluster("", RECORD_WITHIN, |cluster| {
        let Some(change) = cluster.changing().filter(|c| c.id == id) else {
            return Ok(None);
        };
        let removed = change.wishes.iter().filter_map(|w| match w.wish {
            Some(v1::wish::Wish::Remove(node)) => Some(stored::NodeStateChange {
                node,
                state: v1::NodeState::Removed as u32,
            }),
            _ => None,
        });
        Ok(Some(Change::ChangeProgress(stored::ChangeProgress {
            id: id.to_owned(),
            progress: Some(Progress::State(v1::ChangeState::Done as u32)),
            note: String::new(),
            layout: None,
            nodes: removed.collect(),
        })))
    });
    match ended.await {
        Ok(_) => tracing::info!(change = id, "the change has ended"),
        Err(error) => {
            tracing::warn!(change = id, %error, "the end of a change was not recorded; trying again");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The layout that the groups really have: what stays when a change is cancelled.
///
/// # Errors
/// A shard's members are not known now, or are just being changed.
pub async fn as_it_is(place: &Place, cluster: &ClusterState) -> Result<stored::Layout, String> {
    let (before, change) = (cluster.layout()?, cluster.changing());
    let moving: BTreeSet<u32> = change
        .map(|c| {
            c.shards
                .iter()
                .filter(|s| !c.moved.contains(s))
                .copied()
                .collect()
        })
        .unwrap_or_default();
    let mut shards = Vec::new();
    for number in 0..before.shards() {
        let wanted = before.voters(ShardId(number)).to_vec();
        if !moving.contains(&u32::from(number)) {
            shards.push(wanted);
            continue;
        }
        let truth = truth(place, number)
            .await
            .map_err(|why| format!("shard {number}: {why}"))?;
        if truth.changing {
            return Err(format!(
                "shard {number}: its voters are just being changed; ask again"
            ));
        }
        let mut voters: Vec<NodeId> = wanted
            .iter()
            .filter(|n| truth.voters.contains(n))
            .copied()
            .collect();
        voters.extend(truth.voters.iter().filter(|n| !wanted.contains(n)));
        shards.push(voters);
    }
    let layout = before
        .follow(before.version() + 1, shards)
        .map_err(|e| e.to_string())?;
    Ok(layout_to_stored(&layout))
}

/// Keeps the catalog's own members right while this node owns it: every node is one, and up to five vote.
pub async fn keep_catalog(place: Arc<Place>) {
    let mut version = place.topology.version();
    loop {
        version.borrow_and_update();
        if place.owns_catalog()
            && let Err(why) = adjust_catalog(&place).await
        {
            tracing::info!(why, "the catalog's members are not yet as they should be");
            tokio::select! {
                () = tokio::time::sleep(AGAIN * 5) => continue,
                () = place.stopping.cancelled() => return,
            }
        }
        tokio::select! {
            changed = version.changed() => if changed.is_err() { return },
            () = place.stopping.cancelled() => return,
        }
    }
}

async fn adjust_catalog(place: &Arc<Place>) -> Result<(), String> {
    let group = place.catalog.group();
    // members first: who becomes one is known to the catalog before
    let members = group.members();
    let cluster = place.topology.cluster();
    let until = Instant::now() + STEP_WITHIN;
    let text = |e: sojourn_cluster::MemberError| e.to_string();
    if members.changing {
        group
            .change_voters(members.voters, until)
            .await
            .map_err(text)?;
        return Err("its voters were being changed".into());
    }
    let present: BTreeSet<NodeId> = cluster.present().map(|n| n.id).collect();
    if let Some(node) = members.learners.iter().find(|n| !present.contains(n)) {
        group.remove_learner(*node, until).await.map_err(text)?;
        return Err("a learner was taken out".into());
    }
    let strangers = present
        .iter()
        .find(|n| !members.voters.contains(n) && !members.learners.contains(n));
    if let Some(node) = strangers {
        group.add_learner(*node, until).await.map_err(text)?;
        return Err("a learner was added".into());
    }
    let heard = place.topology.heard();
    let reached = |id: &NodeId| *id == place.me || heard.get(id).is_some_and(|h| h.why.is_none());
    let active: Vec<NodeId> = cluster
        .present()
        .filter(|n| state_of(n) == v1::NodeState::Active)
        .map(|n| n.id)
        .collect();
    let count = changes::catalog_voters(active.len()).max(1);
    // those that vote already stay, if they may; then those that can be reached
    let mut ranked: Vec<NodeId> = active.clone();
    ranked.sort_by_key(|id| (!members.voters.contains(id), !reached(id), *id));
    let wanted: BTreeSet<NodeId> = ranked.into_iter().take(count).collect();
    if wanted.is_empty() || wanted == members.voters {
        return Ok(());
    }
    if let Some(node) = wanted
        .iter()
        .find(|id| !reached(id) && !members.voters.contains(id))
    {
        return Err(format!("node {node} should vote and cannot be reached"));
    }
    for node in wanted.iter().filter(|id| !members.voters.contains(id)) {
        group.caught_up(*node, until).await.map_err(text)?;
    }
    if !wanted.contains(&place.me) {
        let heir = wanted.iter().find(|id| members.voters.contains(id));
        if let Some(heir) = heir {
            group
                .transfer_to(*heir, until)
                .await
                .map_err(|e| e.to_string())?;
            return Ok(());
        }
        let both = wanted.iter().copied().chain([place.me]).collect();
        group.change_voters(both, until).await.map_err(text)?;
        return Err("the next owner votes now".into());
    }
    tracing::info!(voters = ?wanted, "the catalog's voters change");
    group.change_voters(wanted, until).await.map_err(text)?;
    // whoever does not vote any more listens on
    Err("its voters have changed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_leaves_hands_over_to_one_that_is_there() {
        let truth = |voters: &[NodeId]| Truth {
            owner: 3,
            voters: voters.iter().copied().collect(),
            learners: BTreeSet::new(),
            changing: false,
        };
        let (caught_up, away) = (BTreeSet::from([4]), BTreeSet::from([1]));
        for (voters, target, nobody_away, one_away) in [
            // the preferred one is away: the next takes over
            (vec![1, 2, 3, 4], vec![1, 2, 4], Some(1), Some(2)),
            // the only one that votes already is away: others are made voters first
            (vec![1, 3], vec![1, 4], Some(1), None),
            // there will be no other
            (vec![1, 3], vec![1], Some(1), Some(1)),
        ] {
            let mut truth = truth(&voters);
            truth.learners = target
                .iter()
                .filter(|n| !voters.contains(n))
                .copied()
                .collect();
            for (away, expected) in [(&BTreeSet::new(), nobody_away), (&away, one_away)] {
                let step = next_step(&truth, &target, &caught_up, away);
                let heir = match step {
                    Some(Step::Transfer(heir)) => Some(heir),
                    _ => None,
                };
                assert_eq!(heir, expected, "{voters:?} to {target:?}: {step:?}");
            }
        }
    }
}
