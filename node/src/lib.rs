//! The server of Sojourn: the only place where rules, order and wire meet.

pub mod actors;
pub mod bugs;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod convert;
pub mod core;
pub mod folder;
pub mod hands;
pub mod history;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod place;
pub mod route;
pub mod rpc;
pub mod shard;
mod start;
mod surroundings;
