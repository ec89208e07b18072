//! What can go wrong, said so that an operator knows what to do.
//!
//! This module does not know how an error is shown, nor its number on any wire.

use crate::id::{GroupId, NodeId};
use std::fmt;
use std::path::PathBuf;

/// Why a host or a group could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("{what} failed at {path}: {why}")]
    Io {
        /// What was being done.
        what: String,
        /// To which file or folder.
        path: PathBuf,
        /// What the operating system said.
        why: String,
    },
    /// Another process uses the data folder.
    #[error(
        "the data folder {path} is in use by another process; stop that process, or choose another folder"
    )]
    Locked {
        /// The folder that is locked.
        path: PathBuf,
    },
    /// Stored data cannot be trusted. Nothing was changed.
    #[error("{what} at {where_}: {consequence}; {todo}")]
    Damaged {
        /// What was found.
        what: String,
        /// In which file, at which offset.
        where_: String,
        /// What it means for this node.
        consequence: String,
        /// What the operator can do.
        todo: String,
    },
    /// A setting does not make sense.
    #[error("setting {name}: {why}")]
    Config {
        /// The setting.
        name: String,
        /// What was found and what is expected.
        why: String,
    },
    /// The machine could not take back its state or replay its log.
    #[error("{group} cannot be opened: {why}")]
    Machine {
        /// Whose machine.
        group: GroupId,
        /// What it said.
        why: String,
    },
    /// The group is open already in this host.
    #[error("{group} is open already")]
    AlreadyOpen {
        /// Which.
        group: GroupId,
    },
    /// Forgetting the group was begun on this node and did not end; what is left of it is no state of any time.
    #[error(
        "{group} was being deleted on this node and is not wholly gone; forget it again before it is joined anew"
    )]
    HalfForgotten {
        /// Which.
        group: GroupId,
    },
    /// The host has stopped because a write failed.
    #[error("the node has stopped: {0}")]
    Failed(Failure),
}

/// Why a group was not closed, or not forgotten. The same call again goes on where this one stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// Something still uses the group. If it was open, it takes no part any more.
    #[error("{group} is still in use: {why}; try again")]
    Busy {
        /// Which.
        group: GroupId,
        /// By what.
        why: String,
    },
    /// The checkpoint store refused.
    #[error("the checkpoints of {group} cannot be removed: {why}")]
    Store {
        /// Whose.
        group: GroupId,
        /// What the store said.
        why: String,
    },
    /// The host has stopped because a write failed.
    #[error("the node has stopped: {0}")]
    Failed(Failure),
}

impl OpenError {
    pub(crate) fn io(what: &str, path: impl Into<PathBuf>, why: impl fmt::Display) -> Self {
        OpenError::Io {
            what: what.to_owned(),
            path: path.into(),
            why: why.to_string(),
        }
    }
}

/// A write or fsync failed: nothing more is acknowledged, the node must stop.
///
/// It is never tried again: after a failed fsync nobody knows what the disk holds until the files are read anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed, with the operating system's words.
    pub what: String,
    /// In which folder.
    pub where_: String,
    /// What the operator can do.
    pub todo: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}; {}", self.what, self.where_, self.todo)
    }
}

/// Why an entry was not, or may not have been, applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not own the group. Said before proposing only: the entry is known not to be in the log.
    #[error("this node does not own the group{}", match leader { Some(n) => format!("; node {n} leads it"), None => "; nobody is known to lead it".to_owned() })]
    NotOwner {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// The entry was given to the log and may or may not be applied, now or later.
    #[error("outcome unknown: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// The entry is too large. Known not to be in the log.
    #[error("the entry has {bytes} bytes, the limit max_entry_bytes is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The group is closed on this node. Known not to be in the log.
    #[error("the group is closed on this node: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
}

/// Why a checkpoint was not made. The log keeps what it would have covered, and it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The history before the cut could not be made durable.
    #[error("history could not be written: {0}")]
    History(String),
    /// The checkpoint store refused.
    #[error("the checkpoint store failed: {0}")]
    Store(String),
    /// What was stored cannot be read back.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// The machine panicked.
    #[error("the machine panicked: {0}")]
    Machine(String),
    /// The group or the host is closed.
    #[error("the group is closed")]
    Closed,
}

/// What to do about damage: `alone`, when no other node has what is damaged. A member of a group must not lose a part of
/// what it has acknowledged and go on under its name: the majorities that it was part of would be none any more.
pub(crate) fn todo(alone: &str) -> String {
    format!(
        "without peers, {alone}; with peers, leave it as it is: join the cluster anew with an empty data folder, which \
         gives another node id, and remove this one"
    )
}

/// The text of a caught panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
