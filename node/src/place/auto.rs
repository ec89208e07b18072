//! Changes that nobody has to ask for: shards are spread anew when a node has joined, and a node that nobody has reached
//! for long is replaced. Only the owner of the catalog begins them, and never beside another change.

use super::{Place, changes};
use crate::catalog::ClusterState;
use crate::catalog::cluster::{change_state, state_of};
use crate::config;
use sojourn_cluster::NodeId;
use sojourn_proto::{stored, v1};
use std::collections::BTreeMap;
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
/// Who asked for such a change.
const ACTOR: &str = "sojourn";

/// Begins what has to be begun, until the node stops.
pub async fn run(place: Arc<Place>, wanted: config::Cluster) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut members: (Vec<NodeId>, Instant) = (Vec::new(), Instant::now());
    let mut told = String::new();
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
        let Some(since) = owner_since.of(&place) else {
            continue;
        };
        if cluster.changing().is_some() {
            continue;
        }
        let begun = if let Some(node) = to_replace(&place, &cluster, &wanted, since) {
            let wishes = vec![v1::Wish {
                wish: Some(v1::wish::Wish::Remove(node)),
            }];
            begin(
                &place,
                wishes,
                format!("node {node} has not been reached for long"),
            )
            .await
        } else if wanted.rebalance && members.1.elapsed() > SETTLE && has_joined(&cluster) {
            begin(&place, Vec::new(), "a node has joined".to_owned()).await
        } else {
            Ok(())
        };
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

/// A node that has not been reached for longer than is waited, if enough others are left to hold its replicas.
fn to_replace(
    place: &Place,
    cluster: &ClusterState,
    wanted: &config::Cluster,
    since: Instant,
) -> Option<NodeId> {
    if wanted.replace_after_seconds == 0 {
        return None;
    }
    let patience = Duration::from_secs(wanted.replace_after_seconds);
    let heard = place.topology.heard();
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
    cluster.present().find_map(|node| {
        let lost = heard.get(&node.id).filter(|h| h.why.is_some())?;
        let long = lost.since.max(since).elapsed() > patience;
        (long && votes.contains(&node.id)).then_some(node.id)
    })
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
async fn begin(place: &Place, wishes: Vec<v1::Wish>, reason: String) -> Result<(), String> {
    let away = away(place);
    let id = change_id();
    let voters = place.catalog.group().members().voters;
    let begun = place.catalog.change_cluster(ACTOR, WITHIN, |cluster| {
        let planned = changes::plan(cluster, &wishes, &away, &voters)?;
        if planned.is_empty() {
            return Ok(None);
        }
        tracing::info!(
            change = id,
            moves = planned.plan.moves.len(),
            reason,
            "a change begins"
        );
        Ok(Some(Change::BeginChange(planned.begin(
            id.clone(),
            wishes.clone(),
            ACTOR.to_owned(),
            reason.clone(),
        ))))
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
