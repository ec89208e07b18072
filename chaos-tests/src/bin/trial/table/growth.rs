//! What a signal costs as what there is grows: executions, the history of one customer, journeys, stages of a journey.

use super::one::cpu;
use super::{Args, Page, Run, bench, node};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::process::Server;
use sojourn_client::{Outcome, Signal};

/// In flight while the cost is measured.
const LOAD: [&str; 4] = ["--stream", "--in-flight", "256", "--no-echo"];
/// Customers that are awake while the cost is measured, beside those that rest.
const AWAKE: &str = "10000";

pub(super) async fn run(args: &Args, page: &mut Page) -> Result<()> {
    let columns = [
        "what grows",
        "from",
        "to",
        "CPU s per 10,000",
        "then",
        "times",
    ];
    page.table("The cost of a signal as things grow", &columns)?;
    executions(args, page).await?;
    history(page).await?;
    journeys(args, page).await?;
    stages(args, page).await
}

/// The CPU seconds per 10,000 signals of one bench.
async fn cost(args: &Args, server: &Server, more: &[&str]) -> Result<f64> {
    let words: Vec<&str> = LOAD.iter().chain(more).copied().collect();
    let runs = bench(args, &server.commands(), server.process(), &words).await?;
    let cpu = |run: &Run| run.server.cpu;
    runs.first().and_then(cpu).context("no CPU was measured")
}

fn row(
    page: &mut Page,
    what: &str,
    from: &str,
    to: &str,
    (before, after): (f64, f64),
) -> Result<()> {
    let found = format!("{:.2} ×", after / before);
    let grown = format!("cost of a signal: {what}, {from} to {to}");
    page.want(&grown, "≤ 1.2 ×", found, after <= 1.2 * before);
    page.row(&[
        what.into(),
        from.into(),
        to.into(),
        format!("{before:.2}"),
        format!("{after:.2}"),
        format!("{:.2}", after / before),
    ])
}

async fn executions(args: &Args, page: &mut Page) -> Result<()> {
    let server = node().await?;
    let few = cost(args, &server, &["--customers", "1000"]).await?;
    let some = cost(args, &server, &["--customers", AWAKE]).await?;
    let many = cost(args, &server, &["--customers", "50000"]).await?;
    row(
        page,
        "executions, all of them awake",
        "1,000",
        "50,000",
        (few, many),
    )?;
    let count = args.executions.to_string();
    let made = server
        .run(["--json", "bench", "executions", "--count", &count])
        .await?;
    ensure!(made.status.success(), "{made:?}");
    let beside = cost(args, &server, &["--customers", AWAKE]).await?;
    let to = format!("{count} beside {AWAKE} that are awake");
    row(page, "executions that rest", "none", &to, (some, beside))
}

/// Signals of one customer, all moves, and the CPU seconds per 10,000 that they cost.
async fn of_one(server: &Server, numbers: std::ops::Range<u32>) -> Result<f64> {
    let client = server.client()?;
    let (before, count) = (cpu(server.process())?, numbers.len());
    let mut pending = Vec::with_capacity(count);
    for number in numbers {
        let kind = if number == 0 {
            "bench.start"
        } else {
            "bench.tick"
        };
        let signal = Signal::with_id(kind, number.to_string())
            .source("trial")
            .customer("bench_id", "one");
        pending.push(client.enqueue(signal).await?);
    }
    for answer in pending {
        let answer = answer.await?;
        ensure!(matches!(answer, Outcome::Done(_)), "{answer:?}");
    }
    Ok((cpu(server.process())? - before) / count as f64 * 1e4)
}

async fn history(page: &mut Page) -> Result<()> {
    let server = node().await?;
    server.client()?.publish(&ring(2), "trial").await?;
    of_one(&server, 0..10).await?;
    let short = of_one(&server, 10..2_010).await?;
    of_one(&server, 2_010..10_000).await?;
    let long = of_one(&server, 10_000..12_000).await?;
    row(
        page,
        "signals of one customer",
        "10",
        "10,000",
        (short, long),
    )
}

/// The journey of the bench with so many stages, each with a way to the next.
fn ring(stages: usize) -> String {
    let head = "journey: bench\nidentify_by: [bench_id]\nentry: [{ on: bench.start }]\nstages:\n";
    let stage = |n: usize| {
        let next = (n + 1) % stages;
        format!("  - stage: s{n}\n    transitions: [{{ to: s{next}, on: bench.tick }}]\n")
    };
    head.to_owned() + &(0..stages).map(stage).collect::<String>()
}

async fn journeys(args: &Args, page: &mut Page) -> Result<()> {
    let server = node().await?;
    let client = server.client()?;
    let one = cost(args, &server, &["--customers", AWAKE]).await?;
    for n in 1..1_000 {
        let text = format!(
            "journey: other_{n}\nentry: [{{ on: other.start.{n} }}]\nstages:\n  - stage: one\n    transitions: [{{ to: two, on: \
             other.tick.{n} }}]\n  - {{ stage: two, end: done }}\n"
        );
        client.publish(&text, "trial").await?;
    }
    let all = cost(args, &server, &["--customers", AWAKE]).await?;
    row(page, "journeys", "1", "1,000", (one, all))
}

async fn stages(args: &Args, page: &mut Page) -> Result<()> {
    let mut costs = Vec::new();
    for count in [5, 500] {
        let server = node().await?;
        server.client()?.publish(&ring(count), "trial").await?;
        costs.push(cost(args, &server, &["--customers", AWAKE]).await?);
    }
    row(
        page,
        "stages of the journey",
        "5",
        "500",
        (costs[0], costs[1]),
    )
}
