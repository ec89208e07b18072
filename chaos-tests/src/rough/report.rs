//! What came of a run, for people: Markdown.

use super::nemesis::About;
use super::plan::Kind;
use super::{Outcome, Plan};
use crate::history::{History, Told};
use crate::invariants::history::Checked;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Broken ones of one promise that are told in full.
const TOLD: usize = 20;
/// Letters of one cell, or of one finding.
const LETTERS: usize = 400;

fn short(text: &str, letters: usize) -> String {
    let mut short: String = text
        .replace('\n', " ")
        .replace('|', "\\|")
        .chars()
        .take(letters)
        .collect();
    if text.chars().count() > letters {
        short.push('…');
    }
    short
}

/// One line for whoever waits.
pub fn verdict(outcome: &Outcome) -> &'static str {
    match outcome.worst() {
        None => "clean",
        Some(About::Liveness) => "broken: something did not work (11)",
        Some(About::Safety) => "broken: a promise about safety (10)",
    }
}

/// The whole report. `commit`: of what was run.
pub fn markdown(plan: &Plan, outcome: &Outcome, commit: &str) -> String {
    let mut text = String::new();
    // writing to a String cannot fail
    let _ = tell(&mut text, plan, outcome, commit);
    text
}

fn tell(text: &mut String, plan: &Plan, outcome: &Outcome, commit: &str) -> std::fmt::Result {
    let history = &outcome.history;
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    writeln!(text, "# Rough times: {}\n", verdict(outcome))?;
    writeln!(
        text,
        "Seed {}, {} nodes, {} shards, {:.1} minutes of rough times, {build} build of {commit}; {} clients, {} calls a second \
         at most.\n",
        plan.seed,
        plan.nodes,
        plan.shards,
        plan.rough.as_secs_f64() / 60.0,
        plan.clients,
        plan.load.rate,
    )?;
    writeln!(text, "## What was done\n")?;
    writeln!(text, "| what | times |\n| --- | --- |")?;
    let mut times: BTreeMap<Kind, usize> = BTreeMap::new();
    for one in &outcome.injected {
        *times.entry(one.kind).or_default() += 1;
    }
    for (kind, count) in times {
        writeln!(text, "| {} | {count} |", kind.words())?;
    }
    for (kind, why) in &outcome.left_out {
        writeln!(
            text,
            "\nNot on this machine: {}: {}",
            kind.words(),
            short(why, LETTERS)
        )?;
    }
    writeln!(text, "\n## What was seen\n")?;
    told(text, history)?;
    match outcome.healed {
        Some(healed) => writeln!(
            text,
            "\nWhole {:.1} s after the last step.",
            healed.as_secs_f64()
        )?,
        None => writeln!(text, "\nNot whole after the last step.")?,
    }
    writeln!(
        text,
        "Decisions that came too late and were ignored: {}.\n",
        outcome.ignored
    )?;
    writeln!(
        text,
        "| promise | held against | broken |\n| --- | --- | --- |"
    )?;
    for checked in outcome.safety.iter().chain(&outcome.liveness) {
        let Checked {
            promise,
            looked_at,
            broken,
        } = checked;
        writeln!(text, "| {promise} | {looked_at} | {} |", broken.len())?;
    }
    if outcome.worst().is_some() {
        writeln!(text, "\n## What is broken\n")?;
        for finding in &outcome.findings {
            writeln!(
                text,
                "- {:?}: {}",
                finding.about,
                short(&finding.text, 10 * LETTERS)
            )?;
        }
        for checked in outcome.safety.iter().chain(&outcome.liveness) {
            for one in checked.broken.iter().take(TOLD) {
                writeln!(text, "- {}", short(one, 10 * LETTERS))?;
            }
            if checked.broken.len() > TOLD {
                writeln!(
                    text,
                    "- and {} more of this promise",
                    checked.broken.len() - TOLD
                )?;
            }
        }
        writeln!(
            text,
            "\nThe nodes' folders, and `history.txt` in the first:\n"
        )?;
        for folder in &outcome.evidence {
            writeln!(text, "- `{}`", folder.display())?;
        }
    }
    writeln!(text, "\n## Step by step\n")?;
    writeln!(
        text,
        "| at | took | what | to whom | what came of it |\n| --- | --- | --- | --- | --- |"
    )?;
    for one in &outcome.injected {
        writeln!(
            text,
            "| {:.1} s | {:.1} s | {} | {} | {} |",
            one.at.as_secs_f64(),
            one.took.as_secs_f64(),
            one.kind.words(),
            short(&one.what, LETTERS),
            short(&one.came, LETTERS)
        )?;
    }
    Ok(())
}

/// What clients were told.
fn told(text: &mut String, history: &History) -> std::fmt::Result {
    let count =
        |which: fn(&Told) -> bool| history.attempts.iter().filter(|a| which(&a.told)).count();
    let signals = history.by_signal();
    let acknowledged = signals
        .values()
        .filter(|of| of.iter().any(|a| a.told.recorded().is_some()));
    let duplicates = count(|t| t.recorded().is_some_and(|r| r.duplicate));
    let looks = history.looks.iter().filter(|l| l.saw.is_ok()).count();
    writeln!(
        text,
        "{} customers, {} signals sent {} times: {} acknowledged; of the answers {} receipts ({duplicates} of them marked as \
         duplicates), {} refusals, {} unknown. {} reads, {looks} answered.",
        history.customers.len(),
        signals.len(),
        history.attempts.len(),
        acknowledged.count(),
        count(|t| matches!(t, Told::Receipt(_))),
        count(|t| matches!(t, Told::Refused(_))),
        count(|t| matches!(t, Told::Unknown(_))),
        history.looks.len(),
    )
}

/// Writes everything that clients did, a line each: evidence.
///
/// # Errors
/// When it cannot be written.
pub fn write_history(file: &Path, history: &History) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    for attempt in &history.attempts {
        writeln!(out, "{attempt:?}")?;
    }
    for look in &history.looks {
        writeln!(out, "{look:?}")?;
    }
    Ok(out.flush()?)
}
