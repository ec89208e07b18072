//! Acknowledged is never lost: whatever receipt was given out, the server has it still, word for word.

use anyhow::{Context, Result, bail, ensure};
use sojourn_client::{Client, Receipt};

/// Asks for every receipt again.
///
/// # Errors
/// Naming the first receipt that is lost or has changed.
pub async fn acknowledged_is_never_lost(client: &Client, receipts: &[Receipt]) -> Result<()> {
    for given in receipts {
        let Some(customer) = &given.customer else {
            bail!(
                "the receipt of signal {} names no customer",
                given.signal_id
            );
        };
        if given.no_match {
            // answered and counted, not recorded
            continue;
        }
        let kept = client
            .receipt(customer, &given.source, &given.signal_id)
            .await
            .with_context(|| {
                format!("signal {} of {customer} was acknowledged", given.signal_id)
            })?;
        let bare = |receipt: &Receipt| Receipt {
            duplicate: false,
            content_differs: false,
            ..receipt.clone()
        };
        ensure!(
            bare(&kept) == bare(given),
            "signal {} of {customer} was acknowledged as {given:?} and is now {kept:?}",
            given.signal_id
        );
    }
    Ok(())
}
