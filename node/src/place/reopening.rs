//! A replica that closed itself is opened again.

use crate::config::Config;
use crate::node::Node;
use sojourn_cluster::{GroupId, Role, ShardId};
use std::net::SocketAddr;
use std::time::Duration;

/// The wait for anything ends after this long, as a failure.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_closed_itself_is_opened_again_and_owns_its_shard() {
    let dir = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.data.dir = dir.path().join("data");
    config.listen.grpc = any;
    config.listen.http = any;
    config.listen.peer = any;
    config.cluster.shards = 2;
    config.cluster.bootstrap = true;
    config.limits.disk_free_min = 0;
    let node = Node::start(&config).await.unwrap();
    let shards = node.core.shards.clone();
    let mut version = node.core.topology.version();
    let before = shards.local(1).unwrap();
    // nobody in the node asked for this: to the opener it is a replica that closed itself
    let group = before.group.clone();
    group.close().await;
    assert!(matches!(&*group.role().borrow(), Role::Closed { .. }));
    let opened = async {
        loop {
            match shards.local(1) {
                Some(shard) if !std::sync::Arc::ptr_eq(&shard, &before) => break shard,
                _ => version.changed().await.unwrap(),
            }
        }
    };
    let after = tokio::time::timeout(PATIENCE, opened).await.unwrap();
    assert_eq!(after.group.id(), GroupId::of_shard(ShardId(1)));
    let mut open = after.open();
    let owned = open.wait_for(|open| *open);
    tokio::time::timeout(PATIENCE, owned)
        .await
        .unwrap()
        .unwrap();
    node.stop().await;
}
