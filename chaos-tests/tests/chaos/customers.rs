//! What becomes known of a customer concerns all of their executions, in one decision that is there wholly or not at all.

use crate::support::{customer, publish, send, signal};
use anyhow::{Result, ensure};
use serde_json::json;
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::{ExecutionRef, Fate, Read};

const CARD: &str = r#"
journey: card
entry:
  - on: shop.order.placed
instance_key: signal.data.order
stages:
  - stage: ordered
    transitions:
      - { to: sent, when: customer.checked }
      - { to: reminded, at: customer.due }
  - { stage: sent, end: converted }
  - { stage: reminded, end: lost }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_moves_every_order_of_its_customer_through_a_kill() -> Result<()> {
    let mut server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, CARD).await?;
    let who = customer("ann");
    for order in ["o-1", "o-2", "o-3"] {
        let placed = signal("shop.order.placed", &who, order).data(&json!({ "order": order }))?;
        send(&client, placed).await?;
    }
    // For one order, and nothing comes of it in the others: one part.
    let plain = signal("shop.order.seen", &who, "seen")
        .data(&json!({ "order": "o-2" }))?
        .attributes(&json!({ "mood": "good" }))?;
    let receipt = send(&client, plain).await?;
    ensure!(receipt.parts.len() == 1, "{receipt:?}");
    // For one order, and a time becomes known to all.
    let due = signal("shop.order.seen", &who, "due")
        .data(&json!({ "order": "o-2" }))?
        .attributes(&json!({ "due": "2999-01-01T00:00:00Z" }))?;
    let receipt = send(&client, due).await?;
    ensure!(receipt.parts.len() == 3, "{receipt:?}");
    let checked = || -> Result<_> {
        Ok(signal("shop.order.seen", &who, "checked")
            .data(&json!({ "order": "o-2" }))?
            .attributes(&json!({ "checked": true }))?)
    };
    let receipt = send(&client, checked()?).await?;
    ensure!(
        receipt.parts.len() == 3
            && receipt
                .parts
                .iter()
                .all(|p| matches!(p.fate, Some(Fate::Moved { .. }))),
        "{receipt:?}"
    );
    server.crash().await?;
    let again = send(&client, checked()?).await?;
    ensure!(
        again.duplicate && again.parts.len() == 3,
        "the first answer is given again: {again:?}"
    );
    for order in ["o-1", "o-2", "o-3"] {
        let named = ExecutionRef::Latest {
            customer: who.clone(),
            journey: "card".to_owned(),
            instance: Some(order.to_owned()),
        };
        let found = client.get(&named, Read::default()).await?.execution;
        let stage = found.as_ref().map(|e| e.stage.as_str());
        ensure!(stage == Some("sent"), "{order}: {found:?}");
    }
    Ok(())
}
