//! Waiting for a state: asked again and again until it is there, never longer than told.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long it is before a state is asked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// Asks until `ask` gives something, at most `within`.
///
/// # Errors
/// When it gave nothing in time, naming `what`; and at once with an error of `ask`.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {within:?}");
        }
        tokio::time::sleep(AGAIN).await;
    }
}
