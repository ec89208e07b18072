//! What the tests of this crate share, and its benches: a toy machine ([`ledger`]), and hosts and groups opened on it.

#![allow(dead_code, unused_imports)] // every test file uses a part

mod ledger;

use bytes::Bytes;
use ledger::Shared;
pub use ledger::{History, Ledger};
use sojourn_cluster::{
    EntryKind, Failure, Group, GroupId, Host, HostConfig, Machine, Position, Role,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The group of most tests.
pub const SHARD: GroupId = GroupId(1);

pub fn machine(ledger: &Arc<Ledger>) -> Arc<dyn Machine> {
    Arc::new(Shared(ledger.clone()))
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub async fn owned(group: &Group) {
    let mut role = group.role();
    let found = tokio::time::timeout_at(
        soon(),
        role.wait_for(|r| matches!(r, Role::Owner { .. } | Role::Closed { .. })),
    )
    .await
    .expect("the only voter becomes owner in time")
    .expect("the group lives")
    .clone();
    assert!(matches!(found, Role::Owner { .. }), "{found:?}");
}

pub async fn say(group: &Group, text: &str) -> u64 {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let done = group
        .propose(EntryKind::Decisions, body, soon())
        .await
        .expect("proposed and applied");
    String::from_utf8_lossy(&done.reply)
        .parse()
        .expect("a count")
}

pub fn config(dir: &Path) -> HostConfig {
    HostConfig {
        dir: dir.to_owned(),
        ..HostConfig::default()
    }
}

pub async fn open(dir: &Path) -> Host {
    Host::open(config(dir)).await.expect("the host opens")
}

/// Opens a group of which this node is the only voter.
pub async fn join(host: &Host, id: GroupId, ledger: &Arc<Ledger>) -> Group {
    host.open_group(id, machine(ledger), vec![1])
        .await
        .expect("the group opens")
}

/// The same, on a new ledger that nobody looks at, and waits until it is owned.
pub async fn own(host: &Host, id: GroupId) -> Group {
    let group = join(host, id, &Ledger::new()).await;
    owned(&group).await;
    group
}

/// A host with [`SHARD`] on a new ledger: open, not yet owned.
pub async fn open_shard(cfg: HostConfig) -> (Host, Group, Arc<Ledger>) {
    let host = Host::open(cfg).await.expect("the host opens");
    let ledger = Ledger::new();
    let group = join(&host, SHARD, &ledger).await;
    (host, group, ledger)
}

/// The same, owned.
pub async fn own_shard(cfg: HostConfig) -> (Host, Group, Arc<Ledger>) {
    let (host, group, ledger) = open_shard(cfg).await;
    owned(&group).await;
    (host, group, ledger)
}

/// Makes a checkpoint; answers what it covers.
pub async fn checkpoint(group: &Group) -> Position {
    group
        .checkpoint_now()
        .await
        .expect("told")
        .expect("a checkpoint")
        .expect("a position")
}

/// Why the host has stopped, once it has.
pub async fn failure(host: &Host) -> Failure {
    let mut failed = host.failed();
    let failed = failed.wait_for(Option::is_some).await;
    failed.expect("told").clone().expect("a failure")
}

/// Looks until it holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come about in time"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs in a runtime of its own and then drops it, tasks and all, as a kill would.
pub fn killed<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let out = runtime.block_on(run);
    drop(runtime);
    out
}
