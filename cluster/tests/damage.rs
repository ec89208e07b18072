//! A torn end is cut and said; damage is refused, and a repair says what it loses; damaged checkpoints are made anew.

mod common;

use common::*;
use parking_lot::Mutex;
use sojourn_cluster::sim::{Dice, SimCheckpoints, SimLog};
use sojourn_cluster::{
    CheckpointStore, GroupId, Host, HostConfig, LogFiles, LogStore, OpenError, Row, Running, Seams,
    Source, repair,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn small_files(dir: &Path) -> HostConfig {
    HostConfig {
        log_files: LogFiles {
            file_bytes: 64 << 10,
            purge_bytes: 1 << 30,
        },
        ..config(dir)
    }
}

/// Writes `lines` entries of about 1 KiB and closes, so that the files end with their last record.
fn fill(dir: &Path, lines: usize) {
    killed(async {
        let (host, group, _) = own_shard(small_files(dir)).await;
        for n in 0..lines {
            say(&group, &line(n)).await;
        }
        host.close().await;
    });
}

fn line(n: usize) -> String {
    format!("{n:04}{}", "x".repeat(1000))
}

/// The log's files with their good bytes, oldest first.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let report = repair::inspect(dir).expect("inspects");
    report
        .files
        .into_iter()
        .filter(|f| f.row == Row::Append)
        .map(|f| (f.path, f.good_bytes))
        .collect()
}

fn flip(path: &Path, offset: u64) {
    let mut bytes = std::fs::read(path).expect("reads");
    bytes[offset as usize] ^= 0x10;
    std::fs::write(path, bytes).expect("writes");
}

fn reopen(dir: &Path) -> Result<(usize, sojourn_cluster::OpenReport), OpenError> {
    killed(async {
        let host = Host::open(small_files(dir)).await?;
        let ledger = Ledger::new();
        let group = host.open_group(SHARD, machine(&ledger), vec![1]).await?;
        owned(&group).await;
        let count = ledger.len();
        say(&group, "on we go").await;
        Ok((count, host.report().clone()))
    })
}

#[test]
fn a_torn_record_at_the_end_is_cut_and_said() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 10);
    let (last, bytes) = files(dir.path()).pop().expect("a file");
    // A write that began: its header and some of its body.
    let torn: Vec<u8> =
        std::fs::read(&last).expect("reads")[bytes as usize - 500..bytes as usize - 100].to_vec();
    let mut all = std::fs::read(&last).expect("reads");
    all.truncate(bytes as usize);
    all.extend(&torn);
    all.extend([0; 4096]);
    std::fs::write(&last, &all).expect("writes");
    let (count, report) = reopen(dir.path()).expect("opens");
    assert_eq!(count, 10);
    assert_eq!(report.torn.len(), 1, "{report:?}");
    assert_eq!(
        (&report.torn[0].file, report.torn[0].offset),
        (&last, bytes)
    );
    // Once cut, it is gone.
    let (count, report) = reopen(dir.path()).expect("opens");
    assert_eq!((count, report.torn.len()), (11, 0));
}

#[test]
fn a_log_cut_short_anywhere_in_its_last_record_opens_without_it() {
    for cut in [1, 5, 300, 900] {
        let dir = tempfile::tempdir().expect("a folder");
        fill(dir.path(), 10);
        let (last, bytes) = files(dir.path()).pop().expect("a file");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&last)
            .expect("opens");
        file.set_len(bytes - cut).expect("cuts");
        drop(file);
        let (count, report) = reopen(dir.path()).expect("opens");
        // The last record may be a commit mark, whose loss loses nothing.
        assert!(
            (9..=10).contains(&count),
            "{count} lines after cutting {cut} bytes"
        );
        assert_eq!(report.torn.len(), 1, "cutting {cut}: {report:?}");
    }
}

#[test]
fn a_flipped_bit_within_the_last_file_is_damage_and_can_be_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 20);
    let (last, bytes) = files(dir.path()).pop().expect("a file");
    flip(&last, bytes / 2);
    let before = std::fs::read(&last).expect("reads");
    let error = reopen(dir.path()).expect_err("damaged");
    let OpenError::Damaged {
        what, where_, todo, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(
        what.contains("damaged record")
            && where_.contains(".raftlog, offset")
            && todo.contains("without peers, `sojourn repair`")
            && todo.contains("with peers, leave it as it is"),
        "{error}"
    );
    assert_eq!(
        std::fs::read(&last).expect("reads"),
        before,
        "nothing was changed"
    );

    let report = repair::inspect(dir.path()).expect("inspects");
    let damage = report.damage.clone().expect("found");
    assert!(damage.can_be_cut && damage.offset < bytes / 2, "{report}");
    let loss = report
        .losses
        .iter()
        .find(|l| l.group == SHARD)
        .expect("the shard loses");
    let kept = loss.kept_to.expect("some are kept");
    assert!(kept < loss.lost_to, "{report}");
    let repaired = repair::apply(dir.path()).expect("repairs");
    assert_eq!(repaired.set_aside.len(), 1);
    assert_eq!(
        std::fs::read(&repaired.set_aside[0]).expect("a copy"),
        before
    );
    let (count, _) = reopen(dir.path()).expect("opens");
    assert!((5..20).contains(&count), "{count} lines are left");
    assert!(
        repair::apply(dir.path())
            .expect_err("is whole")
            .to_string()
            .contains("nothing to repair")
    );
}

#[test]
fn damage_in_an_older_file_is_found_and_named() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 200);
    let all = files(dir.path());
    assert!(all.len() >= 3, "{} files", all.len());
    let (second, bytes) = &all[1];
    for offset in [bytes / 2, 60] {
        flip(second, offset);
        let error = reopen(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains("repair"), "{error}");
        let report = repair::inspect(dir.path()).expect("inspects");
        assert_eq!(
            report.damage.as_ref().map(|d| &d.file),
            Some(second),
            "{report}"
        );
        flip(second, offset);
    }
    // Whole again.
    assert_eq!(reopen(dir.path()).expect("opens").0, 200);
}

#[test]
fn a_missing_file_is_damage_too() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 200);
    let all = files(dir.path());
    std::fs::remove_file(&all[1].0).expect("removes");
    let error = reopen(dir.path()).expect_err("damaged").to_string();
    assert!(error.contains("log file 2 is missing"), "{error}");
    let report = repair::inspect(dir.path()).expect("inspects");
    assert!(
        report.to_string().contains("file 2 is missing before it"),
        "{report}"
    );
    repair::apply(dir.path()).expect("repairs");
    let (count, _) = reopen(dir.path()).expect("opens");
    assert!(count > 20 && count < 200, "{count} lines are left");
}

/// Fills, checkpoints with history, says a few more lines, and closes; then the checkpoints are corrupted.
/// Answers the history.
fn fill_and_lose_checkpoint(dir: &Path, purge: bool) -> Arc<Mutex<History>> {
    let history = Arc::default();
    let ledger = Ledger::with_history(Arc::clone(&history));
    killed(async {
        let cfg = HostConfig {
            keep_log_bytes_alone: if purge { 0 } else { u64::MAX },
            ..config(dir)
        };
        let host = Host::open(cfg).await.expect("opens");
        let group = join(&host, SHARD, &ledger).await;
        owned(&group).await;
        for n in 0..300 {
            say(&group, &line(n)).await;
        }
        checkpoint(&group).await;
        for n in 0..5 {
            say(&group, &format!("after {n}")).await;
        }
        host.close().await;
    });
    corrupt_checkpoints(dir);
    history
}

fn corrupt_checkpoints(dir: &Path) {
    let mut found = 0;
    for entry in std::fs::read_dir(dir.join("checkpoints")).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_file() && path.file_name().is_some_and(|n| n == "db") {
            let mut bytes = std::fs::read(&path).expect("reads");
            let length = bytes.len();
            for at in (0..length).step_by(97) {
                bytes[at] ^= 0x55;
            }
            std::fs::write(&path, bytes).expect("writes");
            found += 1;
        }
    }
    assert_eq!(found, 1, "sled keeps its data in one file");
}

#[test]
fn corrupt_checkpoints_are_made_anew_from_history() {
    let dir = tempfile::tempdir().expect("a folder");
    let history = fill_and_lose_checkpoint(dir.path(), true);
    killed(async {
        let host = open(dir.path()).await;
        let ledger = Ledger::with_history(history.clone());
        let group = join(&host, SHARD, &ledger).await;
        assert!(
            matches!(group.opened().source, Source::History { at: Some(_) }),
            "{:?}",
            group.opened()
        );
        owned(&group).await;
        assert_eq!(ledger.len(), 305);
        // A new base is written at once; wait for it, then restart from it.
        let at = checkpoint(&group).await;
        assert_eq!(host.stats().groups[0].checkpoint_index, Some(at.index));
        host.close().await;
    });
    killed(async {
        let (_host, group, ledger) = open_shard(config(dir.path())).await;
        assert!(
            matches!(group.opened().source, Source::Checkpoint { .. }),
            "{:?}",
            group.opened()
        );
        assert_eq!(ledger.len(), 305);
    });
}

#[test]
fn corrupt_checkpoints_are_made_anew_from_a_whole_log() {
    let dir = tempfile::tempdir().expect("a folder");
    fill_and_lose_checkpoint(dir.path(), false);
    killed(async {
        let (_host, group, ledger) = open_shard(config(dir.path())).await;
        assert_eq!(group.opened().source, Source::Log);
        owned(&group).await;
        assert_eq!(ledger.len(), 305);
    });
}

#[test]
fn without_checkpoint_history_or_whole_log_the_group_stays_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    fill_and_lose_checkpoint(dir.path(), true);
    killed(async {
        let host = open(dir.path()).await;
        let error = host
            .open_group(SHARD, machine(&Ledger::new()), vec![1])
            .await
            .expect_err("nothing is left");
        let OpenError::Damaged { what, todo, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            what.contains("no history") && todo.contains("copy"),
            "{error}"
        );
        // The others go on.
        let other = own(&host, GroupId(2)).await;
        say(&other, "fine").await;
    });
}

#[test]
fn a_damaged_checkpoint_is_kept_while_nothing_can_take_its_place() {
    let log = Arc::new(SimLog::new());
    let checkpoints = Arc::new(SimCheckpoints::new());
    let seams = || Seams {
        log: log.clone(),
        checkpoints: checkpoints.clone(),
        running: Running::Threads,
    };
    killed(async {
        let host = Host::open_with(HostConfig::default(), seams())
            .await
            .expect("opens");
        let group = own(&host, SHARD).await;
        say(&group, "once").await;
        checkpoint(&group).await;
        until("the log is purged", || {
            log.bounds(SHARD).is_none_or(|(first, _)| first > 0)
        })
        .await;
        host.close().await;
    });
    assert!(checkpoints.flip_bit(SHARD, &mut Dice::new(1)));
    for round in 0..2 {
        killed(async {
            let host = Host::open_with(HostConfig::default(), seams())
                .await
                .expect("opens");
            let error = host
                .open_group(SHARD, machine(&Ledger::new()), vec![1])
                .await
                .expect_err("nothing is left")
                .to_string();
            assert!(error.contains("does not match its check sum"), "{error}");
        });
        let kept = checkpoints.manifest(SHARD).expect("reads");
        assert!(kept.is_some(), "after {round} more openings");
    }
}
