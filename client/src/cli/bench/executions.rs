//! `bench executions`: many executions as fast as the server makes them, and what they cost in memory.

use super::{ExecutionsArgs, data, measure, prepare, run_id};
use crate::cli::exit::{Exit, Trouble};
use crate::cli::{GlobalOpts, Say, show};
use crate::client::{Client, DEADLINE_MAX};
use crate::receipt::Outcome;
use crate::signal::Signal;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::collections::VecDeque;
use std::time::Instant;
use tokio::task::JoinSet;

/// Signals without an answer on each connection.
const AHEAD: usize = 2_048;

pub(super) async fn run(
    args: &ExecutionsArgs,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let client = global.client().await?;
    prepare(&client, say).await?;
    let memory = |pid: Option<u32>| pid.map(measure::memory).transpose();
    let before = memory(args.server_pid)?;
    let run = run_id();
    let bar = (say.terminal() && !say.json())
        .then(|| ProgressBar::new(args.count as u64))
        .inspect(|bar| {
            if let Ok(style) =
                ProgressStyle::with_template("[{bar:30}] {pos} of {len}, {per_sec}, {eta} to go")
            {
                bar.set_style(style);
            }
        });
    let began = Instant::now();
    let mut lanes: JoinSet<Result<u64, Trouble>> = JoinSet::new();
    for place in 0..args.connections {
        // a connection and a stream of its own for each
        let client = global.client().await?.with_deadline(DEADLINE_MAX);
        let (args, run, bar) = (args.clone(), run.clone(), bar.clone());
        lanes.spawn(async move { lane(&client, &args, &run, place, bar.as_ref()).await });
    }
    let mut started = 0;
    while let Some(lane) = lanes.join_next().await {
        started += lane.map_err(|e| Trouble::new(Exit::Bug, format!("a sender ended: {e}")))??;
    }
    let seconds = began.elapsed().as_secs_f64();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if !args.idle.is_zero() {
        say.talk(format_args!(
            "the server is left alone for {} s",
            args.idle.as_secs()
        ));
        tokio::time::sleep(args.idle).await;
    }
    let after = memory(args.server_pid)?;
    let rate = started as f64 / seconds.max(f64::MIN_POSITIVE);
    let each = match (before, after) {
        (Some(before), Some(after)) if started > 0 => {
            Some((after as f64 - before as f64) / started as f64)
        }
        _ => None,
    };
    if say.json() {
        say.value(&json!({
            "started": started, "asked": args.count, "seconds": seconds, "per_second": rate,
            "memory_before": before, "memory_after": after, "bytes_per_execution": each,
        }));
    } else {
        say.data(format_args!(
            "{} executions in {seconds:.1} s, {} per second",
            show::count(started),
            show::decimal(rate, 0)
        ));
        if let (Some(before), Some(after), Some(each)) = (before, after, each) {
            let mib = |bytes: u64| show::decimal(bytes as f64 / f64::from(1 << 20), 1);
            say.data(format_args!(
                "memory of the server: {} MiB before, {} MiB after, {} bytes per execution",
                mib(before),
                mib(after),
                show::decimal(each, 0)
            ));
        }
    }
    Ok(if started == args.count as u64 {
        Exit::Done
    } else {
        Exit::No
    })
}

/// The executions of one connection: every n-th, n being how many connections there are.
async fn lane(
    client: &Client,
    args: &ExecutionsArgs,
    run: &str,
    place: usize,
    bar: Option<&ProgressBar>,
) -> Result<u64, Trouble> {
    let mut pending = VecDeque::new();
    let mut started = 0;
    let data = data(args.data_bytes);
    let mut numbers = (place..args.count).step_by(args.connections);
    loop {
        while pending.len() < AHEAD {
            let Some(number) = numbers.next() else { break };
            let name = format!("{run}-x{number}");
            let signal = Signal::with_id("bench.start", name.clone())
                .source("bench")
                .customer("bench_id", name)
                .data_bytes(data.clone());
            pending.push_back(client.enqueue(signal).await?);
        }
        let Some(answer) = pending.pop_front() else {
            return Ok(started);
        };
        match answer.await? {
            Outcome::Done(receipt) => started += u64::from(receipt.first_word() == "started"),
            Outcome::Refused(error) | Outcome::Unknown(error) => return Err(Trouble::from(error)),
        }
        if let Some(bar) = bar {
            bar.inc(1);
        }
    }
}
