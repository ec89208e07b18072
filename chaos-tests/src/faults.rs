//! Disks that are full, fsyncs that fail and clocks that step, for one process of ours and nobody else, and without any
//! right of the machine: a library between the process and the C library (`faults.c`, `LD_PRELOAD`), told what to do through
//! a file that both have in memory.
//!
//! What a program asks of the kernel past the C library it does not see; of our binary that is the question how much of the
//! disk is free.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCE: &str = include_str!("faults.c");
/// The environment variable by which the library finds its file.
const NAMED_BY: &str = "SOJOURN_CHAOS_FAULTS";

/// The library, built; its folder goes with it.
#[derive(Debug)]
pub struct Library {
    folder: tempfile::TempDir,
}

impl Library {
    /// Builds it, with the compiler that links Rust, too.
    ///
    /// # Errors
    /// When there is none, or it does not build: nothing of all this can be had on this machine then.
    pub fn build() -> Result<Library> {
        let folder = tempfile::Builder::new()
            .prefix("sojourn-chaos-faults-")
            .tempdir()?;
        let source = folder.path().join("faults.c");
        std::fs::write(&source, SOURCE)?;
        let library = Library { folder };
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(library.path())
            .arg(&source)
            .arg("-ldl")
            .output()
            .context("there is no C compiler `cc`")?;
        if !built.status.success() {
            bail!(
                "`cc` does not build it: {}",
                String::from_utf8_lossy(&built.stderr)
            );
        }
        Ok(library)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("faults.so")
    }
}

/// What is to fail in one process, over all its starts.
#[derive(Debug)]
pub struct Faults {
    library: PathBuf,
    control: PathBuf,
    file: File,
}

impl Faults {
    /// Nothing yet. `control`: a file of this process alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn none(library: &Path, control: PathBuf) -> Result<Faults> {
        let file = File::create(&control)?;
        let faults = Faults {
            library: library.to_owned(),
            control,
            file,
        };
        faults.clock(0)?;
        faults.room(None)?;
        faults.sync_fails(false)?;
        Ok(faults)
    }

    /// Puts the library before a process that has not been started yet.
    pub fn stand_before(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command.env(NAMED_BY, &self.control);
    }

    fn set(&self, place: u64, value: i64) -> Result<()> {
        Ok(self.file.write_all_at(&value.to_ne_bytes(), place * 8)?)
    }

    /// Steps the wall clock: so many microseconds ahead of the machine's, or behind it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn clock(&self, ahead: i64) -> Result<()> {
        self.set(0, ahead)
    }

    /// Lets only so many bytes more be written into files, whichever they are; `None`: as many as fit.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn room(&self, bytes: Option<u32>) -> Result<()> {
        self.set(1, bytes.map_or(-1, i64::from))
    }

    /// Has every fsync fail, or none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn sync_fails(&self, fails: bool) -> Result<()> {
        self.set(2, i64::from(fails))
    }
}

/// Microseconds, as a clock is set.
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(faults: &Faults, words: &str) -> Result<(bool, String)> {
        let mut command = Command::new("sh");
        command.args(["-c", words]);
        faults.stand_before(&mut command);
        let done = command.output()?;
        let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        Ok((done.status.success(), text))
    }

    #[test]
    fn a_process_sees_a_full_disk_a_failing_fsync_and_another_time() -> Result<()> {
        let library = Library::build()?;
        let folder = tempfile::tempdir()?;
        let faults = Faults::none(&library.path(), folder.path().join("control"))?;
        let file = folder.path().join("file");
        let file = file.display();
        let write = format!("dd if=/dev/zero of={file} bs=3000 count=3");
        let sync = format!("dd if=/dev/zero of={file} bs=10 count=1 conv=fsync");
        assert!(runs(&faults, &write)?.0 && runs(&faults, &sync)?.0);
        faults.room(Some(5_000))?;
        assert!(!runs(&faults, &write)?.0, "there was room");
        faults.room(None)?;
        assert!(runs(&faults, &write)?.0);
        faults.sync_fails(true)?;
        assert!(!runs(&faults, &sync)?.0, "it was synced");
        faults.sync_fails(false)?;
        assert!(runs(&faults, &sync)?.0);
        for ahead in [Duration::from_secs(3_600), Duration::ZERO] {
            faults.clock(-micros(ahead))?;
            let (_, text) = runs(&faults, "date +%s")?;
            let behind = jiff::Timestamp::now().as_second() - text.parse::<i64>()?;
            let wanted = i64::try_from(ahead.as_secs())?;
            assert!((behind - wanted).abs() < 60, "{behind} s behind");
        }
        Ok(())
    }
}
