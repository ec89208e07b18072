//! One node: rates against the echo, a customer alone, open loops; and a million executions that rest.

use super::{Args, COLUMNS, Page, bench, node};
use anyhow::{Context, Result};
use sojourn_chaos_tests::cli::json;
use sojourn_chaos_tests::process::Server;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Small writes, each with its fsync, for the yardstick of one signal at a time.
const SYNCS: usize = 300;
/// Starts after a kill.
const RESTARTS: usize = 3;

pub(super) async fn rates(args: &Args, page: &mut Page) -> Result<()> {
    let server = node().await?;
    let (cli, process) = (server.commands(), server.process());
    page.table("One node", &COLUMNS)?;
    let unary = bench(args, &cli, process, &["--in-flight", "1,64,256"]).await?;
    for run in &unary {
        page.row(&run.cells("unary"))?;
        if run.name == "1" {
            continue;
        }
        let what = format!("unary, {} in flight, against the echo", run.name);
        let is_met = run.share().is_some_and(|share| share >= 0.7);
        page.want(&what, "≥ 0.7", run.ratio(), is_met);
        run.want_cpu(page, "unary", 0.8);
    }
    let stream = ["--stream", "--in-flight", "256,1024"];
    for run in bench(args, &cli, process, &stream).await? {
        page.row(&run.cells("streamed"))?;
        let what = format!("streamed, {} in flight", run.name);
        let rate = run.server.rate;
        page.want(&what, "≥ 60,000/s", run.server.shown(), rate >= 60_000.0);
        run.want_cpu(page, "streamed", 0.25);
    }
    let full = unary.last().map_or(0.0, |run| run.server.rate);
    for share in [0.5, 0.8] {
        let rate = format!("{:.0}", (full * share).max(1.0));
        for run in bench(args, &cli, process, &["--open", &rate]).await? {
            let kind = format!("unary, open loop at {:.0} %", share * 100.0);
            page.row(&run.cells(&kind))?;
        }
    }
    for run in bench(
        args,
        &cli,
        process,
        &["--in-flight", "1", "--customers", "1"],
    )
    .await?
    {
        page.row(&run.cells("one customer"))?;
        let sync = sync_p50(&server)?;
        let echo = run.echo.as_ref().map_or(0.0, |echo| echo.p50_ms);
        page.line(&format!(
            "\nfdatasync of 300 B beside the server's log: p50 {sync:.2} ms. Of one customer, one signal at a time, \
             p50 is {:.1} times that of the echo and of the fdatasync together.",
            run.server.p50_ms / (echo + sync)
        ))?;
        let (rate, times) = (run.server.rate, run.server.p50_ms / (echo + sync));
        page.want(
            "one customer, one at a time",
            "≥ 2,000/s, or p50 ≤ 2 × (echo + fdatasync)",
            format!("{}, {times:.1} ×", run.server.shown()),
            rate >= 2_000.0 || times <= 2.0,
        );
    }
    Ok(())
}

/// The middle of some small synced writes beside the server's data, in milliseconds.
fn sync_p50(server: &Server) -> Result<f64> {
    let path = server.scratch().join("synced");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[7; 300])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[SYNCS / 2].as_secs_f64() * 1e3)
}

/// Resident memory of a process, in bytes.
pub(super) fn resident(process: Option<u32>) -> Result<u64> {
    let process = process.context("the server does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let line = line.context("no VmRSS in the status of the process")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// CPU seconds of a process so far.
pub(super) fn cpu(process: Option<u32>) -> Result<f64> {
    let process = process.context("the server does not run")?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // the name may have spaces: what is counted stands behind its bracket
    let rest = stat.rsplit_once(')').context("no such form of stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    let all = ticks(11).zip(ticks(12)).context("no times in stat")?;
    Ok((all.0 + all.1) as f64 / 100.0)
}

pub(super) async fn memory(args: &Args, page: &mut Page) -> Result<()> {
    let mut server = node().await?;
    let empty = resident(server.process())?;
    let (count, idle) = (args.executions.to_string(), format!("{}s", args.idle));
    let words = [
        "--json",
        "bench",
        "executions",
        "--count",
        &count,
        "--idle",
        &idle,
    ];
    let made = json(&server.run(words).await?)?;
    let rate = made["per_second"].as_f64().unwrap_or(0.0);
    page.table(
        &format!("{} executions that rest", args.executions),
        &[
            "when",
            "resident MiB",
            "bytes per execution",
            "ready after s",
        ],
    )?;
    let each = |rss: u64| (rss as f64 - empty as f64) / args.executions as f64;
    let mib = |rss: u64| format!("{:.0}", rss as f64 / f64::from(1 << 20));
    page.row(&["empty".into(), mib(empty), "-".into(), "-".into()])?;
    let before = resident(server.process())?;
    let name = format!("made at {rate:.0}/s, {} s later", args.idle);
    page.row(&[
        name,
        mib(before),
        format!("{:.0}", each(before)),
        "-".into(),
    ])?;
    let bytes = |page: &mut Page, when: &str, bytes: f64| {
        let what = format!("memory per idle execution, {when}");
        page.want(&what, "≤ 600 B", format!("{bytes:.0} B"), bytes <= 600.0);
    };
    bytes(page, "before a restart", each(before));
    let mut slowest = 0.0_f64;
    for restart in 1..=RESTARTS {
        server.kill()?;
        // ready: every shard decides, and answers what it has
        let took = server.again().await?;
        let now = resident(server.process())?;
        let name = format!("after kill -9, {restart} of {RESTARTS}");
        slowest = slowest.max(took.as_secs_f64());
        let took = format!("{:.1}", took.as_secs_f64());
        page.row(&[name, mib(now), format!("{:.0}", each(now)), took])?;
    }
    tokio::time::sleep(Duration::from_secs(args.idle)).await;
    let later = resident(server.process())?;
    bytes(page, "after restarts", each(later));
    page.want(
        "restart after kill -9, the slowest",
        "≤ 3 s",
        format!("{slowest:.1} s"),
        slowest <= 3.0,
    );
    let name = format!("{} s later", args.idle);
    page.row(&[name, mib(later), format!("{:.0}", each(later)), "-".into()])
}
