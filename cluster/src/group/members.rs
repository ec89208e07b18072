//! Who belongs to a group, and how that changes: one change at a time, each with a deadline.
//!
//! It does not know why anybody joins or leaves; the planner and its executor do.

use super::{Group, Role};
use crate::error::ProposeError;
use crate::id::{NodeId, Position};
use crate::types::TypeConfig;
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, EmptyNode};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use tokio::time::Instant;

/// Who belongs to a group, as this node knows it; on the owner, as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes; while it changes, everybody who votes before or after.
    pub voters: BTreeSet<NodeId>,
    /// Who only listens.
    pub learners: BTreeSet<NodeId>,
    /// The entry that says so; `None` before the first.
    pub at: Option<Position>,
    /// A change of voters is under way.
    pub changing: bool,
    /// Who votes when that change has ended; empty without one.
    pub target: BTreeSet<NodeId>,
}

/// Why a change of members was not made, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// This node does not own the group. Nothing was changed.
    #[error("this node does not own the group{}", match leader { Some(n) => format!("; node {n} leads it"), None => "; nobody is known to lead it".to_owned() })]
    NotOwner {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// The group is closed on this node. Nothing was changed.
    #[error("the group is closed on this node: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// The change makes no sense now. Nothing was changed.
    #[error("{why}")]
    Refused {
        /// What was found and what is expected.
        why: String,
    },
    /// The change was begun and may or may not be made, now or later; see [`Group::members`].
    #[error("outcome unknown: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
}

impl From<ProposeError> for MemberError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotOwner { leader } => MemberError::NotOwner { leader },
            ProposeError::Closed { reason } => MemberError::Closed { reason },
            ProposeError::Unknown { why } => MemberError::Unknown { why },
            ProposeError::TooLarge { .. } => MemberError::Refused {
                why: error.to_string(),
            },
        }
    }
}

type Written =
    Result<ClientWriteResponse<TypeConfig>, RaftError<NodeId, ClientWriteError<NodeId, EmptyNode>>>;

fn refused(why: String) -> MemberError {
    MemberError::Refused { why }
}

impl Group {
    /// Who belongs to the group, as far as this node knows.
    pub fn members(&self) -> Members {
        let metrics = self.inner.raft.metrics();
        let stored = metrics.borrow().membership_config.clone();
        let voters: BTreeSet<NodeId> = stored.voter_ids().collect();
        let sets = stored.membership().get_joint_config();
        let changing = sets.len() > 1;
        let target = sets.last().filter(|_| changing).cloned();
        Members {
            learners: stored
                .nodes()
                .map(|(node, _)| *node)
                .filter(|node| !voters.contains(node))
                .collect(),
            voters,
            at: stored.log_id().map(Position::from),
            target: target.unwrap_or_default(),
            changing,
        }
    }

    /// The same, once it is known: in the first moments after opening a group seems to have nobody. Of a group that was
    /// neither begun here nor told of its members it never is: whoever asks bounds the wait.
    pub async fn known_members(&self) -> Members {
        let mut metrics = self.inner.raft.metrics();
        let known = metrics.wait_for(|m| m.membership_config.voter_ids().next().is_some());
        // closed before it was known: then it stays as it is
        drop(known.await);
        self.members()
    }

    /// Up to where each other member has the log, as the owner knows it; empty elsewhere. `None`: not known yet.
    pub fn progress(&self) -> BTreeMap<NodeId, Option<Position>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let replication = metrics.replication.iter().flatten();
        replication
            .filter(|(node, _)| **node != self.inner.settings.node)
            .map(|(node, at)| (*node, at.map(Position::from)))
            .collect()
    }

    /// Makes `node` a listener: it is given the log, or a snapshot and the log behind it. Answers where the change is in
    /// the log; the node need not be reached for that. A node that belongs to the group already stays what it is.
    ///
    /// # Errors
    /// As for [`MemberError`].
    pub async fn add_learner(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<Position, MemberError> {
        self.inner.must_own()?;
        let raft = self.inner.raft.clone();
        let adding = async move { raft.add_learner(node, EmptyNode::new(), false).await };
        written(deadline, adding).await
    }

    /// Makes `voters` the voters; each of them must belong to the group already. Who voted and is not among them leaves.
    /// Answers where the last step of the change is in the log.
    ///
    /// # Errors
    /// As for [`MemberError`]. After `Unknown` the group may be between the two sets: the same call finishes it.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<NodeId>,
        deadline: Instant,
    ) -> Result<Position, MemberError> {
        self.inner.must_own()?;
        if voters.is_empty() {
            return Err(refused(
                "no voters were given, expected at least one".to_owned(),
            ));
        }
        let members = self.members();
        let strangers: Vec<NodeId> = voters
            .iter()
            .filter(|node| !members.voters.contains(node) && !members.learners.contains(node))
            .copied()
            .collect();
        if !strangers.is_empty() {
            return Err(refused(format!(
                "nodes {strangers:?} do not belong to the group; add them as learners first"
            )));
        }
        let change = ChangeMembers::ReplaceAllVoters(voters);
        let raft = self.inner.raft.clone();
        let changing = async move { raft.change_membership(change, false).await };
        written(deadline, changing).await
    }

    /// Takes a listener out of the group.
    ///
    /// # Errors
    /// As for [`MemberError`].
    pub async fn remove_learner(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<Position, MemberError> {
        self.inner.must_own()?;
        let members = self.members();
        if members.voters.contains(&node) {
            return Err(refused(format!(
                "node {node} votes; change the voters to take it out"
            )));
        }
        if !members.learners.contains(&node) {
            return Err(refused(format!("node {node} does not belong to the group")));
        }
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
        let raft = self.inner.raft.clone();
        let removing = async move { raft.change_membership(change, false).await };
        written(deadline, removing).await
    }

    /// Waits until `node` has everything that this owner had in its log when this was called. Answers that position.
    ///
    /// # Errors
    /// `Unknown` when it has not by the `deadline`; `NotOwner` when this node no longer leads; `Refused` when the node
    /// does not belong to the group.
    pub async fn caught_up(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<Position, MemberError> {
        self.inner.must_own()?;
        let last = self.inner.log.last();
        let mut metrics = self.inner.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                let Some(replication) = &now.replication else {
                    let leader = now.current_leader;
                    return Err(MemberError::NotOwner { leader });
                };
                match replication.get(&node) {
                    None => {
                        return Err(refused(format!("node {node} does not belong to the group")));
                    }
                    Some(at) if *at >= last => {
                        let at = last.ok_or_else(|| refused("the log is empty".to_owned()))?;
                        return Ok(at.into());
                    }
                    Some(_) => {}
                }
            }
            match tokio::time::timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    let reason = match &*self.inner.role.borrow() {
                        Role::Closed { reason } => reason.clone(),
                        _ => "its task has ended".to_owned(),
                    };
                    return Err(MemberError::Closed { reason });
                }
                Err(_) => {
                    return Err(MemberError::Unknown {
                        why: format!("node {node} has not caught up before the deadline"),
                    });
                }
            }
        }
    }
}

/// Waits for a change; what is not known to be made, or known not to be, is unknown.
async fn written(
    deadline: Instant,
    change: impl Future<Output = Written> + Send + 'static,
) -> Result<Position, MemberError> {
    let unknown = |why: String| MemberError::Unknown { why };
    // A task of its own: a change of voters has two steps, and goes on when nobody waits any more.
    match tokio::time::timeout_at(deadline, tokio::spawn(change)).await {
        Ok(Ok(Ok(written))) => Ok(written.log_id.into()),
        Ok(Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))))) => {
            Err(refused(error.to_string()))
        }
        Ok(Ok(Err(error))) => Err(unknown(error.to_string())),
        Ok(Err(ended)) => Err(unknown(ended.to_string())),
        Err(_) => Err(unknown("not made before the deadline".to_owned())),
    }
}
