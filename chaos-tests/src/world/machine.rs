//! What the groups of a world replicate: lists to which ids are appended, with a history of their own.
//!
//! A list shows everything that a log can do wrong: what is lost is missing, what is applied twice stands twice, and the
//! order is there to read. Knows nothing of nodes.

use super::record::Record;
use bytes::Bytes;
use parking_lot::Mutex;
use sojourn_cluster::sim::Dice;
use sojourn_cluster::{Cut, EntryKind, GroupId, HistoryPieces, Machine, NodeId, Position, Rebuilt};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append {
    /// To which list.
    pub list: u64,
    /// What: never appended twice.
    pub id: u64,
}

impl Append {
    /// As an entry's body.
    pub fn body(self) -> Bytes {
        [self.list.to_le_bytes(), self.id.to_le_bytes()]
            .concat()
            .into()
    }

    fn read(body: &[u8]) -> Option<Append> {
        let (list, id) = body.split_at_checked(8)?;
        Some(Append {
            list: u64::from_le_bytes(list.try_into().ok()?),
            id: u64::from_le_bytes(id.try_into().ok()?),
        })
    }
}

/// The lists, and a hash of everything that was ever applied, in order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lists {
    lists: BTreeMap<u64, Vec<u64>>,
    chain: u64,
    applied: Option<Position>,
}

impl Lists {
    fn apply(&mut self, at: Position, append: Append) {
        self.lists.entry(append.list).or_default().push(append.id);
        let mut line = Vec::with_capacity(ENTRY);
        line_to(&mut line, at, append);
        self.chain = xxh3_64_with_seed(&line, self.chain);
        self.applied = Some(at);
    }
}

/// What a node's history disk holds.
#[derive(Clone, Debug, Default)]
struct Pages {
    lines: BTreeMap<Position, Append>,
    upto: Option<Position>,
    /// What the newest cut covers, and its manifest: a rebuild ends there, however far the pages go.
    manifest: Option<(Position, Vec<u8>)>,
}

/// The history of one replica on a simulated disk: a crash takes what was not synced, all or nothing.
#[derive(Debug, Default)]
pub struct Chronicle {
    now: Mutex<Pages>,
    safe: Mutex<Pages>,
}

impl Chronicle {
    fn sync(&self) {
        *self.safe.lock() = self.now.lock().clone();
    }

    /// The power goes.
    pub fn crash(&self, dice: &mut Dice) {
        if dice.once_in(2) {
            self.sync();
        }
        *self.now.lock() = self.safe.lock().clone();
    }
}

#[derive(Default)]
struct State {
    lists: Lists,
    changed: BTreeSet<u64>,
    /// Applied, and not in history yet.
    waiting: BTreeMap<Position, Append>,
}

/// One replica's lists.
pub struct List {
    node: NodeId,
    group: GroupId,
    state: Arc<Mutex<State>>,
    chronicle: Arc<Chronicle>,
    record: Arc<Record>,
}

impl List {
    /// An empty one over what the history disk holds.
    pub fn new(
        node: NodeId,
        group: GroupId,
        chronicle: Arc<Chronicle>,
        record: Arc<Record>,
    ) -> Arc<List> {
        Arc::new(List {
            node,
            group,
            state: Arc::default(),
            chronicle,
            record,
        })
    }

    /// One list, as it is now.
    pub fn read(&self, list: u64) -> Vec<u64> {
        let state = self.state.lock();
        state.lists.lists.get(&list).cloned().unwrap_or_default()
    }

    /// All lists.
    pub fn all(&self) -> BTreeMap<u64, Vec<u64>> {
        self.state.lock().lists.lists.clone()
    }
}

const ENTRY: usize = 40;

fn line_to(out: &mut Vec<u8>, at: Position, append: Append) {
    for n in [at.term, at.node, at.index, append.list, append.id] {
        out.extend(n.to_le_bytes());
    }
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut out = [0; N];
    for (n, eight) in out.iter_mut().zip(bytes.chunks(8)) {
        *n = u64::from_le_bytes(eight.try_into().ok()?);
    }
    (bytes.len() == 8 * N).then_some(out)
}

struct ListCut {
    at: Position,
    /// The chain, then each list with its number.
    chunks: Vec<Vec<u8>>,
    state: Arc<Mutex<State>>,
    chronicle: Arc<Chronicle>,
    changed: BTreeSet<u64>,
}

impl Cut for ListCut {
    fn before(&mut self, manifest: &[u8]) -> Result<(), String> {
        let mut state = self.state.lock();
        let after = (Bound::Excluded(self.at), Bound::Unbounded);
        let later = state.waiting.range(after).next().map(|(at, _)| *at);
        let rest = later.map_or_else(BTreeMap::new, |at| state.waiting.split_off(&at));
        let done = std::mem::replace(&mut state.waiting, rest);
        let mut now = self.chronicle.now.lock();
        now.lines.extend(done);
        now.upto = now.upto.max(Some(self.at));
        now.manifest = Some((self.at, manifest.to_vec()));
        drop((now, state));
        self.chronicle.sync();
        Ok(())
    }

    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        self.chunks.pop()
    }

    fn done(self: Box<Self>, ok: bool) {
        if !ok {
            self.state.lock().changed.extend(self.changed);
        }
    }
}

struct Pieces(Vec<Vec<u8>>);

impl HistoryPieces for Pieces {
    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.pop())
    }
}

impl Machine for List {
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes {
        let mut state = self.state.lock();
        if kind == EntryKind::Decisions
            && let Some(append) = Append::read(body)
        {
            state.lists.apply(at, append);
            state.changed.insert(append.list);
            if Some(at) > self.chronicle.now.lock().upto {
                state.waiting.insert(at, append);
            }
        } else {
            state.lists.applied = Some(at);
        }
        let chain = state.lists.chain;
        drop(state);
        self.record.applied(self.node, self.group, at, chain);
        Bytes::new()
    }

    fn cut(&self, at: Position, full: bool) -> Box<dyn Cut> {
        let mut state = self.state.lock();
        let changed = std::mem::take(&mut state.changed);
        let mut chunks: Vec<Vec<u8>> = state
            .lists
            .lists
            .iter()
            .filter(|(list, _)| full || changed.contains(list))
            .map(|(list, ids)| {
                let mut chunk = vec![1];
                chunk.extend(list.to_le_bytes());
                chunk.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
                chunk
            })
            .collect();
        let mut first = vec![0];
        first.extend(state.lists.chain.to_le_bytes());
        chunks.push(first);
        drop(state);
        Box::new(ListCut {
            at,
            chunks,
            state: self.state.clone(),
            chronicle: self.chronicle.clone(),
            changed,
        })
    }

    fn waiting_bytes(&self) -> u64 {
        (self.state.lock().waiting.len() * ENTRY) as u64
    }

    fn restore_begin(&self) {
        *self.state.lock() = State::default();
    }

    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String> {
        let mut state = self.state.lock();
        let (kind, rest) = chunk.split_first().ok_or("an empty chunk")?;
        match kind {
            0 => {
                let [chain] = numbers(rest).ok_or("a chain of another length")?;
                state.lists.chain = chain;
            }
            _ => {
                let (list, ids) = rest.split_at_checked(8).ok_or("a list without a number")?;
                let [list] = numbers(list).ok_or("a list without a number")?;
                let ids = ids.chunks(8).map(numbers::<1>);
                let ids: Option<Vec<u64>> = ids.map(|id| id.map(|[id]| id)).collect();
                let ids = ids.ok_or("a list that ends early")?;
                state.lists.lists.insert(list, ids);
            }
        }
        Ok(())
    }

    fn restore_end(&self, at: Option<Position>) -> Result<(), String> {
        let upto = self.chronicle.now.lock().upto;
        if upto < at {
            return Err(format!(
                "history ends at {upto:?}, the checkpoint at {at:?}"
            ));
        }
        self.state.lock().lists.applied = at;
        Ok(())
    }

    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        let pages = self.chronicle.now.lock().clone();
        let Some((end, manifest)) = pages.manifest else {
            return Ok(None);
        };
        let mut lists = Lists::default();
        for (at, append) in pages.lines.range(..=end) {
            lists.apply(*at, *append);
        }
        lists.applied = Some(end);
        *self.state.lock() = State {
            lists,
            ..State::default()
        };
        Ok(Some(Rebuilt { manifest }))
    }

    fn hash(&self) -> u128 {
        let state = self.state.lock();
        let mut hash = state.lists.chain;
        for (list, ids) in &state.lists.lists {
            hash = xxh3_64_with_seed(&list.to_le_bytes(), hash);
            for id in ids {
                hash = xxh3_64_with_seed(&id.to_le_bytes(), hash);
            }
        }
        u128::from(hash)
    }

    fn history_upto(&self) -> Option<Position> {
        self.chronicle.now.lock().upto
    }

    fn history_after(
        &self,
        after: Option<Position>,
        upto: Position,
    ) -> Result<Option<Box<dyn HistoryPieces>>, String> {
        let pages = self.chronicle.now.lock();
        if pages.upto < Some(upto) {
            return Err(format!("history ends at {:?}", pages.upto));
        }
        let mut lines = pages.lines.iter().filter(|(at, _)| Some(**at) > after);
        let mut pieces = Vec::new();
        loop {
            let mut piece = Vec::new();
            for (at, append) in lines.by_ref().take(20) {
                line_to(&mut piece, *at, *append);
            }
            if piece.is_empty() {
                break;
            }
            pieces.push(piece);
        }
        pieces.reverse();
        Ok(Some(Box::new(Pieces(pieces))))
    }

    fn take_history(&self, piece: &[u8]) -> Result<(), String> {
        let mut pages = self.chronicle.now.lock();
        for line in piece.chunks(ENTRY) {
            let [term, node, index, list, id] = numbers(line).ok_or("a piece that ends early")?;
            let at = Position { term, node, index };
            pages.lines.insert(at, Append { list, id });
            pages.upto = pages.upto.max(Some(at));
        }
        drop(pages);
        self.chronicle.sync();
        Ok(())
    }

    fn history_taken(&self, upto: Position) -> Result<(), String> {
        let mut pages = self.chronicle.now.lock();
        pages.upto = pages.upto.max(Some(upto));
        drop(pages);
        self.chronicle.sync();
        Ok(())
    }
}
