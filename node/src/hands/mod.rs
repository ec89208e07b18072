//! What the owner does for the world: fires timers when they are due, does actions, releases what a hold kept.
//! Everything comes back in as an input, through the same actor as a signal.

pub mod agenda;
pub mod attempt;
pub mod breaker;
mod due;
pub mod endpoints;
pub mod gate;
pub mod lanes;
