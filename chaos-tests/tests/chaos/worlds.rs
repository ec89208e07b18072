//! Some simulated worlds, each lived through. Their seeds are fixed: new ones are looked for by the program, see
//! `docs/reliability.md`.

use anyhow::{Result, ensure};
use sojourn_chaos_tests::world::seed::Plan;
use sojourn_chaos_tests::world::{self, Verdict};

/// A seed that once broke something is added here, when it does not any more.
const KEPT: [u64; 19] = [
    1, 2, 3, 4, 5, 6, 7, 8, 5397, 10196, 10299, 10456, 10612, 10633, 11288, 11450, 20251, 22247,
    24809,
];

#[test]
fn no_world_breaks_a_promise() -> Result<()> {
    let mut acknowledged = 0;
    for seed in KEPT {
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
