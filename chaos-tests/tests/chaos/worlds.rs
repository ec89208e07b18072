//! Some simulated worlds, each lived through: those of fixed seeds, and some that nobody has seen before.

use anyhow::{Result, ensure};
use rand::RngExt;
use sojourn_chaos_tests::chance;
use sojourn_chaos_tests::world::seed::Plan;
use sojourn_chaos_tests::world::{self, Verdict};

/// Seeds that every run looks at. A seed that once broke something is added here.
const KEPT: [u64; 4] = [1, 2, 3, 4];
/// How many new ones.
const NEW: usize = 8;

#[test]
fn no_world_breaks_a_promise() -> Result<()> {
    let mut chance = chance::chance("worlds")?;
    let new = (0..NEW).map(|_| u64::from(chance.random::<u32>()));
    let mut acknowledged = 0;
    for seed in KEPT.into_iter().chain(new) {
        let ended = world::live(&Plan::of(seed))?;
        ensure!(
            ended.verdict == Verdict::Clean,
            "seed {seed}: {:?}; again: cargo run -p chaos-tests -- --seed {seed} --verbose",
            ended.verdict
        );
        acknowledged += ended.seen.acknowledged;
    }
    // a world in which nothing happens proves nothing
    ensure!(
        acknowledged > 500,
        "only {acknowledged} appends were acknowledged"
    );
    Ok(())
}

#[test]
#[cfg_attr(
    not(tokio_unstable),
    ignore = "tokio's select! is seeded with --cfg tokio_unstable only, see .cargo/config.toml"
)]
fn the_same_seed_is_the_same_world() -> Result<()> {
    for seed in [11, 12] {
        let plan = Plan::of(seed);
        let (once, again) = (world::live(&plan)?, world::live(&plan)?);
        ensure!(
            once.seen == again.seen,
            "seed {seed}: {once:?}, then {again:?}"
        );
    }
    Ok(())
}
