//! Chance that can be repeated: the seed is printed, and `SOJOURN_SEED` sets it.

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Chance for a story, from `SOJOURN_SEED` or a new seed; printed with the story's name.
///
/// # Errors
/// When `SOJOURN_SEED` is no whole number.
pub fn chance(story: &str) -> Result<StdRng> {
    let seed = seed()?;
    eprintln!("{story}: SOJOURN_SEED={seed}");
    Ok(of(seed))
}

/// `SOJOURN_SEED`, or a new seed.
///
/// # Errors
/// When it is no whole number.
pub fn seed() -> Result<u64> {
    match std::env::var("SOJOURN_SEED") {
        Ok(text) => text.parse().context("SOJOURN_SEED is no whole number"),
        Err(_) => Ok(rand::random::<u64>()),
    }
}

/// Chance of a seed.
pub fn of(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
