//! Keeps the catalog's own members right: every node listens, and up to five vote.
//!
//! It does not know about shards.

use super::topology::Heard;
use super::{Place, changes};
use crate::catalog::cluster::state_of;
use sojourn_cluster::{GroupId, NodeId};
use sojourn_proto::cluster::GroupStatus;
use sojourn_proto::v1;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one step may take.
const STEP_WITHIN: Duration = Duration::from_secs(20);
/// What could not be done is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);

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
                () = tokio::time::sleep(AGAIN) => continue,
                () = place.stopping.cancelled() => return,
            }
        }
        tokio::select! {
            changed = version.changed() => if changed.is_err() { return },
            () = place.stopping.cancelled() => return,
        }
    }
}

/// Whether a node could own the catalog now, as far as is known of it.
fn takes_over(heard: Option<&Heard>) -> bool {
    let status = heard.filter(|h| h.why.is_none());
    let status = status.and_then(|h| h.status.as_ref());
    status.filter(|s| !s.stopping).is_some_and(|status| {
        let catalog = |g: &GroupStatus| g.group == GroupId::CATALOG.0 && g.role == "follower";
        status.groups.iter().any(catalog)
    })
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
        let mut heirs = wanted.iter().filter(|id| members.voters.contains(id));
        if let Some(heir) = heirs.find(|id| takes_over(heard.get(id))) {
            group
                .transfer_to(*heir, until)
                .await
                .map_err(|e| e.to_string())?;
            return Ok(());
        }
        let both: BTreeSet<NodeId> = wanted.iter().copied().chain([place.me]).collect();
        if both.is_subset(&members.voters) {
            return Err(format!(
                "none of nodes {wanted:?} can take the catalog over now"
            ));
        }
        group.change_voters(both, until).await.map_err(text)?;
        return Err("the next owner votes now".into());
    }
    tracing::info!(voters = ?wanted, "the catalog's voters change");
    group.change_voters(wanted, until).await.map_err(text)?;
    // whoever does not vote any more listens on
    Err("its voters have changed".into())
}
