//! The types by which openraft is told what a log entry, a reply and a snapshot are.
//!
//! This module does not know how any of them is stored.

use crate::checkpoint::{CheckpointStore, Pin};
use crate::format::Manifest;
use crate::id::{NodeId, Position};
use crate::machine::{EntryKind, Machine};
use bytes::Bytes;
use std::sync::Arc;

/// What one proposed entry carries. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Proposal {
    /// What the entry is for.
    pub kind: EntryKind,
    /// Its body, for the machine.
    pub body: Bytes,
}

/// What the machine answered to one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reply(pub Bytes);

/// A completed checkpoint that another replica can be given.
#[derive(Clone)]
pub struct SnapshotHandle {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) store: Arc<dyn CheckpointStore>,
    /// Whose history goes with it.
    pub(crate) machine: Option<Arc<dyn Machine>>,
    /// Keeps its generations from being removed.
    pub(crate) _pin: Option<Arc<Pin>>,
    /// It was received into the store of the replica that is to install it.
    pub(crate) own: bool,
}

impl std::fmt::Debug for SnapshotHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotHandle")
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

openraft::declare_raft_types!(
    /// openraft, as this crate uses it.
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = NodeId,
        // Addresses are the catalog's business: a membership names nodes only.
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotHandle,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
pub(crate) type StorageIoError = openraft::StorageIOError<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, openraft::EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, openraft::EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::EmptyNode>;

impl From<LogId> for Position {
    fn from(id: LogId) -> Self {
        Position {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<Position> for LogId {
    fn from(at: Position) -> Self {
        LogId::new(openraft::CommittedLeaderId::new(at.term, at.node), at.index)
    }
}
