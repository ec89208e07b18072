//! One group is closed, or forgotten, while the host and the other groups go on.

mod common;

use bytes::Bytes;
use common::*;
use prost::Message;
use sojourn_cluster::sim::{Dice, SimCheckpoints};
use sojourn_cluster::{
    ForgetError, GroupId, Host, HostConfig, LogFiles, MetaKey, Op, OpenError, Role, Running, Seams,
    Source, open_log,
};
use sojourn_proto::cluster::LogEntry;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const OTHER: GroupId = GroupId(2);

#[test]
fn a_group_is_closed_and_opened_again_while_another_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (host, group, ledger) = own_shard(config(dir.path())).await;
        let other = own(&host, OTHER).await;
        for n in 0..100 {
            say(&group, &format!("line {n}")).await;
        }
        let covered = checkpoint(&group).await;
        say(&group, "after it").await;
        // A clone that somebody keeps is in nobody's way.
        host.close_group(SHARD).await.expect("closed");
        assert!(matches!(&*group.role().borrow(), Role::Closed { .. }));
        assert!(host.group(SHARD).is_none());
        say(&other, "meanwhile").await;
        host.close_group(SHARD).await.expect("closed already");
        let again = Ledger::new();
        let opened = join(&host, SHARD, &again).await;
        let source = Source::Checkpoint { at: Some(covered) };
        assert_eq!(opened.opened().source, source);
        assert_eq!(again.lines(), ledger.lines());
        owned(&opened).await;
        assert_eq!(say(&opened, "after it").await, 2);
        // A checkpoint of the first opening does not come back into the second.
        assert!(group.checkpoint_now().await.expect("told").is_ok());
        assert_eq!(say(&other, "meanwhile").await, 2);
        host.close().await;
    });
}

#[test]
fn what_is_forgotten_is_gone_and_waits_to_be_added() {
    let dir = tempfile::tempdir().expect("a folder");
    let cfg = || config(dir.path());
    let mut last = None;
    for life in 0..3 {
        killed(async {
            let host = Host::open(cfg()).await.expect("opens");
            let other = own(&host, OTHER).await;
            let ledger = Ledger::new();
            // the same call in every life: only the first one begins the group
            let group = join(&host, SHARD, &ledger).await;
            if life == 0 {
                owned(&group).await;
                for n in 0..300 {
                    say(&group, &format!("line {n}")).await;
                }
                checkpoint(&group).await;
                last = group.figures().last_index;
            } else {
                assert_eq!(group.opened().source, Source::Log);
                assert_eq!(ledger.len(), 0, "life {life}");
                assert_eq!(group.figures().last_index, None);
                assert_eq!(group.members().voters, BTreeSet::new());
            }
            say(&other, "meanwhile").await;
            drop(group);
            host.forget_group(SHARD).await.expect("forgotten");
            host.forget_group(SHARD).await.expect("nothing to forget");
            assert_eq!(host.stored_groups(), [OTHER]);
        });
    }
    assert!(last > Some(300), "the first life had a log");
}

#[test]
fn the_log_of_a_forgotten_group_is_freed_and_what_was_left_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let cfg = || HostConfig {
        // Small, so that old files are really rewritten and freed.
        log_files: LogFiles {
            file_bytes: 64 << 10,
            purge_bytes: 128 << 10,
        },
        ..config(dir.path())
    };
    let entry = |index: u64, life: u64, size: usize| {
        let body = Bytes::from(vec![b'a' + life as u8; size]);
        let head = LogEntry {
            index,
            term: 1,
            node: 1,
            kind: 1,
            body,
            membership: None,
        };
        Bytes::from([&[1], head.encode_to_vec().as_slice()].concat())
    };
    let put = |group, key, text: &str| Op::Put {
        group,
        key,
        value: text.as_bytes().to_vec(),
    };
    for life in 0..4 {
        let (log, _) = open_log(
            &cfg(),
            Arc::new(sojourn_cluster::log_env::DefaultFileSystem),
        )
        .expect("a log");
        for n in 0..300 {
            let entries = vec![entry(n, life, 2000)];
            let append = Op::Append {
                group: SHARD,
                first: n,
                entries,
            };
            log.write(&[append, put(OTHER, MetaKey::Vote, "of another")])
                .expect("written");
        }
        log.purge_expired().expect("freed");
        let left = format!("life {life}");
        log.write(&[Op::Clean { group: SHARD }, put(SHARD, MetaKey::Left, &left)])
            .expect("written");
        assert_eq!(log.groups(), [OTHER]);
        // its next life, in the same process and then in the next
        let append = Op::Append {
            group: SHARD,
            first: 7,
            entries: (7..27).map(|n| entry(n, life, 20_000)).collect(),
        };
        log.write(&[append]).expect("written");
        log.purge_expired().expect("freed");
        drop(log);
        let (log, _) = open_log(
            &cfg(),
            Arc::new(sojourn_cluster::log_env::DefaultFileSystem),
        )
        .expect("a log");
        assert_eq!(log.bounds(SHARD), Some((7, 26)));
        let read = log.read(SHARD, 7, 27, usize::MAX).expect("read");
        assert!(
            read.iter()
                .zip(7..)
                .all(|(e, n)| *e == entry(n, life, 20_000))
        );
        log.write(&[Op::Clean { group: SHARD }]).expect("written");
        log.purge_expired().expect("freed");
        drop(log);
        let (log, _) = open_log(
            &cfg(),
            Arc::new(sojourn_cluster::log_env::DefaultFileSystem),
        )
        .expect("a log");
        assert_eq!((log.groups(), log.bounds(SHARD)), (vec![OTHER], None));
        assert_eq!(log.meta(SHARD, MetaKey::Left), Some(left.into_bytes()));
        assert_eq!(log.meta(SHARD, MetaKey::Vote), None);
    }
}

async fn on(dir: &Path, checkpoints: &Arc<SimCheckpoints>) -> Host {
    let cfg = config(dir);
    let (log, _) =
        open_log(&cfg, Arc::new(sojourn_cluster::log_env::DefaultFileSystem)).expect("a log");
    let seams = Seams {
        log,
        checkpoints: checkpoints.clone(),
        running: Running::Threads,
    };
    Host::open_with(cfg, seams).await.expect("opens")
}

#[test]
fn a_group_that_is_half_forgotten_is_never_opened_as_if_whole() {
    let mut halves = 0;
    for calls in 0.. {
        let dir = tempfile::tempdir().expect("a folder");
        let checkpoints = Arc::new(SimCheckpoints::new());
        let mut dice = Dice::new(calls);
        let forgotten = killed(async {
            let host = on(dir.path(), &checkpoints).await;
            let group = own(&host, SHARD).await;
            for n in 0..300 {
                say(&group, &format!("line {n}")).await;
            }
            checkpoint(&group).await;
            until("the log begins at the checkpoint", || {
                group.figures().first_index.is_some()
            })
            .await;
            checkpoints.fail_after(calls);
            let forgotten = host.forget_group(SHARD).await;
            if let Err(error) = &forgotten {
                assert!(matches!(error, ForgetError::Store { .. }), "{error}");
                let half = host.join_group(SHARD, machine(&Ledger::new()), 0).await;
                let half = half.expect_err("half of it is gone");
                assert!(matches!(half, OpenError::HalfForgotten { group: SHARD }));
            }
            forgotten
            // The process ends here, and with it what was not flushed.
        });
        checkpoints.crash(&mut dice);
        killed(async {
            let host = on(dir.path(), &checkpoints).await;
            if forgotten.is_err() {
                halves += 1;
                assert_eq!(host.stored_groups(), [SHARD]);
                let half = host.open_group(SHARD, machine(&Ledger::new()), vec![1]);
                let half = half.await.expect_err("half of it is gone");
                assert!(half.to_string().contains("forget it again"), "{half}");
                host.forget_group(SHARD).await.expect("now it ends");
            }
            assert!(host.stored_groups().is_empty());
            assert_eq!(checkpoints.chunks(SHARD), 0);
            let ledger = Ledger::new();
            let group = join(&host, SHARD, &ledger).await;
            assert_eq!((&group.opened().source, ledger.len()), (&Source::Log, 0));
            host.close().await;
        });
        if forgotten.is_ok() {
            break;
        }
    }
    assert!(halves > 3, "each step was interrupted, {halves} of them");
}
