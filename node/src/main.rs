//! The binary `sojourn`: parse, run, exit codes.

mod memory;

use clap::{CommandFactory, Parser};
use sojourn_client::cli::{Command, GlobalOpts, Say};
use sojourn_node::cli::{ServerCommand, demo, repair, run};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Customers on their way, durably
#[derive(Debug, Parser)]
#[command(name = "sojourn", version, disable_help_subcommand = true)]
struct Sojourn {
    #[command(flatten)]
    global: GlobalOpts,
    #[command(subcommand)]
    command: All,
}

// there is one, read once: its size matters to nobody
#[allow(clippy::large_enum_variant)]
#[derive(Debug, clap::Subcommand)]
enum All {
    #[command(flatten)]
    Server(ServerCommand),
    #[command(flatten)]
    Client(Command),
}

fn main() -> ExitCode {
    let sojourn = Sojourn::parse();
    // openraft logs every append that fails: what concerns an operator of it, the node says itself. ractor's spans, two for
    // every actor and entered with every message, would cost more than the messages.
    let default = match &sojourn.command {
        All::Server(ServerCommand::Serve(_)) => {
            "info,openraft=off,ractor=warn,raft_engine=warn,sled=warn,fjall=warn,lsm_tree=warn"
        }
        All::Server(_) => "warn,sojourn::action=info,openraft=off",
        All::Client(_) => "error",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SOJOURN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // colours are for people, not for files
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(memory::give_back)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::from(70);
        }
    };
    let code = runtime.block_on(async {
        match sojourn.command {
            All::Server(ServerCommand::Dev(args)) => ExitCode::from(run::dev(args).await as u8),
            All::Server(ServerCommand::Serve(args)) => ExitCode::from(run::serve(args).await as u8),
            All::Server(ServerCommand::Demo(args)) => ExitCode::from(demo::demo(args).await as u8),
            All::Server(ServerCommand::Repair(args)) => {
                ExitCode::from(repair::repair(args, sojourn.global.json) as u8)
            }
            All::Client(command) => {
                let mut say = Say::standard();
                sojourn_client::cli::run(command, &sojourn.global, Sojourn::command(), &mut say)
                    .await
                    .into()
            }
        }
    });
    // blocking tasks (checkpoints that are being written) are not waited for: the log has everything
    runtime.shutdown_background();
    code
}
