//! Where an import stands, beside the data, so that it can go on after it was broken off. Losing the file costs time
//! and nothing else: importing again from the start is safe.

use super::summary::Summary;
use crate::cli::exit::Trouble;
use crate::input::Mapping;
use sha2::Digest as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// How many bytes of the data, from its start, are looked at to know it again.
const LOOKED_AT: u64 = 1 << 20;

/// The state of an import.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The format of this file.
    pub format: u32,
    /// To know the data again: its size and a hash of its beginning.
    pub size: u64,
    pub beginning: String,
    /// The mapping, the workspace: other ones make other signals.
    pub mapping: String,
    pub workspace: String,
    /// Every row up to this one has its answer.
    pub rows: u64,
    /// What became of them.
    pub summary: Summary,
}

/// A state file.
#[derive(Debug)]
pub(super) struct Resume {
    path: PathBuf,
    pub state: State,
}

impl Resume {
    /// Reads where the import stands, or begins a new state. `given`: the file that the user named; otherwise the one
    /// beside the data.
    pub fn open(
        data: &Path,
        given: Option<&Path>,
        mapping: &Mapping,
        workspace: &str,
    ) -> Result<Resume, Trouble> {
        let path = given.map_or_else(|| beside(data), Path::to_path_buf);
        let (size, beginning) = identity(data)
            .map_err(|e| Trouble::no(format!("{} cannot be read: {e}", data.display())))?;
        let fresh = State {
            format: 1,
            size,
            beginning,
            mapping: mapping.fingerprint(),
            workspace: workspace.to_owned(),
            rows: 0,
            summary: Summary::default(),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Resume { path, state: fresh });
            }
            Err(e) => {
                return Err(Trouble::no(format!(
                    "the state file {} cannot be read: {e}",
                    path.display()
                )));
            }
        };
        let start_anew = format!(
            "delete {} to import from the start, which is safe",
            path.display()
        );
        let state: State = serde_json::from_str(&text).map_err(|e| {
            Trouble::no(format!(
                "the state file {} is not one of an import ({e}); {start_anew}",
                path.display()
            ))
        })?;
        let differs = if state.format != fresh.format {
            Some("is of another version of this program")
        } else if (state.size, &state.beginning) != (fresh.size, &fresh.beginning) {
            Some("belongs to other data")
        } else if state.mapping != fresh.mapping {
            Some("belongs to another mapping")
        } else if state.workspace != fresh.workspace {
            Some("belongs to another workspace")
        } else {
            None
        };
        match differs {
            Some(how) => Err(Trouble::no(format!(
                "the state file {} {how}; {start_anew}",
                path.display()
            ))),
            None => Ok(Resume { path, state }),
        }
    }

    /// Writes where the import stands; whoever reads sees the old state or the new.
    pub fn save(&self) -> Result<(), Trouble> {
        let text = serde_json::to_string(&self.state).map_err(|e| {
            Trouble::new(
                crate::cli::Exit::Bug,
                format!("the state cannot be written as json: {e}"),
            )
        })?;
        let draft = self.path.with_extension("sojourn-import-draft");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &self.path))
            .map_err(|e| {
                Trouble::no(format!(
                    "the state file {} cannot be written: {e}; name another place with --resume FILE, or say --no-resume",
                    self.path.display()
                ))
            })
    }

    /// The import is complete: there is nothing to go on with.
    pub fn forget(&self) -> Result<(), Trouble> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Trouble::no(format!(
                "all rows are imported, but the state file {} cannot be deleted: {e}; delete it by hand, for an import \
                 of the same file would do nothing while it is there",
                self.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Where the state lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn beside(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".sojourn-import");
    PathBuf::from(name)
}

fn identity(data: &Path) -> std::io::Result<(u64, String)> {
    let mut file = std::fs::File::open(data)?;
    let size = file.metadata()?.len();
    let mut hash = sha2::Sha256::new();
    let mut buffer = Vec::new();
    (&mut file).take(LOOKED_AT).read_to_end(&mut buffer)?;
    hash.update(&buffer);
    Ok((size, hex::encode(&hash.finalize()[..16])))
}
