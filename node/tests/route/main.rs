//! From any node one hop to the owner: real nodes on loopback, of which the first has all replicas, so that every other
//! one has to hand over.

mod signals;
mod support;
