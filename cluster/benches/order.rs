//! What order and place cost: writing the log and syncing it, an entry from its proposal until it is applied, an
//! entry's stored form, the way from a key's hash to its shard and its voters.
//!
//! The log is on the temporary folder's disk, which is really synced: what an fsync takes there is most of the first
//! two groups. They say nothing of the network, of deciding, or of a machine that does more than count.

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use common::{config, own, own_shard, soon};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use prost::Message;
use sojourn_cluster::layout::Layout;
use sojourn_cluster::ring::{Ring, RingNode, VIRTUAL_NODES, shard_of};
use sojourn_cluster::sim::Dice;
use sojourn_cluster::{
    EntryKind, Group, GroupId, HostConfig, Op, ShardId, format, log_env, open_log,
};
use sojourn_proto::cluster::LogEntry;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// About what one decision weighs.
const BODY_BYTES: usize = 256;
const SHARDS: u16 = 32;

/// No checkpoint comes in between.
fn undisturbed(dir: &Path) -> HostConfig {
    HostConfig {
        checkpoint_log_bytes: u64::MAX,
        checkpoint_waiting_bytes: u64::MAX,
        checkpoint_every: Duration::from_secs(86_400),
        replay_bytes: u64::MAX,
        ..config(dir)
    }
}

/// The stored form of an entry at `index`.
fn entry(index: u64) -> Bytes {
    let record = LogEntry {
        index,
        term: 1,
        node: 1,
        kind: EntryKind::Decisions as i32,
        body: body(),
        ..LogEntry::default()
    };
    let mut bytes = vec![format::FORMAT];
    record.encode(&mut bytes).expect("a vector grows");
    bytes.into()
}

fn body() -> Bytes {
    Bytes::from(vec![b'x'; BODY_BYTES])
}

/// One write of the log, as its writer makes it of what so many groups have asked for: one record, one fsync.
fn write(c: &mut Criterion) {
    let mut benches = c.benchmark_group("log/write");
    for gathered in [1, 8, 64_u64] {
        let dir = tempfile::tempdir().expect("a folder");
        let system = Arc::new(log_env::DefaultFileSystem);
        let (log, _) = open_log(&config(dir.path()), system).expect("a log");
        let mut index = 0;
        benches.throughput(Throughput::Elements(gathered));
        benches.bench_function(BenchmarkId::from_parameter(gathered), |b| {
            b.iter_batched(
                || {
                    index += 1;
                    let append = |group| Op::Append {
                        group: GroupId(group),
                        first: index,
                        entries: vec![entry(index)],
                    };
                    (0..gathered).map(append).collect::<Vec<_>>()
                },
                |ops| log.write(&ops).expect("written"),
                BatchSize::SmallInput,
            );
        });
    }
    benches.finish();
}

/// From the proposal until the answer, through the log's writer, openraft and the toy machine: so many at once, then
/// all of them are waited for. In one group openraft waits for the fsync of one entry before the next; entries of
/// several groups are gathered by the writer. What is printed beside it: how many shared an fsync.
fn propose(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut benches = c.benchmark_group("group/propose");
    let mut run = |name: &str, groups: u64, at_once: usize| {
        let dir = tempfile::tempdir().expect("a folder");
        let (host, groups) = runtime.block_on(async {
            let (host, first, _) = own_shard(undisturbed(dir.path())).await;
            let mut all = vec![first];
            for id in 2..=groups {
                all.push(own(&host, GroupId(id)).await);
            }
            (host, all)
        });
        let asked: Vec<&Group> = groups.iter().cycle().take(at_once).collect();
        let before = host.stats().log;
        benches.throughput(Throughput::Elements(at_once as u64));
        benches.bench_function(BenchmarkId::new(name, at_once), |b| {
            b.iter(|| {
                let all = asked
                    .iter()
                    .map(|group| group.propose(EntryKind::Decisions, body(), soon()));
                for done in runtime.block_on(join_all(all)) {
                    done.expect("applied");
                }
            });
        });
        let log = host.stats().log;
        let entries = (log.entries - before.entries) as f64;
        let syncs = (log.syncs - before.syncs).max(1) as f64;
        eprintln!(
            "group/propose/{name}/{at_once}: {:.1} entries an fsync",
            entries / syncs
        );
        runtime.block_on(host.close());
    };
    run("one group", 1, 1);
    run("one group", 1, 8);
    run("a group each", 8, 8);
    run("a group each", 64, 64);
    benches.finish();
}

/// An entry's stored form, there and back.
fn stored(c: &mut Criterion) {
    let bytes = entry(1 << 20);
    let decoded = format::decode_entry(&bytes).expect("an entry");
    c.bench_function("entry/encode", |b| {
        b.iter(|| format::encode_entry(black_box(&decoded)));
    });
    c.bench_function("entry/decode", |b| {
        b.iter(|| format::decode_entry(black_box(&bytes)).expect("an entry"));
    });
}

/// From the hash of a key to its shard, its owner, its voters; and the ring's proposal for a whole cluster.
fn place(c: &mut Criterion) {
    let nodes: Vec<RingNode> = (1..=5)
        .map(|id| RingNode {
            id,
            zone: format!("z{}", id % 3),
        })
        .collect();
    let ring = Ring::new(&nodes, VIRTUAL_NODES);
    let layout = Layout::new(1, ring.propose(SHARDS, 3)).expect("a layout");
    let mut dice = Dice::new(1);
    c.bench_function("place/shard", |b| {
        b.iter(|| shard_of(black_box(dice.roll()), SHARDS));
    });
    c.bench_function("place/voters", |b| {
        b.iter(|| {
            let shard: ShardId = shard_of(black_box(dice.roll()), layout.shards());
            layout.voters(shard).len()
        });
    });
    c.bench_function("place/propose 5 nodes", |b| {
        b.iter(|| black_box(&ring).propose(SHARDS, 3));
    });
}

criterion_group!(benches, write, propose, stored, place);
criterion_main!(benches);
