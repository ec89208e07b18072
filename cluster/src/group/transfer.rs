//! Giving the leadership of a group to another voter.
//!
//! openraft 0.9 has no word for it: the voter, once it has every entry, is asked to stand for election, and this node
//! votes for it. It does not know why the other one should lead.

use super::{Group, GroupInner, Role, windows};
use crate::id::NodeId;
use crate::transport::FrameBody;
use crate::types::Vote;
use crate::wire;
use openraft::ServerState;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Beyond a lease, for timers that tick.
const TICK: Duration = Duration::from_millis(20);
/// The voter is asked again after this long, while the deadline has not passed.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// An election that was begun is waited for this long.
const ELECTED_WITHIN: Duration = Duration::from_millis(500);
/// Of the three lowest ranks, at least one is neither this node nor the other: with its vote, three of five are a majority.
/// Before their silence is longer than its lease, nobody stands for election by itself.
const SILENT_RANK: usize = 2;
/// With more voters than this, this node's vote and the other's are no majority.
const TWO_DECIDE: usize = 3;
/// A voter that lacks no more entries than this has them in a moment.
const NEAR: u64 = 64;
/// Nothing is proposed for at most this long, and the silence that a transfer among more than three needs.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Why the leadership was not given to another node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not own the group.
    #[error("this node does not own the group{}", match leader { Some(n) => format!("; node {n} leads it"), None => "; nobody is known to lead it".to_owned() })]
    NotOwner {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// The other node cannot lead.
    #[error("node {node} does not vote in the group; its voters are {voters:?}")]
    NoVoter {
        /// The node.
        node: NodeId,
        /// Who votes.
        voters: BTreeSet<NodeId>,
    },
    /// Another transfer, or a change of members, is under way.
    #[error("{why}; try again when it has ended")]
    Busy {
        /// What is under way.
        why: String,
    },
    /// The other node does not want to lead, or cannot now.
    #[error("node {node} refused: {why}")]
    Refused {
        /// The node.
        node: NodeId,
        /// What it said.
        why: String,
    },
    /// Somebody else was elected.
    #[error("node {leader} was elected instead")]
    Elsewhere {
        /// Who leads now.
        leader: NodeId,
    },
    /// It has not come about before the deadline. This node owns the group still, or somebody was elected.
    #[error("not transferred before the deadline: {why}")]
    Late {
        /// What was waited for last.
        why: String,
    },
}

/// Proposals are refused while it lives.
struct HandingOver<'a> {
    inner: &'a GroupInner,
    silent: bool,
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.inner.transferring.send_replace(None);
        if self.silent {
            self.inner.raft.runtime_config().heartbeat(true);
        }
    }
}

impl GroupInner {
    /// From when on this leader votes for another: not within the lease of the vote that made it leader.
    fn votes_from(&self) -> Instant {
        let lease = Duration::from_millis(self.raft.config().election_timeout_max);
        *self.led_since.lock() + lease + TICK
    }
}

/// What a node said that was asked to lead.
enum Asked {
    /// It stands for election.
    Stands,
    /// Not yet, or it could not be asked: why.
    Again(String),
    /// It will not: why.
    Never(String),
}

impl Group {
    /// To whom the leadership is being transferred, now and whenever it changes: nothing is proposed here meanwhile.
    pub fn transferring(&self) -> watch::Receiver<Option<NodeId>> {
        self.inner.transferring.subscribe()
    }

    /// Whether a member lacks so little of the log that it has it in a moment; the owner knows.
    pub fn is_near(&self, node: NodeId) -> bool {
        let inner = &*self.inner;
        let last = inner.log.last().map_or(0, |id| id.index);
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow();
        let matched = metrics.replication.as_ref().and_then(|r| r.get(&node));
        matched
            .copied()
            .flatten()
            .is_some_and(|at| at.index + NEAR >= last)
    }

    /// Waits until a member is near ([`Group::is_near`]), as long as this node leads.
    async fn near(&self, node: NodeId) {
        let mut metrics = self.inner.raft.metrics();
        loop {
            let leads = metrics.borrow_and_update().state == ServerState::Leader;
            if !leads || self.is_near(node) || metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Gives the leadership to `node`, a voter, once it has nearly the whole log: until `deadline` that is waited for.
    /// Then, for about a second at most, nothing is proposed here (`NotOwner`, naming it); what was proposed before is
    /// applied first. Returns when this node follows it.
    ///
    /// # Errors
    /// As for [`TransferError`]; whoever leads then, no entry is lost.
    pub async fn transfer_to(&self, node: NodeId, deadline: Instant) -> Result<(), TransferError> {
        let inner = &*self.inner;
        match &*inner.role.borrow() {
            Role::Owner { node: me, .. } if *me == node => return Ok(()),
            Role::Owner { .. } => {}
            Role::Leading => {
                let leader = Some(inner.settings.node);
                return Err(TransferError::NotOwner { leader });
            }
            Role::Follower { leader } => {
                return Err(TransferError::NotOwner { leader: *leader });
            }
            Role::Closed { .. } => return Err(TransferError::NotOwner { leader: None }),
        }
        let members = self.members();
        if !members.voters.contains(&node) {
            let voters = members.voters;
            return Err(TransferError::NoVoter { node, voters });
        }
        if members.changing {
            let why = "the voters are being changed".to_owned();
            return Err(TransferError::Busy { why });
        }
        if inner.votes_from() > deadline {
            let why = "it has led for less than a lease".to_owned();
            return Err(TransferError::Late { why });
        }
        // Before anything is refused: these can only be waited for.
        tokio::time::sleep_until(inner.votes_from()).await;
        if tokio::time::timeout_at(deadline, self.near(node))
            .await
            .is_err()
        {
            let why = format!("node {node} lacks more than {NEAR} entries, or does not answer");
            return Err(TransferError::Late { why });
        }
        {
            let mut before = None;
            inner.transferring.send_if_modified(|to| {
                before = *to;
                *to = before.or(Some(node));
                before.is_none()
            });
            if let Some(other) = before {
                let why = format!("a transfer to node {other} is under way");
                return Err(TransferError::Busy { why });
            }
        }
        let silent = members.voters.len() > TWO_DECIDE;
        let _handing_over = HandingOver { inner, silent };
        let silence = match silent {
            true => windows::lease(SILENT_RANK),
            false => Duration::ZERO,
        };
        let deadline = deadline.min(Instant::now() + CLOSED_WITHIN + silence);
        let mut why = "the node has not yet every entry".to_owned();
        let waiting = self.hand_over(node, silent, &mut why);
        match tokio::time::timeout_at(deadline, waiting).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TransferError::Late { why }),
        }
    }

    /// `silent`: the others must not hear of this leader for a lease, so that they vote for another.
    async fn hand_over(
        &self,
        node: NodeId,
        silent: bool,
        why: &mut String,
    ) -> Result<(), TransferError> {
        let inner = &*self.inner;
        let mut metrics = inner.raft.metrics();
        let mut proposing = inner.proposing.subscribe();
        loop {
            let none_under_way = *proposing.borrow_and_update() == 0;
            let (vote, ready) = {
                let now = metrics.borrow_and_update();
                if now.state != ServerState::Leader {
                    match now.current_leader {
                        Some(leader) if leader == node => break,
                        Some(leader) if leader != inner.settings.node => {
                            return Err(TransferError::Elsewhere { leader });
                        }
                        _ => {}
                    }
                    "nobody is elected yet".clone_into(why);
                    (now.vote, None)
                } else {
                    let last = inner.log.last();
                    let matched = now.replication.as_ref().and_then(|r| r.get(&node)).copied();
                    let applied = inner.replica.applied_log_id();
                    let ready = none_under_way && matched.flatten() == last && applied == last;
                    (now.vote, ready.then_some(last))
                }
            };
            if let Some(last) = ready {
                tokio::time::sleep_until(inner.votes_from()).await;
                if silent {
                    // All begin to wait at the same time.
                    let said = inner.raft.trigger().heartbeat().await;
                    inner.raft.runtime_config().heartbeat(false);
                    if said.is_err() {
                        return Err(TransferError::NotOwner { leader: None });
                    }
                    tokio::time::sleep(windows::lease(SILENT_RANK)).await;
                }
                match self.ask_to_lead(node, &vote, last).await {
                    Asked::Stands => {}
                    Asked::Again(refused) => {
                        *why = refused;
                        tokio::time::sleep(ASK_AGAIN).await;
                        continue;
                    }
                    Asked::Never(why) => return Err(TransferError::Refused { node, why }),
                }
                "the election has not ended".clone_into(why);
                let elected = metrics.wait_for(|now| now.current_leader == Some(node));
                if let Ok(Err(_)) = tokio::time::timeout(ELECTED_WITHIN, elected).await {
                    return Err(TransferError::NotOwner { leader: None });
                }
                if silent {
                    inner.raft.runtime_config().heartbeat(true);
                }
                continue;
            }
            let more = tokio::select! {
                changed = metrics.changed() => changed.is_ok(),
                changed = proposing.changed() => changed.is_ok(),
            };
            if !more {
                return Err(TransferError::NotOwner { leader: None });
            }
        }
        // Whoever asks this node now is told the truth.
        let mut role = inner.role.subscribe();
        let followed = role.wait_for(|role| !matches!(role, Role::Owner { .. } | Role::Leading));
        followed
            .await
            .map(drop)
            .map_err(|_| TransferError::NotOwner { leader: None })
    }

    async fn ask_to_lead(
        &self,
        node: NodeId,
        vote: &Vote,
        last: Option<crate::types::LogId>,
    ) -> Asked {
        let body = wire::elect(vote, last);
        let inner = &*self.inner;
        let asked = inner.transport.ask(node, inner.id, body, ELECTED_WITHIN);
        match asked.await {
            Ok(FrameBody::ElectAnswer(_)) => Asked::Stands,
            Ok(FrameBody::Refused(refused)) if refused.behind => Asked::Again(refused.why),
            Ok(FrameBody::Refused(refused)) => Asked::Never(refused.why),
            Ok(_) => Asked::Never("it did not answer what it was asked".to_owned()),
            Err(error) => Asked::Again(error.to_string()),
        }
    }
}
