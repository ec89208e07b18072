//! Between openraft's messages and the frames that nodes exchange.
//!
//! What comes from another node is checked before openraft sees it, for openraft trusts its callers and panics on what
//! cannot be. This module does not know how frames travel.

use crate::format::{self, Cover, Covering};
use crate::id::NodeId;
use crate::transport::FrameBody;
use crate::types::{Entry, LogId, Membership, TypeConfig, Vote};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use sojourn_proto::cluster as proto;
use sojourn_proto::cluster::append_answer::Outcome;

/// No honest cluster gets here, one term a microsecond since the pyramids were built; openraft adds one without looking.
const MAX_TERM: u64 = 1 << 60;
/// The same for indexes.
const MAX_INDEX: u64 = 1 << 60;
/// More members than any group has.
const MAX_MEMBERS: usize = 1024;

/// A question that cannot be understood, for the log of both nodes.
pub(crate) fn refused(why: impl Into<String>) -> FrameBody {
    FrameBody::Refused(proto::Refused {
        why: why.into(),
        behind: false,
    })
}

/// A question that can be answered once this node has more of the log.
pub(crate) fn behind(why: impl Into<String>) -> FrameBody {
    FrameBody::Refused(proto::Refused {
        why: why.into(),
        behind: true,
    })
}

fn position(at: Option<LogId>) -> Option<proto::LogPosition> {
    at.as_ref().map(format::position)
}

fn log_id(what: &str, at: Option<&proto::LogPosition>) -> Result<Option<LogId>, String> {
    match at {
        Some(at) if at.term > MAX_TERM || at.index > MAX_INDEX => Err(format!(
            "{what} is at term {}, index {}, which cannot be",
            at.term, at.index
        )),
        at => Ok(at.map(format::log_id)),
    }
}

/// A vote, of whomever.
fn any_vote(record: Option<&proto::VoteRecord>) -> Result<Vote, String> {
    let record = record.ok_or("the vote is missing")?;
    if record.term > MAX_TERM {
        return Err(format!(
            "the vote is for term {}, which cannot be",
            record.term
        ));
    }
    Ok(format::vote(record))
}

/// The vote of the node that sends it: a leader's is committed, a candidate's is not.
pub(crate) fn vote_of(
    from: NodeId,
    leads: bool,
    record: Option<&proto::VoteRecord>,
) -> Result<Vote, String> {
    let vote = any_vote(record)?;
    if vote.leader_id.node_id != from {
        return Err(format!(
            "node {from} sends the vote of node {}, expected its own",
            vote.leader_id.node_id
        ));
    }
    if vote.committed != leads {
        let (found, expected) = match leads {
            true => ("a candidate", "a leader"),
            false => ("a leader", "a candidate"),
        };
        return Err(format!("the vote is that of {found}, expected {expected}"));
    }
    Ok(vote)
}

fn check_membership(membership: &Membership) -> Result<(), String> {
    let sets = membership.get_joint_config();
    if !(1..=2).contains(&sets.len()) || sets.iter().any(std::collections::BTreeSet::is_empty) {
        return Err(format!(
            "a membership has {} sets of voters, expected one or two, none empty",
            sets.len()
        ));
    }
    let members = membership.nodes().count();
    if members > MAX_MEMBERS {
        return Err(format!(
            "a membership names {members} nodes, the limit is {MAX_MEMBERS}"
        ));
    }
    Ok(())
}

/// What a snapshot covers, if it can be.
pub(crate) fn cover(group: u64, cover: Option<&Cover>) -> Result<LogId, String> {
    let cover = cover.ok_or("it is not said what the snapshot covers")?;
    if cover.group != group {
        return Err(format!(
            "the snapshot is of group {}, expected {group}",
            cover.group
        ));
    }
    let at = log_id("the snapshot", cover.at.as_ref())?.ok_or("the snapshot covers nothing")?;
    log_id("its membership", cover.membership_at.as_ref())?;
    check_membership(cover.stored_membership().membership())?;
    Ok(at)
}

/// An append as a frame of about `limit` bytes, and the last entry that is in it when some had to be left out.
pub(crate) fn append(
    rpc: &AppendEntriesRequest<TypeConfig>,
    limit: usize,
) -> (FrameBody, Option<LogId>) {
    let mut entries = Vec::with_capacity(rpc.entries.len());
    let (mut bytes, mut cut) = (0, None);
    for entry in &rpc.entries {
        let encoded = format::encode_entry(entry);
        if !entries.is_empty() && bytes + encoded.len() > limit {
            cut = rpc.entries.get(entries.len() - 1).map(|last| last.log_id);
            break;
        }
        bytes += encoded.len();
        entries.push(encoded);
    }
    let frame = proto::Append {
        vote: Some(format::vote_record(&rpc.vote)),
        after: position(rpc.prev_log_id),
        committed: position(rpc.leader_commit),
        entries,
    };
    (FrameBody::Append(frame), cut)
}

/// The append of a frame.
pub(crate) fn append_from(
    from: NodeId,
    frame: &proto::Append,
) -> Result<AppendEntriesRequest<TypeConfig>, String> {
    let vote = vote_of(from, true, frame.vote.as_ref())?;
    let prev_log_id = log_id("the entry before the first", frame.after.as_ref())?;
    let leader_commit = log_id("the last committed entry", frame.committed.as_ref())?;
    let mut entries: Vec<Entry> = Vec::with_capacity(frame.entries.len());
    let mut last = prev_log_id;
    for bytes in &frame.entries {
        let entry = format::decode_entry(bytes).map_err(|e| e.to_string())?;
        let expected = last.map_or(0, |id| id.index + 1);
        if entry.log_id.index != expected || entry.log_id.index > MAX_INDEX {
            return Err(format!(
                "found entry {}, expected entry {expected}",
                entry.log_id.index
            ));
        }
        let leader = entry.log_id.leader_id;
        let of_vote = openraft::CommittedLeaderId::new(vote.leader_id.term, vote.leader_id.node_id);
        if last.is_some_and(|last| last.leader_id > leader) || leader > of_vote {
            return Err(format!(
                "entry {expected} is of term {}, between an earlier one and that of its leader",
                leader.term
            ));
        }
        if let EntryPayload::Membership(membership) = &entry.payload {
            check_membership(membership)?;
        }
        last = Some(entry.log_id);
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

/// The answer to an append as a frame.
pub(crate) fn append_answer(answer: &AppendEntriesResponse<NodeId>) -> FrameBody {
    let (outcome, at, vote) = match answer {
        AppendEntriesResponse::Success => (Outcome::Taken, None, None),
        AppendEntriesResponse::PartialSuccess(at) => (Outcome::TakenUpTo, position(*at), None),
        AppendEntriesResponse::Conflict => (Outcome::Conflict, None, None),
        AppendEntriesResponse::HigherVote(vote) => {
            (Outcome::HigherVote, None, Some(format::vote_record(vote)))
        }
    };
    FrameBody::AppendAnswer(proto::AppendAnswer {
        outcome: outcome.into(),
        at,
        vote,
    })
}

/// What a follower answered to an append of `vote` from behind `prev` to `last`, if that can be.
pub(crate) fn append_answer_from(
    frame: &proto::AppendAnswer,
    vote: &Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Result<AppendEntriesResponse<NodeId>, String> {
    match Outcome::try_from(frame.outcome) {
        Ok(Outcome::Taken) => Ok(AppendEntriesResponse::Success),
        Ok(Outcome::TakenUpTo) => {
            let at = log_id("what was taken", frame.at.as_ref())?;
            if at < prev || at > last {
                return Err("it says to have taken what it was not given".to_owned());
            }
            Ok(AppendEntriesResponse::PartialSuccess(at))
        }
        Ok(Outcome::Conflict) if prev.is_none() => {
            Err("it has a conflict before the first entry, which cannot be".to_owned())
        }
        Ok(Outcome::Conflict) => Ok(AppendEntriesResponse::Conflict),
        Ok(Outcome::HigherVote) => {
            let higher = any_vote(frame.vote.as_ref())?;
            if higher.partial_cmp(vote) == Some(std::cmp::Ordering::Greater) {
                Ok(AppendEntriesResponse::HigherVote(higher))
            } else {
                Err(format!(
                    "it knows a higher vote, {higher}, which is not above {vote}"
                ))
            }
        }
        Ok(Outcome::Unspecified) | Err(_) => Err(format!(
            "it answers with outcome {}, this version knows 1 to 4",
            frame.outcome
        )),
    }
}

/// A request for a vote as a frame.
pub(crate) fn vote(rpc: &VoteRequest<NodeId>) -> FrameBody {
    FrameBody::Vote(proto::Vote {
        vote: Some(format::vote_record(&rpc.vote)),
        last: position(rpc.last_log_id),
    })
}

/// The request for a vote of a frame.
pub(crate) fn vote_from(from: NodeId, frame: &proto::Vote) -> Result<VoteRequest<NodeId>, String> {
    Ok(VoteRequest {
        vote: vote_of(from, false, frame.vote.as_ref())?,
        last_log_id: log_id("the candidate's last entry", frame.last.as_ref())?,
    })
}

/// The answer to a request for a vote as a frame.
pub(crate) fn vote_answer(answer: &VoteResponse<NodeId>) -> FrameBody {
    FrameBody::VoteAnswer(proto::VoteAnswer {
        vote: Some(format::vote_record(&answer.vote)),
        granted: answer.vote_granted,
        last: position(answer.last_log_id),
    })
}

/// What a voter answered.
pub(crate) fn vote_answer_from(frame: &proto::VoteAnswer) -> Result<VoteResponse<NodeId>, String> {
    let last = log_id("the voter's last entry", frame.last.as_ref())?;
    Ok(VoteResponse::new(
        any_vote(frame.vote.as_ref())?,
        last,
        frame.granted,
    ))
}

/// A leader's request to stand for election.
pub(crate) fn elect(vote: &Vote, last: Option<LogId>) -> FrameBody {
    FrameBody::Elect(proto::Elect {
        vote: Some(format::vote_record(vote)),
        last: position(last),
    })
}

/// The leader's vote and last entry of such a request.
pub(crate) fn elect_from(
    from: NodeId,
    frame: &proto::Elect,
) -> Result<(Vote, Option<LogId>), String> {
    let last = log_id("the leader's last entry", frame.last.as_ref())?;
    Ok((vote_of(from, true, frame.vote.as_ref())?, last))
}

/// Whether a frame of another node can be understood: what is asked of every one that comes, without doing what it says.
///
/// # Errors
/// What is wrong with it.
pub fn understand(from: NodeId, frame: &proto::Frame) -> Result<(), String> {
    match frame.body.as_ref().ok_or("a frame without a body")? {
        FrameBody::Append(append) => append_from(from, append).map(drop),
        FrameBody::Vote(vote) => vote_from(from, vote).map(drop),
        FrameBody::Elect(elect) => elect_from(from, elect).map(drop),
        FrameBody::VoteAnswer(answer) => vote_answer_from(answer).map(drop),
        FrameBody::AppendAnswer(answer) => {
            let vote = Vote::new(0, from);
            append_answer_from(answer, &vote, None, None).map(drop)
        }
        FrameBody::ElectAnswer(_) | FrameBody::Refused(_) => Ok(()),
    }
}
