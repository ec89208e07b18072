//! The commands of the `sojourn` CLI that speak to a server, or work offline. The binary mounts them beside its own:
//!
//! ```
//! use clap::Parser as _;
//!
//! #[derive(clap::Parser)]
//! struct Sojourn {
//!     #[command(flatten)]
//!     global: sojourn_client::cli::GlobalOpts,
//!     #[command(subcommand)]
//!     command: sojourn_client::cli::Command,
//! }
//!
//! let sojourn = Sojourn::try_parse_from(["sojourn", "--json", "journey", "list"])?;
//! assert!(sojourn.global.json);
//! # Ok::<(), clap::Error>(())
//! ```
//!
//! Knows no server's insides: every command uses the public services, as any other program could.

mod args;
mod bench;
mod cluster;
mod completions;
mod endpoint;
mod execution;
mod exit;
mod import;
mod journey;
mod json;
mod mapping;
mod report;
mod say;
mod show;
mod signal;
mod simulate;
pub mod table;
mod unmatched;

pub use exit::Exit;
pub use say::{Said, Say};

use crate::client::Client;
use exit::Trouble;
use std::time::Duration;

/// What all commands take.
#[derive(Clone, Debug, clap::Args)]
pub struct GlobalOpts {
    /// The server to talk to; any node of a cluster. Several may be given, apart by commas or with the flag repeated: the
    /// first that answers tells of the others
    #[arg(
        long,
        global = true,
        env = "SOJOURN_SERVER",
        default_value = "http://127.0.0.1:7410",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub server: Vec<String>,
    /// The workspace to work in
    #[arg(
        long,
        global = true,
        env = "SOJOURN_WORKSPACE",
        default_value = "default",
        value_name = "NAME"
    )]
    pub workspace: String,
    /// Data for programs instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// How long a call may take, at most 60s
    #[arg(long, global = true, default_value = "5s", value_name = "TIME", value_parser = args::duration)]
    pub deadline: Duration,
}

impl GlobalOpts {
    /// Connects as told.
    async fn client(&self) -> Result<Client, Trouble> {
        Client::builder(self.server.join(","))
            .workspace(&self.workspace)
            .deadline(self.deadline)
            .connect()
            .await
            .map_err(|e| {
                if e.is_invalid() {
                    Trouble::usage(e.to_string())
                } else {
                    Trouble::reading(e)
                }
            })
    }
}

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Journeys: check, try, publish, look at
    #[command(subcommand)]
    Journey(journey::JourneyCommand),
    /// Endpoints: where webhooks go
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Signals: send one, or import a file of them
    #[command(subcommand)]
    Signal(signal::SignalCommand),
    /// Executions: where customers are, why, and by hand
    #[command(subcommand)]
    Execution(execution::ExecutionCommand),
    /// The nodes: look at them, move shards, take nodes out
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Run journeys over a file of signals offline, in virtual time
    Simulate(simulate::SimulateArgs),
    /// Measure a server, beside an echo that does nothing
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Write the completions of a shell
    Completions(completions::CompletionsArgs),
}

/// Runs a command. `root` is the whole command line, for the completions. Ctrl-C ends it with [`Exit::Interrupted`].
pub async fn run(
    command: Command,
    global: &GlobalOpts,
    root: clap::Command,
    say: &mut Say,
) -> Exit {
    say.for_programs(global.json);
    // an import ends by itself on Ctrl-C, for it has something to say then
    let own_interrupt = matches!(&command, Command::Signal(signal::SignalCommand::Import(_)));
    let work = Box::pin(dispatch(command, global, root, say));
    let done = if own_interrupt {
        work.await
    } else {
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => return Exit::Interrupted,
        }
    };
    match done {
        Ok(exit) => exit,
        Err(trouble) => {
            say.talk(format_args!("error: {}", trouble.text));
            trouble.exit
        }
    }
}

async fn dispatch(
    command: Command,
    global: &GlobalOpts,
    root: clap::Command,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    match command {
        Command::Journey(command) => journey::run(command, global, say).await,
        Command::Endpoint(command) => endpoint::run(command, global, say).await,
        Command::Signal(command) => signal::run(command, global, say).await,
        Command::Execution(command) => execution::run(command, global, say).await,
        Command::Cluster(command) => cluster::run(command, global, say).await,
        Command::Simulate(args) => simulate::run(&args, global, say),
        Command::Bench(command) => bench::run(command, global, say).await,
        Command::Completions(args) => completions::run(&args, root, say),
    }
}

/// Who acts, for the record: `--actor`, else the user of the shell.
#[derive(Clone, Debug, clap::Args)]
struct ActorArgs {
    /// Who does it, for the record
    #[arg(
        long,
        env = "USER",
        default_value = "operator",
        value_name = "WHO",
        hide_env = true
    )]
    actor: String,
}

impl ActorArgs {
    /// A shell may have an empty `USER`; somebody did it all the same.
    fn name(&self) -> &str {
        if self.actor.is_empty() {
            "operator"
        } else {
            &self.actor
        }
    }
}

/// These commands as a program of their own, without those of the binary: for tests and for embedding.
#[derive(Debug, clap::Parser)]
#[command(
    name = "sojourn",
    version,
    about = "Customers on their way, durably",
    disable_help_subcommand = true
)]
pub struct Standalone {
    /// What all commands take.
    #[command(flatten)]
    pub global: GlobalOpts,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

impl Standalone {
    /// Reads a command line, its first word the program's name, and runs it.
    ///
    /// # Errors
    /// The usage error, as clap words it; its own exit code is 2 (0 for `--help`).
    pub async fn run(
        args: impl IntoIterator<Item = String>,
        say: &mut Say,
    ) -> Result<Exit, clap::Error> {
        use clap::{CommandFactory as _, Parser as _};
        let parsed = Standalone::try_parse_from(args)?;
        Ok(run(parsed.command, &parsed.global, Standalone::command(), say).await)
    }
}

#[cfg(test)]
mod tests;
