//! What goes wrong with the history's files: found before they are opened, or by fjall, which reports some damage by
//! panicking. Knows nothing of what is stored.

use parking_lot::Mutex;
use sojourn_cluster::Failure;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// The history cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    dir: PathBuf,
    doing: String,
    why: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Damaged,
    Locked,
    Refused,
    Full,
}

impl std::error::Error for Damaged {}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "history in {}: {} failed: {}; {}",
            self.dir.display(),
            self.doing,
            self.why,
            self.todo()
        )
    }
}

impl Damaged {
    /// What the operator can do.
    pub fn todo(&self) -> &'static str {
        match self.kind {
            Kind::Damaged => {
                "timelines and receipts are read from it: see with `sojourn repair` what is damaged, then restore the \
                 data folder from a copy"
            }
            Kind::Locked => "another process has it open: stop that one first",
            Kind::Refused => {
                "check the folder's permissions, the disk and the kernel's log, then start the node again"
            }
            Kind::Full => {
                "the disk is full: free some space, then start the node again; nothing that was acknowledged is lost"
            }
        }
    }

    /// What was being done, and what was found.
    pub fn what(&self) -> String {
        format!("{}: {}", self.doing, self.why)
    }
}

/// Guards the calls of one store, and remembers what makes it unusable.
pub(super) struct Faults {
    /// `None`: there are no files, in a simulated world.
    dir: Option<PathBuf>,
    failed: watch::Sender<Option<Failure>>,
    condemned: Mutex<Option<Damaged>>,
}

impl Faults {
    pub(super) fn new(dir: Option<&Path>) -> Faults {
        Faults {
            dir: dir.map(Path::to_owned),
            failed: watch::channel(None).0,
            condemned: Mutex::default(),
        }
    }

    pub(super) fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.failed.subscribe()
    }

    pub(super) fn condemn(&self, why: String) {
        let damaged = self.damaged("comparing it with log and checkpoints", why);
        self.condemned.lock().get_or_insert(damaged);
    }

    pub(super) fn sound(&self) -> Result<(), Damaged> {
        self.condemned.lock().clone().map_or(Ok(()), Err)
    }

    pub(super) fn damaged(&self, doing: &str, why: String) -> Damaged {
        Damaged {
            dir: self.dir.clone().unwrap_or_else(|| PathBuf::from("memory")),
            doing: doing.to_owned(),
            why,
            kind: Kind::Damaged,
        }
    }

    /// Calls fjall to read.
    pub(super) fn reading<T>(
        &self,
        doing: &str,
        call: impl FnOnce() -> fjall::Result<T>,
    ) -> Result<T, Damaged> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Damaged {
                kind: kind(&error),
                ..self.damaged(doing, text(&error))
            }),
            Err(panic) => {
                // one line: an assertion of fjall shows both sides below one another
                let why = crate::shard::apply::panic_text(panic.as_ref())
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                Err(self.damaged(doing, why))
            }
        }
    }

    /// Calls fjall to write. After a failure nobody knows what the files hold, so it is the last call.
    pub(super) fn writing<T>(
        &self,
        doing: &str,
        call: impl FnOnce() -> fjall::Result<T>,
    ) -> Result<T, Damaged> {
        if let Some(failure) = &*self.failed.borrow() {
            return Err(self.damaged(doing, failure.what.clone()));
        }
        self.reading(doing, call).map_err(|mut damaged| {
            if damaged.kind == Kind::Damaged {
                // fjall says no more than that an earlier write of its own thread failed
                damaged.kind = match self.dir.as_deref().and_then(free_bytes) {
                    Some(free) if free < NEARLY_FULL => Kind::Full,
                    _ => Kind::Refused,
                };
            }
            let failure = Failure {
                what: format!("writing history ({doing}): {}", damaged.why),
                where_: damaged.dir.display().to_string(),
                todo: damaged.todo().to_owned(),
            };
            tracing::error!(%failure, "history cannot be written; this node stops");
            self.failed.send_replace(Some(failure));
            damaged
        })
    }
}

/// Less than one of fjall's tables: then a failure that does not say why was most likely a full disk.
const NEARLY_FULL: u64 = 1 << 20;

fn free_bytes(dir: &Path) -> Option<u64> {
    crate::folder::free_bytes(dir)
}

/// What the operating system said, or else fjall.
fn text(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io.to_string(),
        other => other.to_string(),
    }
}

fn kind(error: &fjall::Error) -> Kind {
    use std::io::ErrorKind as E;
    let io = match error {
        fjall::Error::Locked => return Kind::Locked,
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
        _ => return Kind::Damaged,
    };
    match io.kind() {
        E::StorageFull | E::QuotaExceeded => Kind::Full,
        E::InvalidData | E::UnexpectedEof | E::NotFound | E::InvalidInput => Kind::Damaged,
        _ => Kind::Refused,
    }
}

/// The file that lists the keyspaces, one a line behind [`LIST_HEAD`]: fjall forgets one whose files are lost.
const LIST: &str = "keyspaces.list";
const LIST_HEAD: &str = "sojourn keyspaces 1";

/// The keyspaces that there must be; empty before there was a list.
pub(super) fn listed(dir: &Path) -> Result<BTreeSet<String>, Damaged> {
    let faults = Faults::new(Some(dir));
    let doing = "reading the list of its keyspaces";
    let path = dir.join(LIST);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(faults.damaged(doing, e.to_string())),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if lines.next() != Some(LIST_HEAD) {
        let why = format!("{} does not begin with {LIST_HEAD:?}", path.display());
        return Err(faults.damaged(doing, why));
    }
    Ok(lines.map(str::to_owned).collect())
}

impl Faults {
    /// Makes a list of keyspaces durable.
    pub(super) fn list(&self, names: &BTreeSet<String>) -> Result<(), Damaged> {
        let Some(dir) = &self.dir else {
            return Ok(());
        };
        self.writing("writing the list of its keyspaces", || {
            let part = dir.join(format!("{LIST}.part"));
            let mut file = File::create(&part)?;
            writeln!(file, "{LIST_HEAD}")?;
            for name in names {
                writeln!(file, "{name}")?;
            }
            file.sync_all()?;
            std::fs::rename(&part, dir.join(LIST))?;
            File::open(dir)?.sync_all()?;
            Ok(())
        })
    }

    /// All of `names` must be there.
    pub(super) fn complete<'a>(
        &self,
        names: &BTreeSet<String>,
        found: impl Iterator<Item = &'a str>,
    ) -> Result<(), Damaged> {
        let found: BTreeSet<&str> = found.collect();
        match names.iter().find(|name| !found.contains(name.as_str())) {
            Some(lost) => {
                Err(self.damaged("looking for its keyspaces", format!("{lost:?} is missing")))
            }
            None => Ok(()),
        }
    }
}

/// Looks at the files before fjall does: it takes a missing journal for an empty one, and removes tables that it knows
/// nothing of.
pub(super) fn precheck(dir: &Path) -> Result<(), Damaged> {
    let faults = Faults::new(Some(dir));
    let doing = "looking at its files";
    let refused = |e: std::io::Error| Damaged {
        kind: Kind::Refused,
        ..faults.damaged(doing, e.to_string())
    };
    if !dir.exists() {
        return Ok(());
    }
    let mut journals = 0;
    let mut others = false;
    for entry in std::fs::read_dir(dir).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path.extension().is_some_and(|e| e == "jnl") {
            journals += 1;
        } else if path.file_name().is_some_and(|name| name != "lock") {
            others = true;
        }
    }
    if !others && journals == 0 {
        return Ok(());
    }
    let keyspaces = dir.join("keyspaces");
    listed(dir)?;
    if journals == 0 || !dir.join("version").exists() || !keyspaces.exists() {
        let missing = if journals == 0 {
            "its journal"
        } else if keyspaces.exists() {
            "the file version"
        } else {
            "the folder keyspaces"
        };
        return Err(faults.damaged(doing, format!("{missing} is missing")));
    }
    let meta = keyspaces.join("0").join("current");
    if !meta.exists() {
        return Err(faults.damaged(doing, format!("{} is missing", meta.display())));
    }
    for entry in std::fs::read_dir(&keyspaces).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        let number = path.file_name().and_then(|n| n.to_str());
        if path.is_dir() && number.and_then(|n| n.parse::<u64>().ok()).is_none() {
            return Err(faults.damaged(doing, format!("{} is no keyspace", path.display())));
        }
        let tables =
            std::fs::read_dir(path.join("tables")).is_ok_and(|mut tables| tables.next().is_some());
        if tables && !path.join("current").exists() {
            let why = format!("{} is missing", path.join("current").display());
            return Err(faults.damaged(doing, why));
        }
    }
    Ok(())
}
