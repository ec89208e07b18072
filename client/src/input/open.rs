//! From a file to a stream of text bytes: counts what is read, unpacks gzip, drops a byte order mark.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes read from the disk at once.
const BUFFER: usize = 256 << 10;

/// An opened file.
pub(super) struct Opened {
    pub reader: Box<dyn BufRead + Send>,
    pub read: Arc<AtomicU64>,
    pub size: Option<u64>,
}

/// Opens a file, or the standard input for `-`.
pub(super) fn open(path: &Path) -> io::Result<Opened> {
    if path.as_os_str() == "-" {
        return wrap(io::stdin(), None);
    }
    let file = std::fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a folder, expected a file",
        ));
    }
    let size = meta.is_file().then_some(meta.len());
    wrap(file, size)
}

/// The same from anything that can be read. Gzip is recognised by its first bytes, whatever the name says.
pub(super) fn wrap(raw: impl Read + Send + 'static, size: Option<u64>) -> io::Result<Opened> {
    let read = Arc::new(AtomicU64::new(0));
    let mut reader = BufReader::with_capacity(
        BUFFER,
        Counted {
            raw,
            read: read.clone(),
        },
    );
    let packed = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn BufRead + Send> = if packed {
        Box::new(BufReader::with_capacity(
            BUFFER,
            flate2::bufread::MultiGzDecoder::new(reader),
        ))
    } else {
        Box::new(reader)
    };
    if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    Ok(Opened { reader, read, size })
}

struct Counted<R> {
    raw: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
