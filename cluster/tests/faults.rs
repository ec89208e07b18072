//! When the disk fails, nothing is acknowledged any more, the host says so, and a restart finds what was acknowledged.

mod common;

use bytes::Bytes;
use common::*;
use sojourn_cluster::sim::{Fault, FaultyDisk};
use sojourn_cluster::{
    EntryKind, Group, GroupId, Host, ProposeError, Role, Running, Seams, open_checkpoints, open_log,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

async fn on_disk(dir: &Path, disk: &FaultyDisk) -> Host {
    let cfg = config(dir);
    let (log, _) = open_log(&cfg, Arc::new(disk.clone())).expect("a log");
    let (checkpoints, _) = open_checkpoints(&cfg).expect("checkpoints");
    Host::open_with(
        cfg,
        Seams {
            log,
            checkpoints,
            running: Running::Threads,
        },
    )
    .await
    .expect("opens")
}

async fn propose_many(group: Group, name: &'static str) -> Vec<String> {
    let all = (0..40).map(|n| {
        let group = group.clone();
        async move {
            let text = format!("{name} {n}");
            let done = group
                .propose(EntryKind::Decisions, Bytes::from(text.clone()), soon())
                .await;
            done.map(|_| text)
        }
    });
    let mut acknowledged = Vec::new();
    for result in futures::future::join_all(all).await {
        match result {
            Ok(text) => acknowledged.push(text),
            Err(error) => assert!(
                matches!(
                    error,
                    ProposeError::Unknown { .. } | ProposeError::Closed { .. }
                ),
                "{error}"
            ),
        }
    }
    acknowledged
}

fn a_failing_disk(fault: Fault, word: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let acknowledged = killed(async {
        let disk = FaultyDisk::new();
        let host = on_disk(dir.path(), &disk).await;
        let ledger = Ledger::new();
        let mut groups = Vec::new();
        for n in 1..=3 {
            let group = join(&host, GroupId(n), &ledger).await;
            owned(&group).await;
            groups.push(group);
        }
        let acknowledged = propose_many(groups[0].clone(), "before").await;
        assert_eq!(acknowledged.len(), 40);
        disk.set(fault);
        for group in &groups {
            let none = propose_many(group.clone(), "during").await;
            assert_eq!(
                none,
                Vec::<String>::new(),
                "nothing is acknowledged that is not on disk"
            );
        }
        let failure = failure(&host).await;
        assert!(failure.what.contains(word), "{failure}");
        assert!(
            failure.todo.contains("start the node again") && failure.where_.contains("log"),
            "{failure}"
        );
        for group in &groups {
            let mut role = group.role();
            role.wait_for(|r| matches!(r, Role::Closed { .. }))
                .await
                .expect("closes");
        }
        let late = host
            .open_group(GroupId(9), machine(&Ledger::new()), vec![1])
            .await
            .expect_err("has stopped");
        assert!(late.to_string().contains("the node has stopped"), "{late}");
        // Healing the disk does not heal the node: nobody knows what it holds.
        disk.set(Fault::None);
        let after = groups[0]
            .propose(EntryKind::Decisions, Bytes::from_static(b"after"), soon())
            .await;
        assert!(
            matches!(after, Err(ProposeError::Closed { .. })),
            "{after:?}"
        );
        acknowledged
    });
    killed(async {
        let (_host, group, ledger) = own_shard(config(dir.path())).await;
        let there: BTreeSet<String> = ledger.lines().into_keys().collect();
        assert!(
            acknowledged.iter().all(|text| there.contains(text)),
            "what was acknowledged is there"
        );
        assert!(ledger.lines().values().all(|line| line.times == 1));
        say(&group, "on we go").await;
    });
}

#[test]
fn a_failed_fsync_stops_the_host() {
    a_failing_disk(Fault::Sync, "fsync");
}

#[test]
fn a_full_disk_stops_the_host() {
    a_failing_disk(Fault::Full, "nospace");
}

#[test]
fn groups_share_fsyncs() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let disk = FaultyDisk::new();
        let host = on_disk(dir.path(), &disk).await;
        let mut groups = Vec::new();
        for n in 0..33 {
            groups.push(own(&host, GroupId(n)).await);
        }
        // As slow as a disk that really syncs, so that there is something to share.
        disk.set(Fault::SlowSync(std::time::Duration::from_millis(2)));
        let before = host.stats().log;
        let all = groups.iter().map(|group| async move {
            for n in 0..20 {
                say(group, &format!("line {n}")).await;
            }
        });
        futures::future::join_all(all).await;
        let log = host.stats().log;
        let (appends, syncs) = (log.appends - before.appends, log.syncs - before.syncs);
        assert_eq!(appends, 33 * 20);
        assert!(syncs * 5 < appends, "{syncs} fsyncs for {appends} appends");
        disk.set(Fault::None);
        host.close().await;
    });
}
