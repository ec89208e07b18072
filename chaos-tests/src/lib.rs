//! What the tests that try to break Sojourn are made of: real processes that are really killed ([`process`]) and make up a
//! cluster ([`cluster`]) whose links can be cut ([`links`]), a model of the loan journey that shares no code with the rules
//! ([`oracle`]), a receiver of webhooks ([`hook`]), load that keeps books ([`load`]), one checker per promise
//! ([`invariants`]), and an auditor of who owns what ([`owners`]).
//!
//! All this knows nothing of the node's insides: it sees a binary, its doors and its data folder, as an operator does. Only
//! the simulated worlds ([`world`]) stand on libraries: that of the layer below, whose disks and wires they replace, and the
//! node's, whose shards live in them.

pub mod binary;
pub mod chance;
pub mod cli;
pub mod cluster;
pub mod data;
pub mod faults;
pub mod history;
pub mod hook;
pub mod http;
pub mod incident;
pub mod invariants;
pub mod links;
pub mod load;
pub mod loan;
pub mod oracle;
pub mod owners;
pub mod process;
pub mod raw;
pub mod rough;
pub mod wait;
pub mod whole;
pub mod world;
