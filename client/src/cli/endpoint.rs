//! `endpoint`: where webhooks go. Secrets are named here, never given.

use super::exit::{Exit, Trouble};
use super::table::{Align, Table};
use super::{ActorArgs, GlobalOpts, Say, args, json, show};
use sojourn_proto::v1;
use std::time::Duration;

/// `sojourn endpoint …`.
#[derive(Debug, clap::Subcommand)]
pub enum EndpointCommand {
    /// Make or change an endpoint
    Put(PutArgs),
    /// List all endpoints
    List,
    /// Delete an endpoint
    Delete(DeleteArgs),
}

/// `sojourn endpoint put NAME --url URL`.
#[derive(Debug, clap::Args)]
pub struct PutArgs {
    /// The name by which journeys know it
    name: String,
    /// Where it is: http or https
    #[arg(long)]
    url: String,
    /// The environment variable of the server that holds the signing secret
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    secret_env: Option<String>,
    /// The file on the server that holds the signing secret
    #[arg(long, value_name = "PATH")]
    secret_file: Option<String>,
    /// How long an answer may take [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    timeout: Option<Duration>,
    /// How often a webhook is tried [default: 8]
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// The first pause between attempts [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    backoff_first: Option<Duration>,
    /// The longest pause between attempts [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    backoff_max: Option<Duration>,
    /// How many webhooks may be under way at once [default: 16]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// How many webhooks may be sent in a second, at most a second's worth at once [default: no limit]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// After how many failures in a row nothing is sent for a while [default: 10]
    #[arg(long, value_name = "N")]
    breaker_failures: Option<u32>,
    /// How long; then one webhook is sent for trial [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    breaker_pause: Option<Duration>,
    #[command(flatten)]
    by: ActorArgs,
}

/// `sojourn endpoint delete NAME`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// The endpoint
    name: String,
    #[command(flatten)]
    by: ActorArgs,
}

pub(super) async fn run(
    command: EndpointCommand,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let client = global.client().await?;
    match command {
        EndpointCommand::Put(put) => {
            let endpoint = v1::Endpoint {
                name: put.name,
                url: put.url,
                secret_env: put.secret_env.unwrap_or_default(),
                secret_file: put.secret_file.unwrap_or_default(),
                timeout_ms: milliseconds("timeout", put.timeout)?,
                attempts: put.attempts.unwrap_or_default(),
                backoff_first_ms: milliseconds("backoff-first", put.backoff_first)?,
                backoff_max_ms: milliseconds("backoff-max", put.backoff_max)?,
                concurrency: number("concurrency", put.concurrency)?,
                rate: rate(put.rate)?,
                breaker_failures: number("breaker-failures", put.breaker_failures)?,
                breaker_pause_ms: milliseconds("breaker-pause", put.breaker_pause)?,
            };
            let endpoint = client.put_endpoint(endpoint, put.by.name()).await?;
            if say.json() {
                say.value(&json::endpoint(&endpoint));
            } else {
                say.talk(format_args!(
                    "endpoint {} is at {}",
                    endpoint.name, endpoint.url
                ));
            }
        }
        EndpointCommand::List => {
            let answer = client.endpoint_states().await.map_err(Trouble::reading)?;
            let endpoints = &answer.endpoints;
            let state = |e: &v1::Endpoint| answer.states.iter().find(|s| s.name == e.name);
            if say.json() {
                let all = endpoints.iter();
                say.value(&all.map(|e| json::endpoint_state(e, state(e))).collect());
            } else if endpoints.is_empty() {
                say.talk("no endpoints; make one with `sojourn endpoint put NAME --url URL`");
            } else {
                say.data(table(&answer));
            }
        }
        EndpointCommand::Delete(delete) => {
            client
                .delete_endpoint(&delete.name, delete.by.name())
                .await?;
            say.talk(format_args!("endpoint {} is deleted", delete.name));
        }
    }
    Ok(Exit::Done)
}

fn milliseconds(flag: &str, time: Option<Duration>) -> Result<u32, Trouble> {
    match time {
        None => Ok(0),
        Some(time) => match u32::try_from(time.as_millis()) {
            // 0 on the wire means "the default", which is not what was asked for
            Ok(0) => Err(Trouble::usage(format!("--{flag} is 0, expected more"))),
            Ok(ms) => Ok(ms),
            Err(_) => Err(Trouble::usage(format!(
                "--{flag} is too long, expected at most 49 days"
            ))),
        },
    }
}

fn number(flag: &str, number: Option<u32>) -> Result<u32, Trouble> {
    match number {
        None => Ok(0),
        // as with times
        Some(0) => Err(Trouble::usage(format!("--{flag} is 0, expected more"))),
        Some(number) => Ok(number),
    }
}

fn rate(rate: Option<f64>) -> Result<f64, Trouble> {
    match rate {
        None => Ok(0.0),
        Some(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Some(rate) => Err(Trouble::usage(format!(
            "--rate is {rate}, expected more than 0 a second"
        ))),
    }
}

fn table(answer: &v1::ListEndpointsResponse) -> Table {
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("url", Align::Left),
        ("secret", Align::Left),
        ("attempts", Align::Right),
        ("timeout", Align::Right),
        ("concurrency", Align::Right),
        ("rate", Align::Right),
        ("breaker", Align::Left),
        ("running", Align::Right),
        ("waiting", Align::Right),
    ]);
    for e in &answer.endpoints {
        let secret = match (e.secret_env.as_str(), e.secret_file.as_str()) {
            ("", "") => "none".to_owned(),
            (env, "") => format!("${env}"),
            (_, file) => file.to_owned(),
        };
        // 0 is the default, which the flags of `put` name
        let or = |number: u32, default: u32| if number == 0 { default } else { number };
        let state = answer.states.iter().find(|s| s.name == e.name);
        let timeout = format!("{} ms", or(e.timeout_ms, 10_000));
        table.row([
            e.name.clone(),
            e.url.clone(),
            secret,
            or(e.attempts, 8).to_string(),
            timeout,
            or(e.concurrency, 16).to_string(),
            Some(e.rate)
                .filter(|r| *r > 0.0)
                .map_or_else(|| "-".to_owned(), |r| format!("{r}/s")),
            state.map_or_else(|| "-".to_owned(), breaker),
            state.map_or_else(|| "-".to_owned(), |s| show::count(s.running)),
            state.map_or_else(|| "-".to_owned(), |s| show::count(s.waiting)),
        ]);
    }
    table
}

/// `closed`, `open until 2026-11-22T01:00:00.000Z (10 failures: 503 …)`.
fn breaker(state: &v1::EndpointState) -> String {
    let mut text = show::breaker(state).replace('_', "-");
    if state.open_until.is_some() {
        text.push_str(&format!(" until {}", show::time(state.open_until)));
    }
    if state.failures > 0 {
        let error: String = state.error.chars().take(60).collect();
        text.push_str(&format!(" ({} failures: {error})", state.failures));
    }
    text
}
