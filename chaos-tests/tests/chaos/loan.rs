//! The loan story: real events, and figures that a plain table gives too.

use crate::support::{chance, json};
use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use sojourn_chaos_tests::binary;
use sojourn_chaos_tests::data::{self, Row};
use sojourn_chaos_tests::invariants::{applied_at_most_once, figures, stages, timeline};
use sojourn_chaos_tests::oracle::Expected;
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_chaos_tests::wait::until;
use sojourn_client::Identifier;
use sojourn_client::wire::Status;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const JOURNEY: &str = "examples/loan/journey.yaml";
const MAP: &str = "examples/loan/map.toml";
/// Longer than any import takes on a slow machine.
const IMPORT: Duration = Duration::from_secs(400);

async fn published(setup: Setup) -> Result<Server> {
    let server = Server::start(setup).await?;
    let output = server.run(["journey", "publish", JOURNEY]).await?;
    ensure!(
        output.status.success(),
        "publish: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(server)
}

fn import(server: &Server, file: &Path, patience: &str) -> Result<Command> {
    let mut command = server.cli(["--json", "signal", "import"])?;
    command
        .arg(file)
        .args(["--map", MAP, "--patience", patience]);
    Ok(command)
}

async fn output(mut command: Command) -> Result<Output> {
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// The counts of a summary: `fates` as they came, or `first_fates`, in which a duplicate counts as its first answer.
fn check_fates(summary: &serde_json::Value, of: &str, expected: &Expected) -> Result<()> {
    ensure!(
        summary["failed"] == 0,
        "rows failed: {}",
        summary["failures"]
    );
    let counts = summary[of].as_object().context("a summary has counts")?;
    for (fate, count) in counts {
        let want = expected.fate(fate);
        ensure!(
            *count == want,
            "{of}: {fate} is {count}, the table gives {want}"
        );
    }
    let sum: u64 = counts.values().filter_map(serde_json::Value::as_u64).sum();
    ensure!(
        summary["rows"] == sum && sum == expected.rows.len() as u64,
        "the receipts add up to {sum}, the rows to {}, the file has {}",
        summary["rows"],
        expected.rows.len()
    );
    Ok(())
}

/// Counts exact, means within 1 ms, medians within 1 %.
fn check_report(report: &serde_json::Value, expected: &Expected) -> Result<()> {
    ensure!(
        report["journey"] == "loan",
        "the report is of {}",
        report["journey"]
    );
    ensure!(
        report["started"] == expected.fate("started"),
        "started: {}",
        report["started"]
    );
    ensure!(
        report["moves"] == expected.fate("moved"),
        "moves: {}",
        report["moves"]
    );
    let ended: u64 = expected.outcomes.values().sum();
    ensure!(
        report["active"] == expected.applications.len() as u64 - ended,
        "active: {}",
        report["active"]
    );
    ensure!(
        report["incidents"] == 0 && report["overrides"] == 0,
        "{report}"
    );
    let stages = report["stages"].as_array().context("a report has stages")?;
    let mut names: Vec<&str> = stages.iter().filter_map(|s| s["stage"].as_str()).collect();
    names.sort_unstable();
    ensure!(names == Expected::stages(), "the stages are {names:?}");
    for stage in stages {
        let name = stage["stage"].as_str().unwrap_or_default();
        let count = |map: &std::collections::BTreeMap<String, u64>| {
            map.get(name).copied().unwrap_or_default()
        };
        let completed = expected.stays.get(name).map_or(0, Vec::len);
        ensure!(
            stage["here"] == count(&expected.here)
                && stage["entered"] == count(&expected.entered)
                && stage["completed"] == completed,
            "stage {name} is {stage}, the table gives {} here, {} entered, {completed} completed",
            count(&expected.here),
            count(&expected.entered)
        );
        let Some((low, high)) = expected.median(name) else {
            ensure!(
                stage["mean_seconds"].is_null(),
                "nobody left {name}: {stage}"
            );
            continue;
        };
        let mean = stage["mean_seconds"].as_f64().context("a mean")?;
        let median = stage["median_seconds"].as_f64().context("a median")?;
        let exact = expected.mean(name).context("a mean")?;
        ensure!(
            (mean - exact).abs() <= 0.001,
            "{name}: mean {mean}, the table gives {exact}"
        );
        ensure!(
            median >= low * 0.99 && median <= high * 1.01,
            "{name}: median {median}, the table gives {low} to {high}"
        );
    }
    let outcomes = report["outcomes"]
        .as_array()
        .context("a report has outcomes")?;
    ensure!(
        outcomes.len() == expected.outcomes.len(),
        "outcomes: {outcomes:?}"
    );
    for ((outcome, stage), count) in &expected.outcomes {
        let found = outcomes.iter().any(|o| {
            o["status"] == "completed"
                && o["outcome"] == *outcome
                && o["stage"] == *stage
                && o["count"] == *count
        });
        ensure!(found, "{count} ended {outcome} in {stage}: {outcomes:?}");
    }
    let flows = report["flows"].as_array().context("a report has flows")?;
    for ((from, to), count) in &expected.flows {
        let found = flows
            .iter()
            .any(|f| f["from"] == *from && f["to"] == *to && f["count"] == *count);
        ensure!(found, "{count} moved from {from} to {to}: {flows:?}");
    }
    Ok(())
}

async fn report(server: &Server) -> Result<serde_json::Value> {
    json(&server.run(["--json", "journey", "report", "loan"]).await?)
}

/// Everybody stands where the table says.
async fn check_places(server: &Server, expected: &Expected) -> Result<()> {
    let client = server.client()?;
    let found = figures(&client, "loan").await?;
    ensure!(
        found.executions.len() == expected.applications.len(),
        "{} executions, the table gives {}",
        found.executions.len(),
        expected.applications.len()
    );
    // every 40th in full
    let some = expected.applications.iter().step_by(40);
    let mut customers = Vec::new();
    for (application, stays) in some {
        let who = Identifier::new("application_id", application);
        let entries = timeline(&client, &who, "loan").await?;
        let want: Vec<&str> = stays.iter().map(|(stage, _)| stage.as_str()).collect();
        let got = stages(&entries);
        ensure!(got == want, "{who} went {got:?}, the table gives {want:?}");
        customers.push(who);
    }
    applied_at_most_once(&client, &customers).await?;
    for (stage, count) in &expected.here {
        let there = found.executions.iter().filter(|e| e.1 == *stage).count();
        ensure!(
            there as u64 == *count,
            "{there} are listed in {stage}, the table gives {count}"
        );
    }
    let ended: u64 = expected.outcomes.values().sum();
    let done = found.executions.iter().filter(|e| e.3 == Status::Completed);
    ensure!(done.count() as u64 == ended, "{ended} have ended");
    Ok(())
}

fn part() -> Result<(Vec<Row>, PathBuf, tempfile::TempDir)> {
    let (header, rows) = data::part_of_loan(8)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("part.csv");
    data::write(&file, &header, &rows)?;
    Ok((rows, file, folder))
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
    let mut command = import(&server, &file, "30s")?;
    // nothing is written beside the shared file
    command.arg("--no-resume");
    let imported = output(command).await?;
    let summary = json(&imported)?;
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
    let (rows, file, _folder) = part()?;
    let expected = Expected::of(&rows)?;
    let mut server = published(Setup::default()).await?;
    let summary = json(&output(import(&server, &file, "30s")?).await?)?;
    check_fates(&summary, "fates", &expected)?;
    let client = server.client()?;
    let before = figures(&client, "loan").await?;
    // the dedup window outlives a crash
    server.crash().await?;
    let again = json(&output(import(&server, &file, "30s")?).await?)?;
    ensure!(
        again["fates"]["duplicate"] == rows.len(),
        "not all are duplicates: {}",
        again["fates"]
    );
    // each with its first answer
    check_fates(&again, "first_fates", &expected)?;
    let after = figures(&client, "loan").await?;
    ensure!(
        before == after,
        "importing again changed {before:?} into {after:?}"
    );
    check_report(&report(&server).await?, &expected)
}

/// An import that runs beside the story; dropped, it is killed.
struct Importing(tokio::process::Child);

impl Importing {
    fn start(mut command: Command) -> Result<Importing> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        Ok(Importing(command.kill_on_drop(true).spawn()?))
    }

    /// Waits until the server has given so many receipts since its start.
    async fn reached(&mut self, server: &Server, receipts: u64) -> Result<()> {
        until(&format!("{receipts} receipts"), IMPORT, async || {
            let given = server.receipts().await?;
            if let Some(status) = self.0.try_wait()? {
                bail!("the import ended with {status} after {given} receipts");
            }
            Ok((given >= receipts).then_some(()))
        })
        .await
    }

    async fn output(self) -> Result<Output> {
        Ok(tokio::time::timeout(IMPORT, self.0.wait_with_output()).await??)
    }
}

/// A row of the third that is imported after each start.
fn somewhere(chance: &mut impl RngExt, rows: &[Row]) -> u64 {
    chance.random_range(50..rows.len() as u64 / 3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twice_under_an_import_that_goes_on_the_figures_are_exact() -> Result<()> {
    let mut chance = chance("killed twice under an import")?;
    let (rows, file, _folder) = part()?;
    let expected = Expected::of(&rows)?;
    let mut server = published(Setup::default().many_checkpoints()).await?;
    let mut importing = Importing::start(import(&server, &file, "60s")?)?;
    for _ in 0..2 {
        importing
            .reached(&server, somewhere(&mut chance, &rows))
            .await?;
        server.crash().await?;
    }
    let summary = json(&importing.output().await?)?;
    // what was acknowledged and not heard of is answered as a duplicate: its first answer counts
    check_fates(&summary, "first_fates", &expected)?;
    check_report(&report(&server).await?, &expected)?;
    check_places(&server, &expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twice_and_resumed_by_hand_the_figures_are_exact() -> Result<()> {
    let mut chance = chance("killed twice and resumed")?;
    let (rows, file, _folder) = part()?;
    let expected = Expected::of(&rows)?;
    let mut server = published(Setup::default()).await?;
    // both at once, as when the machine dies: where the import stood is some moments old
    let mut importing = Importing::start(import(&server, &file, "30s")?)?;
    importing
        .reached(&server, somewhere(&mut chance, &rows))
        .await?;
    server.kill()?;
    drop(importing);
    server.again().await?;
    // the server alone, until the import gives up
    let mut importing = Importing::start(import(&server, &file, "15s")?)?;
    importing
        .reached(&server, somewhere(&mut chance, &rows))
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
    let finished = output(import(&server, &file, "30s")?).await?;
    ensure!(
        finished.status.success(),
        "{}",
        String::from_utf8_lossy(&finished.stderr)
    );
    check_fates(&json(&finished)?, "first_fates", &expected)?;
    check_report(&report(&server).await?, &expected)?;
    check_places(&server, &expected).await
}
