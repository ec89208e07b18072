//! openraft's own storage suite, on the real log and the real checkpoints.

use crate::checkpoint::sled_store::SledStore;
use crate::host::HostConfig;
use crate::id::{GroupId, Position};
use crate::log::LogStore;
use crate::log::engine::EngineLog;
use crate::log::group::GroupLog;
use crate::log::writer::{LogWriter, WriterGuard};
use crate::machine::{Cut, EntryKind, Machine, Rebuilt};
use crate::replica::{Bounds, Replica, StateMachine};
use crate::seam::Running;
use crate::types::{StorageError, TypeConfig};
use bytes::Bytes;
use openraft::storage::RaftLogStorage;
use openraft::testing::{StoreBuilder, Suite};
use raft_engine::env::DefaultFileSystem;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::watch;

/// Remembers nothing: the suite looks at what this crate keeps.
struct Nothing;

struct NoCut(Option<Vec<u8>>);

impl Cut for NoCut {
    fn before(&mut self, _manifest: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        self.0.take()
    }

    fn done(self: Box<Self>, _ok: bool) {}
}

impl Machine for Nothing {
    fn apply(&self, _at: Position, _kind: EntryKind, body: &Bytes) -> Bytes {
        body.clone()
    }

    fn cut(&self, at: Position, _full: bool) -> Box<dyn Cut> {
        Box::new(NoCut(Some(at.to_string().into_bytes())))
    }

    fn waiting_bytes(&self) -> u64 {
        0
    }

    fn restore_begin(&self) {}

    fn restore_chunk(&self, _chunk: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn restore_end(&self, _at: Option<Position>) -> Result<(), String> {
        Ok(())
    }

    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        Ok(None)
    }

    fn hash(&self) -> u128 {
        0
    }
}

fn parts(dir: &TempDir, cache_bytes: usize) -> (WriterGuard, LogWriter, GroupLog, StateMachine) {
    let cfg = HostConfig::default();
    let (log, torn) = EngineLog::open(
        &dir.path().join("log"),
        &cfg.log_files,
        Arc::new(DefaultFileSystem),
    )
    .expect("a log");
    assert!(torn.is_empty());
    let log: Arc<dyn LogStore> = Arc::new(log);
    let (store, _) =
        SledStore::open(&dir.path().join("checkpoints"), 1 << 20).expect("checkpoints");
    let (writer, guard) = LogWriter::start(
        log,
        &Running::Threads,
        Arc::default(),
        watch::Sender::new(None),
    )
    .expect("a writer");
    let group = GroupLog::open(GroupId(1), writer.clone(), cache_bytes).expect("a group's log");
    let bounds = Bounds {
        log_bytes: 1 << 20,
        waiting_bytes: 1 << 20,
    };
    let replica = Replica::new(
        GroupId(1),
        Arc::new(Nothing),
        Arc::new(store),
        Running::Threads,
        bounds,
        Box::new(|| {}),
        Box::new(|_| {}),
    );
    (
        guard,
        writer,
        group,
        StateMachine {
            replica: Arc::new(replica),
        },
    )
}

struct Builder {
    cache_bytes: usize,
}

impl StoreBuilder<TypeConfig, GroupLog, StateMachine, (WriterGuard, TempDir)> for Builder {
    async fn build(
        &self,
    ) -> Result<((WriterGuard, TempDir), GroupLog, StateMachine), StorageError> {
        let dir = tempfile::tempdir().expect("a folder");
        let (guard, _, log, sm) = parts(&dir, self.cache_bytes);
        Ok(((guard, dir), log, sm))
    }
}

#[test]
fn the_log_and_the_replica_pass_openrafts_suite() {
    Suite::test_all(Builder {
        cache_bytes: 1 << 20,
    })
    .expect("the suite passes");
}

#[test]
fn they_pass_it_without_a_cache_too() {
    Suite::test_all(Builder { cache_bytes: 0 }).expect("the suite passes");
}

fn at(term: u64, index: u64) -> Position {
    Position {
        term,
        node: 1,
        index,
    }
}

fn entry(term: u64, index: u64, text: &'static str) -> crate::types::Entry {
    use crate::types::Proposal;
    let proposal = Proposal {
        kind: EntryKind::Decisions,
        body: Bytes::from_static(text.as_bytes()),
    };
    crate::types::Entry {
        log_id: at(term, index).into(),
        payload: openraft::EntryPayload::Normal(proposal),
    }
}

#[tokio::test]
async fn a_truncation_holds_over_a_restart_and_ends_with_the_next_append() {
    use openraft::RaftLogReader;
    use openraft::storage::RaftLogStorageExt;
    let dir = tempfile::tempdir().expect("a folder");
    {
        let (_guard, writer, mut log, _sm) = parts(&dir, 0);
        log.blocking_append((0..10).map(|n| entry(1, n, "old")))
            .await
            .expect("appends");
        log.truncate(at(1, 6).into()).await.expect("truncates");
        assert_eq!(log.try_get_log_entries(..).await.expect("reads").len(), 6);
        writer.close().await;
    }
    {
        // Not rewritten yet: the store still has them, the mark says that they do not count.
        let (_guard, writer, mut log, _sm) = parts(&dir, 0);
        assert_eq!(
            log.last().map(Position::from),
            Some(Position {
                term: 1,
                node: 1,
                index: 5
            })
        );
        assert_eq!(log.try_get_log_entries(5..9).await.expect("reads").len(), 1);
        log.blocking_append([entry(2, 6, "new")])
            .await
            .expect("appends");
        writer.close().await;
    }
    {
        let (_guard, writer, mut log, _sm) = parts(&dir, 0);
        assert_eq!(
            log.last().map(Position::from),
            Some(Position {
                term: 2,
                node: 1,
                index: 6
            })
        );
        let all = log.try_get_log_entries(..).await.expect("reads");
        assert_eq!(
            all.iter()
                .map(|e| e.log_id.leader_id.term)
                .collect::<Vec<_>>(),
            [1, 1, 1, 1, 1, 1, 2]
        );
        // To the very first entry, and on from there.
        log.truncate(at(1, 0).into()).await.expect("truncates");
        assert_eq!(log.last(), None);
        writer.close().await;
    }
    let (_guard, _writer, log, _sm) = parts(&dir, 0);
    assert_eq!(log.last(), None);
}

#[tokio::test]
async fn a_bounded_read_is_never_empty() {
    use openraft::RaftLogReader;
    use openraft::storage::RaftLogStorageExt;
    let dir = tempfile::tempdir().expect("a folder");
    for cache_bytes in [0, 600 << 10, 64 << 20] {
        let (_guard, writer, mut log, _sm) = parts(&dir, cache_bytes);
        let first = log.last().map_or(0, |id| id.index + 1);
        let large: &'static str = Box::leak("x".repeat(400 << 10).into_boxed_str());
        for n in 0..6 {
            log.blocking_append([entry(1, first + n, large)])
                .await
                .expect("appends");
        }
        let mut next = first;
        let mut reads = 0;
        while next < first + 6 {
            let some = log
                .limited_get_log_entries(next, first + 6)
                .await
                .expect("reads");
            assert!(
                (1..=3).contains(&some.len()),
                "{} entries with a cache of {cache_bytes}",
                some.len()
            );
            assert_eq!(some[0].log_id.index, next);
            next += some.len() as u64;
            reads += 1;
        }
        assert!(reads >= 2, "400 KiB entries do not all fit one read");
        writer.close().await;
    }
}

#[tokio::test]
async fn purging_keeps_the_bytes_asked_for() {
    use openraft::storage::RaftLogStorageExt;
    let dir = tempfile::tempdir().expect("a folder");
    let (_guard, _writer, mut log, _sm) = parts(&dir, 1 << 20);
    let text: &'static str = Box::leak("x".repeat(10 << 10).into_boxed_str());
    for n in 0..100 {
        log.blocking_append([entry(1, n, text)])
            .await
            .expect("appends");
    }
    assert_eq!(log.purge_upto(99, 0), 99);
    assert_eq!(log.purge_upto(50, 0), 50);
    let upto = log.purge_upto(99, 500 << 10);
    let kept = (99 - upto) * (10 << 10);
    assert!(
        (500 << 10..=640 << 10).contains(&kept),
        "{kept} bytes stay behind {upto}"
    );
    assert_eq!(
        log.purge_upto(99, 10 << 20),
        0,
        "less than what is to be kept was written"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_truncation_replaced_is_never_read_again() {
    use openraft::RaftLogReader;
    use openraft::storage::RaftLogStorageExt;
    let running = Running::Tasks {
        write_takes: Arc::new(|| std::time::Duration::from_millis(1)),
    };
    let log = Arc::new(crate::sim::SimLog::new());
    let (writer, _guard) =
        LogWriter::start(log, &running, Arc::default(), watch::Sender::new(None)).expect("starts");
    let mut log = GroupLog::open(GroupId(1), writer, 0).expect("a group's log");
    let (mut same, mut reader) = (log.clone(), log.clone());
    // Still being written when the truncation begins.
    let (appended, cut) = tokio::join!(
        log.blocking_append((0..10).map(|n| entry(1, n, "old"))),
        same.truncate(at(1, 7).into())
    );
    appended.and(cut).expect("both are written");
    // Not written yet when it is read, and there is no cache to keep it in for long.
    let (appended, read) = tokio::join!(
        log.blocking_append([entry(2, 7, "new")]),
        reader.try_get_log_entries(7..8)
    );
    appended.expect("is written");
    assert_eq!(read.expect("reads"), [entry(2, 7, "new")]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_joins_anew_knows_what_the_one_before_it_had() {
    use crate::log::{LogStore, MetaKey, Op};
    use crate::types::Vote;
    use openraft::storage::RaftLogStorageExt;
    let running = Running::Tasks {
        write_takes: Arc::new(|| std::time::Duration::from_millis(1)),
    };
    let store = Arc::new(crate::sim::SimLog::new());
    let (writer, _guard) = LogWriter::start(
        store.clone(),
        &running,
        Arc::default(),
        watch::Sender::new(None),
    )
    .expect("starts");
    let open = || GroupLog::open(GroupId(1), writer.clone(), 0).expect("a group's log");
    let mut log = open();
    let mut vote = Vote::new(2, 1);
    vote.commit();
    log.save_vote(&vote).await.expect("is written");
    log.blocking_append((0..10).map(|n| entry(2, n, "old")))
        .await
        .expect("is written");
    let left = log.leave();
    let value = crate::format::encode_left(&left);
    let put = Op::Put {
        group: GroupId(1),
        key: MetaKey::Left,
        value,
    };
    store
        .write(&[Op::Clean { group: GroupId(1) }, put])
        .expect("is written");
    let mut log = open();
    assert_eq!((log.last(), log.is_new()), (None, false));
    // it voted, and follows nobody for that
    assert_eq!(log.read_vote().await, Ok(Some(Vote::new(2, 1))));
    assert_eq!(log.behind_left(), Some(at(2, 9).into()));
    log.blocking_append((0..10).map(|n| entry(1, n, "of an earlier leader")))
        .await
        .expect("is written");
    assert_eq!(log.behind_left(), Some(at(2, 9).into()));
    assert_eq!(log.leave(), left, "forgotten again before it had caught up");
    log.blocking_append([entry(3, 10, "of a later leader")])
        .await
        .expect("is written");
    assert_eq!(log.behind_left(), None);
}
