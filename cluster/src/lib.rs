//! `cluster`: order and place.
//!
//! Which shard a key is in, which nodes hold it ([`ring`], [`layout`]); the order of what is decided for it (one Raft
//! [`Group`] per shard, on a log shared by all groups of a node, see [`Host`]); and checkpoints, so that a restart is
//! fast. It knows no journeys: what is replicated is a [`Machine`] that somebody else gives.
//!
//! Groups of several voters stand on a [`transport`] between nodes, and a replica that is too far behind is given a
//! snapshot.

pub mod bugs;
mod checkpoint;
mod error;
pub mod format;
mod group;
mod host;
pub mod id;
pub mod layout;
mod log;
mod machine;
mod network;
pub mod planner;
pub mod repair;
mod replica;
pub mod ring;
pub mod runtime;
mod seam;
pub mod sim;
mod snapshot;
mod stats;
#[cfg(test)]
mod suite;
pub mod transport;
mod types;
mod wire;

pub use checkpoint::sled_store::SetAside;
pub use checkpoint::{CheckpointStore, EachChunk, StoreFault};
pub use error::{CheckpointError, Failure, ForgetError, OpenError, ProposeError};
pub use group::{Group, MemberError, Members, Proposed, Role, TransferError};
pub use host::{Host, HostConfig, OpenReport, open_checkpoints, open_log};
pub use id::{GroupId, NodeId, Position, ShardId};
pub use log::engine::LogFiles;
pub use log::scan::{FileScan, Rest, Row, TornTail};
pub use log::{LogStore, MetaKey, Op, StoreError};
pub use machine::{Cut, EntryKind, HistoryPieces, Machine, Rebuilt};
pub use raft_engine::env as log_env;
pub use replica::{Opened, Source};
pub use seam::{Running, Seams};
pub use stats::{GroupFigures, HostStats, LogFigures, SYNC_BUCKETS_US};
#[doc(hidden)] // for fuzzing
pub use wire::understand;
