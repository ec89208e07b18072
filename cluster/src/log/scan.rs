//! Reads raft-engine's files record by record, to tell a torn end from damage.
//!
//! Knows the layout of raft-engine's files (version 2, not aligned, not recycled) and nothing of what records hold but
//! which groups and indexes. Never writes, except to cut a torn end.

use crate::error::{OpenError, todo};
use crate::id::GroupId;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// Magic, version, alignment.
const FILE_HEADER: usize = MAGIC.len() + 16;
const RECORD_HEADER: usize = 16;
const CHECKSUM: usize = 4;

/// The end of the last file of a log that a crash tore; it was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: PathBuf,
    /// Where the good records end.
    pub offset: u64,
    /// How many bytes of a torn record were cut (space that was only reserved is not counted).
    pub bytes: u64,
}

/// Which of raft-engine's two rows of files a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// New records.
    Append,
    /// Old records that were still needed, written again.
    Rewrite,
}

/// What was found in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileScan {
    /// The file.
    pub path: PathBuf,
    /// Its row.
    pub row: Row,
    /// Its number in the row.
    pub number: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where the good records from the start end.
    pub good_bytes: u64,
    /// The last index of each group in the good records.
    pub last: BTreeMap<GroupId, u64>,
    /// What was found behind them.
    pub rest: Rest,
}

/// What lies behind the good records of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Zeros: space that was reserved and not used.
    Reserved,
    /// One broken record and nothing good behind it.
    Torn {
        /// Up to the last byte that is not zero.
        bytes: u64,
    },
    /// A broken record, and good ones behind it.
    Damaged {
        /// Where the next good record begins.
        next_good: u64,
        /// The last index of each group in what is behind.
        last: BTreeMap<GroupId, u64>,
    },
}

struct Record {
    bytes: usize,
    last: BTreeMap<GroupId, u64>,
}

/// Reads one record at `offset`; `None` when there is no whole one.
fn record(data: &[u8], offset: usize, number: u64) -> Option<Record> {
    let head = data.get(offset..offset + RECORD_HEADER)?;
    let length_and_type = u64::from_be_bytes(head[..8].try_into().ok()?);
    let footer_at = usize::try_from(u64::from_be_bytes(head[8..].try_into().ok()?)).ok()?;
    let bytes = usize::try_from(length_and_type >> 8).ok()?;
    if length_and_type & 0xff > 1
        || footer_at < RECORD_HEADER
        || footer_at.checked_add(CHECKSUM)? >= bytes
    {
        return None;
    }
    let whole = data.get(offset..offset.checked_add(bytes)?)?;
    let footer = &whole[footer_at..];
    // The low half of the file's number is mixed in, so that a record of another file does not pass.
    if check_sum(footer)? ^ (number & 0xffff_ffff) as u32 != stored_sum(footer)? {
        return None;
    }
    let entries = &whole[RECORD_HEADER..footer_at];
    if !entries.is_empty() && check_sum(entries)? != stored_sum(entries)? {
        return None;
    }
    let mut last = BTreeMap::new();
    last_indexes(&footer[..footer.len() - CHECKSUM], &mut last)?;
    Some(Record { bytes, last })
}

fn check_sum(block: &[u8]) -> Option<u32> {
    Some(crc32fast::hash(
        block.get(..block.len().checked_sub(CHECKSUM)?)?,
    ))
}

fn stored_sum(block: &[u8]) -> Option<u32> {
    let at = block.len().checked_sub(CHECKSUM)?;
    Some(u32::from_le_bytes(block[at..].try_into().ok()?))
}

/// Reads the list of items in a record's footer and notes the last index that each group gets.
fn last_indexes(mut footer: &[u8], last: &mut BTreeMap<GroupId, u64>) -> Option<()> {
    let count = number(&mut footer)?;
    for _ in 0..count {
        let group = number(&mut footer)?.checked_sub(1).map(GroupId);
        match byte(&mut footer)? {
            1 => {
                let entries = number(&mut footer)?;
                if entries > 0 {
                    let first = number(&mut footer)?;
                    for _ in 0..entries {
                        number(&mut footer)?;
                    }
                    last.insert(group?, first.checked_add(entries - 1)?);
                }
            }
            2 => {
                if byte(&mut footer)? == 2 {
                    number(&mut footer)?;
                }
            }
            3 => {
                let put = byte(&mut footer)? == 1;
                for _ in 0..if put { 2 } else { 1 } {
                    let length = usize::try_from(number(&mut footer)?).ok()?;
                    footer = footer.get(length..)?;
                }
            }
            _ => return None,
        }
    }
    Some(())
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The files of a log, in order.
pub(crate) fn files(dir: &Path) -> Result<Vec<(Row, u64, PathBuf)>, OpenError> {
    let listed =
        std::fs::read_dir(dir).map_err(|e| OpenError::io("listing the log folder", dir, e))?;
    let mut found = Vec::new();
    for entry in listed {
        let path = entry
            .map_err(|e| OpenError::io("listing the log folder", dir, e))?
            .path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        let (Some(digits), Some(suffix)) = (name.get(..16), name.get(16..)) else {
            continue;
        };
        let row = match suffix {
            ".raftlog" => Row::Append,
            ".rewrite" => Row::Rewrite,
            _ => continue,
        };
        if let Ok(number) = digits.parse() {
            found.push((row, number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether this is the header of a file as this crate has them written: version 2, not aligned.
fn is_header(header: &[u8]) -> bool {
    header
        .strip_prefix(MAGIC)
        .is_some_and(|rest| rest[..8] == 2_u64.to_be_bytes() && rest[8..] == [0; 8])
}

/// Reads one file through.
pub(crate) fn file(row: Row, number: u64, path: &Path) -> Result<FileScan, OpenError> {
    let data = std::fs::read(path).map_err(|e| OpenError::io("reading the log", path, e))?;
    let mut good = 0;
    let mut last = BTreeMap::new();
    if data.get(..FILE_HEADER).is_some_and(is_header) {
        good = FILE_HEADER;
        while let Some(found) = record(&data, good, number) {
            good += found.bytes;
            last.extend(found.last);
        }
    }
    let rest = rest(&data, good, number);
    Ok(FileScan {
        path: path.to_owned(),
        row,
        number,
        bytes: data.len() as u64,
        good_bytes: good as u64,
        last,
        rest,
    })
}

fn rest(data: &[u8], good: usize, number: u64) -> Rest {
    if good == data.len() {
        return Rest::Nothing;
    }
    let Some(end) = data[good..]
        .iter()
        .rposition(|b| *b != 0)
        .map(|at| good + at + 1)
    else {
        return Rest::Reserved;
    };
    let mut at = good + 1;
    let mut next_good = None;
    let mut last = BTreeMap::new();
    // A good record begins with the high bytes of its length, which are zero for anything below 4 GiB.
    while at + RECORD_HEADER < end {
        match record(data, at, number) {
            Some(found) => {
                next_good.get_or_insert(at as u64);
                last.extend(found.last);
                at += found.bytes;
            }
            None => at += 1,
        }
    }
    match next_good {
        Some(next_good) => Rest::Damaged { next_good, last },
        None => Rest::Torn {
            bytes: (end - good) as u64,
        },
    }
}

/// Cuts what a crash left behind the last good record of each row's last file.
///
/// # Errors
/// [`OpenError::Damaged`] when good records lie behind a broken one; nothing is changed then.
pub(crate) fn cut_torn_tail(dir: &Path) -> Result<Vec<TornTail>, OpenError> {
    let files = files(dir)?;
    // raft-engine would leave out everything before a missing file, without a word.
    for pair in files.windows(2) {
        if let [(row, number, _), (next_row, next, path)] = pair
            && row == next_row
            && number + 1 != *next
        {
            return Err(OpenError::Damaged {
                what: format!("log file {} is missing", number + 1),
                where_: format!("before {}", path.display()),
                consequence: "entries in it may be needed, so this node's replicas stay closed"
                    .to_owned(),
                todo: todo(
                    "put the file back, or see with `sojourn repair` what would be lost without it",
                ),
            });
        }
    }
    let follows = |row, number| files.iter().any(|(r, n, _)| *r == row && *n < number);
    let mut torn = Vec::new();
    for row in [Row::Append, Row::Rewrite] {
        let Some((_, number, path)) = files.iter().rev().find(|(r, ..)| *r == row) else {
            continue;
        };
        let scan = file(row, *number, path)?;
        let bytes = match scan.rest {
            // made, and then the disk was full; where it is all that there is, it may have been emptied
            Rest::Nothing if scan.bytes == 0 && follows(row, *number) => 0,
            Rest::Nothing => continue,
            Rest::Reserved => 0,
            Rest::Torn { bytes } => bytes,
            Rest::Damaged { .. } => return Err(file_damaged(&scan)),
        };
        if scan.good_bytes == 0 {
            // The header is synced before the first record, so this file never held any: unless it is all of the log.
            if bytes as usize > FILE_HEADER {
                return Err(file_damaged(&scan));
            }
            std::fs::remove_file(path)
                .map_err(|e| OpenError::io("removing an unfinished log file", path, e))?;
        } else {
            cut(path, scan.good_bytes)?;
        }
        if bytes > 0 {
            tracing::warn!(file = %path.display(), offset = scan.good_bytes, bytes, "cut a torn record at the end of the log");
            torn.push(TornTail {
                file: path.clone(),
                offset: scan.good_bytes,
                bytes,
            });
        }
    }
    if !torn.is_empty() {
        sync(dir)?;
    }
    Ok(torn)
}

pub(crate) fn cut(path: &Path, bytes: u64) -> Result<(), OpenError> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| OpenError::io("opening a log file", path, e))?;
    file.set_len(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|e| OpenError::io("cutting a log file", path, e))
}

/// Makes a file, or the list of a folder's files, durable.
pub(crate) fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| OpenError::io("syncing", path, e))
}

/// Names the first damage in `dir`, for an engine that only said `why`.
pub(crate) fn damaged(dir: &Path, why: &str) -> OpenError {
    let scans = files(dir).and_then(|files| {
        files
            .iter()
            .map(|(row, n, path)| file(*row, *n, path))
            .collect()
    });
    let scans: Vec<FileScan> = match scans {
        Ok(scans) => scans,
        Err(e) => return e,
    };
    match scans.iter().find(|scan| scan.rest != Rest::Nothing) {
        Some(scan) => file_damaged(scan),
        None => OpenError::Damaged {
            what: format!("the log's files are whole, but they do not fit together ({why})"),
            where_: dir.display().to_string(),
            consequence: "this node's replicas stay closed".to_owned(),
            todo: todo("put back missing files, or restore the folder from a copy"),
        },
    }
}

fn file_damaged(scan: &FileScan) -> OpenError {
    let behind = match &scan.rest {
        Rest::Damaged { next_good, .. } => {
            format!(", and good records follow at offset {next_good}")
        }
        _ => String::new(),
    };
    OpenError::Damaged {
        what: format!("a damaged record in the log{behind}"),
        where_: format!("{}, offset {}", scan.path.display(), scan.good_bytes),
        consequence:
            "what was acknowledged after it cannot be read, so this node's replicas stay closed"
                .to_owned(),
        todo: todo("`sojourn repair` shows what would be lost and can cut the log there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_only_made_is_taken_away_unless_it_is_all() {
        let folder = tempfile::tempdir().unwrap();
        let made = |number: u64| folder.path().join(format!("{number:016}.raftlog"));
        let mut header = MAGIC.to_vec();
        header.extend(2_u64.to_be_bytes());
        header.extend([0; 8]);
        assert!(is_header(&header));
        std::fs::write(made(1), &header).unwrap();
        std::fs::write(made(2), b"").unwrap();
        assert_eq!(cut_torn_tail(folder.path()).unwrap().len(), 0);
        assert!(made(1).exists() && !made(2).exists());
        // one without a record stays
        assert_eq!(cut_torn_tail(folder.path()).unwrap().len(), 0);
        assert_eq!(std::fs::read(made(1)).unwrap(), header);
        // emptied, it is not taken for a log that was never begun
        std::fs::write(made(1), b"").unwrap();
        assert_eq!(cut_torn_tail(folder.path()).unwrap().len(), 0);
        assert!(made(1).exists());
    }

    #[test]
    fn bytes_that_only_look_like_a_record_are_none() {
        // A length of 64, a type that there is, and a footer that would lie beyond every address.
        for footer_at in [u64::MAX, u64::MAX - 3, u64::MAX - CHECKSUM as u64, 60, 0] {
            let mut data = vec![0xab; 64];
            data[..8].copy_from_slice(&(64_u64 << 8).to_be_bytes());
            data[8..16].copy_from_slice(&footer_at.to_be_bytes());
            assert!(record(&data, 0, 1).is_none(), "footer at {footer_at}");
            assert_eq!(rest(&data, 0, 1), Rest::Torn { bytes: 64 });
        }
    }
}
