//! Simulated worlds, one seed each: lives through them, says what was broken, and how to live through the same one again.
//!
//! Exit codes: 0 clean, 10 a promise about safety was broken, 11 something did not work after everything was mended, 12 a
//! world crashed, 13 the same seed was another world the second time, 2 usage.

use anyhow::Context;
use clap::Parser;
use sojourn_chaos_tests::world::seed::{Of, Plan};
use sojourn_chaos_tests::world::shrink::{self, Setting};
use sojourn_chaos_tests::world::{self, Ended, Seen, Verdict};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Simulated worlds that try to break the cluster
#[derive(Debug, Parser)]
#[command(name = "worlds", version)]
struct Args {
    /// The seed of the first world; drawn, if it is not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many worlds, each with the next seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    count: u64,
    /// What the groups replicate: each seed is a world of lists and one of shards, unless one of them is asked for
    #[arg(long, value_name = "WHICH")]
    of: Option<OfArg>,
    /// Live through every world twice, and compare
    #[arg(long)]
    twice: bool,
    /// Of each broken world, look for a smaller one that is broken too, and say how to live through it
    #[arg(long)]
    shrink: bool,
    /// Something that is another than the seed says (`crashes=0`, `clients=2`, `rough=3000`); may be given several times
    #[arg(long, value_name = "NAME=NUMBER", value_parser = shrink::setting)]
    set: Vec<Setting>,
    /// Put a bug back, to see whether it is found; ends with the first world that finds it
    #[cfg(feature = "put-back")]
    #[arg(long, value_name = "WHICH")]
    bug: Option<Bug>,
    /// Say what each world was, not only those that are broken
    #[arg(long, short)]
    verbose: bool,
    /// Tell what goes on in the worlds, on stderr with node and time: `debug`, `openraft=debug,sojourn_cluster=trace`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// What the groups of a world replicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OfArg {
    /// Lists: the layer of order and place alone
    Lists,
    /// The node's shards
    Shards,
}

/// A world's own time, and the node that speaks.
struct WorldTime;

impl FormatTime for WorldTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        match world::node::running() {
            Some((node, now)) => write!(out, "{:>10.3} node {node}", now as f64 / 1e3),
            None => write!(out, "{:>17}", "-"),
        }
    }
}

fn tell(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).context("--log takes a filter as RUST_LOG does")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(WorldTime)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// A bug that can be put back.
#[cfg(feature = "put-back")]
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Bug {
    /// A write of the log counts before it is on disk
    AckBeforeFsync,
    /// A read is answered without asking a majority
    StaleRead,
    /// Who leads owns at once, before what was acknowledged is applied there
    NoBarrier,
    /// A decision names how many there were before it, and not which was the last
    SequenceNumber,
    /// A replica that joins does not take over which signals were decided
    ForgottenReceipts,
    /// A new owner does not arm the timers that were armed before
    ForgottenTimers,
}

/// Puts back what is to be put back; says whether anything is.
#[cfg(feature = "put-back")]
fn put_back(args: &Args) -> bool {
    use sojourn_cluster::bugs;
    use sojourn_node::bugs as shard;
    match args.bug {
        Some(Bug::AckBeforeFsync) => bugs::put_back(bugs::Bug::AckBeforeFsync),
        Some(Bug::StaleRead) => bugs::put_back(bugs::Bug::StaleRead),
        Some(Bug::NoBarrier) => bugs::put_back(bugs::Bug::NoBarrier),
        Some(Bug::SequenceNumber) => shard::put_back(shard::Bug::SequenceNumber),
        Some(Bug::ForgottenReceipts) => shard::put_back(shard::Bug::ForgottenReceipts),
        Some(Bug::ForgottenTimers) => shard::put_back(shard::Bug::ForgottenTimers),
        None => return false,
    }
    true
}

#[cfg(not(feature = "put-back"))]
fn put_back(_args: &Args) -> bool {
    false
}

/// How bad it is; the worst one is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bad {
    Not = 0,
    Replay = 13,
    Crash = 12,
    Liveness = 11,
    Safety = 10,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Err(error)) = args.log.as_deref().map(tell) {
        eprintln!("error: {error:#}");
        return ExitCode::from(2);
    }
    // drawn once, and told
    let first = args
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>()));
    match run(&args, first) {
        Ok(bad) => ExitCode::from(bad as u8),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(12)
        }
    }
}

/// The worlds of a seed, as far as they are asked for: a bug that only shards can have is looked for in theirs.
fn plans(args: &Args, seed: u64) -> Vec<Plan> {
    let of = args.of.or_else(|| where_to_look(args));
    let lists = (of != Some(OfArg::Shards)).then(|| Plan::of(seed));
    let shards = (of != Some(OfArg::Lists)).then(|| Plan::of_shards(seed));
    let set = |mut plan: Plan| {
        for setting in &args.set {
            shrink::set(&mut plan, *setting);
        }
        plan
    };
    lists.into_iter().chain(shards).map(set).collect()
}

/// How to live through a world again.
fn again(plan: &Plan, settings: &[Setting]) -> String {
    let of = of(plan);
    let set: String = settings
        .iter()
        .map(|(name, number)| format!(" --set {name}={number}"))
        .collect();
    format!(
        "cargo run --release -p chaos-tests -- --seed {} --of {of}{set} --verbose",
        plan.seed
    )
}

fn of(plan: &Plan) -> &'static str {
    match plan.of {
        Of::Lists => "lists",
        Of::Shards => "shards",
    }
}

#[cfg(feature = "put-back")]
fn where_to_look(args: &Args) -> Option<OfArg> {
    match args.bug? {
        Bug::AckBeforeFsync | Bug::StaleRead => Some(OfArg::Lists),
        Bug::NoBarrier | Bug::SequenceNumber | Bug::ForgottenReceipts | Bug::ForgottenTimers => {
            Some(OfArg::Shards)
        }
    }
}

#[cfg(not(feature = "put-back"))]
fn where_to_look(_args: &Args) -> Option<OfArg> {
    None
}

fn run(args: &Args, first: u64) -> anyhow::Result<Bad> {
    let mut out = std::io::stdout();
    let mut sum = Seen::default();
    let mut worst = Vec::new();
    let began = Instant::now();
    let (hunting, mut lived) = (put_back(args), 0u32);
    let seeds = first..first.saturating_add(args.count);
    for plan in seeds.flat_map(|seed| plans(args, seed)) {
        let seed = plan.seed;
        lived += 1;
        let (mut bad, mut words) = (Bad::Not, Vec::new());
        match once(&plan) {
            Err(why) => (bad, words) = (Bad::Crash, vec![why]),
            Ok(ended) => {
                match ended.verdict.clone() {
                    Verdict::Clean => {}
                    Verdict::Safety(broken) => (bad, words) = (Bad::Safety, broken),
                    Verdict::Liveness(waits) => (bad, words) = (Bad::Liveness, waits),
                }
                if args.twice {
                    match once(&plan) {
                        Ok(again) if again.seen == ended.seen => {}
                        again => {
                            let again = again.map(|a| a.seen);
                            words.push(format!("first {:?}, then {again:?}", ended.seen));
                            bad = bad.max(Bad::Replay);
                        }
                    }
                }
                if args.verbose {
                    writeln!(out, "{plan:?}\n  {:?}", ended.seen)?;
                }
                add(&mut sum, &ended.seen);
            }
        }
        if bad != Bad::Not {
            writeln!(out, "seed {seed} of {}: {bad:?}", of(&plan))?;
            for word in words.iter().take(10) {
                writeln!(out, "  {word}")?;
            }
            writeln!(out, "  again: {}", again(&plan, &args.set))?;
            if args.shrink && bad != Bad::Replay {
                let mut settings = args.set.clone();
                settings.extend(shrink::shrink(&plan, |plan| how_bad(plan) == bad));
                writeln!(out, "  smaller: {}", again(&plan, &settings))?;
            }
            worst.push(bad);
            if hunting {
                break;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    writeln!(
        out,
        "{} worlds from seed {first}, {:.2} s each: {} appends, signals and commands acknowledged, {} reads, {} unknown, {} refused, {} repeated, {} commands, {} timers, {} actions; \
         {} messages, {} lost; {:?}; {} broken",
        lived,
        seconds / f64::from(lived.max(1)),
        sum.acknowledged,
        sum.reads,
        sum.unknown,
        sum.refused,
        sum.again,
        sum.commands,
        sum.fired,
        sum.settled,
        sum.delivered,
        sum.lost,
        sum.faults,
        worst.len()
    )?;
    // safety before liveness, liveness before a crash: by the number, the smallest that is not 0
    Ok(worst
        .into_iter()
        .min_by_key(|bad| *bad as u8)
        .unwrap_or(Bad::Not))
}

fn how_bad(plan: &Plan) -> Bad {
    match once(plan).map(|ended| ended.verdict) {
        Ok(Verdict::Clean) => Bad::Not,
        Ok(Verdict::Safety(_)) => Bad::Safety,
        Ok(Verdict::Liveness(_)) => Bad::Liveness,
        Err(_) => Bad::Crash,
    }
}

/// Lives through one world; a panic in it is a crash of the world.
fn once(plan: &Plan) -> Result<Ended, String> {
    let lived = catch_unwind(AssertUnwindSafe(|| world::live(plan)));
    match lived {
        Ok(Ok(ended)) => Ok(ended),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("without words")))
        }
    }
}

fn add(sum: &mut Seen, seen: &Seen) {
    sum.acknowledged += seen.acknowledged;
    sum.reads += seen.reads;
    sum.unknown += seen.unknown;
    sum.refused += seen.refused;
    sum.again += seen.again;
    sum.commands += seen.commands;
    sum.fired += seen.fired;
    sum.settled += seen.settled;
    sum.delivered += seen.delivered;
    sum.lost += seen.lost;
    for (fault, times) in &seen.faults {
        *sum.faults.entry(fault).or_default() += times;
    }
}
