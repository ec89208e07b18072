//! A toy machine: a ledger of texts, each with how often and where it was applied, and a history that outlives restarts.

use bytes::Bytes;
use parking_lot::Mutex;
use sojourn_cluster::{Cut, EntryKind, Machine, Position, Rebuilt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often and where a text was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub times: u64,
    pub first: Position,
}

#[derive(Default)]
struct Book {
    lines: BTreeMap<String, Line>,
    changed: BTreeSet<String>,
    applied: Option<Position>,
    waiting: u64,
}

/// What a ledger wrote durably beside its checkpoints.
#[derive(Default, Clone)]
pub struct History {
    pub lines: BTreeMap<String, Line>,
    pub manifest: Option<Vec<u8>>,
}

#[derive(Default)]
pub struct Ledger {
    book: Mutex<Book>,
    /// Outlives the machine, as a disk would.
    pub history: Arc<Mutex<History>>,
    pub keep_history: AtomicBool,
    pub panic_on: Mutex<Option<String>>,
    /// The next cut panics when it is taken.
    pub panic_in_cut: AtomicBool,
    /// The next cut panics when it is told that it is durable.
    pub panic_in_done: AtomicBool,
    pub cuts: AtomicU64,
    pub full_cuts: AtomicU64,
    pub applied_entries: AtomicU64,
    /// Holds up the next checkpoints while set.
    pub gate: Arc<(Mutex<bool>, parking_lot::Condvar)>,
}

impl Ledger {
    pub fn new() -> Arc<Self> {
        Arc::new(Ledger::default())
    }

    pub fn with_history(history: Arc<Mutex<History>>) -> Arc<Self> {
        Arc::new(Ledger {
            history,
            keep_history: AtomicBool::new(true),
            ..Ledger::default()
        })
    }

    pub fn get(&self, text: &str) -> Option<Line> {
        self.book.lock().lines.get(text).copied()
    }

    pub fn lines(&self) -> BTreeMap<String, Line> {
        self.book.lock().lines.clone()
    }

    pub fn len(&self) -> usize {
        self.book.lock().lines.len()
    }
}

fn encode(lines: &[(String, Line)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (text, line) in lines {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
        for n in [
            line.times,
            line.first.term,
            line.first.node,
            line.first.index,
        ] {
            out.extend(n.to_le_bytes());
        }
    }
    out
}

fn decode(mut bytes: &[u8]) -> Result<Vec<(String, Line)>, String> {
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
        let (head, rest) = bytes.split_at_checked(n).ok_or("the chunk ends early")?;
        *bytes = rest;
        Ok(head)
    }
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(take(&mut bytes, 4)?.try_into().expect("four bytes"));
        let text = String::from_utf8(take(&mut bytes, length as usize)?.to_vec())
            .map_err(|e| e.to_string())?;
        let mut n = [0; 4];
        for n in &mut n {
            *n = u64::from_le_bytes(take(&mut bytes, 8)?.try_into().expect("eight bytes"));
        }
        let first = Position {
            term: n[1],
            node: n[2],
            index: n[3],
        };
        lines.push((text, Line { times: n[0], first }));
    }
    Ok(lines)
}

struct LedgerCut {
    lines: Vec<(String, Line)>,
    given: usize,
    whole: BTreeMap<String, Line>,
    history: Option<Arc<Mutex<History>>>,
    gate: Arc<(Mutex<bool>, parking_lot::Condvar)>,
    failed: Box<dyn FnOnce() + Send>,
    panic_in_done: bool,
}

impl Cut for LedgerCut {
    fn before(&mut self, manifest: &[u8]) -> Result<(), String> {
        let mut shut = self.gate.0.lock();
        while *shut {
            self.gate.1.wait(&mut shut);
        }
        if let Some(history) = &self.history {
            *history.lock() = History {
                lines: self.whole.clone(),
                manifest: Some(manifest.to_vec()),
            };
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        if self.given == self.lines.len() {
            return None;
        }
        let upto = (self.given + 100).min(self.lines.len());
        let chunk = encode(&self.lines[self.given..upto]);
        self.given = upto;
        Some(chunk)
    }

    fn done(self: Box<Self>, ok: bool) {
        if !ok {
            (self.failed)();
        } else if self.panic_in_done {
            panic!("an impossible end");
        }
    }
}

/// The ledger behind an `Arc`, so that a cut can give its changes back when it fails.
pub struct Shared(pub Arc<Ledger>);

impl Machine for Shared {
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes {
        let ledger = &self.0;
        assert!(matches!(
            kind,
            EntryKind::Decisions | EntryKind::CatalogAt | EntryKind::Verify
        ));
        let text = String::from_utf8_lossy(body).into_owned();
        if ledger.panic_on.lock().as_deref() == Some(&text) {
            panic!("an impossible entry");
        }
        ledger.applied_entries.fetch_add(1, Ordering::Relaxed);
        let mut book = ledger.book.lock();
        assert!(
            book.applied < Some(at),
            "applied {at} after {:?}",
            book.applied
        );
        book.applied = Some(at);
        book.waiting += text.len() as u64;
        let line = book.lines.entry(text.clone()).or_insert(Line {
            times: 0,
            first: at,
        });
        line.times += 1;
        let times = line.times;
        book.changed.insert(text);
        Bytes::from(times.to_string())
    }

    fn cut(&self, at: Position, full: bool) -> Box<dyn Cut> {
        let ledger = self.0.clone();
        if ledger.panic_in_cut.swap(false, Ordering::Relaxed) {
            panic!("an impossible cut");
        }
        let panic_in_done = ledger.panic_in_done.swap(false, Ordering::Relaxed);
        ledger.cuts.fetch_add(1, Ordering::Relaxed);
        if full {
            ledger.full_cuts.fetch_add(1, Ordering::Relaxed);
        }
        let mut book = ledger.book.lock();
        assert!(
            book.applied <= Some(at),
            "a cut at {at} of a state at {:?}",
            book.applied
        );
        let changed = std::mem::take(&mut book.changed);
        let waiting = std::mem::take(&mut book.waiting);
        let lines: Vec<(String, Line)> = book
            .lines
            .iter()
            .filter(|(k, _)| full || changed.contains(*k))
            .map(|(k, v)| (k.clone(), *v))
            .collect();
        let whole = book.lines.clone();
        drop(book);
        let history = ledger
            .keep_history
            .load(Ordering::Relaxed)
            .then(|| ledger.history.clone());
        let gate = ledger.gate.clone();
        let failed = Box::new(move || {
            let mut book = ledger.book.lock();
            book.changed.extend(changed);
            book.waiting += waiting;
        });
        Box::new(LedgerCut {
            lines,
            given: 0,
            whole,
            history,
            gate,
            failed,
            panic_in_done,
        })
    }

    fn waiting_bytes(&self) -> u64 {
        self.0.book.lock().waiting
    }

    fn restore_begin(&self) {
        *self.0.book.lock() = Book::default();
    }

    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String> {
        self.0.book.lock().lines.extend(decode(chunk)?);
        Ok(())
    }

    fn restore_end(&self, at: Option<Position>) -> Result<(), String> {
        self.0.book.lock().applied = at;
        Ok(())
    }

    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        let history = self.0.history.lock().clone();
        let Some(manifest) = history.manifest else {
            return Ok(None);
        };
        *self.0.book.lock() = Book {
            lines: history.lines,
            ..Book::default()
        };
        Ok(Some(Rebuilt { manifest }))
    }

    fn hash(&self) -> u128 {
        let lines: Vec<_> = self.0.lines().into_iter().collect();
        xxhash_rust::xxh3::xxh3_128(&encode(&lines))
    }
}
