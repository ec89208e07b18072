//! `bench`: what a server does per second and how long a signal takes, beside an echo that does nothing with the same
//! messages in alternating runs. The ratio of the two says more of a server than its rate, for it does not depend on
//! the machine.

mod echo;
mod executions;
mod load;
mod measure;
mod signals;

use super::exit::{Exit, Trouble};
use super::{GlobalOpts, Say, args};
use crate::client::Client;
use std::time::Duration;

/// `sojourn bench …`.
#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Send signals as fast as the server takes them, or at a rate
    Signals(SignalsArgs),
    /// Make many executions
    Executions(ExecutionsArgs),
    /// The echo that `bench signals` measures against; it starts one by itself
    #[command(hide = true)]
    EchoServer,
}

/// `sojourn bench signals`.
#[derive(Clone, Debug, clap::Args)]
pub struct SignalsArgs {
    /// How many signals are under way at once, one run for each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 64, 256], value_parser = args::positive)]
    in_flight: Vec<usize>,
    /// By the stream instead of one call per signal
    #[arg(long)]
    stream: bool,
    /// How many customers the signals are of
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = args::positive)]
    customers: usize,
    /// Bytes of data in each signal
    #[arg(long, default_value_t = 200, value_name = "N")]
    data_bytes: usize,
    /// Connections; to a cluster, shared out among the nodes that own something, at least one each
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = args::positive)]
    connections: usize,
    /// How long each run lasts
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Runs of echo and server each, taking turns; the rate is the median
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = args::positive)]
    rounds: usize,
    /// Open loop: so many signals a second, whatever the server does; latency from the intended start, and no --in-flight
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    open: Option<u64>,
    /// The server's process on this machine: its CPU time is shown
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Leave the echo out
    #[arg(long)]
    no_echo: bool,
    /// An echo that runs already
    #[arg(long, value_name = "URL", hide = true, conflicts_with = "no_echo")]
    echo: Option<String>,
}

/// `sojourn bench executions`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExecutionsArgs {
    /// How many
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = args::positive)]
    count: usize,
    /// Connections
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = args::positive)]
    connections: usize,
    /// Bytes of data in each signal
    #[arg(long, default_value_t = 0, value_name = "N")]
    data_bytes: usize,
    /// The server's process on this machine: its memory is shown, before and after
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// How long the server is left alone before its memory is read again
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = args::duration)]
    idle: Duration,
}

/// The journey that is measured: two stages and a way from each to the other.
const JOURNEY: &str = "\
journey: bench
title: Load of sojourn bench
identify_by: [bench_id]
entry:
  - on: bench.start
stages:
  - stage: here
    transitions:
      - { to: there, on: bench.tick }
  - stage: there
    transitions:
      - { to: here, on: bench.tick }
";

pub(super) async fn run(
    command: BenchCommand,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    match command {
        BenchCommand::Signals(args) => signals::run(&args, global, say).await,
        BenchCommand::Executions(args) => executions::run(&args, global, say).await,
        BenchCommand::EchoServer => echo::serve(say).await,
    }
}

/// Publishes the journey where it is absent.
async fn prepare(client: &Client, say: &mut Say) -> Result<(), Trouble> {
    match client.journey("bench", None).await {
        Ok(_) => return Ok(()),
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(Trouble::reading(e)),
    }
    let answer = client.publish(JOURNEY, "bench").await?;
    say.talk(format_args!(
        "published the journey {} version {}",
        answer.journey, answer.version
    ));
    Ok(())
}

/// A JSON object of so many bytes (at least those of the empty one).
fn data(bytes: usize) -> bytes::Bytes {
    const FRAME: &str = r#"{"pad":""}"#;
    if bytes < FRAME.len() {
        return bytes::Bytes::new();
    }
    format!(r#"{{"pad":"{}"}}"#, "x".repeat(bytes - FRAME.len())).into()
}

/// A word that no other run has.
fn run_id() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    id[id.len() - 12..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_size_asked_for_and_is_an_object() {
        for bytes in [10, 11, 200, 4_096] {
            let data = data(bytes);
            assert_eq!(data.len(), bytes);
            assert!(
                serde_json::from_slice::<serde_json::Value>(&data).is_ok_and(|v| v.is_object())
            );
        }
        assert!(data(5).is_empty());
    }

    #[test]
    fn the_journey_of_the_bench_can_be_published() {
        use sojourn_journey::compile::{Journey, Known};
        let checked = Journey::compile(JOURNEY, &Known::default());
        assert!(checked.is_ok(), "{checked:?}");
    }
}
