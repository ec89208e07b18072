//! The operating system's files with faults on command: for the real log, under raft-engine.

use parking_lot::Mutex;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every fsync fails.
    Sync,
    /// Every write fails: no space is left.
    Full,
    /// Every fsync takes this much longer.
    SlowSync(Duration),
}

/// A file system for [`crate::open_log`] whose faults are set while it is in use. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    fault: Arc<Mutex<Fault>>,
}

impl FaultyDisk {
    /// A disk without fault.
    pub fn new() -> Self {
        FaultyDisk::default()
    }

    /// From now on, this is wrong with it.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    fn check_write(&self) -> Result<()> {
        if *self.fault.lock() == Fault::Full {
            // raft-engine knows a full disk by this word.
            return Err(Error::new(
                ErrorKind::StorageFull,
                "nospace: no space left on the simulated disk",
            ));
        }
        Ok(())
    }
}

type RealHandle = <DefaultFileSystem as FileSystem>::Handle;
type RealReader = <DefaultFileSystem as FileSystem>::Reader;
type RealWriter = <DefaultFileSystem as FileSystem>::Writer;

/// An open file.
pub struct FaultyHandle {
    real: Arc<RealHandle>,
    disk: FaultyDisk,
}

impl Handle for FaultyHandle {
    fn truncate(&self, offset: usize) -> Result<()> {
        Handle::truncate(&*self.real, offset)
    }

    fn file_size(&self) -> Result<usize> {
        self.real.file_size()
    }

    fn sync(&self) -> Result<()> {
        let fault = *self.disk.fault.lock();
        match fault {
            Fault::Sync => Err(Error::other("a simulated fsync failed")),
            Fault::SlowSync(by) => {
                // The fault itself: a disk that takes its time. Nothing is waited for.
                #[allow(clippy::disallowed_methods)]
                std::thread::sleep(by);
                self.real.sync()
            }
            Fault::None | Fault::Full => self.real.sync(),
        }
    }
}

/// Writes to an open file.
pub struct FaultyWriter {
    real: RealWriter,
    disk: FaultyDisk,
}

impl Write for FaultyWriter {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        self.disk.check_write()?;
        self.real.write(buf)
    }

    fn flush(&mut self) -> Result<()> {
        self.real.flush()
    }
}

impl Seek for FaultyWriter {
    fn seek(&mut self, pos: SeekFrom) -> Result<u64> {
        self.real.seek(pos)
    }
}

impl WriteExt for FaultyWriter {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.real.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        self.disk.check_write()?;
        self.real.allocate(offset, size)
    }
}

/// Reads from an open file.
pub struct FaultyReader {
    real: RealReader,
}

impl Read for FaultyReader {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.real.read(buf)
    }
}

impl Seek for FaultyReader {
    fn seek(&mut self, pos: SeekFrom) -> Result<u64> {
        self.real.seek(pos)
    }
}

impl FileSystem for FaultyDisk {
    type Handle = FaultyHandle;
    type Reader = FaultyReader;
    type Writer = FaultyWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<FaultyHandle> {
        self.check_write()?;
        Ok(FaultyHandle {
            real: Arc::new(DefaultFileSystem.create(path)?),
            disk: self.clone(),
        })
    }

    fn open<P: AsRef<Path>>(&self, path: P, perm: Permission) -> Result<FaultyHandle> {
        Ok(FaultyHandle {
            real: Arc::new(DefaultFileSystem.open(path, perm)?),
            disk: self.clone(),
        })
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, src_path: P, dst_path: P) -> Result<()> {
        DefaultFileSystem.rename(src_path, dst_path)
    }

    fn new_reader(&self, handle: Arc<FaultyHandle>) -> Result<FaultyReader> {
        Ok(FaultyReader {
            real: DefaultFileSystem.new_reader(handle.real.clone())?,
        })
    }

    fn new_writer(&self, handle: Arc<FaultyHandle>) -> Result<FaultyWriter> {
        Ok(FaultyWriter {
            real: DefaultFileSystem.new_writer(handle.real.clone())?,
            disk: self.clone(),
        })
    }
}
