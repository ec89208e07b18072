//! From any node one hop to the owner: real nodes on loopback. Where the first has all replicas, every other one has to hand
//! over.

mod catalog;
mod killed;
mod moving;
mod reads;
mod signals;
mod support;
