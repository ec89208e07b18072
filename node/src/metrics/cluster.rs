//! What a node shows of its replicas, of its log and of the other nodes; read when it is scraped.

use crate::core::Core;
use crate::place::topology::Owner;
use prometheus::{IntGaugeVec, Opts, Registry};
use sojourn_cluster::transport::Transport;
use sojourn_cluster::{GroupFigures, GroupId, HostStats, Machine, Role, SYNC_BUCKETS_US, ShardId};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// The gauges.
pub struct Gauges {
    node: IntGaugeVec,
    shards: IntGaugeVec,
    peers: IntGaugeVec,
}

fn value(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Gauges {
    /// New gauges.
    ///
    /// # Errors
    /// When a name is given twice: our bug.
    pub fn new(registry: &Registry) -> Result<Gauges, prometheus::Error> {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels)
        };
        let gauges = Gauges {
            node: vec("sojourn_node", "state of the node", &["what"])?,
            shards: vec(
                "sojourn_shard",
                "state of each replica on this node; role: 0 closed, 1 follower, 2 leading, 3 owner",
                &["shard", "what"],
            )?,
            peers: vec(
                "sojourn_peer",
                "the way to each other node, and what it says",
                &["node", "what"],
            )?,
        };
        registry.register(Box::new(gauges.node.clone()))?;
        registry.register(Box::new(gauges.shards.clone()))?;
        registry.register(Box::new(gauges.peers.clone()))?;
        Ok(gauges)
    }

    /// Reads everything.
    pub fn read(&self, core: &Core, stats: &HostStats) {
        // what is not here any more is not shown any more
        self.shards.reset();
        self.peers.reset();
        self.log(stats);
        self.replicas(core, stats);
        self.others(core);
    }

    fn set(&self, what: &str, n: u64) {
        self.node.with_label_values(&[what]).set(value(n));
    }

    fn log(&self, stats: &HostStats) {
        self.set("log_syncs", stats.log.syncs);
        self.set("log_appends", stats.log.appends);
        self.set("log_entries", stats.log.entries);
        self.set("log_bytes_written", stats.log.bytes);
        self.set("log_sync_microseconds", stats.log.sync_us);
        self.set("log_disk_bytes", stats.log.used_bytes);
        self.set("checkpoint_disk_bytes", stats.checkpoint_disk_bytes);
        let failed = stats
            .groups
            .iter()
            .filter(|g| g.checkpoint_failed.is_some());
        self.set("checkpoints_failing", failed.count() as u64);
    }

    fn replicas(&self, core: &Core, stats: &HostStats) {
        let figures: BTreeMap<GroupId, &GroupFigures> =
            stats.groups.iter().map(|g| (g.group, g)).collect();
        let mut sums: BTreeMap<&str, u64> = [
            "customers",
            "customers_awake",
            "customers_away",
            "decisions_ignored",
            "dedup_shortened",
            "history_waiting_bytes",
            "owner_conflicts",
            "shards_open",
            "signals_in_flight",
            "replicas_closed",
        ]
        .map(|what| (what, 0))
        .into();
        let mut add = |what, n: u64| *sums.entry(what).or_default() += n;
        let all = core.shards.all();
        add("replicas", all.len() as u64);
        for shard in all {
            let number = shard.number.to_string();
            let set = |what: &str, n: u64| {
                self.shards
                    .with_label_values(&[number.as_str(), what])
                    .set(value(n));
            };
            let (role, term) = match &*shard.group.role().borrow() {
                Role::Owner { term, .. } => (3, *term),
                Role::Leading => (2, 0),
                Role::Follower { .. } => (1, 0),
                Role::Closed { .. } => (0, 0),
            };
            set("role", role);
            if role == 3 {
                set("term", term);
            }
            add("replicas_closed", u64::from(role == 0));
            {
                let state = shard.duties.state.lock();
                set("applied_index", state.applied);
                set("customers", state.customers);
                set("catalog", state.catalog);
                add("customers", state.customers);
                add("customers_away", state.away);
                add("decisions_ignored", state.ignored);
                add("history_waiting_bytes", state.waiting.bytes());
            }
            if let Some(figures) = figures.get(&GroupId::of_shard(ShardId(shard.number))) {
                let last = figures.last_index.unwrap_or(0);
                set(
                    "apply_lag",
                    last.saturating_sub(figures.applied_index.unwrap_or(0)),
                );
                set("replay_bytes", figures.replay_bytes);
                set("checkpoint_bytes", figures.checkpoint_bytes);
                set(
                    "log_entries",
                    last.saturating_sub(figures.first_index.unwrap_or(0)),
                );
            }
            set("history_whole", u64::from(shard.machine.history_is_whole()));
            add("customers_awake", shard.live.count() as u64);
            let gauge = shard.live.gauge();
            add("signals_in_flight", gauge.count() as u64);
            set("in_flight_limit", gauge.limit() as u64);
            add("shards_open", u64::from(*shard.open().borrow()));
            let conflicts = shard.machine.owner_conflicts.load(Ordering::Relaxed);
            add("owner_conflicts", conflicts);
        }
        let shortened = core
            .shards
            .all()
            .first()
            .map(|s| s.duties.history.shortened());
        add("dedup_shortened", shortened.unwrap_or(0));
        let unowned =
            (0..core.shards.count()).filter(|n| matches!(core.topology.owner(*n), Owner::Unknown));
        add("shards_without_owner", unowned.count() as u64);
        add("signals_in_lines", core.lines.count() as u64);
        add("catalog_position", core.catalog.newest().position);
        add("catalog_owner", u64::from(core.place.owns_catalog()));
        add("may_own", u64::from(*core.place.may_own.borrow()));
        for (what, n) in sums {
            self.set(what, n);
        }
    }

    fn others(&self, core: &Core) {
        for (node, heard) in core.topology.heard() {
            let node = node.to_string();
            let set = |what: &str, n: i64| {
                self.peers.with_label_values(&[node.as_str(), what]).set(n);
            };
            set("reachable", i64::from(heard.why.is_none()));
            if let Some(offset) = heard.clock_offset {
                set("clock_offset_microseconds", offset);
            }
        }
        let figures = core.place.transport.figures();
        for peer in figures.peers {
            let node = peer.node.to_string();
            for (what, n) in [
                ("connected", u64::from(peer.up)),
                ("connects", peer.connects),
                ("frames_sent", peer.frames_sent),
                ("bytes_sent", peer.bytes_sent),
                ("frames_refused", peer.refused_full),
                ("queue_frames", peer.queue_frames as u64),
                ("queue_bytes", peer.queue_bytes as u64),
                ("unanswered", peer.unanswered as u64),
            ] {
                self.peers
                    .with_label_values(&[node.as_str(), what])
                    .set(value(n));
            }
        }
        self.set("strangers", figures.strangers);
        if let Some(tls) = figures.tls {
            self.set("tls_reloads", tls.reloads);
            self.set("tls_failing", u64::from(tls.refused.is_some()));
        }
    }
}

/// The time of each write and fsync of the log, as a histogram in Prometheus' text.
pub fn syncs(stats: &HostStats) -> String {
    const NAME: &str = "sojourn_log_sync_seconds";
    let mut text =
        format!("# HELP {NAME} time of one write and fsync of the log\n# TYPE {NAME} histogram\n");
    let mut sum = 0;
    let bounds = SYNC_BUCKETS_US
        .iter()
        .map(|us| format!("{}", *us as f64 / 1e6));
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (count, bound) in stats.log.sync_buckets.iter().zip(bounds) {
        sum += count;
        // writing to a String cannot fail
        let _ = writeln!(text, "{NAME}_bucket{{le=\"{bound}\"}} {sum}");
    }
    let seconds = stats.log.sync_us as f64 / 1e6;
    let _ = writeln!(text, "{NAME}_sum {seconds}\n{NAME}_count {sum}");
    text
}
