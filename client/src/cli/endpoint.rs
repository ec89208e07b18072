//! `endpoint`: where webhooks go. Secrets are named here, never given.

use super::exit::{Exit, Trouble};
use super::table::{Align, Table};
use super::{ActorArgs, GlobalOpts, Say, args, json};
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
                concurrency: put.concurrency.unwrap_or_default(),
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
            let endpoints = client.endpoints().await.map_err(Trouble::reading)?;
            if say.json() {
                say.value(&endpoints.iter().map(json::endpoint).collect());
            } else if endpoints.is_empty() {
                say.talk("no endpoints; make one with `sojourn endpoint put NAME --url URL`");
            } else {
                say.data(table(&endpoints));
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

fn table(endpoints: &[v1::Endpoint]) -> Table {
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("url", Align::Left),
        ("secret", Align::Left),
        ("attempts", Align::Right),
        ("timeout", Align::Right),
        ("concurrency", Align::Right),
    ]);
    for e in endpoints {
        let secret = match (e.secret_env.as_str(), e.secret_file.as_str()) {
            ("", "") => "none".to_owned(),
            (env, "") => format!("${env}"),
            (_, file) => file.to_owned(),
        };
        // 0 is the default, which the flags of `put` name
        let or = |number: u32, default: u32| if number == 0 { default } else { number };
        let timeout = format!("{} ms", or(e.timeout_ms, 10_000));
        table.row([
            e.name.clone(),
            e.url.clone(),
            secret,
            or(e.attempts, 8).to_string(),
            timeout,
            or(e.concurrency, 16).to_string(),
        ]);
    }
    table
}
