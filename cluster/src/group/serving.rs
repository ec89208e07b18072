//! What the other members of a group ask this one, and who may stand for election.
//!
//! Checks what comes before openraft sees it. It does not know how questions arrive.

use super::windows;
use super::{Group, GroupInner};
use crate::id::NodeId;
use crate::replica::guarded;
use crate::transport::FrameBody;
use crate::types::{TypeConfig, Vote};
use crate::wire::{self, refused};
use openraft::raft::{AppendEntriesResponse, VoteResponse};
use openraft::{ServerState, Snapshot};
use sojourn_proto::cluster as proto;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A leader that a majority has answered within this time helps nobody else to lead. Below the shortest election
/// timeout, so that no vote is withheld that could be won elsewhere.
const LEADS_FOR_MS: u64 = 300;

/// How long an election may take before it is tried again with the next term.
const STANDS_FOR: Duration = Duration::from_millis(80);
/// Who is asked to lead is silent for the third lease before ([`super::transfer`]). The ranks of the others may be higher, or
/// all the same, when nodes have come and gone: it stands until the last lease is over too.
const STANDS_AGAIN: u32 = 2;
/// How long each of these elections may take: three are over when the last lease is, with time to spare on a slow disk.
const ASKED_STANDS_FOR: Duration = Duration::from_millis(150);

/// While it lives, this replica does not stand for election.
pub(crate) struct HeldBack {
    inner: Arc<GroupInner>,
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        self.inner.held_back.fetch_sub(1, Ordering::AcqRel);
        self.inner.campaign_if_whole();
    }
}

impl GroupInner {
    /// A replica whose history has gaps would make an owner that cannot answer: it votes, and that is all. One that has
    /// less than an earlier replica on this node had might lead without entries that were acknowledged.
    pub(super) fn campaign_if_whole(&self) {
        // One at a time, or what was true before would be said last.
        let mut campaigns = self.campaigns.lock();
        let may = self.held_back.load(Ordering::Acquire) == 0
            && !self.listening.load(Ordering::Acquire)
            && self.log.behind_left().is_none()
            && self.is_whole();
        self.raft.runtime_config().elect(may);
        *campaigns = may;
    }

    /// Whether no leader, this node included, has sent anything for longer than one is silent in peace.
    fn hears_nobody(&self) -> bool {
        if self.raft.metrics().borrow().state == ServerState::Leader {
            return false;
        }
        let heard = *self.heard.lock();
        heard.is_none_or(|at| at.elapsed() > windows::lease(0))
    }

    /// Stands for election so many times more, `each` as long as that, with the next term, until it leads or hears of a
    /// leader; the last one is waited for too.
    async fn stand_on(&self, times: u32, each: Duration) {
        for left in (0..=times).rev() {
            let mut metrics = self.raft.metrics();
            let led = metrics.wait_for(|now| now.state == ServerState::Leader);
            let led = tokio::time::timeout(each, led).await.is_ok();
            if led
                || left == 0
                || !self.hears_nobody()
                || self.raft.trigger().elect().await.is_err()
            {
                return;
            }
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        let machine = self.replica.machine();
        // A machine that panicked here has other troubles, and does not become owner.
        guarded(&*machine, |m| Ok(m.history_is_whole())).unwrap_or(false)
    }
}

impl Group {
    /// Answers another member's question.
    pub(crate) async fn answer(&self, from: NodeId, body: FrameBody) -> FrameBody {
        if self.inner.log.waits() {
            return refused("it is taking over a snapshot".to_owned());
        }
        let answered = match body {
            FrameBody::Append(frame) => self.answer_append(from, &frame).await,
            FrameBody::Vote(frame) => self.answer_vote(from, &frame).await,
            FrameBody::Elect(frame) => self.answer_elect(from, &frame).await,
            FrameBody::AppendAnswer(_)
            | FrameBody::VoteAnswer(_)
            | FrameBody::ElectAnswer(_)
            | FrameBody::Refused(_) => Err("an answer was sent as a question".to_owned()),
        };
        answered.unwrap_or_else(|why| {
            tracing::debug!(group = %self.id(), node = from, %why, "a question was refused");
            refused(why)
        })
    }

    async fn answer_append(
        &self,
        from: NodeId,
        frame: &proto::Append,
    ) -> Result<FrameBody, String> {
        let request = wire::append_from(from, frame)?;
        let sent = Instant::now();
        let answer = self.inner.raft.append_entries(request).await;
        let answer = answer.map_err(|e| e.to_string())?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            *self.inner.heard.lock() = Some(sent);
            self.inner.has_listened();
        }
        Ok(wire::append_answer(&answer))
    }

    async fn answer_vote(&self, from: NodeId, frame: &proto::Vote) -> Result<FrameBody, String> {
        let request = wire::vote_from(from, frame)?;
        if let Some(vote) = self.leads_undisputed(from) {
            let last = self.inner.log.last();
            return Ok(wire::vote_answer(&VoteResponse::new(vote, last, false)));
        }
        if let Some(left) = self.inner.log.behind_left()
            && request.last_log_id < Some(left)
        {
            let answer = VoteResponse::new(self.vote(), Some(left), false);
            return Ok(wire::vote_answer(&answer));
        }
        let candidate_has = request.last_log_id;
        let answer = self.inner.raft.vote(request).await;
        let answer = answer.map_err(|e| e.to_string())?;
        if !answer.vote_granted && candidate_has < self.inner.log.last() {
            self.stand_instead();
        }
        Ok(wire::vote_answer(&answer))
    }

    /// Stands for election at once, in place of a candidate that has less than this replica: without a leader, somebody
    /// with everything has to, and the own time may come only after the candidate's next. Tried twice: the first time the
    /// candidate's own vote may be the higher one of the term.
    fn stand_instead(&self) {
        let inner = self.inner.clone();
        if !inner.hears_nobody()
            || !*inner.campaigns.lock()
            || !self.members().voters.contains(&inner.settings.node)
            || inner.standing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        tokio::spawn(async move {
            if inner.raft.trigger().elect().await.is_ok() {
                inner.stand_on(1, STANDS_FOR).await;
            }
            inner.standing.store(false, Ordering::Release);
        });
    }

    /// The vote of this node's leadership, when a majority has just confirmed it. openraft's followers refuse to vote
    /// while they hear of a leader; its leader does not, and a node that only cannot hear would unseat it.
    fn leads_undisputed(&self, candidate: NodeId) -> Option<Vote> {
        if *self.inner.transferring.borrow() == Some(candidate) {
            return None;
        }
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let heard = metrics.millis_since_quorum_ack?;
        let several = metrics.membership_config.voter_ids().count() > 1;
        (several && metrics.state == ServerState::Leader && heard < LEADS_FOR_MS)
            .then_some(metrics.vote)
    }

    async fn answer_elect(&self, from: NodeId, frame: &proto::Elect) -> Result<FrameBody, String> {
        let inner = &*self.inner;
        let (vote, last) = wire::elect_from(from, frame)?;
        if self.vote() != vote {
            return Err(format!(
                "found vote {}, expected that of the leader, {vote}",
                self.vote()
            ));
        }
        if inner.log.last() != last {
            return Ok(wire::behind("its log is not as long as the leader's"));
        }
        let less = inner.log.behind_left().is_some();
        if less || inner.held_back.load(Ordering::Acquire) > 0 || !inner.is_whole() {
            return Err("its history is not complete".to_owned());
        }
        if !self.members().voters.contains(&inner.settings.node) {
            return Err("it does not vote in the group".to_owned());
        }
        let stands = inner.raft.trigger().elect().await;
        stands.map_err(|e| e.to_string())?;
        if !inner.standing.swap(true, Ordering::AcqRel) {
            let inner = self.inner.clone();
            tokio::spawn(async move {
                inner.stand_on(STANDS_AGAIN, ASKED_STANDS_FOR).await;
                inner.standing.store(false, Ordering::Release);
            });
        }
        Ok(FrameBody::ElectAnswer(proto::ElectAnswer {}))
    }

    /// The highest vote that this node knows.
    pub(crate) fn vote(&self) -> Vote {
        self.inner.raft.metrics().borrow().vote
    }

    /// The highest term that this node knows.
    pub fn term(&self) -> u64 {
        self.vote().leader_id.term
    }

    /// As long as the answer lives, this replica does not stand for election.
    pub(crate) fn hold_back(&self) -> HeldBack {
        self.inner.held_back.fetch_add(1, Ordering::AcqRel);
        self.inner.campaign_if_whole();
        HeldBack {
            inner: self.inner.clone(),
        }
    }

    /// Looks again whether history is complete.
    pub(crate) fn campaign_if_whole(&self) {
        self.inner.campaign_if_whole();
    }

    /// Has openraft install a snapshot that has arrived; answers the highest vote that this node knows.
    pub(crate) async fn install(
        &self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
    ) -> Result<Vote, String> {
        let installed = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        installed
            .map(|answer| answer.vote)
            .map_err(|e| e.to_string())
    }
}
