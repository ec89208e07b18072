//! From openraft's idea of who leads to who owns.
//!
//! It does not know what an owner does.

use super::{GroupInner, Role};
use crate::bugs::{self, Bug};
use crate::format;
use crate::id::NodeId;
use crate::machine::EntryKind;
use crate::runtime::Rng;
use crate::types::{LogId, Proposal, Raft};
use openraft::ServerState;
use openraft::metrics::RaftServerMetrics;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A barrier that failed is proposed again this much later, while this node still leads.
const BARRIER_RETRY: Duration = Duration::from_millis(50);

/// How often a leader looks whether a majority still answers it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A leader that no majority has answered for this long owns nothing until one does: others may have elected by then, and
/// what is proposed here would only be unknown. openraft 0.9 does not look.
const UNHEARD_FOR: Duration = Duration::from_secs(1);

type BarrierFuture = Pin<Box<dyn Future<Output = Option<LogId>> + Send>>;

/// Proposes a barrier that is this leadership's own; answers where it was applied.
fn barrier(raft: Raft, epoch: u64, after: Duration) -> BarrierFuture {
    let mut nonce = Vec::with_capacity(17);
    nonce.push(format::FORMAT);
    nonce.extend_from_slice(&epoch.to_le_bytes());
    nonce.extend_from_slice(&Rng.draw().to_le_bytes());
    Box::pin(async move {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let proposal = Proposal {
            kind: EntryKind::Barrier,
            body: nonce.into(),
        };
        raft.client_write(proposal)
            .await
            .ok()
            .map(|written| written.log_id)
    })
}

/// Follows openraft's idea of who leads, and makes of it who owns.
pub(super) async fn watch_role(inner: Arc<GroupInner>) {
    static EPOCHS: AtomicU64 = AtomicU64::new(1);
    let mut metrics = inner.raft.server_metrics();
    // The leadership that the barrier is for.
    let mut leading: Option<(u64, NodeId)> = None;
    let mut epoch = 0;
    let mut waiting: Option<BarrierFuture> = None;
    let mut failed = inner.failed.clone();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unheard = false;
    loop {
        let leads = leadership(&metrics.borrow_and_update(), inner.settings.node);
        unheard &= leads.is_ok();
        match if unheard { Err(None) } else { leads } {
            Ok(session) if leading != Some(session) => {
                leading = Some(session);
                *inner.led_since.lock() = Instant::now();
                epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
                if bugs::has(Bug::NoBarrier) {
                    let (term, node) = session;
                    inner.role.send_replace(Role::Owner { term, node, epoch });
                } else {
                    inner.role.send_replace(Role::Leading);
                    waiting = Some(barrier(inner.raft.clone(), epoch, Duration::ZERO));
                }
            }
            Ok(_) => {}
            Err(leader) => {
                leading = None;
                waiting = None;
                let role = Role::Follower { leader };
                inner.role.send_if_modified(|old| {
                    let changed = *old != role;
                    *old = role;
                    changed
                });
            }
        }
        let again = tokio::select! {
            biased;
            // An idle group would not notice by itself that nothing can be written any more.
            _ = failed.wait_for(Option::is_some) => false,
            changed = metrics.changed() => changed.is_ok(),
            applied = next(&mut waiting) => {
                waiting = match (applied, leading) {
                    (Some(at), Some((term, node))) if at.leader_id.term == term && at.leader_id.node_id == node => {
                        inner.role.send_replace(Role::Owner { term, node, epoch });
                        None
                    }
                    // Lost, or applied under another leadership: this one needs its own.
                    _ => Some(barrier(inner.raft.clone(), epoch, BARRIER_RETRY)),
                };
                true
            }
            _ = look.tick(), if leads.is_ok() => {
                unheard = is_unheard(&inner);
                true
            }
        };
        if !again {
            break;
        }
    }
    inner.role.send_replace(Role::Closed {
        reason: closed_reason(&inner),
    });
}

/// Whether this leader has had no answer of a majority for too long.
fn is_unheard(inner: &GroupInner) -> bool {
    let metrics = inner.raft.metrics();
    let metrics = metrics.borrow();
    if metrics.membership_config.voter_ids().count() <= 1 {
        return false;
    }
    let since = match metrics.millis_since_quorum_ack {
        Some(millis) => Duration::from_millis(millis),
        None => inner.led_since.lock().elapsed(),
    };
    since > UNHEARD_FOR
}

/// The barrier that is waited for; never, if there is none.
async fn next(waiting: &mut Option<BarrierFuture>) -> Option<LogId> {
    match waiting {
        Some(applied) => applied.await,
        None => std::future::pending().await,
    }
}

/// The (term, node) of this node's leadership, or who else leads.
fn leadership(
    metrics: &RaftServerMetrics<NodeId, openraft::EmptyNode>,
    node: NodeId,
) -> Result<(u64, NodeId), Option<NodeId>> {
    let leader = metrics.vote.leader_id;
    if metrics.state == ServerState::Leader && metrics.vote.is_committed() && leader.node_id == node
    {
        Ok((leader.term, leader.node_id))
    } else {
        Err(metrics.current_leader.filter(|leader| *leader != node))
    }
}

fn closed_reason(inner: &GroupInner) -> String {
    if let Some(reason) = inner.replica.broken_reason() {
        return reason;
    }
    if inner.closing.load(Ordering::Acquire) {
        return "closed".to_owned();
    }
    if let Some(failure) = &*inner.failed.borrow() {
        return failure.to_string();
    }
    match &inner.raft.metrics().borrow().running_state {
        Err(error) => error.to_string(),
        Ok(()) => "its task has ended".to_owned(),
    }
}
