//! The binary `sojourn`.
fn main() {}
