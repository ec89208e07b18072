//! Checkpoints: packed chunks in generations, the manifest last.
//!
//! [`CheckpointStore`] is the seam: sled behind it in earnest, a simulated disk in worlds. Chunks are opaque here; this
//! module does not know what a state is, nor when a checkpoint is due.

mod pins;
mod received;
pub(crate) mod sled_store;

pub(crate) use pins::{Pin, Pins};
pub(crate) use received::Received;

use crate::error::CheckpointError;
use crate::format::{self, Cover, Generation, Manifest};
use crate::id::GroupId;
use crate::machine::Cut;

/// Chunks are written this many at a time: sled's memory grows with the size of a batch.
const BATCH_CHUNKS: usize = 16;
/// Old chunks are removed this many at a time.
const DELETE_CHUNKS: u32 = 100;
/// More generations than this make a new base, whatever their size.
const MAX_GENERATIONS: usize = 64;
/// One byte says how the chunk is packed, four its unpacked length; then the bytes; in front of all, their CRC-32C.
const CHUNK_HEADER: usize = 9;
const PACKED: u8 = 1;
/// A chunk is 4 to 16 KiB; a larger length can only be damage.
const MAX_CHUNK: usize = 64 << 20;

/// Why a checkpoint store failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFault {
    /// What was being done, and what was found.
    pub what: String,
    /// Whether what is stored is damaged (as opposed to: the file system refused).
    pub damaged: bool,
}

impl From<StoreFault> for CheckpointError {
    fn from(fault: StoreFault) -> Self {
        if fault.damaged {
            CheckpointError::Damaged(fault.what)
        } else {
            CheckpointError::Store(fault.what)
        }
    }
}

/// Takes one chunk and its number within the generation; an error ends the reading.
pub type EachChunk<'a> = dyn FnMut(u32, &[u8]) -> Result<(), StoreFault> + 'a;

/// Where checkpoints are kept. Calls may block. Several groups may use it at once.
///
/// Nothing is durable before `flush` returns, and until then a crash may keep any part of it.
pub trait CheckpointStore: Send + Sync + 'static {
    /// Stores chunks `first`, `first + 1`, … of a generation.
    ///
    /// # Errors
    /// The store refused.
    fn put_chunks(
        &self,
        group: GroupId,
        generation: u64,
        first: u32,
        chunks: &[Vec<u8>],
    ) -> Result<(), StoreFault>;

    /// Stores the manifest of a group, in place of an older one.
    ///
    /// # Errors
    /// The store refused.
    fn put_manifest(&self, group: GroupId, manifest: &[u8]) -> Result<(), StoreFault>;

    /// Removes the manifest of a group, if there is one.
    ///
    /// # Errors
    /// The store refused.
    fn delete_manifest(&self, group: GroupId) -> Result<(), StoreFault>;

    /// Makes everything stored so far durable.
    ///
    /// # Errors
    /// The store refused, or something that was stored for `group` since it was last flushed is gone, because the store
    /// failed meanwhile, if only for another group.
    fn flush(&self, group: GroupId) -> Result<(), StoreFault>;

    /// The manifest of a group.
    ///
    /// # Errors
    /// The store refused, or is damaged.
    fn manifest(&self, group: GroupId) -> Result<Option<Vec<u8>>, StoreFault>;

    /// Gives the chunks of a generation in order, until `each` answers an error.
    ///
    /// # Errors
    /// What `each` answered, or the store's own.
    fn read_chunks(
        &self,
        group: GroupId,
        generation: u64,
        each: &mut EachChunk<'_>,
    ) -> Result<(), StoreFault>;

    /// The same from chunk `first` on.
    ///
    /// # Errors
    /// As `read_chunks`.
    fn read_chunks_from(
        &self,
        group: GroupId,
        generation: u64,
        first: u32,
        each: &mut EachChunk<'_>,
    ) -> Result<(), StoreFault> {
        self.read_chunks(group, generation, &mut |number, chunk| {
            if number < first {
                return Ok(());
            }
            each(number, chunk)
        })
    }

    /// The numbers of all generations of a group of which any chunk is stored, rising.
    ///
    /// # Errors
    /// The store refused, or is damaged.
    fn generations(&self, group: GroupId) -> Result<Vec<u64>, StoreFault>;

    /// Removes up to `most` chunks of a generation; answers how many.
    ///
    /// # Errors
    /// The store refused.
    fn delete_chunks(&self, group: GroupId, generation: u64, most: u32) -> Result<u32, StoreFault>;

    /// Notes that what is stored is damaged, so that the next opening sets it aside.
    fn condemn(&self, why: &str);

    /// Bytes on disk.
    fn used_bytes(&self) -> u64;

    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// A chunk as it is stored.
fn pack(packer: &mut zstd::bulk::Compressor<'_>, raw: &[u8]) -> Vec<u8> {
    let mut stored = vec![0; CHUNK_HEADER];
    let length = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    stored[5..9].copy_from_slice(&length.to_le_bytes());
    match packer.compress(raw) {
        Ok(packed) if packed.len() < raw.len() => {
            stored[4] = PACKED;
            stored.extend_from_slice(&packed);
        }
        // What does not get smaller is stored as it is.
        _ => stored.extend_from_slice(raw),
    }
    let sum = crc32c::crc32c(&stored[4..]);
    stored[..4].copy_from_slice(&sum.to_le_bytes());
    stored
}

/// The chunk that was stored.
fn unpack(stored: &[u8]) -> Result<Vec<u8>, String> {
    let Some((sum, rest)) = stored.split_at_checked(4) else {
        return Err(format!(
            "a chunk has {} bytes, expected at least {CHUNK_HEADER}",
            stored.len()
        ));
    };
    if crc32c::crc32c(rest).to_le_bytes() != sum {
        return Err("a chunk does not match its check sum".to_owned());
    }
    let (Some(how), Some(length), Some(body)) = (rest.first(), rest.get(1..5), rest.get(5..))
    else {
        return Err("a chunk ends within its header".to_owned());
    };
    let length = length
        .iter()
        .rev()
        .fold(0_usize, |n, b| n << 8 | usize::from(*b));
    let raw = match *how {
        0 => body.to_vec(),
        PACKED if length <= MAX_CHUNK => zstd::bulk::decompress(body, length)
            .map_err(|e| format!("a chunk cannot be unpacked: {e}"))?,
        PACKED => {
            return Err(format!(
                "a chunk claims {length} bytes, the limit is {MAX_CHUNK}"
            ));
        }
        other => {
            return Err(format!(
                "a chunk is packed in way {other}, this version knows 0 and 1"
            ));
        }
    };
    if raw.len() != length {
        return Err(format!(
            "a chunk has {} bytes, its header says {length}",
            raw.len()
        ));
    }
    Ok(raw)
}

fn fault(what: String) -> StoreFault {
    StoreFault {
        what,
        damaged: true,
    }
}

/// Whether the next checkpoint after `last` should be a base: the deltas weigh more than half of theirs.
pub(crate) fn wants_base(last: Option<&Manifest>) -> bool {
    let Some((base, deltas)) = last.and_then(|m| m.generations.split_first()) else {
        return true;
    };
    deltas.len() + 1 >= MAX_GENERATIONS
        || deltas.iter().map(|d| d.stored_bytes).sum::<u64>() > base.stored_bytes / 2
}

/// Writes a cut as the next generation: history, chunks, flush, manifest, flush. Answers the new manifest.
///
/// `last`: the manifest that it continues; `None` writes a base.
pub(crate) fn write(
    store: &dyn CheckpointStore,
    pins: &Pins,
    group: GroupId,
    cover: Cover,
    last: Option<Manifest>,
    cut: &mut dyn Cut,
) -> Result<Manifest, CheckpointError> {
    cut.before(&format::encode_cover(&cover))
        .map_err(CheckpointError::History)?;
    let (number, _pin) = pins.reserve(store, group)?;
    let mut chunks = ChunkWriter::begin(store, group, number)?;
    while let Some(raw) = cut.next_chunk() {
        chunks.push(&raw)?;
    }
    let generation = chunks.end()?;
    let mut manifest = last.unwrap_or(Manifest {
        cover: None,
        generations: Vec::new(),
    });
    manifest.cover = Some(cover);
    manifest.generations.push(generation);
    finish(store, group, &manifest)?;
    Ok(manifest)
}

/// Packs chunks and stores them as a generation, a few at a time.
struct ChunkWriter<'a> {
    store: &'a dyn CheckpointStore,
    group: GroupId,
    packer: zstd::bulk::Compressor<'static>,
    generation: Generation,
    batch: Vec<Vec<u8>>,
}

impl<'a> ChunkWriter<'a> {
    fn begin(
        store: &'a dyn CheckpointStore,
        group: GroupId,
        number: u64,
    ) -> Result<Self, CheckpointError> {
        let packer = zstd::bulk::Compressor::new(1)
            .map_err(|e| CheckpointError::Store(format!("making a compressor: {e}")))?;
        Ok(ChunkWriter {
            store,
            group,
            packer,
            generation: Generation {
                number,
                ..Generation::default()
            },
            batch: Vec::with_capacity(BATCH_CHUNKS),
        })
    }

    fn push(&mut self, raw: &[u8]) -> Result<(), CheckpointError> {
        if raw.len() > MAX_CHUNK {
            return Err(CheckpointError::Machine(format!(
                "a chunk has {} bytes, the limit is {MAX_CHUNK}",
                raw.len()
            )));
        }
        let stored = pack(&mut self.packer, raw);
        let generation = &mut self.generation;
        generation.raw_bytes += raw.len() as u64;
        generation.stored_bytes += stored.len() as u64;
        generation.crc = crc32c::crc32c_append(generation.crc, &stored);
        self.batch.push(stored);
        if self.batch.len() == BATCH_CHUNKS {
            self.put()?;
        }
        Ok(())
    }

    fn put(&mut self) -> Result<(), CheckpointError> {
        let (number, first) = (self.generation.number, self.generation.chunks);
        self.store
            .put_chunks(self.group, number, first, &self.batch)?;
        self.generation.chunks += self.batch.len() as u32;
        self.batch.clear();
        Ok(())
    }

    fn end(mut self) -> Result<Generation, CheckpointError> {
        if !self.batch.is_empty() {
            self.put()?;
        }
        Ok(self.generation)
    }
}

/// Makes the chunks durable, then the manifest.
pub(crate) fn finish(
    store: &dyn CheckpointStore,
    group: GroupId,
    manifest: &Manifest,
) -> Result<(), CheckpointError> {
    store.flush(group)?;
    store.put_manifest(group, &format::encode_manifest(manifest))?;
    store.flush(group)?;
    Ok(())
}

/// Removes what `manifest` does not name and nobody uses, a little at a time. Not flushed: a crash at worst brings it back.
pub(crate) fn delete_old(
    store: &dyn CheckpointStore,
    pins: &Pins,
    group: GroupId,
    manifest: &Manifest,
) -> Result<(), CheckpointError> {
    for number in store.generations(group)? {
        if manifest.generations.iter().all(|g| g.number != number) && !pins.is_held(number) {
            while store.delete_chunks(group, number, DELETE_CHUNKS)? == DELETE_CHUNKS {}
        }
    }
    Ok(())
}

/// Removes everything of a group, the manifest first: without it, chunks count for nothing. Durable on return.
pub(crate) fn forget(store: &dyn CheckpointStore, group: GroupId) -> Result<(), StoreFault> {
    store.delete_manifest(group)?;
    store.flush(group)?;
    for number in store.generations(group)? {
        while store.delete_chunks(group, number, DELETE_CHUNKS)? == DELETE_CHUNKS {}
    }
    store.flush(group)
}

/// Reads the manifest of a group; checked, but its chunks are not.
pub(crate) fn manifest(
    store: &dyn CheckpointStore,
    group: GroupId,
) -> Result<Option<Manifest>, StoreFault> {
    let Some(bytes) = store.manifest(group)? else {
        return Ok(None);
    };
    let manifest = format::decode_manifest(&bytes).map_err(|e| fault(e.to_string()))?;
    match manifest.cover.as_ref().map(|c| c.group) {
        Some(named) if named == group.0 => Ok(Some(manifest)),
        named => Err(fault(format!(
            "the manifest of {group} names group {named:?}"
        ))),
    }
}

/// Gives every chunk of a checkpoint, unpacked and checked, base first.
pub(crate) fn read(
    store: &dyn CheckpointStore,
    group: GroupId,
    manifest: &Manifest,
    each: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), StoreFault> {
    for generation in &manifest.generations {
        let name = format!("generation {} of {group}", generation.number);
        let (mut expected, mut crc) = (0_u32, 0_u32);
        store.read_chunks(group, generation.number, &mut |sequence, stored| {
            if sequence != expected {
                return Err(fault(format!(
                    "{name}: chunk {expected} is missing, the next is {sequence}"
                )));
            }
            expected += 1;
            crc = crc32c::crc32c_append(crc, stored);
            let raw =
                unpack(stored).map_err(|e| fault(format!("{name}, chunk {sequence}: {e}")))?;
            each(&raw).map_err(|e| fault(format!("{name}, chunk {sequence}: {e}")))
        })?;
        if expected != generation.chunks {
            return Err(fault(format!(
                "{name} has {expected} chunks, expected {}",
                generation.chunks
            )));
        }
        if crc != generation.crc {
            return Err(fault(format!("{name} does not match its check sum")));
        }
    }
    Ok(())
}

/// Copies a checkpoint from another store as one new base. For a replica that takes a snapshot.
pub(crate) fn copy(
    from: &dyn CheckpointStore,
    to: &dyn CheckpointStore,
    pins: &Pins,
    group: GroupId,
    manifest: &Manifest,
) -> Result<Manifest, CheckpointError> {
    let (number, _pin) = pins.reserve(to, group)?;
    let mut chunks = ChunkWriter::begin(to, group, number)?;
    let mut failed = None;
    let given = read(from, group, manifest, &mut |raw| {
        chunks.push(raw).map_err(|error| {
            let why = error.to_string();
            failed = Some(error);
            why
        })
    });
    // What the writer said comes back from the reader as damage, which it is not.
    if let Some(error) = failed {
        return Err(error);
    }
    given?;
    let generation = chunks.end()?;
    let copied = Manifest {
        cover: manifest.cover.clone(),
        generations: vec![generation],
    };
    finish(to, group, &copied)?;
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_chunk_has_these_bytes_for_ever() {
        let mut packer = zstd::bulk::Compressor::new(1).expect("a compressor");
        let stored = pack(&mut packer, b"abc");
        assert_eq!(stored[4..], *b"\x00\x03\x00\x00\x00abc");
        assert_eq!(
            stored[..4],
            crc32c::crc32c(b"\x00\x03\x00\x00\x00abc").to_le_bytes()
        );
        assert_eq!(unpack(&stored).as_deref(), Ok(&b"abc"[..]));
        let long = vec![b'x'; 4096];
        let stored = pack(&mut packer, &long);
        assert!(
            stored.len() < 100 && stored[4] == PACKED,
            "a chunk that packs well is packed"
        );
        assert_eq!(unpack(&stored), Ok(long));
    }

    #[test]
    fn every_flipped_bit_of_a_chunk_is_noticed() {
        let mut packer = zstd::bulk::Compressor::new(1).expect("a compressor");
        let stored = pack(&mut packer, &[7; 300]);
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..stored.len() {
            assert!(unpack(&stored[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_base_is_due_when_the_deltas_outweigh_half_of_it() {
        let generation = |stored_bytes| Generation {
            stored_bytes,
            ..Generation::default()
        };
        let manifest = |sizes: &[u64]| Manifest {
            cover: None,
            generations: sizes.iter().map(|s| generation(*s)).collect(),
        };
        assert!(wants_base(None));
        assert!(!wants_base(Some(&manifest(&[100]))));
        assert!(!wants_base(Some(&manifest(&[100, 30, 20]))));
        assert!(wants_base(Some(&manifest(&[100, 30, 21]))));
        assert!(wants_base(Some(&manifest(&[0; 64]))));
    }
}
