//! A disk that is really full: a small file system, mounted for the test. Needs the right to mount.

mod support;

use bytes::Bytes;
use sojourn_cluster::{EntryKind, GroupId, Host, HostConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::*;

const SHARD: GroupId = GroupId(1);

/// A file system in memory, of a few MiB.
struct SmallDisk {
    dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> SmallDisk {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = parent.path().join("disk");
        std::fs::create_dir(&dir).expect("a folder to mount on");
        mount(
            &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"],
            &dir,
        );
        SmallDisk {
            dir,
            _parent: parent,
        }
    }

    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.dir);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A test that fails leaves files open; a lazy unmount waits for them.
        drop(Command::new("umount").arg("-l").arg(&self.dir).status());
    }
}

fn mount(args: &[&str], dir: &Path) {
    let run = Command::new("mount")
        .args(args)
        .arg(dir)
        .output()
        .expect("the command `mount` is there");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success(),
        "this test needs the right to mount (CAP_SYS_ADMIN): {said}"
    );
}

fn line(n: usize) -> String {
    format!("{n:06}{}", "x".repeat(20_000))
}

#[test]
fn a_full_log_disk_stops_the_host_and_loses_nothing() {
    let disk = SmallDisk::new("8m");
    let acknowledged = killed(async {
        let host = open(&disk.dir).await;
        let group = host
            .open_group(SHARD, machine(&Ledger::new()), vec![1])
            .await
            .expect("opens");
        owned(&group).await;
        let mut acknowledged = 0;
        for n in 0..2000 {
            let body = Bytes::from(line(n));
            match group.propose(EntryKind::Decisions, body, soon()).await {
                Ok(_) => acknowledged += 1,
                Err(_) => break,
            }
        }
        let mut failed = host.failed();
        let failure = failed
            .wait_for(Option::is_some)
            .await
            .expect("told")
            .clone()
            .expect("a failure");
        assert!(failure.todo.contains("the disk is full"), "{failure}");
        acknowledged
    });
    assert!(
        (50..2000).contains(&acknowledged),
        "{acknowledged} lines fit"
    );
    disk.grow("64m");
    killed(async {
        let host = open(&disk.dir).await;
        let ledger = Ledger::new();
        let group = host
            .open_group(SHARD, machine(&ledger), vec![1])
            .await
            .expect("opens");
        owned(&group).await;
        for n in 0..acknowledged {
            assert_eq!(
                ledger.get(&line(n)).map(|l| l.times),
                Some(1),
                "line {n} of {acknowledged}"
            );
        }
        say(&group, "on we go").await;
    });
}

#[test]
fn a_full_checkpoint_disk_keeps_the_log_and_heals() {
    let disk = SmallDisk::new("36m");
    let dir = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(&disk.dir, dir.path().join("checkpoints")).expect("a link");
    let count = killed(async {
        let host = Host::open(HostConfig {
            checkpoint_log_bytes: 1 << 30,
            ..config(dir.path())
        })
        .await
        .expect("opens");
        let ledger = Ledger::new();
        let group = host
            .open_group(SHARD, machine(&ledger), vec![1])
            .await
            .expect("opens");
        owned(&group).await;
        let mut dice = sojourn_cluster::sim::Dice::new(1);
        for n in 0..900 {
            // Not to be packed small.
            let text: String = (0..1000).map(|_| format!("{:016x}", dice.roll())).collect();
            say(&group, &format!("{n} {text}")).await;
        }
        let error = group
            .checkpoint_now()
            .await
            .expect("told")
            .expect_err("7 MB do not fit beside the reserve");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(group.figures().checkpoint_failed.is_some());
        assert_eq!(say(&group, "the log goes on").await, 1);
        disk.grow("128m");
        let deadline = soon();
        while group.checkpoint_now().await.expect("told").is_err() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "it heals once there is space: {:?}",
                group.figures()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        host.close().await;
        ledger.len()
    });
    killed(async {
        let host = open(dir.path()).await;
        let ledger = Ledger::new();
        let group = host
            .open_group(SHARD, machine(&ledger), vec![1])
            .await
            .expect("opens");
        assert!(
            matches!(
                group.opened().source,
                sojourn_cluster::Source::Checkpoint { .. }
            ),
            "{:?}",
            group.opened()
        );
        assert_eq!(ledger.len(), count);
    });
}
