//! Pausing, resuming and cancelling the change under way, at the owner of the catalog.
//!
//! It does not know how a group is settled; [`crate::place::cancel`] does.

use super::cluster::refused;
use super::errors;
use crate::catalog::cluster::{change_state, state_of};
use crate::catalog::{ChangeError, ClusterState};
use crate::place::{Place, cancel};
use sojourn_cluster::NodeId;
use sojourn_proto::{stored, v1};
use std::sync::Arc;
use std::time::Duration;
use stored::catalog_change::Change;
use stored::change_progress::Progress;
use tonic::Status;

/// Of the time that cancelling a change has, the part in which its groups are settled.
const SETTLE_PART: f32 = 0.6;

/// Pauses, resumes or cancels.
pub(super) async fn control(
    place: &Arc<Place>,
    request: &v1::ControlRequest,
    within: Duration,
) -> Result<Arc<ClusterState>, Status> {
    let kind = request.kind();
    let said = match kind {
        v1::ControlKind::Pause => "paused",
        v1::ControlKind::Resume => "resumed",
        v1::ControlKind::Cancel => "cancelled",
        v1::ControlKind::Unspecified => {
            return Err(errors::invalid_field(
                "kind",
                "expected pause, resume or cancel",
            ));
        }
    };
    let mut note = format!(
        "{said} by {}",
        if request.actor.is_empty() {
            "somebody"
        } else {
            &request.actor
        }
    );
    if !request.reason.is_empty() {
        note = format!("{note}: {}", request.reason);
    }
    match kind {
        v1::ControlKind::Pause | v1::ControlKind::Unspecified => {
            set(
                place,
                request,
                within,
                v1::ChangeState::Paused,
                (note, None),
            )
            .await
        }
        v1::ControlKind::Resume => {
            set(
                place,
                request,
                within,
                v1::ChangeState::Running,
                (note, None),
            )
            .await
        }
        v1::ControlKind::Cancel => {
            // whoever asked may go: what has begun is ended, or the change would stay paused
            let (place, request) = (place.clone(), request.clone());
            let cancelling =
                tokio::spawn(async move { cancel(&place, &request, within, note).await });
            cancelling
                .await
                .map_err(|e| ChangeError::Unknown(e.to_string()))
                .flatten()
        }
    }
    .map_err(refused)
}

/// Nothing more is begun; then the layout becomes what the groups are. A change that cannot be cancelled goes on.
async fn cancel(
    place: &Arc<Place>,
    request: &v1::ControlRequest,
    within: Duration,
    note: String,
) -> Result<Arc<ClusterState>, ChangeError> {
    use v1::ChangeState::{Cancelled, Paused, Running};
    let until = tokio::time::Instant::now() + within.mul_f32(SETTLE_PART);
    let cluster = place.topology.cluster();
    let Some(was) = cluster.changing().filter(|c| c.id == request.id) else {
        return set(place, request, within, Cancelled, (note, None)).await;
    };
    let was = change_state(was);
    let mut cluster = set(place, request, within, Paused, (note.clone(), None)).await?;
    loop {
        let found = cancel::as_it_is(place, &cluster, until).await;
        let ended = match found {
            Ok(found) => {
                let mut note = note.clone();
                if !found.unasked.is_empty() {
                    note = format!(
                        "{note}; shards {:?} could not be asked: their layout names everybody who may vote",
                        found.unasked
                    );
                }
                set(place, request, within, Cancelled, (note, Some(found))).await
            }
            Err(why) => Err(ChangeError::Refused(why)),
        };
        let error = match ended {
            Ok(cluster) => return Ok(cluster),
            Err(error) => error,
        };
        // a node came or went meanwhile: what was found is not certain any more
        let now = place.topology.cluster();
        let moved_on = now.position != cluster.position;
        if moved_on && tokio::time::Instant::now() < until {
            cluster = now;
            continue;
        }
        if was == Running {
            let note = (format!("{note}, which was not possible: {error}"), None);
            drop(set(place, request, within, Running, note).await);
        }
        return Err(error);
    }
}

/// Sets the state of the change that is asked for.
async fn set(
    place: &Arc<Place>,
    request: &v1::ControlRequest,
    within: Duration,
    state: v1::ChangeState,
    (note, found): (String, Option<cancel::AsItIs>),
) -> Result<Arc<ClusterState>, ChangeError> {
    let judge = |cluster: &ClusterState| {
        let change = match &cluster.change {
            Some(change) if change.id == request.id => change,
            Some(change) => {
                return Err(format!(
                    "there is no change {}; the last one is {}",
                    request.id, change.id
                ));
            }
            None => {
                return Err(format!(
                    "there is no change {}, nor was there any",
                    request.id
                ));
            }
        };
        if change_state(change) == state {
            return Ok(None);
        }
        if cluster.changing().is_none() {
            return Err(format!("change {} has ended already", request.id));
        }
        let mut nodes = Vec::new();
        if state == v1::ChangeState::Cancelled {
            // who was to be left stays, with what it still holds
            let left = change.wishes.iter().filter_map(|w| match w.wish {
                Some(v1::wish::Wish::Drain(n) | v1::wish::Wish::Remove(n)) => Some(n),
                _ => None,
            });
            let drains = |n: &NodeId| {
                let node = cluster.nodes.get(n);
                node.is_some_and(|n| state_of(n) == v1::NodeState::Draining)
            };
            nodes = left
                .filter(drains)
                .map(|node| stored::NodeStateChange {
                    node,
                    state: v1::NodeState::Active as u32,
                })
                .collect();
        }
        let (layout, from) = found.map_or((None, 0), |f| (Some(f.layout), f.from));
        Ok(Some(Change::ChangeProgress(stored::ChangeProgress {
            id: request.id.clone(),
            progress: Some(Progress::State(state as u32)),
            note,
            layout,
            nodes,
            from,
        })))
    };
    place
        .catalog
        .change_cluster(&request.actor, within, judge)
        .await
}
