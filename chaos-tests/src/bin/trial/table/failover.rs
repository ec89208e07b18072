//! Three nodes, and owners that are killed under an open loop.

use super::{Args, Page};
use crate::gaps;
use anyhow::Result;

pub(super) async fn run(args: &Args, page: &mut Page) -> Result<()> {
    let killed = gaps::open_loop(args.kills, 32).await?;
    let ms = |time: std::time::Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    page.table(
        "An owner of three nodes is killed, open loop at half of what 64 in flight take",
        &[
            "kills",
            "signals/s",
            "longest gap p50",
            "worst",
            "answered",
            "not",
        ],
    )?;
    let (middle, worst) = killed.gap;
    page.row(&[
        killed.kills.to_string(),
        format!("{:.0}", killed.rate),
        ms(middle),
        ms(worst),
        killed.answered.to_string(),
        killed.failed.to_string(),
    ])?;
    let met = worst.as_secs_f64() <= 1.5 && killed.failed == 0;
    page.want(
        "longest gap when an owner is killed",
        "≤ 1.5 s",
        ms(worst),
        met,
    );
    Ok(())
}
