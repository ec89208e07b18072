//! What this crate writes to disk: one format byte, then protobuf.
//!
//! Entries of the log, votes, marks and manifests of checkpoints. Added to, never edited: numbers of fields and kinds
//! stay for ever. This module does not know where the bytes are put.

use crate::id::Position;
use crate::machine::EntryKind;
use crate::types::{Entry, LogId, Membership, Proposal, StoredMembership, Vote};
use bytes::Bytes;
use openraft::{EmptyNode, EntryPayload};
use prost::Message;
pub use sojourn_proto::cluster::{Cover, Generation, Manifest};
use sojourn_proto::cluster::{
    LeftRecord, LogEntry, LogPosition, MembershipRecord, VoteRecord, VoterSet,
};
use std::collections::{BTreeMap, BTreeSet};

/// The first byte of everything that this version writes.
pub const FORMAT: u8 = 1;

/// Why stored bytes could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Nothing there.
    #[error("{what} is empty, expected a format byte")]
    Empty {
        /// What was being read.
        what: &'static str,
    },
    /// Written by a version that this one does not know.
    #[error(
        "{what} has format {found}, this version reads up to {FORMAT}; start a version that knows it"
    )]
    Newer {
        /// What was being read.
        what: &'static str,
        /// The format byte found.
        found: u8,
    },
    /// Not what was written.
    #[error("{what} cannot be decoded: {why}")]
    Broken {
        /// What was being read.
        what: &'static str,
        /// Where it went wrong.
        why: String,
    },
}

impl FormatError {
    fn broken(what: &'static str, why: impl std::fmt::Display) -> Self {
        FormatError::Broken {
            what,
            why: why.to_string(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct IndexOnly {
    #[prost(uint64, tag = "1")]
    index: u64,
}

fn encode(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(FORMAT);
    message
        .encode(&mut bytes)
        .expect("a Vec grows as needed, so there is always room");
    bytes
}

fn body<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], FormatError> {
    match bytes.split_first() {
        None => Err(FormatError::Empty { what }),
        Some((&FORMAT, rest)) => Ok(rest),
        Some((&found, _)) => Err(FormatError::Newer { what, found }),
    }
}

fn decode<M: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, FormatError> {
    M::decode(body(what, bytes)?).map_err(|e| FormatError::broken(what, e))
}

/// A log position as a record.
pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

/// The log position of a record.
pub(crate) fn log_id(at: &LogPosition) -> LogId {
    Position {
        term: at.term,
        node: at.node,
        index: at.index,
    }
    .into()
}

fn membership_record(membership: &Membership) -> MembershipRecord {
    MembershipRecord {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| VoterSet {
                nodes: set.iter().copied().collect(),
            })
            .collect(),
        members: membership.nodes().map(|(id, _)| *id).collect(),
    }
}

fn membership(record: &MembershipRecord) -> Membership {
    let voters: Vec<BTreeSet<u64>> = record
        .voters
        .iter()
        .map(|set| set.nodes.iter().copied().collect())
        .collect();
    let members: BTreeMap<u64, EmptyNode> = record
        .members
        .iter()
        .map(|id| (*id, EmptyNode::new()))
        .collect();
    Membership::new(voters, members)
}

/// The stored form of an entry of the log.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let mut record = LogEntry {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        node: entry.log_id.leader_id.node_id,
        ..LogEntry::default()
    };
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(proposal) => {
            record.kind = proposal.kind as i32;
            record.body = proposal.body.clone();
        }
        EntryPayload::Membership(m) => record.membership = Some(membership_record(m)),
    }
    encode(&record).into()
}

/// An entry of the log from its stored form; the body is shared with `bytes`, not copied.
///
/// # Errors
/// A format, or a kind of entry, that this version does not know; bytes that are not an entry.
pub fn decode_entry(bytes: &Bytes) -> Result<Entry, FormatError> {
    const WHAT: &str = "a log entry";
    body(WHAT, bytes)?;
    let record = LogEntry::decode(bytes.slice(1..)).map_err(|e| FormatError::broken(WHAT, e))?;
    let payload = match (&record.membership, record.kind) {
        (Some(m), 0) => EntryPayload::Membership(membership(m)),
        (None, 0) => EntryPayload::Blank,
        (None, number) => {
            let kind = u32::try_from(number)
                .ok()
                .and_then(EntryKind::from_number)
                .ok_or_else(|| {
                    FormatError::broken(
                        WHAT,
                        format!("kind {number} is not known to this version, expected 1 to 5"),
                    )
                })?;
            EntryPayload::Normal(Proposal {
                kind,
                body: record.body,
            })
        }
        (Some(_), number) => {
            return Err(FormatError::broken(
                WHAT,
                format!("a membership bears kind {number}, expected 0"),
            ));
        }
    };
    let at = Position {
        term: record.term,
        node: record.node,
        index: record.index,
    };
    Ok(Entry {
        log_id: at.into(),
        payload,
    })
}

/// The index of a stored entry, without decoding the rest.
///
/// # Errors
/// As [`decode_entry`].
pub fn entry_index(bytes: &[u8]) -> Result<u64, FormatError> {
    Ok(decode::<IndexOnly>("a log entry", bytes)?.index)
}

/// A vote as a record.
pub(crate) fn vote_record(vote: &Vote) -> VoteRecord {
    VoteRecord {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

/// The vote of a record.
pub(crate) fn vote(record: &VoteRecord) -> Vote {
    let mut vote = Vote::new(record.term, record.node);
    if record.committed {
        vote.commit();
    }
    vote
}

/// The stored form of a vote.
pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    encode(&vote_record(vote))
}

/// A vote from its stored form.
pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, FormatError> {
    Ok(vote(&decode("a vote", bytes)?))
}

/// The stored form of a log position (commit mark, purge mark).
pub(crate) fn encode_log_id(id: &LogId) -> Vec<u8> {
    encode(&position(id))
}

/// A log position from its stored form.
pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<LogId, FormatError> {
    Ok(log_id(&decode::<LogPosition>("a log position", bytes)?))
}

/// What a replica that was forgotten leaves behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Its last vote.
    pub(crate) vote: Option<Vote>,
    /// The last entry of its log.
    pub(crate) last: Option<LogId>,
}

/// The stored form of what a forgotten replica leaves behind.
pub(crate) fn encode_left(left: &Left) -> Vec<u8> {
    encode(&LeftRecord {
        vote: left.vote.as_ref().map(vote_record),
        last: left.last.as_ref().map(position),
    })
}

/// What a forgotten replica left behind, from its stored form.
pub(crate) fn decode_left(bytes: &[u8]) -> Result<Left, FormatError> {
    let record: LeftRecord = decode("what a forgotten replica left behind", bytes)?;
    Ok(Left {
        vote: record.vote.as_ref().map(vote),
        last: record.last.as_ref().map(log_id),
    })
}

/// What a checkpoint at this state covers.
pub(crate) fn cover(group: u64, at: Option<LogId>, stored: &StoredMembership) -> Cover {
    Cover {
        group,
        at: at.as_ref().map(position),
        membership: Some(membership_record(stored.membership())),
        membership_at: stored.log_id().as_ref().map(position),
    }
}

/// What a cover, or the manifest around it, says of the log.
pub(crate) trait Covering {
    /// The position covered; `None` before the first entry.
    fn log_id(&self) -> Option<LogId>;
    /// The membership at that position.
    fn stored_membership(&self) -> StoredMembership;
}

impl Covering for Cover {
    fn log_id(&self) -> Option<LogId> {
        self.at.as_ref().map(log_id)
    }

    fn stored_membership(&self) -> StoredMembership {
        let members = self.membership.as_ref().map(membership).unwrap_or_default();
        StoredMembership::new(self.membership_at.as_ref().map(log_id), members)
    }
}

impl Covering for Manifest {
    fn log_id(&self) -> Option<LogId> {
        self.cover.as_ref().and_then(Covering::log_id)
    }

    fn stored_membership(&self) -> StoredMembership {
        self.cover
            .as_ref()
            .map(Covering::stored_membership)
            .unwrap_or_default()
    }
}

/// The opaque text of a cover, which a machine's history keeps.
pub fn encode_cover(cover: &Cover) -> Vec<u8> {
    encode(cover)
}

/// A cover from that text.
///
/// # Errors
/// Bytes that are not one.
pub fn decode_cover(bytes: &[u8]) -> Result<Cover, FormatError> {
    decode("a checkpoint's cover", bytes)
}

/// The stored form of a manifest.
pub fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    encode(manifest)
}

/// A manifest from its stored form.
///
/// # Errors
/// Bytes that are not one, or one that names no cover or no generation.
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, FormatError> {
    const WHAT: &str = "a checkpoint's manifest";
    let manifest: Manifest = decode(WHAT, bytes)?;
    if manifest.cover.is_none() {
        return Err(FormatError::broken(WHAT, "it does not say what it covers"));
    }
    if manifest.generations.is_empty() {
        return Err(FormatError::broken(
            WHAT,
            "it names no generation, expected a base",
        ));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: EntryPayload<crate::types::TypeConfig>) -> Entry {
        Entry {
            log_id: Position {
                term: 3,
                node: 7,
                index: 300,
            }
            .into(),
            payload,
        }
    }

    #[test]
    fn an_entry_has_these_bytes_for_ever() {
        let proposal = Proposal {
            kind: EntryKind::Decisions,
            body: Bytes::from_static(b"abc"),
        };
        let normal = encode_entry(&entry(EntryPayload::Normal(proposal)));
        assert_eq!(
            &normal[..],
            b"\x01\x08\xac\x02\x10\x03\x18\x07\x20\x01\x2a\x03abc"
        );

        let blank = encode_entry(&entry(EntryPayload::Blank));
        assert_eq!(&blank[..], b"\x01\x08\xac\x02\x10\x03\x18\x07");

        let members = Membership::new(vec![BTreeSet::from([1, 2])], BTreeSet::from([1, 2, 9]));
        let change = encode_entry(&entry(EntryPayload::Membership(members)));
        assert_eq!(
            &change[..],
            b"\x01\x08\xac\x02\x10\x03\x18\x07\x32\x0b\x0a\x04\x0a\x02\x01\x02\x12\x03\x01\x02\x09"
        );
        for bytes in [normal, blank, change] {
            let back = decode_entry(&bytes).expect("what was encoded decodes");
            assert_eq!(encode_entry(&back), bytes);
            assert_eq!(entry_index(&bytes), Ok(300));
        }
    }

    #[test]
    fn a_manifest_has_these_bytes_for_ever() {
        let manifest = Manifest {
            cover: Some(Cover {
                group: 4,
                at: Some(LogPosition {
                    term: 1,
                    node: 2,
                    index: 5,
                }),
                membership: Some(MembershipRecord {
                    voters: vec![VoterSet { nodes: vec![2] }],
                    members: vec![2],
                }),
                membership_at: Some(LogPosition {
                    term: 0,
                    node: 0,
                    index: 0,
                }),
            }),
            generations: vec![Generation {
                number: 1,
                chunks: 2,
                stored_bytes: 300,
                raw_bytes: 400,
                crc: 0x0403_0201,
            }],
        };
        let bytes: &[u8] = b"\x01\x0a\x16\x08\x04\x12\x06\x08\x01\x10\x02\x18\x05\x1a\x08\x0a\x03\x0a\x01\x02\x12\x01\x02\x22\x00\
              \x12\x0f\x08\x01\x10\x02\x18\xac\x02\x20\x90\x03\x2d\x01\x02\x03\x04";
        assert_eq!(encode_manifest(&manifest), bytes);
        assert_eq!(decode_manifest(bytes), Ok(manifest));
    }

    #[test]
    fn votes_and_positions_have_these_bytes_for_ever() {
        let mut vote = Vote::new(5, 1);
        vote.commit();
        assert_eq!(encode_vote(&vote), b"\x01\x08\x05\x10\x01\x18\x01");
        assert_eq!(decode_vote(b"\x01\x08\x05\x10\x01\x18\x01"), Ok(vote));
        let id: LogId = Position {
            term: 5,
            node: 1,
            index: 9,
        }
        .into();
        assert_eq!(encode_log_id(&id), b"\x01\x08\x05\x10\x01\x18\x09");
        assert_eq!(decode_log_id(b"\x01\x08\x05\x10\x01\x18\x09"), Ok(id));
        let left = Left {
            vote: Some(vote),
            last: Some(id),
        };
        let bytes = b"\x01\x0a\x06\x08\x05\x10\x01\x18\x01\x12\x06\x08\x05\x10\x01\x18\x09";
        assert_eq!(encode_left(&left), bytes);
        assert_eq!(decode_left(bytes), Ok(left));
        assert_eq!(decode_left(b"\x01"), Ok(Left::default()));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let empty = decode_entry(&Bytes::new()).expect_err("nothing is no entry");
        assert_eq!(
            empty.to_string(),
            "a log entry is empty, expected a format byte"
        );
        let newer = decode_entry(&Bytes::from_static(b"\x02")).expect_err("format 2 is not known");
        assert!(newer.to_string().contains("format 2"), "{newer}");
        let kind = decode_entry(&Bytes::from_static(b"\x01\x08\x01\x20\x06"))
            .expect_err("kind 6 is kept free");
        assert!(kind.to_string().contains("kind 6"), "{kind}");
        assert!(decode_manifest(b"\x01").is_err());
    }
}
