//! `repair`: what is damaged in the data folder of a stopped node, what mending it would lose, and the mending.
//!
//! Knows positions in logs and nothing of what stands there: which customers a lost entry concerned it cannot say.

mod stores;

use super::run::say;
use super::{RepairArgs, ServerExit, load};
use crate::config::Flags;
use crate::folder::{Folder, Found};
use crate::node::NodeError;
use serde::Serialize;
use sojourn_cluster::repair::{self, Report};
use sojourn_cluster::{GroupId, OpenError, Rest, ShardId};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use stores::{Checkpoints, History};

/// What was found. The form of `--json`: added to, never edited.
#[derive(Debug, Serialize)]
struct Findings {
    folder: PathBuf,
    node: u64,
    /// Nothing is damaged.
    whole: bool,
    /// Everything that is damaged can be mended here.
    mendable: bool,
    log: Log,
    checkpoints: Checkpoints,
    history: History,
    /// What was done, with `--apply`.
    applied: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Log {
    files: usize,
    good_bytes: u64,
    /// Ends that a crash tore: the next start cuts them, and they were never acknowledged.
    torn: Vec<Torn>,
    damage: Option<LogDamage>,
}

#[derive(Debug, Serialize)]
struct Torn {
    file: PathBuf,
    offset: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct LogDamage {
    file: PathBuf,
    offset: u64,
    what: String,
    can_be_cut: bool,
    losses: Vec<Loss>,
}

#[derive(Debug, Serialize)]
struct Loss {
    group: String,
    /// The last entry that is kept, in the log or in a checkpoint.
    kept_to: Option<u64>,
    /// The last entry that was found behind the damage.
    lost_to: u64,
}

impl Loss {
    fn nothing(&self) -> bool {
        self.kept_to >= Some(self.lost_to)
    }
}

/// Runs `repair`.
pub fn repair(args: RepairArgs, json: bool) -> ServerExit {
    let flags = Flags {
        data: args.data.clone(),
        ..Flags::default()
    };
    let config = match load(args.config.as_deref(), &flags) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let found = look(&config.data.dir).and_then(|(folder, mut findings)| {
        if args.apply && !findings.whole {
            apply(&folder, &mut findings)?;
        }
        Ok(findings)
    });
    let findings = match found {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("error: {error}");
            return if error.is_data() {
                ServerExit::Data
            } else {
                ServerExit::No
            };
        }
    };
    if json {
        match serde_json::to_string_pretty(&findings) {
            Ok(text) => say(&text),
            Err(error) => {
                eprintln!("error: {error}");
                return ServerExit::Bug;
            }
        }
    } else {
        say(text(&findings).trim_end());
    }
    if findings.whole || !findings.applied.is_empty() {
        if findings.unchecked() {
            return ServerExit::No;
        }
        return ServerExit::Done;
    }
    ServerExit::Data
}

impl Findings {
    fn unchecked(&self) -> bool {
        self.checkpoints.unchecked.is_some() || self.history.unchecked.is_some()
    }
}

/// Looks at everything and changes nothing, except that a lock is taken meanwhile.
fn look(dir: &Path) -> Result<(Folder, Findings), NodeError> {
    if !dir.join("FORMAT").exists() {
        return Err(NodeError::Other(format!(
            "{} is not a data folder of sojourn: it has no FORMAT file; name one with --data",
            dir.display()
        )));
    }
    let Found::Node(folder) = Folder::open(dir)? else {
        return Err(NodeError::Other(format!(
            "{} is an empty data folder: no node has begun there",
            dir.display()
        )));
    };
    let report = repair::inspect(dir).map_err(NodeError::Open)?;
    let mut checkpoints = stores::checkpoints(dir);
    let mut history = stores::history(dir);
    // a copy that is behind what was checkpointed has lost something, even if all of it can be read
    for (group, covered) in &checkpoints.covered {
        let Some(shard) = stores::shard_of(*group) else {
            continue;
        };
        let up_to = history.up_to.get(&shard).copied().unwrap_or(0);
        if up_to < *covered && history.checked() && checkpoints.damage.is_none() {
            history.damage.get_or_insert(format!(
                "it ends at entry {up_to} of shard {shard}, but was complete up to {covered}"
            ));
        }
    }
    if checkpoints.damage.is_none() && checkpoints.unchecked.is_none() {
        let known = history.up_to.keys().map(|n| GroupId::of_shard(ShardId(*n)));
        let missing = known.filter(|group| !checkpoints.covered.contains_key(&group.0));
        checkpoints.missing = missing.map(|group| group.to_string()).collect();
    }
    if checkpoints.damage.is_some() {
        checkpoints.covered.clear();
    }
    let log = log(&report, &checkpoints.covered);
    let whole = log.damage.is_none() && checkpoints.damage.is_none() && history.damage.is_none();
    let mendable = log.damage.as_ref().is_none_or(|d| d.can_be_cut) && history.damage.is_none();
    let findings = Findings {
        folder: dir.to_owned(),
        node: folder.node,
        whole,
        mendable,
        log,
        checkpoints,
        history,
        applied: Vec::new(),
    };
    Ok((folder, findings))
}

fn log(report: &Report, covered: &BTreeMap<u64, u64>) -> Log {
    let torn = report.files.iter().filter_map(|file| match file.rest {
        Rest::Torn { bytes } => Some(Torn {
            file: file.path.clone(),
            offset: file.good_bytes,
            bytes,
        }),
        _ => None,
    });
    let losses = report.losses.iter().map(|loss| Loss {
        group: loss.group.to_string(),
        // what a checkpoint covers is not needed from the log
        kept_to: loss.kept_to.max(covered.get(&loss.group.0).copied()),
        lost_to: loss.lost_to,
    });
    Log {
        files: report.files.len(),
        good_bytes: report.files.iter().map(|f| f.good_bytes).sum(),
        torn: if report.damage.is_none() {
            torn.collect()
        } else {
            Vec::new()
        },
        damage: report.damage.as_ref().map(|damage| LogDamage {
            file: damage.file.clone(),
            offset: damage.offset,
            what: damage.what.clone(),
            can_be_cut: damage.can_be_cut,
            losses: losses.collect(),
        }),
    }
}

/// Mends everything, or nothing.
fn apply(folder: &Folder, findings: &mut Findings) -> Result<(), NodeError> {
    if !findings.mendable {
        return Ok(());
    }
    if findings.log.damage.is_some() {
        let repaired = repair::apply(&folder.dir).map_err(NodeError::Open)?;
        findings.applied.push(format!(
            "the log was cut; what was cut off or changed is kept as {}",
            shown(&repaired.set_aside)
        ));
    }
    if findings.checkpoints.damage.is_some() {
        let from = folder.dir.join("checkpoints");
        let to = free_name(&from);
        std::fs::rename(&from, &to).map_err(|e| {
            NodeError::Open(OpenError::Io {
                what: "setting the checkpoints aside".into(),
                path: from.clone(),
                why: e.to_string(),
            })
        })?;
        findings.applied.push(format!(
            "the checkpoints were set aside as {}; the next start makes them anew",
            to.display()
        ));
    }
    Ok(())
}

fn free_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = |n: u32| path.with_file_name(format!("{name}.damaged-{n}"));
    // there are more numbers than files in any folder
    (1..)
        .map(named)
        .find(|to| !to.exists())
        .unwrap_or_else(|| named(0))
}

fn shown(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    shown.join(", ")
}

/// The findings for people.
fn text(found: &Findings) -> String {
    let mut out = String::new();
    // writing into a String cannot fail
    let _ = write(found, &mut out);
    out
}

fn write(found: &Findings, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "data folder {}, node {}",
        found.folder.display(),
        found.node
    )?;
    write_log(&found.log, out)?;
    let checkpoints = &found.checkpoints;
    write!(out, "checkpoints: ")?;
    match (&checkpoints.unchecked, &checkpoints.damage) {
        (Some(why), _) => writeln!(out, "not checked: {why}")?,
        (_, Some(what)) => writeln!(
            out,
            "damaged: {what}\n  they are set aside and made anew from history and log; nothing is lost"
        )?,
        (None, None) => writeln!(out, "whole, of {} groups", checkpoints.covered.len())?,
    }
    if !checkpoints.missing.is_empty() {
        writeln!(
            out,
            "  none of {}, although history knows of one: the next start makes them anew",
            checkpoints.missing.join(", ")
        )?;
    }
    let history = &found.history;
    write!(out, "history: ")?;
    match (&history.unchecked, &history.damage) {
        (Some(why), _) => writeln!(out, "not checked: {why}")?,
        (_, Some(what)) => writeln!(
            out,
            "damaged: {what}\n  timelines and receipts cannot be made anew on one node; restore the data folder from a copy"
        )?,
        (None, None) => writeln!(
            out,
            "whole, {} decisions in {} shards",
            history.records,
            history.up_to.len()
        )?,
    }
    for done in &found.applied {
        writeln!(out, "{done}")?;
    }
    if found.whole {
        writeln!(out, "nothing is damaged, and nothing was changed")
    } else if !found.applied.is_empty() {
        writeln!(out, "start the node again")
    } else if found.mendable {
        writeln!(
            out,
            "nothing was changed; keep a copy of the folder, then mend it with: sojourn repair --data {} --apply",
            found.folder.display()
        )
    } else {
        writeln!(
            out,
            "nothing was changed: this cannot be mended here; restore the data folder from a copy"
        )
    }
}

fn write_log(log: &Log, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "log: {} files, {} bytes of good records",
        log.files, log.good_bytes
    )?;
    for torn in &log.torn {
        writeln!(
            out,
            "  a torn record of {} bytes at the end of {}, offset {}: it was never acknowledged, and the next start cuts it",
            torn.bytes,
            torn.file.display(),
            torn.offset
        )?;
    }
    let Some(damage) = &log.damage else {
        return Ok(());
    };
    writeln!(
        out,
        "  damage in {}, offset {}: {}",
        damage.file.display(),
        damage.offset,
        damage.what
    )?;
    if !damage.can_be_cut {
        return writeln!(
            out,
            "  the log cannot be cut there: old entries that are still needed are damaged"
        );
    }
    writeln!(out, "  cutting the log there would lose:")?;
    for loss in damage.losses.iter().filter(|loss| !loss.nothing()) {
        let from = loss.kept_to.map_or(0, |kept| kept + 1);
        writeln!(
            out,
            "    {}: entries {from} to {} at least",
            loss.group, loss.lost_to
        )?;
    }
    writeln!(
        out,
        "    and whatever the damaged record itself held that no checkpoint covers"
    )
}
