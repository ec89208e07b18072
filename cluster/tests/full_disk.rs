//! A disk that is really full: a small file system, mounted for the test. Needs the right to mount.

mod common;

use bytes::Bytes;
use common::*;
use sojourn_cluster::{EntryKind, HostConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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
        let (host, group, _) = own_shard(config(&disk.dir)).await;
        let mut acknowledged = 0;
        for n in 0..2000 {
            let body = Bytes::from(line(n));
            match group.propose(EntryKind::Decisions, body, soon()).await {
                Ok(_) => acknowledged += 1,
                Err(_) => break,
            }
        }
        let failure = failure(&host).await;
        assert!(failure.todo.contains("the disk is full"), "{failure}");
        acknowledged
    });
    assert!(
        (50..2000).contains(&acknowledged),
        "{acknowledged} lines fit"
    );
    disk.grow("64m");
    killed(async {
        let (_host, group, ledger) = own_shard(config(&disk.dir)).await;
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
        let (host, group, ledger) = own_shard(HostConfig {
            checkpoint_log_bytes: 1 << 30,
            ..config(dir.path())
        })
        .await;
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
        let (_host, group, ledger) = open_shard(config(dir.path())).await;
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
