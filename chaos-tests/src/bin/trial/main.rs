//! Trials: a cluster of three real nodes on this machine, something that happens to it, and a report of what came of it.
//! Not tests: they take minutes to hours, and their figures are for people. The exit code says whether what must be exact
//! was: 0 yes, 1 no.

mod gaps;
mod loan;
mod machine;
mod moves;
mod table;

use clap::Parser;
use std::process::ExitCode;

/// Trials of a cluster on this machine
#[derive(Debug, Parser)]
#[command(name = "trial", version)]
struct Trial {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// The whole loan file into three nodes, calm and with something that happens in the middle: are the figures exact?
    Loan(loan::Args),
    /// Owners killed under load: the longest time without an answer
    Gaps(gaps::Args),
    /// A node joins, one is drained, a dead one is replaced, under load: time, gaps, throughput, balance
    Moves(moves::Args),
    /// The table of figures that we mean to reach, as a page: rates against the echo, memory, restart, growth
    Table(table::Args),
}

/// How many shards, and of what, each trial begins with.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Cluster {
    /// How many shards: a power of two
    #[arg(long, default_value_t = 32, value_name = "N")]
    shards: u16,
}

impl Cluster {
    fn setup(self) -> sojourn_chaos_tests::process::Setup {
        sojourn_chaos_tests::process::Setup {
            shards: self.shards,
            ..Default::default()
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let trial = Trial::parse();
    let told = match machine::head() {
        Ok(()) => match trial.kind {
            Kind::Loan(args) => loan::run(&args).await,
            Kind::Gaps(args) => gaps::run(&args).await,
            Kind::Moves(args) => moves::run(&args).await,
            Kind::Table(args) => table::run(&args).await,
        },
        Err(error) => Err(error),
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
