//! One group is closed, or forgotten, while the host and the other groups go on.

mod common;

use common::*;
use sojourn_cluster::sim::{Dice, SimCheckpoints};
use sojourn_cluster::{
    ForgetError, GroupId, Host, HostConfig, LogFiles, OpenError, Role, Running, Seams, Source,
    open_log,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
fn what_is_forgotten_is_gone_and_begins_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let cfg = || HostConfig {
        // Small, so that old files are really rewritten and freed.
        log_files: LogFiles {
            file_bytes: 64 << 10,
            purge_bytes: 128 << 10,
        },
        purge_every: Duration::from_millis(10),
        ..config(dir.path())
    };
    for life in 0..4 {
        killed(async {
            let (host, group, ledger) = own_shard(cfg()).await;
            assert_eq!(ledger.len(), 0, "life {life} begins with nothing");
            let other = own(&host, OTHER).await;
            let text = "x".repeat(2000);
            for n in 0..300 {
                say(&group, &format!("{life} {n} {text}")).await;
                if n % 100 == 50 {
                    checkpoint(&group).await;
                    say(&other, &format!("{life} {n}")).await;
                }
            }
            drop(group);
            host.forget_group(SHARD).await.expect("forgotten");
            host.forget_group(SHARD).await.expect("nothing to forget");
            assert_eq!(host.stored_groups(), [OTHER]);
            // Its next life, in the same process and then in the next.
            let ledger = Ledger::new();
            let group = join(&host, SHARD, &ledger).await;
            assert_eq!(group.opened().source, Source::Log);
            owned(&group).await;
            assert_eq!((say(&group, "new").await, ledger.len()), (1, 1));
            let large = "y".repeat(20_000);
            for n in 0..20 {
                say(&group, &format!("{n} {large}")).await;
            }
        });
        killed(async {
            let (host, group, ledger) = own_shard(cfg()).await;
            assert_eq!(ledger.len(), 21, "life {life}");
            let other = Ledger::new();
            let opened = join(&host, OTHER, &other).await;
            owned(&opened).await;
            assert_eq!(other.len(), (life + 1) * 3);
            drop(group);
            host.forget_group(SHARD).await.expect("forgotten");
        });
        killed(async {
            let host = Host::open(cfg()).await.expect("opens");
            assert_eq!(host.stored_groups(), [OTHER], "life {life}");
        });
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
            owned(&group).await;
            assert_eq!((say(&group, "new").await, ledger.len()), (1, 1));
            host.close().await;
        });
        if forgotten.is_ok() {
            break;
        }
    }
    assert!(halves > 3, "each step was interrupted, {halves} of them");
}
