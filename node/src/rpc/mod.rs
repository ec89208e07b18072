//! The gRPC doors: thin. Check, convert, ask the core, convert, answer.

pub mod cluster;
pub mod commands;
pub mod control;
mod endpoints;
pub mod errors;
pub mod executions;
pub mod figures;
pub mod journeys;
pub mod list;
mod live;
pub mod signals;
pub mod timeline;
pub mod unmatched;
pub mod watch;
