//! What the node counts of itself, for Prometheus: the doors here, everything else read when it is scraped.

use crate::actors::Answer;
use crate::core::Core;
use prometheus::{Encoder, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use sojourn_cluster::Host;
use sojourn_proto::v1;

/// Counters of the doors.
pub struct Doors {
    registry: Registry,
    receipts: IntCounterVec,
    refused: IntCounterVec,
    gauges: IntGaugeVec,
    groups: IntGaugeVec,
    endpoints: IntGaugeVec,
}

impl Doors {
    /// New counters, in a registry of their own.
    ///
    /// # Errors
    /// When a name is given twice: our bug.
    pub fn new() -> Result<Doors, prometheus::Error> {
        let registry = Registry::new();
        let receipts = IntCounterVec::new(
            Opts::new("sojourn_receipts_total", "receipt parts by fate"),
            &["fate"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "sojourn_refused_total",
                "inputs without a receipt, by cause",
            ),
            &["cause"],
        )?;
        let gauges = IntGaugeVec::new(Opts::new("sojourn_node", "state of the node"), &["what"])?;
        let groups = IntGaugeVec::new(
            Opts::new("sojourn_shard", "state of each shard"),
            &["shard", "what"],
        )?;
        let endpoints = IntGaugeVec::new(
            Opts::new(
                "sojourn_endpoint",
                "state of each endpoint on this node; breaker: 0 closed, 1 half-open, 2 open",
            ),
            &["workspace", "endpoint", "what"],
        )?;
        registry.register(Box::new(endpoints.clone()))?;
        registry.register(Box::new(receipts.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(gauges.clone()))?;
        registry.register(Box::new(groups.clone()))?;
        Ok(Doors {
            registry,
            receipts,
            refused,
            gauges,
            groups,
            endpoints,
        })
    }

    /// A signal with a wrong field.
    pub fn invalid(&self) {
        self.refused.with_label_values(&["invalid"]).inc();
    }

    /// An answer that was given.
    pub fn answered(&self, answer: &Answer) {
        let refused = match answer {
            Answer::Receipt(receipt) => return self.receipt(receipt),
            Answer::Refused(_) => "refused",
            Answer::NotFound(_) => "not_found",
            Answer::NotOwner => "not_owner",
            Answer::Unknown(_) => "unknown",
            Answer::Overloaded { cause, .. } => cause,
            Answer::Internal(_) => "internal",
            Answer::Told(error) => error.cause.as_str(),
        };
        self.refused.with_label_values(&[refused]).inc();
    }

    fn receipt(&self, receipt: &v1::Receipt) {
        use v1::fate::Fate;
        let count = |fate: &str| self.receipts.with_label_values(&[fate]).inc();
        if receipt.duplicate {
            return count("duplicate");
        }
        if receipt.no_match {
            return count("no_match");
        }
        for part in &receipt.parts {
            let fate = part.fate.as_ref().and_then(|f| f.fate.as_ref());
            count(match fate {
                Some(Fate::Moved(_)) => "moved",
                Some(Fate::Recorded(_)) => "recorded",
                Some(Fate::Started(_)) => "started",
                Some(Fate::Exited(_)) => "exited",
                Some(Fate::Unmatched(_)) => "unmatched",
                Some(Fate::Ended(_)) => "ended",
                Some(Fate::Refused(_)) => "refused",
                Some(Fate::Held(_)) => "held",
                None => "unknown",
            });
        }
    }

    fn endpoints(&self, core: &Core) {
        // those that were deleted are not shown any more
        self.endpoints.reset();
        for (workspace, state) in core.endpoints.all_states() {
            let breaker = match state.breaker() {
                v1::Breaker::Closed | v1::Breaker::Unspecified => 0,
                v1::Breaker::HalfOpen => 1,
                v1::Breaker::Open => 2,
            };
            for (what, n) in [
                ("breaker", breaker),
                ("failures_in_a_row", state.failures.into()),
                ("running", state.running),
                ("waiting", state.waiting),
                ("attempts_done", state.done),
                ("attempts_failed", state.failed),
            ] {
                self.endpoints
                    .with_label_values(&[workspace.as_str(), state.name.as_str(), what])
                    .set(i64::try_from(n).unwrap_or(i64::MAX));
            }
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self, core: &Core, host: &Host) -> String {
        let stats = host.stats();
        let set = |what: &str, n: u64| {
            self.gauges
                .with_label_values(&[what])
                .set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        set("log_syncs", stats.log.syncs);
        set("log_appends", stats.log.appends);
        set("log_entries", stats.log.entries);
        set("log_bytes_written", stats.log.bytes);
        set("log_sync_microseconds", stats.log.sync_us);
        set("log_disk_bytes", stats.log.used_bytes);
        set("checkpoint_disk_bytes", stats.checkpoint_disk_bytes);
        let (mut customers, mut awake, mut ignored, mut waiting, mut open) = (0, 0, 0, 0, 0);
        let (mut away, mut shortened) = (0, 0);
        for shard in core.shards.all() {
            let state = shard.duties.state.lock();
            customers += state.customers;
            away += state.away;
            shortened = shortened.max(shard.duties.history.shortened());
            ignored += state.ignored;
            waiting += state.waiting.bytes();
            let number = shard.number.to_string();
            let set = |what: &str, n: u64| {
                self.groups
                    .with_label_values(&[&number, what])
                    .set(i64::try_from(n).unwrap_or(i64::MAX));
            };
            set("applied_index", state.applied);
            set("customers", state.customers);
            drop(state);
            awake += shard.live.count() as u64;
            open += u64::from(*shard.open().borrow());
        }
        set("customers", customers);
        set("customers_awake", awake);
        set("customers_away", away);
        set("dedup_shortened", shortened);
        set("decisions_ignored", ignored);
        set("history_waiting_bytes", waiting);
        set("shards_open", open);
        set("signals_in_lines", core.lines.count() as u64);
        self.endpoints(core);
        let mut out = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(error) => format!("# {error}\n"),
        }
    }
}
