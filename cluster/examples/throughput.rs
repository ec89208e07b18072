//! How many entries a second one group, and 32 groups, take on this disk, and what they cost.
//!
//! `cargo run --release -p sojourn-cluster --example throughput [folder]`
#![allow(clippy::print_stdout)] // its figures are its output

use bytes::Bytes;
use sojourn_cluster::{
    Cut, EntryKind, Group, GroupId, Host, HostConfig, Machine, Position, ProposeError, Rebuilt,
    Role,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Counts, and keeps nothing.
struct Counter;

struct NoCut;

impl Cut for NoCut {
    fn before(&mut self, _manifest: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        None
    }
    fn done(self: Box<Self>, _ok: bool) {}
}

impl Machine for Counter {
    fn apply(&self, _at: Position, _kind: EntryKind, _body: &Bytes) -> Bytes {
        Bytes::new()
    }
    fn cut(&self, _at: Position, _full: bool) -> Box<dyn Cut> {
        Box::new(NoCut)
    }
    fn waiting_bytes(&self) -> u64 {
        0
    }
    fn restore_begin(&self) {}
    fn restore_chunk(&self, _chunk: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn restore_end(&self, _at: Option<Position>) -> Result<(), String> {
        Ok(())
    }
    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        Ok(None)
    }
    fn hash(&self) -> u128 {
        0
    }
}

/// Seconds of processor time that this process has used, user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks: f64 = [11, 12]
        .iter()
        .filter_map(|i| fields.get(*i)?.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

async fn run(
    name: &str,
    host: &Host,
    groups: &[Group],
    in_flight: usize,
    size: usize,
) -> Result<(), ProposeError> {
    let body = Bytes::from(vec![7; size]);
    let (before, started, cpu) = (host.stats().log, Instant::now(), cpu_seconds());
    let until = started + Duration::from_secs(3);
    let mut tasks = Vec::new();
    for n in 0..in_flight {
        let (group, body) = (groups[n % groups.len()].clone(), body.clone());
        tasks.push(tokio::spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < until {
                let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                group
                    .propose(EntryKind::Decisions, body.clone(), deadline)
                    .await?;
                count += 1;
            }
            Ok::<u64, ProposeError>(count)
        }));
    }
    let mut count = 0;
    for task in tasks {
        count += task
            .await
            .map_err(|e| ProposeError::Unknown { why: e.to_string() })??;
    }
    let (took, cpu, after) = (
        started.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        host.stats().log,
    );
    println!(
        "{name:>28}: {:>8.0} entries/s, {:>5.1} us of processor each, {:>5.2} entries per fsync, fsync {:>4.0} us",
        count as f64 / took,
        cpu * 1e6 / count as f64,
        (after.entries - before.entries) as f64 / (after.syncs - before.syncs).max(1) as f64,
        (after.sync_us - before.sync_us) as f64 / (after.syncs - before.syncs).max(1) as f64,
    );
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args()
        .nth(1)
        .map_or_else(|| temporary.path().to_owned(), Into::into);
    let host = Host::open(HostConfig {
        dir,
        ..HostConfig::default()
    })
    .await?;
    let mut groups = Vec::new();
    let opening = Instant::now();
    for n in 0..33 {
        let group = host
            .open_group(GroupId(n), Arc::new(Counter), vec![1])
            .await?;
        let mut role = group.role();
        role.wait_for(|r| matches!(r, Role::Owner { .. })).await?;
        groups.push(group);
    }
    println!(
        "33 groups opened and owned in {:.0} ms",
        opening.elapsed().as_secs_f64() * 1e3
    );
    let one = &groups[1..2];
    run("1 group, 1 in flight", &host, one, 1, 256).await?;
    run("1 group, 64 in flight", &host, one, 64, 256).await?;
    run("1 group, 64, 16 KiB", &host, one, 64, 16 << 10).await?;
    run("32 groups, 64 in flight", &host, &groups[1..], 64, 256).await?;
    run("32 groups, 256 in flight", &host, &groups[1..], 256, 256).await?;
    let cpu = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "33 idle groups: {:.2} % of a core",
        (cpu_seconds() - cpu) / 5.0 * 100.0
    );
    host.close().await;
    Ok(())
}
