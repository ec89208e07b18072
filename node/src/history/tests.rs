//! Damage in every file of a history whose data are in tables and in the journal.

use super::Record;
use super::store::Store;
use super::waiting::Waiting;
use sojourn_proto::stored;
use std::path::{Path, PathBuf};

const SHARDS: u16 = 2;
const CUSTOMERS: u64 = 60;
const DAY: u32 = 20_000;

/// Everything that can be read.
#[derive(Debug, PartialEq)]
struct Everything {
    marks: Vec<Option<u64>>,
    records: Vec<(u16, u64, u64, Vec<u8>)>,
    receipts: Vec<Option<(u64, u32)>>,
    catalog: Option<(Vec<u8>, Vec<u8>)>,
}

fn write(store: &Store, from: u64) {
    for shard in 0..SHARDS {
        let mut waiting = Waiting::default();
        for customer in 0..CUSTOMERS {
            let index = from + customer;
            let record = Record {
                index,
                sub: 0,
                bytes: format!("decision {index} of shard {shard}, customer {customer}").into(),
            };
            waiting.push(customer, record, Some(u128::from(index)));
        }
        let mark = stored::HistoryMark {
            up_to: from + CUSTOMERS,
            ..Default::default()
        };
        store
            .write(shard, DAY, &waiting.take(), &mark)
            .expect("writes");
    }
    store
        .write_catalog(b"a manifest", b"a catalog")
        .expect("writes");
}

fn read(dir: &Path) -> Result<Everything, super::Damaged> {
    let store = Store::open(dir)?;
    let mut all = Everything {
        marks: Vec::new(),
        records: Vec::new(),
        receipts: Vec::new(),
        catalog: store.catalog()?.map(|c| (c.manifest, c.state)),
    };
    store.check()?;
    for shard in 0..SHARDS {
        all.marks.push(store.mark(shard)?.map(|m| m.up_to));
        store.each_record(shard, |customer, record| {
            all.records
                .push((shard, customer, record.index, record.bytes.to_vec()));
            Ok(())
        })?;
        for index in 0..1_000 + CUSTOMERS {
            all.receipts.push(store.receipt(shard, u128::from(index))?);
        }
    }
    Ok(all)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes a folder");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}

fn damage(path: &Path, how: &str) {
    let mut bytes = std::fs::read(path).expect("reads");
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    match how {
        "gone" => return std::fs::remove_file(path).expect("removes"),
        "half" => bytes.truncate(used / 2),
        "empty" => bytes.clear(),
        _ => {
            let (every, from) = match how {
                "often" => (61, 30),
                "first" => (used, 0),
                "middle" => (used, used / 2),
                "last" => (used, used.saturating_sub(1)),
                _ => (used, used / 3),
            };
            for at in (from..used).step_by(every.max(1)) {
                bytes[at] ^= 0x10;
            }
        }
    }
    std::fs::write(path, bytes).expect("writes");
}

#[test]
fn damage_in_any_file_is_named_or_does_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let store = Store::open(&whole).expect("opens");
    write(&store, 1);
    store.to_tables().expect("flushes");
    write(&store, 1_000);
    drop(store);
    let before = read(&whole).expect("reads");
    assert_eq!(
        before.records.len() as u64,
        u64::from(SHARDS) * CUSTOMERS * 2
    );
    let mut named = 0;
    for file in files(&whole) {
        let name = file.strip_prefix(&whole).expect("is below");
        if std::fs::metadata(&file).expect("is there").len() == 0 {
            continue;
        }
        for how in [
            "gone", "half", "empty", "often", "first", "third", "middle", "last",
        ] {
            let dir = folder.path().join("damaged");
            copy_all(&whole, &dir);
            damage(&dir.join(name), how);
            match read(&dir) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.starts_with("history in ") && !text.contains('\n'),
                        "{text}"
                    );
                    named += 1;
                }
                Ok(after) if after == before => {}
                // an older state as a whole: the node compares the marks with its checkpoints
                Ok(after) => assert!(
                    after.marks.iter().zip(&before.marks).all(|(a, b)| a < b),
                    "{} {how}: something is missing, and the marks do not tell: {after:?}",
                    name.display()
                ),
            }
            std::fs::remove_dir_all(&dir).expect("removes");
        }
    }
    assert!(named > 40, "{named} were named");
}
