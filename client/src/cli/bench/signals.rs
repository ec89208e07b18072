//! `bench signals`: runs of echo and server in turn, for each number in flight, and their table.

use super::echo::Child;
use super::load::{self, Connections, Load, Target};
use super::measure::{self, Rounds, Run};
use super::{SignalsArgs, data, prepare, run_id};
use crate::cli::exit::{Exit, Trouble};
use crate::cli::table::{Align, Table};
use crate::cli::{GlobalOpts, Say, show};
use crate::client::{Client, DEADLINE_MAX};
use crate::receipt::Outcome;
use crate::signal::Signal;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// What was measured with one number in flight.
struct Measured {
    /// How many were under way; `None` in an open loop, where that follows from the rate.
    in_flight: Option<usize>,
    echo: Option<Rounds>,
    server: Rounds,
}

pub(super) async fn run(
    args: &SignalsArgs,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let client = global.client().await?;
    prepare(&client, say).await?;
    let echo = match (&args.echo, args.no_echo) {
        (Some(url), _) => Some(Child::elsewhere(url)),
        (None, true) => None,
        (None, false) => Some(Child::start().await?),
    };
    let measured = Duration::from_secs(args.seconds);
    let load = Load {
        workspace: global.workspace.clone(),
        run: run_id(),
        customers: args.customers,
        data: data(args.data_bytes),
        stream: args.stream,
        in_flight: 0,
        warm_up: (measured / 5).min(Duration::from_secs(2)),
        measured,
        open: args.open,
    };
    start_customers(&client, &load, say).await?;
    let server = Connections::of_cluster(&client, args.connections).await?;
    let yardstick = match &echo {
        Some(child) => Some((
            Connections::open(Target::Echo, &child.url, args.connections).await?,
            child.pid,
        )),
        None => None,
    };
    let mut all = Vec::new();
    let counts: Vec<Option<usize>> = match args.open {
        Some(_) => vec![None],
        None => args.in_flight.iter().map(|n| Some(*n)).collect(),
    };
    for in_flight in counts {
        let load = Load {
            in_flight: in_flight.unwrap_or(args.connections),
            ..load.clone()
        };
        let name = named(in_flight);
        let (mut echo_runs, mut server_runs) = (Vec::new(), Vec::new());
        for round in 1..=args.rounds {
            if let Some((connections, pid)) = &yardstick {
                echo_runs.push(one(connections, &load, *pid).await?);
            }
            server_runs.push(one(&server, &load, args.server_pid).await?);
            let last = |runs: &[Run]| {
                runs.last()
                    .map_or_else(|| "-".to_owned(), |r| show::decimal(r.rate(), 0))
            };
            say.talk(format_args!(
                "{name} in flight, round {round} of {}: echo {} and server {} signals per second",
                args.rounds,
                last(&echo_runs),
                last(&server_runs)
            ));
        }
        let echo = (!echo_runs.is_empty()).then(|| Rounds::of(echo_runs));
        all.push(Measured {
            in_flight,
            echo,
            server: Rounds::of(server_runs),
        });
    }
    let errors: u64 = all.iter().map(|m| m.server.all.errors).sum();
    if say.json() {
        say.value(&as_json(args, &all));
    } else {
        say.data(table(&all));
        for measured in &all {
            if let Some(error) = &measured.server.all.error {
                say.talk(format_args!(
                    "{} in flight: first error: {error}",
                    named(measured.in_flight)
                ));
            }
        }
    }
    Ok(if errors > 0 { Exit::No } else { Exit::Done })
}

fn named(in_flight: Option<usize>) -> String {
    in_flight.map_or_else(|| "open".to_owned(), |n| n.to_string())
}

/// One run, with the CPU time that the process used in it.
async fn one(connections: &Connections, load: &Load, pid: Option<u32>) -> Result<Run, Trouble> {
    let cpu = |pid: Option<u32>| pid.map(measure::cpu).transpose();
    let before = cpu(pid)?;
    let mut run = connections.run(load).await;
    if let (Some(before), Some(after)) = (before, cpu(pid)?) {
        // the warm-up is in the CPU time but not among the answers: its share is taken off
        let share = load.measured.as_secs_f64() / (load.measured + load.warm_up).as_secs_f64();
        run.cpu = Some((after - before) * share);
    }
    Ok(run)
}

/// Every customer gets an execution, so that each signal measured is a move.
async fn start_customers(client: &Client, load: &Load, say: &mut Say) -> Result<(), Trouble> {
    let client = client.with_deadline(DEADLINE_MAX);
    let mut pending = VecDeque::new();
    for number in 0..load.customers {
        let signal = Signal::with_id("bench.start", format!("{}-start-{number}", load.run))
            .source("bench")
            .customer("bench_id", load::customer(&load.run, number));
        pending.push_back(client.enqueue(signal).await?);
    }
    for answer in pending {
        match answer.await? {
            Outcome::Done(receipt) if receipt.first_word() == "started" => {}
            Outcome::Done(receipt) => {
                return Err(Trouble::no(format!(
                    "a customer of the bench was not started but {}; does the journey `bench` differ from ours?",
                    receipt.word()
                )));
            }
            Outcome::Refused(error) | Outcome::Unknown(error) => return Err(Trouble::from(error)),
        }
    }
    say.talk(format_args!(
        "{} customers started",
        show::count(load.customers as u64)
    ));
    Ok(())
}

fn table(all: &[Measured]) -> String {
    let mut table = Table::new(&[
        ("in flight", Align::Right),
        ("of", Align::Left),
        ("per second", Align::Right),
        ("ratio", Align::Right),
        ("p50 ms", Align::Right),
        ("p90 ms", Align::Right),
        ("p99 ms", Align::Right),
        ("p99.9 ms", Align::Right),
        ("max ms", Align::Right),
        ("CPU s per 10,000", Align::Right),
        ("errors", Align::Right),
    ]);
    for measured in all {
        for (name, rounds) in [
            ("echo", measured.echo.as_ref()),
            ("server", Some(&measured.server)),
        ] {
            let Some(rounds) = rounds else { continue };
            let at = |quantile: f64| {
                show::decimal(
                    rounds.all.latencies.value_at_quantile(quantile) as f64 / 1e3,
                    3,
                )
            };
            let ratio = measured
                .echo
                .as_ref()
                .filter(|_| name == "server" && measured.in_flight.is_some())
                .map(|echo| rounds.rate / echo.rate);
            let optional =
                |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| show::decimal(x, 3));
            table.row([
                named(measured.in_flight),
                name.to_owned(),
                show::decimal(rounds.rate, 0),
                optional(ratio),
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                show::decimal(rounds.all.latencies.max() as f64 / 1e3, 3),
                optional(rounds.cpu_per_10k),
                show::count(rounds.all.errors),
            ]);
        }
    }
    table.to_string()
}

fn as_json(args: &SignalsArgs, all: &[Measured]) -> Value {
    let rounds = |r: &Rounds| {
        let h = &r.all.latencies;
        json!({
            "per_second": r.rate, "rounds": r.rates, "answers": h.len(), "errors": r.all.errors,
            "error": r.all.error, "cpu_seconds_per_10000": r.cpu_per_10k,
            "latency_us": {
                "p50": h.value_at_quantile(0.5), "p90": h.value_at_quantile(0.9), "p99": h.value_at_quantile(0.99),
                "p99_9": h.value_at_quantile(0.999), "max": h.max(), "mean": h.mean(),
            },
        })
    };
    let runs: Vec<Value> = all
        .iter()
        .map(|m| {
            json!({
                "in_flight": m.in_flight, "server": rounds(&m.server), "echo": m.echo.as_ref().map(rounds),
                "ratio": m.echo.as_ref().filter(|_| m.in_flight.is_some()).map(|e| m.server.rate / e.rate),
            })
        })
        .collect();
    json!({
        "stream": args.stream, "open_rate": args.open, "customers": args.customers, "data_bytes": args.data_bytes,
        "connections": args.connections, "seconds": args.seconds, "runs": runs,
    })
}
