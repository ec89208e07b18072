//! The commands that need the server itself: `dev`, `serve`, `demo`. All others are the client's.

pub mod demo;
pub mod repair;
pub mod run;
pub mod several;

use crate::config::{Config, Flags};
use std::path::PathBuf;

/// Run one node for development: data in a folder or a temporary one, and what to type next
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    #[command(flatten)]
    flags: Flags,
    /// How many nodes, each a process of its own; their ports are 10 apart
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Publish these journeys at the start
    #[arg(long = "journey", value_name = "FILE")]
    journeys: Vec<PathBuf>,
}

/// Run a node as configured
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, env = "SOJOURN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// With a new data folder: begin a new cluster
    #[arg(long, conflicts_with = "join")]
    bootstrap: bool,
    /// With a new data folder: join the cluster of the node with this peer address; several may be given
    #[arg(long, value_name = "HOST:PORT")]
    join: Vec<String>,
    /// The host under which clients and other nodes reach this node
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// This node's name, for people
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What fails together with this node: replicas are kept in different zones
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Stop when the standard input ends: for who starts nodes and may die
    #[arg(long, hide = true)]
    end_with_stdin: bool,
    /// Check the configuration, print it, and stop
    #[arg(long)]
    check: bool,
}

/// See it work: a journey is published, customers move, timelines are shown, the server stays
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    #[command(flatten)]
    flags: Flags,
    /// How many nodes, each a process of its own; their ports are 10 apart
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Stop after the story instead of leaving the server running
    #[arg(long)]
    once: bool,
}

/// Show what is damaged in the data folder of a stopped node, and what mending it would lose; change nothing
#[derive(Debug, clap::Args)]
pub struct RepairArgs {
    /// The configuration file
    #[arg(long, env = "SOJOURN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Mend what can be mended: cut the log at its first damage, set damaged checkpoints aside
    #[arg(long)]
    apply: bool,
}

/// The commands of the server.
#[derive(Debug, clap::Subcommand)]
pub enum ServerCommand {
    #[command(name = "dev")]
    #[allow(missing_docs)]
    Dev(DevArgs),
    #[command(name = "serve")]
    #[allow(missing_docs)]
    Serve(ServeArgs),
    #[command(name = "demo")]
    #[allow(missing_docs)]
    Demo(DemoArgs),
    #[command(name = "repair")]
    #[allow(missing_docs)]
    Repair(RepairArgs),
}

/// How a server command ended: design.md §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerExit {
    /// Stopped as asked.
    Done = 0,
    /// The answer is no: the story did not go as it should.
    No = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Data damaged or unsafe.
    Data = 5,
    /// Our bug.
    Bug = 70,
}

fn load(file: Option<&std::path::Path>, flags: &Flags) -> Result<Config, ServerExit> {
    load_with(file, flags, |_| {})
}

/// The same, with what a command says itself; it is checked with the rest.
fn load_with(
    file: Option<&std::path::Path>,
    flags: &Flags,
    more: impl FnOnce(&mut Config),
) -> Result<Config, ServerExit> {
    let loaded = Config::load(file, flags).and_then(|mut config| {
        more(&mut config);
        config.check()?;
        Ok(config)
    });
    loaded.map_err(|why| {
        eprintln!("error: {why}");
        ServerExit::Usage
    })
}
