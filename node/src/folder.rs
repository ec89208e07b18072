//! The data folder: `FORMAT cluster-id node-id log-begun lock log/ checkpoints/ history/`.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The format that this version writes and reads.
const FORMAT: &str = "sojourn 1";

/// There once the node's log holds something.
const LOG_BEGUN: &str = "log-begun";

/// An open data folder; nobody else can open it meanwhile.
pub struct Folder {
    /// Where it is.
    pub dir: PathBuf,
    /// The cluster that its data belongs to.
    pub cluster: String,
    /// This node's id, never used again once lost.
    pub node: u64,
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("data folder {}: {why}", dir.display())]
pub struct FolderError {
    dir: PathBuf,
    why: String,
    /// Somebody has it open.
    pub locked: bool,
    /// What it holds cannot be used, or using it is not safe.
    pub data: bool,
}

/// What a first start leaves when it ends before the folder is whole.
const BEGUN: [&str; 8] = [
    "lock",
    "join-token",
    "join-token.part",
    "cluster-id",
    "cluster-id.part",
    "node-id",
    "node-id.part",
    "FORMAT.part",
];

/// A data folder that nobody else can open meanwhile.
pub enum Found {
    /// It belongs to a node.
    Node(Folder),
    /// It belongs to nobody yet.
    New(NewFolder),
}

/// An empty data folder.
pub struct NewFolder {
    dir: PathBuf,
    lock: File,
}

impl NewFolder {
    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// 16 random bytes by which a request to join is known when it is repeated, also after a crash.
    ///
    /// # Errors
    /// They cannot be written or read.
    pub fn join_token(&self) -> Result<Vec<u8>, FolderError> {
        let fail = |why: String| fail(&self.dir, why);
        let path = self.dir.join("join-token");
        if !path.exists() {
            let written = write_durably(&self.dir, "join-token", &uuid());
            written.map_err(|e| fail(cannot_write(&e)))?;
        }
        let text = read_text(&path).map_err(fail)?;
        let token = hex::decode(&text).ok().filter(|token| token.len() == 16);
        token.ok_or_else(|| {
            fail(format!(
                "the file join-token holds {text:?}, expected 32 hexadecimal digits; remove it"
            ))
        })
    }

    /// Makes it the folder of a node of a cluster; without one, of a new cluster.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(self, cluster: Option<String>, node: u64) -> Result<Folder, FolderError> {
        let dir = self.dir;
        let writing = |e: std::io::Error| fail(&dir, cannot_write(&e));
        let cluster = cluster.unwrap_or_else(uuid);
        write_durably(&dir, "cluster-id", &cluster).map_err(writing)?;
        write_durably(&dir, "node-id", &node.to_string()).map_err(writing)?;
        // last: a folder with it is whole
        write_durably(&dir, "FORMAT", FORMAT).map_err(writing)?;
        Ok(Folder {
            dir,
            cluster,
            node,
            _lock: self.lock,
        })
    }
}

fn fail(dir: &Path, why: String) -> FolderError {
    FolderError {
        dir: dir.to_owned(),
        why,
        locked: false,
        data: false,
    }
}

impl Folder {
    /// Whether this node has had a log. Without it, its votes and what it acknowledged are lost: under the same id it
    /// could vote twice, and node 1 would begin its cluster once more.
    pub fn had_log(&self) -> bool {
        self.dir.join(LOG_BEGUN).exists()
    }

    /// Notes durably that this node has a log.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_log(&self) -> Result<(), FolderError> {
        if self.had_log() {
            return Ok(());
        }
        let written = write_durably(&self.dir, LOG_BEGUN, FORMAT);
        written.map_err(|e| fail(&self.dir, cannot_write(&e)))
    }

    /// Opens a data folder, made if there is none.
    ///
    /// # Errors
    /// When it is somebody else's, in use, of another format, or cannot be written.
    pub fn open(dir: &Path) -> Result<Found, FolderError> {
        let fail = |why: String| fail(dir, why);
        let unsafe_data = |why: String| FolderError {
            data: true,
            ..fail(why)
        };
        if dir.exists() && !dir.is_dir() {
            return Err(fail(
                "it is a file, expected a folder; choose another one with --data".into(),
            ));
        }
        let writing = |e: std::io::Error| fail(cannot_write(&e));
        fs::create_dir_all(dir).map_err(writing)?;
        let lock = File::create(dir.join("lock")).map_err(writing)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError {
                    dir: dir.to_owned(),
                    why: "another process has it open; stop that one first, or choose another folder with --data".into(),
                    locked: true,
                    data: false,
                });
            }
            Err(TryLockError::Error(e)) => return Err(fail(e.to_string())),
        }
        let format = dir.join("FORMAT");
        if format.exists() {
            let found = read_text(&format).map_err(unsafe_data)?;
            if found != FORMAT {
                return Err(unsafe_data(format!(
                    "its format is {found:?}, this version reads {FORMAT:?}; use the version that wrote it"
                )));
            }
        } else {
            let others = fs::read_dir(dir)
                .map_err(|e| fail(e.to_string()))?
                .flatten()
                .any(|e| !BEGUN.iter().any(|name| e.file_name() == *name));
            if others {
                return Err(unsafe_data(
                    "it is not empty and has no FORMAT file: it is not a data folder of sojourn; choose an empty one \
                     with --data, or put the file back from a copy"
                        .into(),
                ));
            }
            return Ok(Found::New(NewFolder {
                dir: dir.to_owned(),
                lock,
            }));
        }
        let read = |name: &str| read_text(&dir.join(name)).map_err(unsafe_data);
        let id = read("node-id")?;
        let node = id.parse().ok().filter(|node| *node > 0);
        let node = node.ok_or_else(|| {
            unsafe_data(format!(
                "the file node-id holds {id:?}, expected a number above 0; put it back from a copy"
            ))
        })?;
        let cluster = read("cluster-id")?;
        if cluster.is_empty() {
            return Err(unsafe_data(
                "the file cluster-id is empty, expected the id of a cluster; put it back from a copy"
                    .into(),
            ));
        }
        Ok(Found::Node(Folder {
            dir: dir.to_owned(),
            cluster,
            node,
            _lock: lock,
        }))
    }
}

/// One of the folder's small files, without the white space around it. At most 1 KiB is shown of what was found.
fn read_text(path: &Path) -> Result<String, String> {
    let name = path.file_name().unwrap_or_default().display();
    let bytes = fs::read(path)
        .map_err(|e| format!("the file {name} cannot be read: {e}; put it back from a copy"))?;
    let shown = bytes.get(..1024).unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(shown).trim().to_owned())
}

fn cannot_write(error: &std::io::Error) -> String {
    use std::io::ErrorKind as E;
    let todo = match error.kind() {
        E::StorageFull | E::QuotaExceeded => "free some space",
        E::PermissionDenied => "let this user write there, or choose another with --data",
        E::ReadOnlyFilesystem => "mount it writable, or choose another with --data",
        _ => "choose another with --data",
    };
    format!("it cannot be written: {error}; {todo}")
}

fn write_durably(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let part = dir.join(format!("{name}.part"));
    let mut file = File::create(&part)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&part, dir.join(name))?;
    File::open(dir)?.sync_all()
}

fn uuid() -> String {
    // made once, when a folder is made: no world has to make the same one again
    #[allow(clippy::disallowed_methods)]
    let id = rand::random::<u128>();
    format!("{id:032x}")
}

/// Bytes free for us on the disk of a folder; `None` when the system does not say.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
