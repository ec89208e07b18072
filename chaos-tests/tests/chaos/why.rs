//! Why somebody is where they are.

use crate::support::{customer, execution, publish, send, signal};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use sojourn_chaos_tests::binary;
use sojourn_chaos_tests::invariants::latest;
use sojourn_chaos_tests::oracle::Expected;
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::wire::Endpoint;
use sojourn_client::wire::condition::State;
use sojourn_client::{Identifier, Read, Signal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loan_in_offer_sent_knows_its_four_ways_out() -> Result<()> {
    let mut server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    let text = std::fs::read_to_string(binary::workspace().join("examples/loan/journey.yaml"))?;
    publish(&client, &text).await?;
    let who = Identifier::new("application_id", "1");
    let path = [
        "A_SUBMITTED",
        "A_PARTLYSUBMITTED",
        "A_PREACCEPTED",
        "A_ACCEPTED",
        "O_SENT",
    ];
    for activity in path {
        send(&client, signal(&format!("bank.{activity}"), &who, activity)).await?;
    }
    server.crash().await?;
    let why = client.why(&latest(&who, "loan"), Read::default()).await?;
    ensure!(
        why.execution
            .as_ref()
            .is_some_and(|e| e.stage == "offer_sent"),
        "{why:?}"
    );
    let told: Vec<(String, Vec<String>)> = why
        .ways
        .iter()
        .map(|w| (w.to.clone(), w.waits_for.clone()))
        .collect();
    let table: Vec<(String, Vec<String>)> = Expected::ways_out("offer_sent")
        .into_iter()
        .map(|(on, to)| (to.to_owned(), vec![format!("bank.{on}")]))
        .collect();
    ensure!(
        told == table,
        "the ways are {told:?}, the table has {table:?}"
    );
    for way in &why.ways {
        ensure!(
            way.text.contains(&way.to) && way.text.contains(&way.waits_for[0]),
            "its sentence names stage and signal: {}",
            way.text
        );
    }
    ensure!(why.summary.contains("4 ways out"), "{}", why.summary);
    // the same for people
    let shown = server
        .run([
            "execution",
            "why",
            "--customer",
            "application_id=1",
            "--journey",
            "loan",
        ])
        .await?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for (on, to) in Expected::ways_out("offer_sent") {
        ensure!(
            shown.contains(&format!("bank.{on}")) && shown.contains(to),
            "{on} and {to} are not in:\n{shown}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_over_two_applications_says_which_part_holds() -> Result<()> {
    let mut server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    let scoring = Endpoint {
        name: "scoring".into(),
        // nobody listens there; what is owed does not hold anybody up
        url: "http://127.0.0.1:9/".into(),
        ..Endpoint::default()
    };
    client.put_endpoint(scoring, "story").await?;
    let text = std::fs::read_to_string(binary::workspace().join("examples/colour/journey.yaml"))?;
    publish(&client, &text).await?;
    let who = customer("ann");
    let with = |kind: &str, data: serde_json::Value| -> Result<Signal> {
        Ok(signal(kind, &who, kind).data(&data)?)
    };
    let start = with(
        "web.form.submitted",
        json!({ "form": "loan", "amount": 900, "application_id": "7" }),
    )?
    .customer("email", "ann@example.com")
    .attributes(&json!({ "country": "NL", "name": "Ann" }))?;
    send(&client, start).await?;
    let same = |mut data: serde_json::Value| {
        data["application_id"] = json!("7");
        data
    };
    send(
        &client,
        with(
            "docs.file.uploaded",
            same(json!({ "kind": "kyc", "agent": "Bo" })),
        )?,
    )
    .await?;
    send(&client, with("desk.check.passed", same(json!({})))?).await?;
    send(&client, with("books.account.opened", same(json!({})))?).await?;
    let stands = execution(&client, &who, "loan").await?;
    ensure!(stands.stage == "live", "it is in {}", stands.stage);

    let condition = async || -> Result<_> {
        let why = client.why(&latest(&who, "loan"), Read::default()).await?;
        let way = why.ways.into_iter().find(|w| w.to == "disbursed");
        way.context("no way to disbursed")
    };
    let way = condition().await?;
    ensure!(way.conditions.len() == 2, "two parts: {way:?}");
    ensure!(
        way.conditions.iter().all(|c| c.state() == State::Unknown),
        "{way:?}"
    );

    send(
        &client,
        with("Books.Invoice.updated", json!({ "Status": "Paid" }))?,
    )
    .await?;
    server.crash().await?;
    let way = condition().await?;
    let states: Vec<(&str, State)> = way
        .conditions
        .iter()
        .map(|c| (c.source.as_str(), c.state()))
        .collect();
    ensure!(
        states
            .iter()
            .any(|(s, state)| s.contains("Books.Invoice.Status") && *state == State::Holds)
            && states
                .iter()
                .any(|(s, state)| s.contains("Desk.Department.Status") && *state == State::Unknown),
        "{states:?}"
    );
    ensure!(
        way.missing == ["Desk.Department.Status"],
        "missing: {:?}",
        way.missing
    );
    ensure!(
        way.text.contains("Desk.Department.Status"),
        "its sentence names it: {}",
        way.text
    );

    send(
        &client,
        with("Desk.Department.updated", json!({ "Status": "Active" }))?,
    )
    .await?;
    ensure!(execution(&client, &who, "loan").await?.stage == "disbursed");
    Ok(())
}
