//! The gRPC doors: thin. Check, convert, ask the core, convert, answer.

pub mod cluster;
pub mod commands;
mod endpoints;
pub mod errors;
pub mod executions;
pub mod journeys;
pub mod list;
pub mod signals;
pub mod timeline;
pub mod unmatched;
