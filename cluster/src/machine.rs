//! What a group replicates: the boundary towards the state that follows the log.
//!
//! This module does not know what the entries mean; it only says when they are given to whom.

use crate::id::Position;
use bytes::Bytes;

/// What an entry of the log is for. The numbers are stored and never change; 6 to 15 are kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// Decisions of customers. Given to the machine.
    Decisions = 1,
    /// The mark by which a leader becomes owner. Handled by this crate.
    Barrier = 2,
    /// The catalog's position from which later decisions of a shard count. Given to the machine.
    CatalogAt = 3,
    /// Every replica hashes its state here. Given to the machine.
    Verify = 4,
    /// Nothing. Handled by this crate.
    NoOp = 5,
}

impl EntryKind {
    /// The kind with this stored number; `None` for one that this version does not know.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Decisions,
            2 => Self::Barrier,
            3 => Self::CatalogAt,
            4 => Self::Verify,
            5 => Self::NoOp,
            _ => return None,
        })
    }
}

/// The replicated state machine of one group.
///
/// All methods may block for as long as memory work takes; none may wait for the network.
pub trait Machine: Send + Sync + 'static {
    /// Takes one committed entry, in log order, one caller at a time, and answers the bytes for its proposer.
    ///
    /// Total: an entry that cannot be understood is the machine's to record. A panic stops this replica only:
    /// the group closes with the panic's text as its reason, the other groups go on.
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes;

    /// A cut of the state at `at`, called between two entries; it must be quick (it holds up `apply`).
    ///
    /// `full`: everything. Otherwise what changed since the last cut whose `done` was told `true`.
    fn cut(&self, at: Position, full: bool) -> Box<dyn Cut>;

    /// Bytes of history that wait in memory for a checkpoint.
    fn waiting_bytes(&self) -> u64;

    /// Forgets everything; a restore, a rebuild, or a replay from the first entry follows.
    fn restore_begin(&self);

    /// One chunk of a checkpoint, exactly as a cut gave it: base first, then deltas in order.
    ///
    /// # Errors
    /// A text that says what is wrong with the chunk; the checkpoint then counts as damaged.
    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String>;

    /// All chunks of a checkpoint at `at` were given; `None` when there is none and a replay from the first entry follows.
    ///
    /// # Errors
    /// A text that says what does not fit together; the checkpoint then counts as damaged.
    fn restore_end(&self, at: Option<Position>) -> Result<(), String>;

    /// Without a readable checkpoint: rebuilds the state from history. Answers the manifest that the newest durable
    /// `Cut::before` was given, for which history is complete; `None` when there is no history.
    ///
    /// # Errors
    /// A text that says why history cannot be used.
    fn rebuild(&self) -> Result<Option<Rebuilt>, String>;

    /// A hash of the state; replicas that applied the same entries have the same.
    fn hash(&self) -> u128;

    /// Up to where this node's own history is durable and without a gap; `None` when there is none, or none is kept.
    fn history_upto(&self) -> Option<Position> {
        None
    }

    /// Whether history is as complete as the state. While it is not, this replica votes but does not stand for election.
    fn history_is_whole(&self) -> bool {
        true
    }

    /// The durable history behind `after` (all of it, when `None`) up to `upto` at least, for another node that takes a
    /// snapshot. `None` when this machine keeps no history.
    ///
    /// # Errors
    /// A text that says why it cannot be read; the snapshot is then given up and tried again later.
    fn history_after(
        &self,
        after: Option<Position>,
        upto: Position,
    ) -> Result<Option<Box<dyn HistoryPieces>>, String> {
        let _ = (after, upto);
        Ok(None)
    }

    /// Takes one piece of another node's history, and makes it durable before [`Self::history_upto`] counts it.
    ///
    /// Pieces come in order; after a break they begin again behind what `history_upto` then says. A piece may hold what
    /// is there already. Entries may be applied meanwhile.
    ///
    /// # Errors
    /// A text that says what is wrong with the piece; the snapshot is then refused.
    fn take_history(&self, piece: &[u8]) -> Result<(), String> {
        let _ = piece;
        Err("this machine keeps no history".to_owned())
    }

    /// All history up to `upto` was given: it is durable when this returns. The state at `upto` follows.
    ///
    /// # Errors
    /// A text that says what is missing; the snapshot is then refused.
    fn history_taken(&self, upto: Position) -> Result<(), String> {
        let _ = upto;
        Err("this machine keeps no history".to_owned())
    }
}

/// A machine's history, piece by piece. Used on a thread that may block.
pub trait HistoryPieces: Send {
    /// The next piece, about 256 KiB, at most 1 MiB; `None` after the last.
    ///
    /// # Errors
    /// A text that says why it cannot be read.
    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, String>;
}

/// One cut of a machine's state. Used on a thread that may block, while `apply` goes on.
pub trait Cut: Send {
    /// Makes durable what must be so before the chunks: history up to the cut, and `manifest`, an opaque text of this
    /// crate (position and membership) that [`Machine::rebuild`] must be able to give back.
    ///
    /// # Errors
    /// A text that says what could not be written; the checkpoint is then given up and tried again later.
    fn before(&mut self, manifest: &[u8]) -> Result<(), String>;

    /// The next chunk, packed, 4 to 16 KiB, uncompressed; `None` after the last.
    fn next_chunk(&mut self) -> Option<Vec<u8>>;

    /// The end: `ok` when the checkpoint is durable, from when on later cuts count from this one.
    fn done(self: Box<Self>, ok: bool);
}

/// What a machine could rebuild from history.
#[derive(Debug, Clone)]
pub struct Rebuilt {
    /// The manifest given to the newest durable [`Cut::before`].
    pub manifest: Vec<u8>,
}
