//! What is left of a damaged log, what cutting it would lose, and the cutting.
//!
//! Only for a node that is stopped. It reads files, not groups: what a lost entry meant it cannot say.

use crate::error::{OpenError, todo};
use crate::id::GroupId;
use crate::log::engine::check_lock;
use crate::log::scan::{self, FileScan, Rest, Row};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The first place in a log that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where its good records end.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// Whether cutting the log there leaves a log. If not, only a copy or the peers help.
    pub can_be_cut: bool,
}

/// What cutting the log would take from one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The group.
    pub group: GroupId,
    /// Its last entry that stays in the log's files; `None` when none does.
    pub kept_to: Option<u64>,
    /// Its last entry that was found behind the damage; entries within the damage itself cannot be counted.
    pub lost_to: u64,
}

/// What [`inspect`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every file of the log, in order.
    pub files: Vec<FileScan>,
    /// The first damage, if there is any. A torn end of the last file is none: opening cuts it.
    pub damage: Option<Damage>,
    /// What cutting there would lose, by group.
    pub losses: Vec<Loss>,
}

/// What [`apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Copies of what was changed, and files that are no longer part of the log.
    pub set_aside: Vec<PathBuf>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: u64 = self.files.iter().map(|file| file.good_bytes).sum();
        writeln!(
            f,
            "{} log files, {bytes} bytes of good records",
            self.files.len()
        )?;
        let Some(damage) = &self.damage else {
            return writeln!(f, "no damage");
        };
        writeln!(
            f,
            "damage in {}, offset {}: {}",
            damage.file.display(),
            damage.offset,
            damage.what
        )?;
        if !damage.can_be_cut {
            let todo = todo("restore the data folder from a copy");
            return writeln!(f, "the log cannot be cut there; {todo}");
        }
        writeln!(f, "cutting the log there would lose:")?;
        for loss in &self.losses {
            let from = loss.kept_to.map_or(0, |kept| kept + 1);
            writeln!(
                f,
                "  {}: entries {from} to {} at least",
                loss.group, loss.lost_to
            )?;
        }
        writeln!(f, "  and whatever the damaged record itself held")?;
        writeln!(f, "{}", todo("the log can be cut there"))
    }
}

/// Reads all of the log in the data folder `dir`, and changes nothing.
///
/// # Errors
/// The folder is in use, or the file system refused.
pub fn inspect(dir: &Path) -> Result<Report, OpenError> {
    let log = dir.join("log");
    check_lock(&log)?;
    let mut files = Vec::new();
    for (row, number, path) in scan::files(&log)? {
        files.push(scan::file(row, number, &path)?);
    }
    let found = first_damage(&files);
    let losses = match &found {
        Some((at, damage)) if damage.can_be_cut => losses(&files, *at),
        _ => Vec::new(),
    };
    Ok(Report {
        losses,
        damage: found.map(|(_, damage)| damage),
        files,
    })
}

/// The first damage and the index of its file.
fn first_damage(files: &[FileScan]) -> Option<(usize, Damage)> {
    // What was written again has no second copy, so it comes first.
    for row in [Row::Rewrite, Row::Append] {
        let of_row: Vec<(usize, &FileScan)> = files
            .iter()
            .enumerate()
            .filter(|(_, f)| f.row == row)
            .collect();
        for (place, (index, file)) in of_row.iter().enumerate() {
            let can_be_cut = row == Row::Append;
            let damage = |what: String, can_be_cut: bool| Damage {
                file: file.path.clone(),
                offset: file.good_bytes,
                what,
                can_be_cut,
            };
            if let Some((_, before)) = place.checked_sub(1).and_then(|p| of_row.get(p))
                && before.number + 1 != file.number
            {
                let what = format!("file {} is missing before it", before.number + 1);
                // What is before the gap stays; but this file would be the first to go.
                return Some((
                    *index,
                    Damage {
                        offset: 0,
                        ..damage(what, can_be_cut)
                    },
                ));
            }
            let last = place + 1 == of_row.len();
            let what = match &file.rest {
                Rest::Nothing => continue,
                Rest::Reserved | Rest::Torn { .. } if last => continue,
                Rest::Reserved => "zeros where records should be".to_owned(),
                Rest::Torn { bytes } => {
                    format!("{bytes} bytes that are no record, in a file that was finished")
                }
                Rest::Damaged { next_good, .. } => {
                    format!("no record, but good ones from offset {next_good} on")
                }
            };
            return Some((*index, damage(what, can_be_cut)));
        }
    }
    None
}

fn losses(files: &[FileScan], at: usize) -> Vec<Loss> {
    let mut kept: BTreeMap<GroupId, u64> = BTreeMap::new();
    let mut lost: BTreeMap<GroupId, u64> = BTreeMap::new();
    let missing_before = at > 0
        && files[at - 1].row == files[at].row
        && files[at - 1].number + 1 != files[at].number;
    for (index, file) in files.iter().enumerate() {
        let stays = file.row == Row::Rewrite || index < at || (index == at && !missing_before);
        let into = if stays { &mut kept } else { &mut lost };
        into.extend(file.last.iter().map(|(group, last)| (*group, *last)));
        if file.row == Row::Append
            && index >= at
            && let Rest::Damaged { last, .. } = &file.rest
        {
            lost.extend(last.iter().map(|(group, last)| (*group, *last)));
        }
    }
    lost.into_iter()
        .filter(|(group, last)| kept.get(group).is_none_or(|kept| kept < last))
        .map(|(group, lost_to)| Loss {
            group,
            kept_to: kept.get(&group).copied(),
            lost_to,
        })
        .collect()
}

/// Cuts the log at its first damage. What is cut is kept beside the log, renamed.
///
/// # Errors
/// Nothing to cut; damage that cannot be cut; the folder is in use; the file system refused.
pub fn apply(dir: &Path) -> Result<Repaired, OpenError> {
    let report = inspect(dir)?;
    let Some(damage) = report.damage else {
        return Err(OpenError::Config {
            name: "repair".to_owned(),
            why: format!(
                "the log in {} is whole, there is nothing to repair",
                dir.display()
            ),
        });
    };
    if !damage.can_be_cut {
        return Err(OpenError::Damaged {
            what: damage.what,
            where_: format!("{}, offset {}", damage.file.display(), damage.offset),
            consequence:
                "old entries that are still needed are damaged, and nothing before them would help"
                    .to_owned(),
            todo: todo("restore the data folder from a copy"),
        });
    }
    let mut set_aside = Vec::new();
    let append: Vec<&FileScan> = report
        .files
        .iter()
        .filter(|f| f.row == Row::Append)
        .collect();
    let first = append
        .iter()
        .position(|f| f.path == damage.file)
        .unwrap_or(append.len());
    // The newest first, the cut last: until then the damage is still there to be found, should this be interrupted.
    for (place, file) in append.iter().enumerate().skip(first).rev() {
        let aside = free_name(&file.path);
        if place == first && damage.offset > 0 {
            std::fs::copy(&file.path, &aside)
                .map_err(|e| OpenError::io("copying a damaged log file", &file.path, e))?;
            scan::sync(&aside)?;
            scan::cut(&file.path, file.good_bytes)?;
        } else {
            std::fs::rename(&file.path, &aside)
                .map_err(|e| OpenError::io("setting a log file aside", &file.path, e))?;
        }
        set_aside.push(aside);
    }
    scan::sync(&dir.join("log"))?;
    set_aside.reverse();
    Ok(Repaired { set_aside })
}

fn free_name(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("log");
    let named = |n: u32| path.with_file_name(format!("{name}.damaged-{n}"));
    // There are more numbers than files in any folder.
    (1..)
        .map(named)
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| named(0))
}
