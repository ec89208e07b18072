//! The node's limits. Meeting one is an answer, not a wait. Those of the language stand in `sojourn_journey::limits`.

use std::time::Duration;

/// Inputs under way in this node.
pub const IN_FLIGHT_NODE: usize = 8_192;
/// Inputs under way in one shard.
pub const IN_FLIGHT_SHARD: usize = 1_024;
/// Inputs under way for one customer.
pub const IN_FLIGHT_CUSTOMER: usize = 64;
/// Signals of this node's doors that wait for the owner of their shard, or for its answer from another node.
pub const IN_FLIGHT_HOP: usize = 4_096;
/// Bytes of them.
pub const HOP_BYTES: usize = 64 << 20;
/// Customers whose actors are awake in one node; beyond, the ones used longest ago are passivated. Most have one
/// execution, so this is 50,000 actors, 8 KiB each.
pub const AWAKE_CUSTOMERS: usize = 25_000;
/// How long an actor may be idle.
pub const IDLE: Duration = Duration::from_secs(30);
/// Deadline of a call that names none.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The longest deadline that is honoured.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Bytes of one message that are decoded at all; our own limits answer below that.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// Bytes of one answer of another node that are decoded at all: a full page of the largest executions.
pub const ANSWER_BYTES: usize = 64 << 20;
/// Signals in one batch.
pub const BATCH_SIGNALS: usize = 1_000;
/// Bytes in one batch.
pub const BATCH_BYTES: usize = 4 << 20;
/// Signals of one stream under way.
pub const STREAM_WINDOW: usize = 1_024;
/// Bytes of the signals of one stream under way.
pub const STREAM_BYTES: usize = 4 << 20;
/// Watches at once in one node.
pub const WATCHES: usize = 256;
/// Watches of single shards that other nodes follow here for theirs.
pub const WATCHES_HANDED: usize = 8_192;
/// Bytes of one decision, all its parts together; an entry may have 16 MiB.
pub const DECISION_BYTES: usize = 8 << 20;
/// Executions in a page when none is asked for.
pub const PAGE: usize = 100;
/// Executions in a page at most.
pub const PAGE_MAX: usize = 1_000;
/// Journeys in a workspace.
pub const JOURNEYS: usize = 10_000;
/// Bytes of a webhook's answer that are read.
pub const WEBHOOK_ANSWER_BYTES: usize = 64 << 10;
/// Free disk below which no signal is admitted.
pub const DISK_FREE_MIN: u64 = 1 << 30;
/// History that may wait for a checkpoint in one shard; beyond, no signal is admitted.
pub const HISTORY_WAITING_MAX: u64 = 128 << 20;
/// Days for which signals that moved nothing are listed.
pub const UNMATCHED_DAYS: u32 = 30;
/// The newest signals that concerned nobody, kept in memory for each shard.
pub const NO_MATCH_SAMPLE: usize = 32;
/// Customers of one shard that may begin to leave memory at once.
pub const LEAVING: usize = 32;
/// Bytes on disk that the index of receipts may take in one node.
pub const DEDUP_BYTES: u64 = 8 << 30;

/// Nodes of one cluster.
pub const NODES: usize = 64;
