//! One shard on this node: its replicated state ([`state`]), the owner's way of deciding ([`owner`]) and what the
//! two say to each other.

pub mod apply;
pub mod checkpoint;
pub mod confirm;
pub mod counters;
pub mod customer;
pub mod decision;
mod given;
pub mod machine;
pub mod owner;
pub mod pace;
pub mod proposer;
pub mod read;
pub mod receipt;
pub mod seams;
pub mod sketch;
pub mod state;
