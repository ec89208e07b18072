//! What a figure depends on besides the code: the commit, the machine and its load. And how figures are written.

use anyhow::{Context, Result};
use sojourn_chaos_tests::binary;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

/// Writes a line of the report at once.
pub fn say(line: std::fmt::Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The first lines of every report.
pub fn head() -> Result<()> {
    say(format_args!("{}", about()?))
}

/// Of which commit, on which machine, when.
pub fn about() -> Result<String> {
    let git = |args: &[&str]| -> Result<String> {
        let said = Command::new("git")
            .current_dir(binary::workspace())
            .args(args)
            .output()
            .context("git cannot be started")?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    let changed = match git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        true => "",
        false => " and changes on top",
    };
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(format!(
        "commit {}{changed}, {build} build, {processors} processors, {}, {}",
        git(&["rev-parse", "--short", "HEAD"])?,
        load()?,
        jiff::Timestamp::now().strftime("%F %TZ")
    ))
}

/// The machine's load, as it says itself.
pub fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let figures: Vec<&str> = text.split(' ').take(3).collect();
    Ok(format!("load {}", figures.join(" ")))
}

/// Milliseconds, or seconds from ten of them.
pub fn shown(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// The middle and the worst of some times; `-` when there are none.
pub fn middle_and_worst(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match (times.get(times.len().saturating_sub(1) / 2), times.last()) {
        (Some(middle), Some(worst)) => {
            format!("p50 {}, worst {}", shown(*middle), shown(*worst))
        }
        _ => "-".to_owned(),
    }
}
