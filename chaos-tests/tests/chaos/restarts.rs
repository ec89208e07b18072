//! Restarts: after checkpoints, after kills, and with its checkpoints destroyed, a server is what it was.

use crate::support::{chance, customer, publish, signal};
use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use sojourn_chaos_tests::invariants::{
    acknowledged_is_never_lost, applied_at_most_once, duplicates_get_the_first_answer, figures,
    receipts_tell_the_truth, records,
};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_chaos_tests::wait::until;
use sojourn_client::{Client, Identifier, Receipt, Signal};
use std::path::Path;
use std::time::Duration;

const JOURNEY: &str = r#"
journey: round
entry: [{ on: r.start }]
exit: [{ on: r.gone, outcome: left }]
variables: { n: { type: number, from: signal.data.n } }
reentry: { mode: after_exit }
stages:
  - stage: one
    enter: [{ log: { text: "in {{ customer.id }}" } }]
    transitions: [{ to: two, on: r.step, keep: { at: signal.data.n } }]
  - stage: two
    transitions: [{ to: one, on: r.step }, { to: end, on: r.done }]
  - { stage: end, end: done }
"#;
const KINDS: [&str; 6] = ["r.start", "r.step", "r.step", "r.other", "r.done", "r.gone"];

/// What a story has sent and what it was told.
#[derive(Default)]
struct Ledger {
    sent: Vec<(Signal, Receipt)>,
}

impl Ledger {
    fn receipts(&self) -> Vec<Receipt> {
        self.sent.iter().map(|(_, r)| r.clone()).collect()
    }

    /// Sends a round of signals of some customers, chosen by chance, many at once.
    async fn round(
        &mut self,
        client: &Client,
        chance: &mut impl RngExt,
        customers: &[Identifier],
        count: usize,
    ) -> Result<()> {
        let mut pending = Vec::new();
        for _ in 0..count {
            let who = &customers[chance.random_range(0..customers.len())];
            let kind = KINDS[chance.random_range(0..KINDS.len())];
            let n = self.sent.len() + pending.len();
            let signal = signal(kind, who, &format!("s{n}"))
                .data(&serde_json::json!({ "n": chance.random_range(0..5) }))?;
            pending.push((signal.clone(), client.enqueue(signal).await?));
        }
        for (signal, answer) in pending {
            let outcome = answer.await?;
            let Some(receipt) = outcome.receipt() else {
                bail!("signal {}: {outcome:?}", signal.signal_id());
            };
            // over a crash the first answer may have been lost on its way: this one is the same
            let first = Receipt {
                duplicate: false,
                ..receipt.clone()
            };
            self.sent.push((signal, first));
        }
        Ok(())
    }
}

/// How many checkpoints there are, seen from outside: the folder's newest change.
fn newest(folder: &Path) -> Result<std::time::SystemTime> {
    let mut newest = std::fs::metadata(folder)?.modified()?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let changed = if entry.file_type()?.is_dir() {
            self::newest(&entry.path())?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}

/// Waits for a checkpoint that was written after now.
async fn checkpointed(server: &Server) -> Result<()> {
    let folder = server.data().join("checkpoints");
    let before = std::time::SystemTime::now();
    until("a checkpoint", Duration::from_secs(30), async || {
        Ok((newest(&folder)? > before).then_some(()))
    })
    .await
}

async fn all_promises(client: &Client, ledger: &Ledger, customers: &[Identifier]) -> Result<()> {
    acknowledged_is_never_lost(client, &ledger.receipts()).await?;
    receipts_tell_the_truth(client, &ledger.receipts()).await?;
    applied_at_most_once(client, customers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timelines_receipts_and_figures_survive_checkpoints_stops_and_kills() -> Result<()> {
    let mut chance = chance("checkpoints, stops and kills")?;
    let customers: Vec<_> = (0..40).map(|n| customer(&format!("c{n}"))).collect();
    let mut server = Server::start(Setup::default().many_checkpoints()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    let mut ledger = Ledger::default();
    for round in 0..4 {
        ledger.round(&client, &mut chance, &customers, 400).await?;
        if round % 2 == 0 {
            checkpointed(&server).await?;
        }
        // log actions settle by themselves: figures are compared when nothing is owed any more
        let before = settled(&client).await?;
        match round {
            1 => drop(server.stop().await?),
            _ => server.kill()?,
        }
        server.again().await?;
        let after = figures(&client, "round").await?;
        ensure!(
            before == after,
            "round {round}: {before:#?} became {after:#?}"
        );
        all_promises(&client, &ledger, &customers).await?;
    }
    let some = ledger.sent.len() - 60;
    duplicates_get_the_first_answer(&client, &ledger.sent[..60]).await?;
    duplicates_get_the_first_answer(&client, &ledger.sent[some..]).await
}

/// The figures once nothing is owed by anybody.
async fn settled(client: &Client) -> Result<sojourn_chaos_tests::invariants::Figures> {
    until("nothing is owed", Duration::from_secs(30), async || {
        let first = figures(client, "round").await?;
        for (id, ..) in &first.executions {
            let reference = sojourn_client::ExecutionRef::Id(id.clone());
            let found = client
                .get(&reference, sojourn_client::Read::default())
                .await?;
            if found.execution.is_none_or(|e| !e.owed.is_empty()) {
                return Ok(None);
            }
        }
        let second = figures(client, "round").await?;
        Ok((first == second).then_some(second))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_every_acknowledged_signal_is_there_once() -> Result<()> {
    let mut chance = chance("killed under load")?;
    let customers: Vec<_> = (0..30).map(|n| customer(&format!("c{n}"))).collect();
    let mut server = Server::start(Setup::default().many_checkpoints()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    let mut ledger = Ledger::default();
    for _ in 0..3 {
        let at = chance.random_range(20..300);
        let loading = ledger.round(&client, &mut chance, &customers, 400);
        let killing = async {
            until(
                "receipts before the kill",
                Duration::from_secs(60),
                async || Ok((server.receipts().await? >= at).then_some(())),
            )
            .await?;
            server.crash().await
        };
        let (loaded, killed) = tokio::join!(loading, killing);
        killed?;
        loaded?;
        all_promises(&client, &ledger, &customers).await?;
    }
    Ok(())
}

/// Overwrites the middle of every file in a folder.
fn destroy(folder: &Path) -> Result<u32> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files += destroy(&entry.path())?;
            continue;
        }
        let mut bytes = std::fs::read(entry.path())?;
        for byte in &mut bytes {
            *byte ^= 0x5a;
        }
        std::fs::write(entry.path(), bytes)?;
        files += 1;
    }
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroyed_checkpoints_are_set_aside_and_rebuilt_from_history() -> Result<()> {
    destroyed("destroyed checkpoints after a stop", true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroyed_checkpoints_after_a_kill_are_rebuilt_from_history_and_log() -> Result<()> {
    destroyed("destroyed checkpoints after a kill", false).await
}

async fn destroyed(story: &str, orderly: bool) -> Result<()> {
    let mut chance = chance(story)?;
    let customers: Vec<_> = (0..40).map(|n| customer(&format!("c{n}"))).collect();
    let mut server = Server::start(Setup::default().many_checkpoints()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    let mut ledger = Ledger::default();
    ledger.round(&client, &mut chance, &customers, 600).await?;
    checkpointed(&server).await?;
    ledger.round(&client, &mut chance, &customers, 200).await?;
    let before = settled(&client).await?;
    let mut timelines = Vec::new();
    for who in &customers {
        timelines.push(records(&client, who).await?);
    }
    if orderly {
        // the log is purged up to the last checkpoint, so that history alone has it all
        server.stop().await?;
    } else {
        server.kill()?;
    }
    let folder = server.data().join("checkpoints");
    ensure!(destroy(&folder)? > 0, "there is a checkpoint to destroy");
    server
        .again()
        .await
        .context("with its checkpoints destroyed it starts all the same")?;
    ensure!(
        server.said().contains("set aside"),
        "it says so:\n{}",
        server.said()
    );
    let after = figures(&client, "round").await?;
    ensure!(before == after, "{before:#?} became {after:#?}");
    for (who, before) in customers.iter().zip(timelines) {
        let after = records(&client, who).await?;
        ensure!(before == after, "{who}: {before:#?} became {after:#?}");
    }
    all_promises(&client, &ledger, &customers).await?;
    // and it goes on
    ledger.round(&client, &mut chance, &customers, 100).await?;
    server.crash().await?;
    all_promises(&client, &ledger, &customers).await
}
