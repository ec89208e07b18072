//! Changes that nobody has to ask for: shards are spread anew when a node has joined, and a node that nobody has reached
//! for long is replaced. Only the owner of the catalog begins them, and never beside another change.

use super::{Place, changes};
use crate::catalog::ClusterState;
use crate::catalog::cluster::{change_state, state_of};
use crate::config;
use sojourn_cluster::NodeId;
use sojourn_proto::{stored, v1};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use stored::catalog_change::Change;
use tokio::time::Instant;

/// A node that has joined is waited for this long: others may come with it.
const SETTLE: Duration = Duration::from_secs(2);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How long beginning a change may take.
const WITHIN: Duration = Duration::from_secs(5);
/// What failed is tried again after this long, even if nothing has changed that is known here.
const ANYWAY: Duration = Duration::from_secs(30);
/// Who asked for such a change.
const ACTOR: &str = "sojourn";

/// What is wanted without anybody asking.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    /// A node is removed: why.
    Remove(NodeId, String),
    /// Shards are spread anew.
    Spread,
}

/// What was tried last, and what was known then: the same is not tried again before something has changed.
#[derive(PartialEq)]
struct Tried {
    wanted: Wanted,
    position: u64,
    away: BTreeSet<NodeId>,
}

/// Nodes of which somebody has cancelled the replacement: they are left alone until they are reached again.
#[derive(Default)]
struct Spared {
    nodes: BTreeSet<NodeId>,
    /// The cancelled change that was looked at last.
    change: String,
}

impl Spared {
    fn look(&mut self, cluster: &ClusterState, away: &BTreeSet<NodeId>) {
        self.nodes.retain(|node| away.contains(node));
        let last = cluster.change.as_ref();
        let last = last.filter(|c| change_state(c) == v1::ChangeState::Cancelled);
        let Some(cancelled) = last.filter(|c| c.id != self.change) else {
            return;
        };
        self.change.clone_from(&cancelled.id);
        let removed = cancelled.wishes.iter().filter_map(|w| match w.wish {
            Some(v1::wish::Wish::Remove(node)) => Some(node),
            _ => None,
        });
        self.nodes
            .extend(removed.filter(|node| away.contains(node)));
    }
}

/// Begins what has to be begun, until the node stops.
pub async fn run(place: Arc<Place>, config: config::Cluster) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut members: (Vec<NodeId>, Instant) = (Vec::new(), Instant::now());
    let mut told = String::new();
    let mut spared = Spared::default();
    let mut tried: Option<(Tried, Instant)> = None;
    let owner_since = OwnerSince::default();
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = place.stopping.cancelled() => return,
        }
        let cluster = place.topology.cluster();
        let present: Vec<NodeId> = cluster.present().map(|n| n.id).collect();
        if members.0 != present {
            members = (present, Instant::now());
        }
        let lost: BTreeSet<NodeId> = away(&place).into_keys().collect();
        spared.look(&cluster, &lost);
        let Some(since) = owner_since.of(&place) else {
            continue;
        };
        if cluster.changing().is_some() {
            continue;
        }
        let settled = members.1.elapsed() > SETTLE;
        let wanted = if let Some(wanted) = to_remove(&place, &cluster, &config, since, &spared) {
            wanted
        } else if config.rebalance && settled && has_joined(&cluster) {
            Wanted::Spread
        } else {
            continue;
        };
        let now = Tried {
            wanted: wanted.clone(),
            position: cluster.position,
            away: lost,
        };
        let again = |(last, at): &(Tried, Instant)| *last != now || at.elapsed() > ANYWAY;
        if !tried.as_ref().is_none_or(again) {
            continue;
        }
        let begun = begin(&place, cluster, wanted).await;
        tried = Some((now, Instant::now()));
        match begun {
            Ok(()) => told.clear(),
            Err(why) if why != told => {
                tracing::warn!(why, "the shards cannot be spread anew by themselves");
                told = why;
            }
            Err(_) => {}
        }
    }
}

/// Since when this node has owned the catalog: what it has heard before may be old.
#[derive(Default)]
struct OwnerSince(parking_lot::Mutex<Option<Instant>>);

impl OwnerSince {
    fn of(&self, place: &Place) -> Option<Instant> {
        let mut since = self.0.lock();
        if place.owns_catalog() {
            Some(*since.get_or_insert_with(Instant::now))
        } else {
            *since = None;
            None
        }
    }
}

/// Whether an active node holds nothing, and nobody has cancelled giving it something.
fn has_joined(cluster: &ClusterState) -> bool {
    let Ok(layout) = cluster.layout() else {
        return false;
    };
    let votes = layout.nodes();
    let cancelled = cluster
        .change
        .as_ref()
        .filter(|c| change_state(c) == v1::ChangeState::Cancelled)
        .map_or(i64::MIN, |c| c.ended_at);
    cluster.present().any(|node| {
        state_of(node) == v1::NodeState::Active
            && !votes.contains(&node.id)
            && node.joined_at > cancelled
    })
}

/// A node that has not been reached for longer than is waited: one that was to join and never came, or one that holds
/// replicas, if enough others are left to hold them.
fn to_remove(
    place: &Place,
    cluster: &ClusterState,
    config: &config::Cluster,
    since: Instant,
    spared: &Spared,
) -> Option<Wanted> {
    if config.replace_after_seconds == 0 {
        return None;
    }
    let patience = Duration::from_secs(config.replace_after_seconds);
    let heard = place.topology.heard();
    let lost = |node: &&stored::CatalogNode| {
        let lost = heard.get(&node.id).filter(|h| h.why.is_some());
        !spared.nodes.contains(&node.id)
            && lost.is_some_and(|h| h.since.max(since).elapsed() > patience)
    };
    let never_came = cluster
        .present()
        .filter(|n| state_of(n) == v1::NodeState::Joining)
        .find(lost);
    if let Some(node) = never_came {
        let why = format!("node {} was to join and has not come", node.id);
        return Some(Wanted::Remove(node.id, why));
    }
    let layout = cluster.layout().ok()?;
    let replicas = (0..layout.shards())
        .map(|n| layout.voters(sojourn_cluster::ShardId(n)).len())
        .max()?;
    let active = cluster
        .present()
        .filter(|n| state_of(n) == v1::NodeState::Active);
    let there =
        active.filter(|n| n.id == place.me || heard.get(&n.id).is_some_and(|h| h.why.is_none()));
    if there.count() < replicas {
        return None;
    }
    let votes = layout.nodes();
    let node = cluster
        .present()
        .filter(|n| votes.contains(&n.id))
        .find(lost)?;
    let why = format!("node {} has not been reached for long", node.id);
    Some(Wanted::Remove(node.id, why))
}

/// Nodes that cannot be reached now, with why.
pub fn away(place: &Place) -> BTreeMap<NodeId, String> {
    let heard = place.topology.heard();
    heard
        .into_iter()
        .filter_map(|(node, heard)| Some((node, heard.why?)))
        .collect()
}

/// Begins a change; nothing, if it would change nothing.
async fn begin(place: &Place, cluster: Arc<ClusterState>, wanted: Wanted) -> Result<(), String> {
    let (wishes, reason) = match wanted {
        Wanted::Remove(node, why) => {
            let wish = Some(v1::wish::Wish::Remove(node));
            (vec![v1::Wish { wish }], why)
        }
        Wanted::Spread => (Vec::new(), "a node has joined".to_owned()),
    };
    let (away, voters) = (away(place), place.catalog.group().members().voters);
    let position = cluster.position;
    let (id, asked) = (change_id(), wishes.clone());
    // for many shards this takes long: beside, on what was known then
    let planned =
        tokio::task::spawn_blocking(move || changes::plan(&cluster, &asked, &away, &voters)).await;
    let planned = planned.map_err(|e| e.to_string())??;
    if planned.is_empty() {
        return Ok(());
    }
    let moves = planned.plan.moves.len();
    let change = planned.begin(id.clone(), wishes, ACTOR.to_owned(), reason.clone());
    let begun = place.catalog.change_cluster(ACTOR, WITHIN, |cluster| {
        if cluster.position != position {
            return Err("the cluster has changed while it was planned; it is planned again".into());
        }
        tracing::info!(change = id, moves, reason, "a change begins");
        Ok(Some(Change::BeginChange(change)))
    });
    begun.await.map(drop).map_err(|e| e.to_string())
}

/// A new change's id.
pub fn change_id() -> String {
    // given once; it is stored with the change
    #[allow(clippy::disallowed_methods)]
    let id = rand::random::<u32>();
    format!("{id:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_replacement_was_cancelled_is_left_alone_until_it_is_reached_again() {
        let change = |id: &str| stored::ClusterChange {
            id: id.to_owned(),
            state: v1::ChangeState::Cancelled as u32,
            wishes: vec![v1::Wish {
                wish: Some(v1::wish::Wish::Remove(3)),
            }],
            ..Default::default()
        };
        let mut cluster = ClusterState {
            change: Some(change("a")),
            ..Default::default()
        };
        let (away, none) = (BTreeSet::from([3]), BTreeSet::new());
        let mut spared = Spared::default();
        for (away, expected) in [(&away, true), (&away, true), (&none, false), (&away, false)] {
            spared.look(&cluster, away);
            assert_eq!(spared.nodes.contains(&3), expected);
        }
        // and once more
        cluster.change = Some(change("b"));
        spared.look(&cluster, &away);
        assert!(spared.nodes.contains(&3));
    }
}
