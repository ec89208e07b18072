//! What was acknowledged is there after a restart, a kill, a checkpoint and a purge.

mod common;

use bytes::Bytes;
use common::*;
use sojourn_cluster::{EntryKind, GroupId, Host, HostConfig, OpenError, ProposeError, Source};
use std::sync::atomic::Ordering;

#[test]
fn a_restart_replays_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (host, group, _) = own_shard(config(dir.path())).await;
        for n in 0..50 {
            assert_eq!(say(&group, &format!("line {n}")).await, 1);
        }
        assert_eq!(say(&group, "line 7").await, 2);
        host.close().await;
    });
    killed(async {
        let (_host, group, ledger) = open_shard(config(dir.path())).await;
        assert_eq!(
            ledger.len(),
            50,
            "everything known to be committed is applied when the group is open"
        );
        assert_eq!(group.opened().source, Source::Log);
        owned(&group).await;
        assert_eq!(say(&group, "line 7").await, 3);
    });
}

#[test]
fn a_killed_host_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    for round in 0..4 {
        killed(async {
            let (_host, group, ledger) = own_shard(config(dir.path())).await;
            assert_eq!(ledger.len(), round * 10, "round {round}");
            for n in 0..10 {
                assert_eq!(say(&group, &format!("{round}/{n}")).await, 1);
            }
            // Neither closed nor waited for: the runtime is dropped.
        });
    }
}

#[test]
fn a_checkpoint_lets_the_log_go_and_a_restart_begins_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = killed(async {
        let (host, group, ledger) = own_shard(config(dir.path())).await;
        for n in 0..1000 {
            say(&group, &format!("line {n}")).await;
        }
        let covered = checkpoint(&group).await;
        // A second one without news is the first.
        assert_eq!(
            group.checkpoint_now().await.expect("told"),
            Ok(Some(covered))
        );
        for n in 0..10 {
            say(&group, &format!("later {n}")).await;
        }
        let second = checkpoint(&group).await;
        assert!(second.index > covered.index);
        assert_eq!(
            (
                ledger.cuts.load(Ordering::Relaxed),
                ledger.full_cuts.load(Ordering::Relaxed)
            ),
            (2, 1)
        );
        say(&group, "after both").await;
        host.close().await;
        second
    });
    killed(async {
        let (_host, group, ledger) = open_shard(config(dir.path())).await;
        assert_eq!(
            group.opened().source,
            Source::Checkpoint { at: Some(first) }
        );
        assert_eq!(ledger.len(), 1011);
        assert!(
            ledger.applied_entries.load(Ordering::Relaxed) <= 1,
            "only what is behind the checkpoint is replayed"
        );
        owned(&group).await;
        assert_eq!(say(&group, "line 3").await, 2);
    });
}

#[test]
fn the_machine_closes_its_group_and_no_other() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let host = open(dir.path()).await;
        let (bad, good) = (Ledger::new(), Ledger::new());
        *bad.panic_on.lock() = Some("bomb".to_owned());
        let one = join(&host, SHARD, &bad).await;
        let two = join(&host, GroupId(2), &good).await;
        owned(&one).await;
        owned(&two).await;
        say(&one, "fine").await;
        let died = one
            .propose(EntryKind::Decisions, Bytes::from_static(b"bomb"), soon())
            .await;
        assert!(
            matches!(died, Err(ProposeError::Unknown { .. })),
            "{died:?}"
        );
        let mut role = one.role();
        let closed = role
            .wait_for(|r| matches!(r, sojourn_cluster::Role::Closed { .. }))
            .await
            .expect("lives")
            .clone();
        let sojourn_cluster::Role::Closed { reason } = closed else {
            unreachable!("waited for it")
        };
        assert!(
            reason.contains("shard 0") && reason.contains("an impossible entry"),
            "{reason}"
        );
        let after = one
            .propose(EntryKind::Decisions, Bytes::from_static(b"more"), soon())
            .await;
        assert!(
            matches!(after, Err(ProposeError::Closed { .. })),
            "{after:?}"
        );
        assert_eq!(say(&two, "still here").await, 1);
    });
    killed(async {
        let host = open(dir.path()).await;
        let bad = Ledger::new();
        *bad.panic_on.lock() = Some("bomb".to_owned());
        let error = host.open_group(SHARD, machine(&bad), vec![1]).await;
        let healed = Ledger::new();
        match error {
            // The entry was known to be committed, and replaying it fails just the same.
            Err(OpenError::Machine { why, .. }) => {
                assert!(why.contains("an impossible entry"), "{why}")
            }
            // It was not yet known to be committed: then the barrier commits it, and the group closes.
            Ok(group) => {
                let mut role = group.role();
                role.wait_for(|r| matches!(r, sojourn_cluster::Role::Closed { .. }))
                    .await
                    .expect("closes");
            }
            Err(other) => panic!("{other}"),
        }
        let good = join(&host, GroupId(2), &healed).await;
        owned(&good).await;
        assert_eq!(say(&good, "still here").await, 2);
    });
}

#[test]
fn entries_are_refused_before_they_are_proposed() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (host, group, _) = own_shard(HostConfig {
            max_entry_bytes: 100,
            ..config(dir.path())
        })
        .await;
        let large = group
            .propose(EntryKind::Decisions, Bytes::from(vec![0; 101]), soon())
            .await;
        assert_eq!(
            large,
            Err(ProposeError::TooLarge {
                bytes: 101,
                limit: 100
            })
        );
        let again = host
            .open_group(SHARD, machine(&Ledger::new()), vec![1])
            .await
            .expect_err("is open");
        assert!(matches!(again, OpenError::AlreadyOpen { group: SHARD }));
        let other = host
            .open_group(GroupId(9), machine(&Ledger::new()), vec![2, 3])
            .await
            .expect_err("not a voter");
        assert!(
            other.to_string().contains("do not name this node, 1"),
            "{other}"
        );
        let locked = Host::open(config(dir.path())).await.expect_err("is in use");
        assert!(matches!(locked, OpenError::Locked { .. }), "{locked}");
        group.close().await;
        let closed = group
            .propose(EntryKind::Decisions, Bytes::new(), soon())
            .await;
        assert_eq!(
            closed,
            Err(ProposeError::Closed {
                reason: "closed".to_owned()
            })
        );
    });
}

#[test]
fn a_confirmed_read_sees_everything_acknowledged_before() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let (_host, group, ledger) = own_shard(config(dir.path())).await;
        for n in 0..20 {
            let text = format!("line {n}");
            let body = Bytes::from(text.clone());
            let done = group
                .propose(EntryKind::Decisions, body, soon())
                .await
                .expect("applied");
            let reads = futures::future::join_all((0..8).map(|_| group.read_index(soon()))).await;
            for read in reads {
                let at = read.expect("confirmed");
                assert!(at.index >= done.at.index);
            }
            assert_eq!(ledger.get(&text).map(|l| l.first), Some(done.at));
        }
        let late = group
            .read_index(tokio::time::Instant::now() - std::time::Duration::from_secs(1))
            .await;
        assert!(matches!(late, Err(ProposeError::Unknown { .. }) | Ok(_)));
    });
}

#[test]
fn without_a_majority_nobody_owns() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let host = open(dir.path()).await;
        let group = host
            .open_group(SHARD, machine(&Ledger::new()), vec![1, 2, 3])
            .await
            .expect("opens");
        let mut role = group.role();
        let owned = role.wait_for(|r| matches!(r, sojourn_cluster::Role::Owner { .. }));
        let owned = tokio::time::timeout(std::time::Duration::from_secs(2), owned).await;
        assert!(owned.is_err(), "one of three is no majority");
        let refused = group
            .propose(EntryKind::Decisions, Bytes::from_static(b"x"), soon())
            .await;
        assert!(
            matches!(refused, Err(ProposeError::NotOwner { .. })),
            "{refused:?}"
        );
        assert!(matches!(
            group.read_index(soon()).await,
            Err(ProposeError::NotOwner { .. })
        ));
    });
}

#[test]
fn an_opening_that_is_given_up_can_be_tried_again() {
    let dir = tempfile::tempdir().expect("a folder");
    killed(async {
        let host = open(dir.path()).await;
        {
            let opening = host.open_group(SHARD, machine(&Ledger::new()), vec![1]);
            let mut opening = std::pin::pin!(opening);
            assert!(futures::poll!(&mut opening).is_pending());
        }
        let group = own(&host, SHARD).await;
        assert_eq!(say(&group, "once").await, 1);
    });
}
