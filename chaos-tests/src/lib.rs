//! What the tests that try to break Sojourn are made of: real processes that are really killed ([`process`]), a model
//! of the loan journey that shares no code with the rules ([`oracle`]), a receiver of webhooks ([`hook`]), and one
//! checker per promise ([`invariants`]).
//!
//! Knows nothing of the node's insides: it sees a binary, its doors and its data folder, as an operator does.

pub mod binary;
pub mod data;
pub mod hook;
pub mod invariants;
pub mod oracle;
pub mod process;
pub mod raw;
pub mod wait;
