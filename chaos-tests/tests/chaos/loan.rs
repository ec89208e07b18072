//! The loan story: real events, and figures that a plain table gives too.

use crate::support::{chance, json};
use anyhow::{Result, ensure};
use rand::RngExt;
use sojourn_chaos_tests::binary;
use sojourn_chaos_tests::cli::output;
use sojourn_chaos_tests::data::{self, Row};
use sojourn_chaos_tests::invariants::figures;
use sojourn_chaos_tests::loan::{
    self, Importing, JOURNEY, MAP, Part, check_fates, check_report, import_whole,
};
use sojourn_chaos_tests::oracle::Expected;
use sojourn_chaos_tests::process::{Server, Setup};
use std::path::Path;
use std::process::Command;

async fn published(setup: Setup) -> Result<Server> {
    let server = Server::start(setup).await?;
    loan::publish(&server.commands()).await?;
    Ok(server)
}

fn import(server: &Server, file: &Path, patience: &str) -> Result<Command> {
    loan::import(&server.commands(), file, patience)
}

async fn report(server: &Server) -> Result<serde_json::Value> {
    loan::report(&server.commands()).await
}

async fn check_places(server: &Server, expected: &Expected) -> Result<()> {
    loan::check_places(&server.client()?, expected, 40).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_file_gives_what_a_plain_table_gives() -> Result<()> {
    let file = data::loan_file()?;
    let (_, rows) = data::loan()?;
    let expected = Expected::of(&rows)?;
    let server = published(Setup {
        shards: 32,
        ..Setup::default()
    })
    .await?;
    // nothing is written beside the shared file
    let summary = import_whole(&server.commands(), &file).await?;
    check_fates(&summary, "fates", &expected)?;
    check_report(&report(&server).await?, &expected)?;
    check_places(&server, &expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulation_of_the_whole_file_gives_the_same() -> Result<()> {
    let file = data::loan_file()?;
    let (_, rows) = data::loan()?;
    let expected = Expected::of(&rows)?;
    let mut command = Command::new(binary::sojourn()?);
    command
        .current_dir(binary::workspace())
        .args(["--json", "simulate", JOURNEY, "--map", MAP, "--input"])
        .arg(&file);
    let simulated = json(&output(command).await?)?;
    check_fates(&simulated, "fates", &expected)?;
    check_report(&simulated["reports"][0], &expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_file_again_is_all_duplicates_and_changes_nothing() -> Result<()> {
    let part = Part::of(8)?;
    let (rows, file, expected) = (&part.rows, &part.file, &part.expected);
    let mut server = published(Setup::default()).await?;
    let summary = json(&output(import(&server, file, "30s")?).await?)?;
    check_fates(&summary, "fates", expected)?;
    let client = server.client()?;
    let before = figures(&client, "loan").await?;
    // the dedup window outlives a crash
    server.crash().await?;
    let again = json(&output(import(&server, file, "30s")?).await?)?;
    ensure!(
        again["fates"]["duplicate"] == rows.len(),
        "not all are duplicates: {}",
        again["fates"]
    );
    // each with its first answer
    check_fates(&again, "first_fates", expected)?;
    let after = figures(&client, "loan").await?;
    ensure!(
        before == after,
        "importing again changed {before:?} into {after:?}"
    );
    check_report(&report(&server).await?, expected)
}

/// A row of the third that is imported after each start.
fn somewhere(chance: &mut impl RngExt, rows: &[Row]) -> u64 {
    chance.random_range(50..rows.len() as u64 / 3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twice_under_an_import_that_goes_on_the_figures_are_exact() -> Result<()> {
    let mut chance = chance("killed twice under an import")?;
    let part = Part::of(8)?;
    let (rows, file, expected) = (&part.rows, &part.file, &part.expected);
    let mut server = published(Setup::default().many_checkpoints()).await?;
    let mut importing = Importing::start(import(&server, file, "60s")?)?;
    for _ in 0..2 {
        importing
            .reached(somewhere(&mut chance, rows), || server.receipts())
            .await?;
        server.crash().await?;
    }
    let summary = json(&importing.output().await?)?;
    // what was acknowledged and not heard of is answered as a duplicate: its first answer counts
    check_fates(&summary, "first_fates", expected)?;
    check_report(&report(&server).await?, expected)?;
    check_places(&server, expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twice_and_resumed_by_hand_the_figures_are_exact() -> Result<()> {
    let mut chance = chance("killed twice and resumed")?;
    let part = Part::of(8)?;
    let (rows, file, expected) = (&part.rows, &part.file, &part.expected);
    let mut server = published(Setup::default()).await?;
    // both at once, as when the machine dies: where the import stood is some moments old
    let mut importing = Importing::start(import(&server, file, "30s")?)?;
    importing
        .reached(somewhere(&mut chance, rows), || server.receipts())
        .await?;
    server.kill()?;
    drop(importing);
    server.again().await?;
    // the server alone, until the import gives up
    let mut importing = Importing::start(import(&server, file, "15s")?)?;
    importing
        .reached(somewhere(&mut chance, rows), || server.receipts())
        .await?;
    server.kill()?;
    let broken = importing.output().await?;
    ensure!(
        broken.status.code() == Some(4),
        "an import whose server is gone ends with 4, not {}: {}",
        broken.status,
        String::from_utf8_lossy(&broken.stderr)
    );
    ensure!(
        json(&broken)?["files"][0]["complete"] == false,
        "it is not complete"
    );
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    ensure!(
        said.contains("goes on from there"),
        "it says how to go on: {said}"
    );
    server.again().await?;
    let finished = output(import(&server, file, "30s")?).await?;
    ensure!(
        finished.status.success(),
        "{}",
        String::from_utf8_lossy(&finished.stderr)
    );
    check_fates(&json(&finished)?, "first_fates", expected)?;
    check_report(&report(&server).await?, expected)?;
    check_places(&server, expected).await
}
