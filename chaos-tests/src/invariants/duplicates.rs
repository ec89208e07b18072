//! A duplicate gets the first answer, whole, and changes nothing.

use super::timeline;
use anyhow::{Context, Result, ensure};
use sojourn_client::{Client, Outcome, Receipt, Signal};

/// Sends every signal again and compares the answer with the first.
///
/// # Errors
/// Naming the first signal that was answered otherwise, or changed something.
pub async fn duplicates_get_the_first_answer(
    client: &Client,
    sent: &[(Signal, Receipt)],
) -> Result<()> {
    for (signal, first) in sent.iter().filter(|(_, first)| !first.no_match) {
        let customer = first
            .customer
            .as_ref()
            .context("a receipt names a customer")?;
        let before = timeline(client, customer, "").await?.len();
        let again = match client.send(signal.clone()).await? {
            Outcome::Done(receipt) => receipt,
            other => anyhow::bail!("signal {} sent again: {other:?}", first.signal_id),
        };
        let expected = Receipt {
            duplicate: true,
            ..first.clone()
        };
        ensure!(
            again == expected,
            "signal {} was answered {first:?}, and sent again {again:?}",
            first.signal_id
        );
        let after = timeline(client, customer, "").await?.len();
        ensure!(
            before == after,
            "{customer} had {before} records, and {after} after signal {} was sent again",
            first.signal_id
        );
    }
    Ok(())
}
