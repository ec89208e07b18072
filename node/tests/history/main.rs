//! A shard's history as it goes from one replica to another: what a node that joins gets, and what it refuses.

mod joins;
mod refusals;
mod several;
mod shops;
