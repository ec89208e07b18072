//! When checkpoints are made, what they hold back, and what they let go.

mod common;

use bytes::Bytes;
use common::*;
use sojourn_cluster::{EntryKind, Group, GroupId, Host, HostConfig, LogFiles, Source};
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn say_many(group: &Group, from: usize, count: usize) {
    let all = (from..from + count)
        .map(|n| async move { say(group, &format!("{n:06}{}", "x".repeat(500))).await });
    futures::future::join_all(all).await;
}

/// Says so many lines at once; answers how many were applied.
async fn say_some(group: &Group, count: usize) -> usize {
    let all = (0..count).map(|n| {
        let body = Bytes::from(format!("{n:06}{}", "x".repeat(500)));
        group.propose(EntryKind::Decisions, body, soon())
    });
    let all = futures::future::join_all(all).await;
    all.iter().filter(|done| done.is_ok()).count()
}

#[test]
fn bytes_of_log_make_one_and_purge_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (host, group, ledger) = own_shard(HostConfig {
            checkpoint_log_bytes: 50_000,
            ..config(dir.path())
        })
        .await;
        say_many(&group, 0, 80).await;
        assert_eq!(group.figures().checkpoints, 0);
        say_many(&group, 80, 40).await;
        until("a checkpoint", || group.figures().checkpoints >= 1).await;
        say_many(&group, 120, 200).await;
        until("another", || group.figures().checkpoints >= 3).await;
        assert!(
            ledger.full_cuts.load(Ordering::Relaxed) < ledger.cuts.load(Ordering::Relaxed),
            "some are deltas"
        );
        host.close().await;
    });
    killed(async {
        let (_host, group, ledger) = open_shard(config(dir.path())).await;
        assert!(matches!(group.opened().source, Source::Checkpoint { .. }));
        assert_eq!(ledger.len(), 320);
        assert!(
            ledger.applied_entries.load(Ordering::Relaxed) < 200,
            "the log before the checkpoint is not replayed"
        );
    });
}

#[test]
fn waiting_history_makes_one() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (_host, group, _) = own_shard(HostConfig {
            checkpoint_waiting_bytes: 10_000,
            ..config(dir.path())
        })
        .await;
        say_many(&group, 0, 30).await;
        until("a checkpoint", || group.figures().checkpoints >= 1).await;
        until("less waiting", || group.figures().waiting_bytes < 10_000).await;
    });
}

#[test]
fn time_makes_one_only_if_there_is_news() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let cfg = HostConfig {
            checkpoint_every: Duration::from_millis(300),
            ..config(dir.path())
        };
        let (host, busy, _) = own_shard(cfg).await;
        let idle = own(&host, GroupId(2)).await;
        let mut n = 0;
        let deadline = soon();
        while busy.figures().checkpoints < 3 {
            assert!(
                tokio::time::Instant::now() < deadline,
                "checkpoints come by time"
            );
            n += 1;
            say(&busy, &format!("line {n}")).await;
        }
        assert_eq!(
            idle.figures().checkpoints,
            1,
            "the barrier was news, and then nothing was"
        );
    });
}

#[test]
fn at_the_hard_bound_applying_waits_and_then_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (host, group, ledger) = own_shard(HostConfig {
            checkpoint_log_bytes: 20_000,
            ..config(dir.path())
        })
        .await;
        let other = own(&host, GroupId(2)).await;
        // Checkpoints begin, and do not end.
        *ledger.gate.0.lock() = true;
        let all = tokio::spawn({
            let group = group.clone();
            async move { say_some(&group, 400).await }
        });
        until("applying is held back", || group.figures().held_back).await;
        let applied = ledger.len();
        assert!(applied < 400, "all {applied} lines were applied");
        // The bound is 40,000 bytes beyond the cut, which came at about 20,000; an entry is about 540.
        assert!(
            applied * 540 < 100_000,
            "{applied} lines were applied beyond the bound"
        );
        assert_eq!(say(&other, "the others go on").await, 1);
        *ledger.gate.0.lock() = false;
        ledger.gate.1.notify_all();
        assert_eq!(all.await.expect("ends"), 400);
        assert_eq!(ledger.len(), 400);
        until("nothing is held back", || !group.figures().held_back).await;
    });
}

#[test]
fn a_machine_that_panics_costs_a_checkpoint_and_no_state() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (host, group, ledger) = own_shard(config(dir.path())).await;
        say_many(&group, 0, 50).await;
        checkpoint(&group).await;
        for (panics, word) in [
            (&ledger.panic_in_cut, "an impossible cut"),
            (&ledger.panic_in_done, "an impossible end"),
        ] {
            say(&group, word).await;
            panics.store(true, Ordering::Relaxed);
            let error = group.checkpoint_now().await.expect("told");
            let error = error.expect_err("it panicked").to_string();
            assert!(error.contains(word), "{error}");
            let noted = group.figures().checkpoint_failed;
            assert_eq!(noted.as_ref(), Some(&error));
            // What the machine gave away in the checkpoint that failed is in the next one.
            checkpoint(&group).await;
            assert_eq!(group.figures().checkpoint_failed, None);
        }
        host.close().await;
    });
    killed(async {
        let (_host, group, ledger) = open_shard(config(dir.path())).await;
        assert!(matches!(group.opened().source, Source::Checkpoint { .. }));
        assert_eq!(ledger.len(), 52);
    });
}

#[test]
fn a_host_closes_and_opens_again_in_one_process() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        for round in 0..6 {
            let host = open(dir.path()).await;
            let ledger = Ledger::new();
            for n in 0..8 {
                let group = join(&host, GroupId(n), &ledger).await;
                owned(&group).await;
                assert_eq!(say(&group, &format!("{n}")).await, round + 1);
                if round == 2 {
                    checkpoint(&group).await;
                }
            }
            host.close().await;
        }
    });
}

#[test]
fn old_log_files_are_freed() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let cfg = HostConfig {
            log_files: LogFiles {
                file_bytes: 64 << 10,
                purge_bytes: 256 << 10,
            },
            purge_every: Duration::from_millis(50),
            ..config(dir.path())
        };
        let host = Host::open(cfg).await.expect("opens");
        let quiet = own(&host, GroupId(2)).await;
        let group = own(&host, SHARD).await;
        say(&quiet, "once").await;
        for n in 0..20 {
            // 2 MiB in all, into a log that may have 256 KiB: groups that hold on to old files are asked to let go.
            say_many(&group, n * 200, 200).await;
        }
        until("old files are freed", || {
            let size: u64 = std::fs::read_dir(dir.path().join("log"))
                .expect("lists")
                .filter_map(|e| e.ok().and_then(|e| e.metadata().ok()))
                .map(|m| m.len())
                .sum();
            size < 1 << 20
        })
        .await;
        assert!(group.figures().checkpoints >= 1);
        host.close().await;
    });
    killed(async {
        let (host, group, ledger) = open_shard(config(dir.path())).await;
        let once = Ledger::new();
        let quiet = join(&host, GroupId(2), &once).await;
        assert_eq!((ledger.len(), once.len()), (4000, 1));
        owned(&group).await;
        owned(&quiet).await;
    });
}
