//! Gives the shards that this node owns, and should not, to the voter that the layout prefers: one at a time, and only to
//! one that is there and has everything. On stopping, all of them, to whoever can take them.

use super::{Place, service};
use sojourn_cluster::{Group, GroupId, NodeId, Role, ShardId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one transfer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// A shard whose transfer failed is left alone for this long.
const PAUSE: Duration = Duration::from_secs(10);
/// How often it is looked whether an heir has come.
const LOOK: Duration = Duration::from_secs(2);

/// Hands over what another node should own, until the node stops.
pub async fn run(place: Arc<Place>) {
    let mut version = place.topology.version();
    let mut left_alone: HashMap<u16, Instant> = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut may_own = place.may_own.clone();
    loop {
        version.borrow_and_update();
        if !*may_own.borrow_and_update() {
            leave(&place, WITHIN).await;
        }
        left_alone.retain(|_, since| since.elapsed() < PAUSE);
        if let Some((shard, group, heir)) = misplaced(&place, &left_alone) {
            match group.transfer_to(heir, Instant::now() + WITHIN).await {
                Ok(()) => tracing::info!(shard, node = heir, "the preferred owner takes over"),
                Err(error) => {
                    tracing::info!(shard, node = heir, %error, "the preferred owner cannot take over yet");
                    left_alone.insert(shard, Instant::now());
                }
            }
            continue;
        }
        tokio::select! {
            changed = version.changed() => if changed.is_err() { return },
            changed = may_own.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
            () = place.stopping.cancelled() => return,
        }
    }
}

/// A shard that this node owns and another one should.
fn misplaced(place: &Place, left_alone: &HashMap<u16, Instant>) -> Option<(u16, Group, NodeId)> {
    if place.stopping.is_cancelled() || !*place.may_own.borrow() {
        return None;
    }
    let cluster = place.topology.cluster();
    let layout = cluster.layout().ok()?;
    let moving: Vec<u32> = cluster
        .changing()
        .map(|c| {
            c.shards
                .iter()
                .filter(|s| !c.moved.contains(s))
                .copied()
                .collect()
        })
        .unwrap_or_default();
    place.shards.all().into_iter().find_map(|shard| {
        let heir = layout
            .owner(ShardId(shard.number))
            .filter(|heir| *heir != place.me)?;
        let owns = matches!(&*shard.group.role().borrow(), Role::Owner { .. });
        if !owns || moving.contains(&shard.number.into()) || left_alone.contains_key(&shard.number)
        {
            return None;
        }
        let catalog = *shard.machine.catalog.borrow();
        let takes = shard.group.members().voters.contains(&heir)
            && shard.group.is_near(heir)
            && can_own(place, heir, shard.number, catalog);
        takes.then(|| (shard.number, shard.group.clone(), heir))
    })
}

/// Whether a node could own a shard now, as far as is known: it is there and stays, its replica follows and has the whole
/// history, and it knows the catalog up to the position that the shard decides with.
pub fn can_own(place: &Place, node: NodeId, shard: u16, catalog: u64) -> bool {
    let mine;
    let heard;
    let groups = if node == place.me {
        if place.stopping.is_cancelled() || !*place.may_own.borrow() {
            return false;
        }
        mine = service::statuses(place);
        &mine
    } else {
        heard = place.topology.heard().remove(&node);
        let status = heard.as_ref().filter(|h| h.why.is_none());
        let status = status.and_then(|h| h.status.as_ref());
        let Some(status) = status.filter(|s| !s.stopping) else {
            return false;
        };
        &status.groups
    };
    let id = service::group_of(shard).0;
    let there = |role: &str| role == "follower" || role == "owner";
    groups
        .iter()
        .any(|g| g.group == GroupId::CATALOG.0 && g.catalog >= catalog)
        && groups
            .iter()
            .any(|g| g.group == id && g.history_whole && there(&g.role))
}

/// Hands over everything that this node owns and others can take, the catalog last. Answers how many groups it owns then
/// that somebody could have taken.
pub async fn leave(place: &Arc<Place>, within: Duration) -> usize {
    let until = Instant::now() + within;
    let shards = place.shards.all();
    let mut leaving = tokio::task::JoinSet::new();
    // a few at a time: each transfer is an election
    let turns = Arc::new(tokio::sync::Semaphore::new(4));
    for shard in &shards {
        let (place, group, turns) = (place.clone(), shard.group.clone(), turns.clone());
        leaving.spawn(async move {
            let Ok(_turn) = turns.acquire_owned().await else {
                return;
            };
            hand_over(&place, &group, until).await;
        });
    }
    while leaving.join_next().await.is_some() {}
    hand_over(place, place.catalog.group(), until).await;
    let owned = |group: &Group| {
        matches!(&*group.role().borrow(), Role::Owner { .. }) && !heirs(place, group).is_empty()
    };
    shards.iter().filter(|s| owned(&s.group)).count() + usize::from(owned(place.catalog.group()))
}

/// The other voters that can be reached and would take a group.
fn heirs(place: &Place, group: &Group) -> Vec<NodeId> {
    let heard = place.topology.heard();
    let there = |node: &NodeId| {
        heard
            .get(node)
            .is_some_and(|h| h.why.is_none() && h.status.as_ref().is_some_and(|s| !s.stopping))
    };
    let voters = group.members().voters;
    voters
        .into_iter()
        .filter(|node| *node != place.me && there(node))
        .collect()
}

/// Hands one group over to the voter that is furthest, if there is another one.
async fn hand_over(place: &Place, group: &Group, until: Instant) {
    let mut refused: Vec<NodeId> = Vec::new();
    while Instant::now() < until {
        if !matches!(&*group.role().borrow(), Role::Owner { .. }) {
            return;
        }
        let progress = group.progress();
        let heirs = heirs(place, group);
        let heirs = heirs.into_iter().filter(|node| !refused.contains(node));
        let best = heirs.max_by_key(|node| {
            (
                progress.get(node).copied().flatten().map(|at| at.index),
                std::cmp::Reverse(*node),
            )
        });
        let Some(heir) = best else { return };
        let deadline = until.min(Instant::now() + WITHIN);
        match group.transfer_to(heir, deadline).await {
            Ok(()) => return,
            Err(error) => {
                tracing::info!(group = %group.id(), node = heir, %error, "it could not be handed over");
                refused.push(heir);
            }
        }
    }
}
