//! The ledger with a history of its own: every line as it was applied, durable at each checkpoint, given to other nodes.

use bytes::Bytes;
use parking_lot::Mutex;
use sojourn_cluster::{Cut, EntryKind, HistoryPieces, Machine, Position, Rebuilt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a node's history disk holds; outlives the machine.
#[derive(Default)]
pub struct Chronicle {
    pub lines: BTreeMap<Position, String>,
    pub upto: Option<Position>,
}

pub struct Keeper {
    inner: Arc<dyn Machine>,
    pub chronicle: Arc<Mutex<Chronicle>>,
    pending: Arc<Mutex<BTreeMap<Position, String>>>,
    /// Pieces that other nodes sent.
    pub taken: AtomicU64,
    /// Refuses the piece with this number, once.
    pub refuse: AtomicU64,
    pub whole: AtomicBool,
}

impl Keeper {
    pub fn new(inner: Arc<dyn Machine>, chronicle: Arc<Mutex<Chronicle>>) -> Arc<Keeper> {
        Arc::new(Keeper {
            inner,
            chronicle,
            pending: Arc::default(),
            taken: AtomicU64::new(0),
            refuse: AtomicU64::new(u64::MAX),
            whole: AtomicBool::new(true),
        })
    }
}

struct KeeperCut {
    inner: Box<dyn Cut>,
    at: Position,
    chronicle: Arc<Mutex<Chronicle>>,
    pending: Arc<Mutex<BTreeMap<Position, String>>>,
}

impl Cut for KeeperCut {
    fn before(&mut self, manifest: &[u8]) -> Result<(), String> {
        let mut pending = self.pending.lock();
        let mut chronicle = self.chronicle.lock();
        while let Some(first) = pending.first_entry() {
            if *first.key() > self.at {
                break;
            }
            let (at, line) = first.remove_entry();
            chronicle.lines.insert(at, line);
        }
        chronicle.upto = chronicle.upto.max(Some(self.at));
        drop((chronicle, pending));
        self.inner.before(manifest)
    }

    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        self.inner.next_chunk()
    }

    fn done(self: Box<Self>, ok: bool) {
        self.inner.done(ok);
    }
}

struct Pieces(Vec<Vec<u8>>);

impl HistoryPieces for Pieces {
    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.pop())
    }
}

fn encode(lines: &[(&Position, &String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, line) in lines {
        for n in [at.term, at.node, at.index, line.len() as u64] {
            out.extend(n.to_le_bytes());
        }
        out.extend(line.as_bytes());
    }
    out
}

fn decode(mut bytes: &[u8]) -> Result<Vec<(Position, String)>, String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let mut n = [0; 4];
        for n in &mut n {
            let (head, rest) = bytes.split_at_checked(8).ok_or("the piece ends early")?;
            *n = u64::from_le_bytes(head.try_into().map_err(|_| "not eight bytes")?);
            bytes = rest;
        }
        let (line, rest) = bytes
            .split_at_checked(n[3] as usize)
            .ok_or("the piece ends early")?;
        bytes = rest;
        let at = Position {
            term: n[0],
            node: n[1],
            index: n[2],
        };
        lines.push((at, String::from_utf8_lossy(line).into_owned()));
    }
    Ok(lines)
}

impl Machine for Keeper {
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes {
        if Some(at) > self.chronicle.lock().upto {
            let line = String::from_utf8_lossy(&body[..body.len().min(64)]).into_owned();
            self.pending.lock().insert(at, line);
        }
        self.inner.apply(at, kind, body)
    }

    fn cut(&self, at: Position, full: bool) -> Box<dyn Cut> {
        Box::new(KeeperCut {
            inner: self.inner.cut(at, full),
            at,
            chronicle: self.chronicle.clone(),
            pending: self.pending.clone(),
        })
    }

    fn waiting_bytes(&self) -> u64 {
        self.inner.waiting_bytes()
    }

    fn restore_begin(&self) {
        self.inner.restore_begin();
    }

    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String> {
        self.inner.restore_chunk(chunk)
    }

    fn restore_end(&self, at: Option<Position>) -> Result<(), String> {
        self.inner.restore_end(at)
    }

    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        self.inner.rebuild()
    }

    fn hash(&self) -> u128 {
        self.inner.hash()
    }

    fn history_upto(&self) -> Option<Position> {
        self.chronicle.lock().upto
    }

    fn history_is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    fn history_after(
        &self,
        after: Option<Position>,
        upto: Position,
    ) -> Result<Option<Box<dyn HistoryPieces>>, String> {
        let chronicle = self.chronicle.lock();
        if chronicle.upto < Some(upto) {
            return Err(format!("history ends at {:?}", chronicle.upto));
        }
        let lines: Vec<_> = chronicle
            .lines
            .iter()
            .filter(|(at, _)| Some(**at) > after)
            .collect();
        let mut pieces: Vec<Vec<u8>> = lines.chunks(50).map(encode).collect();
        pieces.reverse();
        Ok(Some(Box::new(Pieces(pieces))))
    }

    fn take_history(&self, piece: &[u8]) -> Result<(), String> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let refused =
            self.refuse
                .compare_exchange(number, u64::MAX, Ordering::Relaxed, Ordering::Relaxed);
        if refused.is_ok() {
            return Err("the disk had a bad moment".to_owned());
        }
        let mut chronicle = self.chronicle.lock();
        for (at, line) in decode(piece)? {
            // Pieces come in order, so what has come is without a gap.
            chronicle.upto = chronicle.upto.max(Some(at));
            chronicle.lines.insert(at, line);
        }
        Ok(())
    }

    fn history_taken(&self, upto: Position) -> Result<(), String> {
        let mut chronicle = self.chronicle.lock();
        chronicle.upto = chronicle.upto.max(Some(upto));
        Ok(())
    }
}
