//! The data folder: `FORMAT cluster-id node-id lock log/ checkpoints/ history/`.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The format that this version writes and reads.
const FORMAT: &str = "sojourn 1";

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
}

impl Folder {
    /// Opens a data folder, or makes a new one where there is none.
    ///
    /// # Errors
    /// When it is somebody else's, in use, of another format, or cannot be written.
    pub fn open(dir: &Path) -> Result<Folder, FolderError> {
        let fail = |why: String| FolderError {
            dir: dir.to_owned(),
            why,
            locked: false,
        };
        fs::create_dir_all(dir).map_err(|e| fail(e.to_string()))?;
        let lock = File::create(dir.join("lock")).map_err(|e| fail(e.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError {
                    dir: dir.to_owned(),
                    why: "another process has it open; stop that one first, or choose another folder with --data".into(),
                    locked: true,
                });
            }
            Err(TryLockError::Error(e)) => return Err(fail(e.to_string())),
        }
        let format = dir.join("FORMAT");
        if format.exists() {
            let found = fs::read_to_string(&format).map_err(|e| fail(e.to_string()))?;
            if found.trim() != FORMAT {
                return Err(fail(format!(
                    "its format is {:?}, this version reads {FORMAT:?}; use the version that wrote it",
                    found.trim()
                )));
            }
        } else {
            let others = fs::read_dir(dir)
                .map_err(|e| fail(e.to_string()))?
                .flatten()
                .any(|e| e.file_name() != "lock");
            if others {
                return Err(fail(
                    "it is not empty and has no FORMAT file: it is not a data folder of sojourn"
                        .into(),
                ));
            }
            let cluster = uuid();
            write_durably(dir, "cluster-id", &cluster).map_err(|e| fail(e.to_string()))?;
            write_durably(dir, "node-id", "1").map_err(|e| fail(e.to_string()))?;
            // last: a folder with it is whole
            write_durably(dir, "FORMAT", FORMAT).map_err(|e| fail(e.to_string()))?;
        }
        let read = |name: &str| {
            fs::read_to_string(dir.join(name))
                .map(|t| t.trim().to_owned())
                .map_err(|e| fail(format!("{name}: {e}")))
        };
        let node = read("node-id")?
            .parse()
            .map_err(|_| fail("node-id is no number".into()))?;
        Ok(Folder {
            dir: dir.to_owned(),
            cluster: read("cluster-id")?,
            node,
            _lock: lock,
        })
    }
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
    format!("{:032x}", rand::random::<u128>())
}

/// Bytes free for us on the disk of a folder; `None` when the system does not say.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
