//! Carries out the change under way: moves each group's membership, which is the truth, towards the layout, which is the
//! intent. Only the owner of the catalog does, one step at a time per shard and a few shards at a time; each step is
//! recorded before and after, and looks at the membership first, so that whoever owns the catalog next goes on.
//!
//! It does not know why the layout is as it is.

use super::step::{Around, Next, Truth, Waits, describe, next_step};
use super::{Place, service};
use crate::catalog::ClusterState;
use crate::catalog::cluster::change_state;
use crate::clock;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use sojourn_proto::{stored, v1};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
pub(super) const AGAIN: Duration = Duration::from_millis(200);
/// The same, while the reason stays the same.
const AGAIN_SAME: Duration = Duration::from_secs(1);
/// A learner that catches up may keep its shard's turn for this long.
const TURN_MAX: Duration = Duration::from_secs(120);
/// A node that has been away for this long is named in the note of the change that waits for it.
const AWAY_FOR: Duration = Duration::from_secs(5);
/// How long recording a step may take.
const RECORD_WITHIN: Duration = Duration::from_secs(10);

/// For what a step is taken.
#[derive(Clone, Copy)]
pub enum For<'a> {
    /// Somebody asked for it.
    Hand,
    /// The change that runs.
    Change(&'a str),
    /// Clearing away what is left of a change that is paused.
    Cancelling(&'a str),
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

/// One shard on its way.
struct Moving {
    shard: u16,
    target: Vec<NodeId>,
    recorded: String,
    told: String,
    caught_up: BTreeSet<NodeId>,
    /// Not looked at again before.
    after: Instant,
}

/// The change that is carried out.
struct Carrying<'a> {
    place: &'a Arc<Place>,
    id: &'a str,
    /// What stands in its note: every record of a step says it again.
    note: Mutex<String>,
}

/// Moves every shard of the change that has not moved yet, then ends the change. One that has to wait lets others go
/// first.
async fn carry_out(place: &Arc<Place>, cluster: &ClusterState) {
    let (Some(change), Ok(layout)) = (&cluster.change, cluster.layout()) else {
        return;
    };
    let carrying = Carrying {
        place,
        id: &change.id,
        note: Mutex::new(change.note.clone()),
    };
    let left = change.shards.iter().filter(|s| !change.moved.contains(s));
    let mut left: VecDeque<Moving> = left
        .filter_map(|s| u16::try_from(*s).ok())
        .map(|shard| Moving {
            shard,
            target: layout.voters(ShardId(shard)).to_vec(),
            recorded: String::new(),
            told: String::new(),
            caught_up: BTreeSet::new(),
            after: Instant::now(),
        })
        .collect();
    let mut waiting: BTreeMap<u16, NodeId> = BTreeMap::new();
    let mut moving = FuturesUnordered::new();
    loop {
        while moving.len() < AT_ONCE
            && left.front().is_some_and(|m| m.after <= Instant::now())
            && let Some(next) = left.pop_front()
        {
            moving.push(carrying.move_on(next));
        }
        if moving.is_empty() && left.is_empty() {
            break;
        }
        let next = left.front().filter(|_| moving.len() < AT_ONCE);
        let after = next.map(|m| m.after);
        tokio::select! {
            Some((mut moved, waits)) = moving.next() => {
                let Some(Waits { why, node }) = waits else {
                    waiting.remove(&moved.shard);
                    continue;
                };
                match node {
                    Some(node) => waiting.insert(moved.shard, node),
                    None => waiting.remove(&moved.shard),
                };
                let mut again = AGAIN;
                if why == moved.told {
                    again = AGAIN_SAME;
                } else {
                    tracing::info!(shard = moved.shard, why, "a move has to wait");
                    moved.told = why;
                }
                moved.after = Instant::now() + again;
                left.push_back(moved);
            }
            () = tokio::time::sleep_until(after.unwrap_or_else(Instant::now)), if after.is_some() => {}
        }
        carrying.note(&waiting).await;
    }
    end(place, &change.id).await;
}

/// What is said of nodes that a change waits for: those that have been away for some time.
fn waits_for(place: &Place, waiting: &BTreeMap<u16, NodeId>) -> String {
    let heard = place.topology.heard();
    let nodes: BTreeSet<NodeId> = waiting.values().copied().collect();
    let lost = nodes.into_iter().filter(|node| {
        heard
            .get(node)
            .is_some_and(|h| h.why.is_some() && h.since.elapsed() > AWAY_FOR)
    });
    let said: Vec<String> = lost
        .map(|node| {
            let shards = waiting.values().filter(|n| **n == node).count();
            format!(
                "{shards} shards wait for node {node}, which cannot be reached; start it, or cancel the change and remove \
                 the node"
            )
        })
        .collect();
    said.join("; ")
}

impl Carrying<'_> {
    /// Says in the change's note for whom it waits.
    async fn note(&self, waiting: &BTreeMap<u16, NodeId>) {
        let said = waits_for(self.place, waiting);
        if *self.note.lock() == said {
            return;
        }
        let before = std::mem::replace(&mut *self.note.lock(), said);
        if self.record(None).await.is_err() {
            // said again with the next look
            *self.note.lock() = before;
        }
    }

    async fn record(&self, progress: Option<Progress>) -> Result<(), String> {
        let (id, note) = (self.id.to_owned(), self.note.lock().clone());
        let catalog = &self.place.catalog;
        let recorded = catalog.change_cluster("", RECORD_WITHIN, |_| {
            Ok(Some(Change::ChangeProgress(stored::ChangeProgress {
                id,
                progress,
                note,
                ..Default::default()
            })))
        });
        recorded.await.map(drop).map_err(|e| e.to_string())
    }

    /// Moves one shard on until it has moved or has to wait.
    async fn move_on(&self, mut moving: Moving) -> (Moving, Option<Waits>) {
        // a learner that lives and is given a snapshot keeps its turn: more at once would only share the wire
        let turn = Instant::now() + TURN_MAX;
        loop {
            let awaited = match self.step(&mut moving).await {
                Ok(true) => return (moving, None),
                Ok(false) => continue,
                Err((waits, awaited)) => match awaited {
                    Some(node) if Instant::now() < turn && !away(self.place).contains(&node) => {
                        node
                    }
                    _ => return (moving, Some(waits)),
                },
            };
            tracing::debug!(shard = moving.shard, node = awaited, "it still catches up");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Takes one step; answers whether the shard has moved. With an error, the learner that was waited for.
    async fn step(&self, moving: &mut Moving) -> Result<bool, (Waits, Option<NodeId>)> {
        let (place, shard) = (self.place, moving.shard);
        let now = |why: String| (Waits::from(why), None);
        let truth = truth(place, shard).await.map_err(now)?;
        let around = Around::of(place, shard, &truth);
        // whoever was away has everything no more
        moving.caught_up.retain(|node| !around.away.contains(node));
        let step = match next_step(&truth, &moving.target, &moving.caught_up, &around) {
            Next::Wait(waits) => return Err((waits, None)),
            Next::Moved => {
                let moved = self.record(Some(Progress::Moved(shard.into()))).await;
                return moved.map(|()| true).map_err(now);
            }
            Next::Take(step) => step,
        };
        let name = describe(&step);
        if moving.recorded != name {
            let begun = stored::ChangeStep {
                shard: shard.into(),
                step: name.clone(),
                since: clock::wall().0,
            };
            let begun = self.record(Some(Progress::Begun(begun))).await;
            begun.map_err(now)?;
            moving.recorded = name;
        }
        let awaited = match step {
            Step::AwaitCaughtUp(node) => Some(node),
            _ => None,
        };
        let mut taken = take(place, truth.owner, shard, step, For::Change(self.id)).await;
        if let (Ok(()), Some(node)) = (&taken, awaited) {
            taken = has_history(place, node, shard).await;
            moving.caught_up.extend(taken.is_ok().then_some(node));
        }
        taken
            .map(|()| false)
            .map_err(|why| (Waits::from(why), awaited))
    }
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
///
/// # Errors
/// Nobody is known to own it, or its owner does not answer.
pub async fn truth(place: &Place, shard: u16) -> Result<Truth, String> {
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
        target: group.target.into_iter().collect(),
        catalog: group.catalog,
    })
}

/// Has the owner of a shard take a step.
///
/// # Errors
/// It was not, or may not have been, taken: why.
pub async fn take(
    place: &Place,
    owner: NodeId,
    shard: u16,
    step: Step,
    why: For<'_>,
) -> Result<(), String> {
    let name = describe(&step);
    let (change, cancelling) = match why {
        For::Hand => ("", false),
        For::Change(id) => (id, false),
        For::Cancelling(id) => (id, true),
    };
    let request = wire::StepRequest {
        shard: shard.into(),
        step: Some(step),
        within_ms: STEP_WITHIN.as_millis() as u32,
        change: change.to_owned(),
        cancelling,
    };
    let answer = if owner == place.me {
        service::take_step(place, request).await
    } else {
        let channel = place.transport.channel(owner).map_err(|e| e.to_string())?;
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

/// The nodes that are to be gone when a change has ended.
fn removed(change: &stored::ClusterChange) -> Vec<NodeId> {
    let wishes = change.wishes.iter();
    wishes
        .filter_map(|w| match w.wish {
            Some(v1::wish::Wish::Remove(node)) => Some(node),
            _ => None,
        })
        .collect()
}

/// Ends a change whose shards have all moved: nodes that were to be removed are gone now. Not before the catalog can do
/// without them: nobody has the address of one that was removed, and its vote may be needed to let go of it.
async fn end(place: &Place, id: &str) {
    let members = place.catalog.group().members();
    let leaving = place
        .topology
        .cluster()
        .changing()
        .map_or_else(Vec::new, removed);
    let votes: Vec<NodeId> = leaving
        .into_iter()
        .filter(|node| members.voters.contains(node))
        .collect();
    if members.changing || !votes.is_empty() {
        tracing::debug!(
            change = id,
            ?votes,
            "the catalog lets go of nodes before the change ends"
        );
        tokio::time::sleep(AGAIN).await;
        return;
    }
    let ended = place.catalog.change_cluster("", RECORD_WITHIN, |cluster| {
        let Some(change) = cluster.changing().filter(|c| c.id == id) else {
            return Ok(None);
        };
        let removed = removed(change).into_iter();
        let removed = removed.map(|node| stored::NodeStateChange {
            node,
            state: v1::NodeState::Removed as u32,
        });
        Ok(Some(Change::ChangeProgress(stored::ChangeProgress {
            id: id.to_owned(),
            progress: Some(Progress::State(v1::ChangeState::Done as u32)),
            note: String::new(),
            nodes: removed.collect(),
            ..Default::default()
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
