//! What happens when the disk, a file or an operator fails: the real binary, real files, and what it tells the operator.
//!
//! Every test kills or breaks a node on purpose, and then asks for everything that was acknowledged.

mod away;
mod checkpoints;
mod disk;
mod folder;
mod history;
mod log;
mod support;
