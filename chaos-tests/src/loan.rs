//! The loan story: real events into a server or a cluster, and what a plain table makes of them beside what it made.

use crate::cli::{Cli, json, output};
use crate::data::{self, Row};
use crate::invariants::{applied_at_most_once, figures, stages, timeline};
use crate::oracle::Expected;
use crate::wait::until;
use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use rand::RngExt;
use sojourn_client::wire::Status;
use sojourn_client::{Client, Identifier};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The journey.
pub const JOURNEY: &str = "examples/loan/journey.yaml";
/// How the rows of the file become signals.
pub const MAP: &str = "examples/loan/map.toml";
/// The source that the map gives to the signals.
const SOURCE: &str = "bank";
/// Longer than any import takes on a slow machine.
const IMPORT: Duration = Duration::from_secs(400);
/// Customers that are read at the same time.
const READERS: usize = 16;

/// Some of the applications, in a file of their own, with what must come of them.
pub struct Part {
    /// Its rows, in order.
    pub rows: Vec<Row>,
    /// The file that is imported.
    pub file: PathBuf,
    /// What the table gives.
    pub expected: Expected,
    _folder: tempfile::TempDir,
}

impl Part {
    /// One application in `parts`; 1: all.
    ///
    /// # Errors
    /// When the loan file is absent, or there is no room for this one.
    pub fn of(parts: u64) -> Result<Part> {
        let (header, rows) = data::part_of_loan(parts)?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("part.csv");
        data::write(&file, &header, &rows)?;
        Ok(Part {
            expected: Expected::of(&rows)?,
            rows,
            file,
            _folder: folder,
        })
    }

    /// How many receipts there are when chance says so: in the first two thirds of the rows.
    pub fn somewhere(&self, chance: &mut rand::rngs::StdRng) -> u64 {
        chance.random_range(50..self.rows.len() as u64 * 2 / 3)
    }
}

/// Publishes the journey; every shard decides with it then.
///
/// # Errors
/// When it is refused, with what was said.
pub async fn publish(cli: &Cli) -> Result<()> {
    let output = cli.run(["journey", "publish", JOURNEY]).await?;
    ensure!(
        output.status.success(),
        "publish: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The command that imports a file.
///
/// # Errors
/// When the binary cannot be built.
pub fn import(cli: &Cli, file: &Path, patience: &str) -> Result<Command> {
    let mut command = cli.command(["--json", "signal", "import"])?;
    command
        .arg(file)
        .args(["--map", MAP, "--patience", patience]);
    Ok(command)
}

/// Imports a file from its beginning, whatever was imported before, and gives the summary.
///
/// # Errors
/// When the command gives none.
pub async fn import_whole(cli: &Cli, file: &Path) -> Result<serde_json::Value> {
    let mut command = import(cli, file, "60s")?;
    command.arg("--no-resume");
    json(&output(command).await?)
}

/// The counts of a summary: `fates` as they came, or `first_fates`, in which a duplicate counts as its first answer.
///
/// # Errors
/// Naming the count that is not what the table gives.
pub fn check_fates(summary: &serde_json::Value, of: &str, expected: &Expected) -> Result<()> {
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
///
/// # Errors
/// Naming the figure that is not what the table gives.
pub fn check_report(report: &serde_json::Value, expected: &Expected) -> Result<()> {
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

/// The report of the journey.
///
/// # Errors
/// When the command gives none.
pub async fn report(cli: &Cli) -> Result<serde_json::Value> {
    json(&cli.run(["--json", "journey", "report", "loan"]).await?)
}

/// Everybody stands where the table says; every `every`th application's timeline says the same, each thing once.
///
/// # Errors
/// Naming who stands elsewhere or went another way.
pub async fn check_places(client: &Client, expected: &Expected, every: usize) -> Result<()> {
    let found = figures(client, "loan").await?;
    ensure!(
        found.executions.len() == expected.applications.len(),
        "{} executions, the table gives {}",
        found.executions.len(),
        expected.applications.len()
    );
    let some = expected.applications.iter().step_by(every);
    let customers: Vec<Identifier> = futures::stream::iter(some)
        .map(|(application, stays)| async move {
            let who = Identifier::new("application_id", application);
            let entries = timeline(client, &who, "loan").await?;
            let want: Vec<&str> = stays.iter().map(|(stage, _)| stage.as_str()).collect();
            let got = stages(&entries);
            ensure!(got == want, "{who} went {got:?}, the table gives {want:?}");
            applied_at_most_once(client, std::slice::from_ref(&who)).await?;
            Ok(who)
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await?;
    ensure!(!customers.is_empty(), "nobody was looked at");
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

/// Every `every`th row has its receipt still, and that says what the table says.
///
/// # Errors
/// Naming the row whose receipt is gone or says something else.
pub async fn check_receipts(client: &Client, part: &Part, every: usize) -> Result<()> {
    let rows = part.rows.iter().zip(&part.expected.rows).step_by(every);
    futures::stream::iter(rows)
        .map(|(row, fate)| async move {
            if *fate == "no_match" {
                // answered and counted, not recorded
                return Ok(());
            }
            let who = Identifier::new("application_id", &row.application);
            let kept = client.receipt(&who, SOURCE, &row.event).await;
            let kept = kept.with_context(|| format!("the receipt of {} of {who}", row.event))?;
            let word = kept.first_word();
            ensure!(
                word == *fate,
                "{} of {who} is {word} by its receipt, the table gives {fate}",
                row.event
            );
            Ok(())
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await
}

/// An import that runs beside the story; dropped, it is killed.
pub struct Importing(tokio::process::Child);

impl Importing {
    /// Begins it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Importing> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        Ok(Importing(command.kill_on_drop(true).spawn()?))
    }

    /// Waits until so many receipts have been `given`.
    ///
    /// # Errors
    /// When the import ends before, or it takes too long.
    pub async fn reached(
        &mut self,
        receipts: u64,
        given: impl AsyncFn() -> Result<u64>,
    ) -> Result<()> {
        until(&format!("{receipts} receipts"), IMPORT, async || {
            let given = given().await?;
            if let Some(status) = self.0.try_wait()? {
                bail!("the import ended with {status} after {given} receipts");
            }
            Ok((given >= receipts).then_some(()))
        })
        .await
    }

    /// Still under way?
    ///
    /// # Errors
    /// When it has ended.
    pub fn goes_on(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the import has ended with {status}: there are too few rows"),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn output(self) -> Result<Output> {
        Ok(tokio::time::timeout(IMPORT, self.0.wait_with_output()).await??)
    }
}
