//! The rules of Sojourn: what a journey is and what a signal does to an execution.
//!
//! Pure: no async, no clock, no randomness, no files, no logging, no order of a hash map. Time and chance come in as data.

pub mod compiled;
pub mod customer;
pub mod event;
pub mod execution;
pub mod signal;
pub mod time;
pub mod value;
// language (J1)
pub mod compile;
mod definition;
pub mod document;
pub mod expr;
mod lint;
pub mod problem;
pub mod template;
pub mod wait;
// rules (J2)
pub mod decide;
pub mod enter;
pub mod evolve;
pub mod identifier;
pub mod limits;
pub mod owed;
pub mod plan;
pub mod receipt;
pub mod report;
pub mod simulate;
pub mod testfile;
pub mod weight;
pub mod why;
