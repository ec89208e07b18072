//! Checkpoints and history, read through in a copy: opening either of them writes.

use crate::folder::free_bytes;
use crate::history::Store;
use serde::Serialize;
use sojourn_cluster::format::decode_manifest;
use sojourn_cluster::{CheckpointStore, GroupId, HostConfig, open_checkpoints};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The catalog, and as many shards as there may be.
const GROUPS: u64 = 1_025;

/// What is wrong with the checkpoints.
#[derive(Debug, Default, Serialize)]
pub(super) struct Checkpoints {
    pub damage: Option<String>,
    /// Why they were not looked at.
    pub unchecked: Option<String>,
    /// Groups without one although history knows of one: they are made anew.
    pub missing: Vec<String>,
    /// Up to which entry each group's checkpoint goes, by the group's number.
    pub covered: BTreeMap<u64, u64>,
}

/// What is wrong with the history.
#[derive(Debug, Default, Serialize)]
pub(super) struct History {
    pub damage: Option<String>,
    /// Why it was not looked at.
    pub unchecked: Option<String>,
    /// How many decisions it has.
    pub records: u64,
    /// Up to which entry it goes, by shard.
    pub up_to: BTreeMap<u16, u64>,
}

impl History {
    pub(super) fn checked(&self) -> bool {
        self.unchecked.is_none() && self.damage.is_none()
    }
}

pub(super) fn shard_of(group: u64) -> Option<u16> {
    GroupId(group).shard().map(|shard| shard.0)
}

/// Reads all checkpoints in a data folder.
pub(super) fn checkpoints(dir: &Path) -> Checkpoints {
    let mut found = Checkpoints::default();
    match copy(dir, "checkpoints") {
        Ok(None) => {}
        Ok(Some(temporary)) => {
            let read = read_checkpoints(temporary.path(), &mut found.covered);
            found.damage = read.err();
        }
        Err(why) => found.unchecked = Some(why),
    }
    found
}

fn read_checkpoints(dir: &Path, covered: &mut BTreeMap<u64, u64>) -> Result<(), String> {
    let config = HostConfig {
        dir: dir.to_owned(),
        ..HostConfig::default()
    };
    let (store, aside) = open_checkpoints(&config).map_err(|e| e.to_string())?;
    if let Some(aside) = aside {
        return Err(aside.why);
    }
    for group in (0..GROUPS).map(GroupId) {
        read_checkpoint(&*store, group, covered).map_err(|why| format!("{group}: {why}"))?;
    }
    Ok(())
}

fn read_checkpoint(
    store: &dyn CheckpointStore,
    group: GroupId,
    covered: &mut BTreeMap<u64, u64>,
) -> Result<(), String> {
    let Some(manifest) = store.manifest(group).map_err(|e| e.what)? else {
        return Ok(());
    };
    let manifest = decode_manifest(&manifest).map_err(|e| e.to_string())?;
    for generation in &manifest.generations {
        let (mut chunks, mut crc) = (0, 0);
        store
            .read_chunks(group, generation.number, &mut |_, chunk| {
                chunks += 1;
                crc = crc32c::crc32c_append(crc, chunk);
                Ok(())
            })
            .map_err(|e| e.what)?;
        if chunks != generation.chunks {
            return Err(format!(
                "generation {} has {chunks} chunks, expected {}",
                generation.number, generation.chunks
            ));
        }
        if crc != generation.crc {
            return Err(format!(
                "generation {} does not match its check sum",
                generation.number
            ));
        }
    }
    if let Some(position) = manifest.cover.and_then(|cover| cover.at) {
        covered.insert(group.0, position.index);
    }
    Ok(())
}

/// Reads all of the history in a data folder.
pub(super) fn history(dir: &Path) -> History {
    let mut found = History::default();
    match copy(dir, "history") {
        Ok(None) => {}
        Ok(Some(temporary)) => {
            if let Err(error) = read_history(&temporary.path().join("history"), &mut found) {
                found.damage = Some(error.what());
            }
        }
        Err(why) => found.unchecked = Some(why),
    }
    found
}

fn read_history(dir: &Path, found: &mut History) -> Result<(), crate::history::Damaged> {
    let store = Store::open(dir)?;
    store.catalog()?;
    for shard in store.shards()? {
        if let Some(mark) = store.mark(shard)? {
            found.up_to.insert(shard, mark.up_to);
        }
        store.each_record(shard, |_, _| {
            found.records += 1;
            Ok(())
        })?;
    }
    store.check()
}

/// Copies one folder of the data folder into a temporary one; `None` when it is not there.
fn copy(dir: &Path, name: &str) -> Result<Option<TempDir>, String> {
    let from = dir.join(name);
    if !from.exists() {
        return Ok(None);
    }
    let temporary = tempfile::Builder::new()
        .prefix("sojourn-repair-")
        .tempdir()
        .map_err(|e| format!("no temporary folder: {e}"))?;
    let unread = |e: std::io::Error| format!("{} cannot be copied: {e}", from.display());
    let bytes = used_bytes(&from).map_err(unread)?;
    if free_bytes(temporary.path()).is_some_and(|free| free < bytes) {
        return Err(format!(
            "a copy of {} takes {bytes} bytes, more than is free in {}; name another folder with TMPDIR",
            from.display(),
            std::env::temp_dir().display()
        ));
    }
    copy_all(&from, &temporary.path().join(name)).map_err(unread)?;
    Ok(Some(temporary))
}

fn used_bytes(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            used_bytes(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
