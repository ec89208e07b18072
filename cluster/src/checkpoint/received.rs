//! A checkpoint that comes from another node, chunk by chunk, into this node's store.
//!
//! Every chunk is checked as it comes. The manifest is not written here: until it is, the chunks count for nothing.

use super::{BATCH_CHUNKS, CheckpointStore, MAX_CHUNK, Pin, Pins, unpack};
use crate::error::CheckpointError;
use crate::format::{Cover, Generation, Manifest};
use crate::id::GroupId;
use bytes::Bytes;
use std::sync::Arc;

/// What has come so far.
pub(crate) struct Received {
    store: Arc<dyn CheckpointStore>,
    group: GroupId,
    generation: Generation,
    pin: Pin,
}

impl Received {
    /// Begins a new generation.
    pub(crate) fn begin(
        store: Arc<dyn CheckpointStore>,
        pins: &Pins,
        group: GroupId,
    ) -> Result<Self, CheckpointError> {
        let (number, pin) = pins.reserve(&*store, group)?;
        Ok(Received {
            store,
            group,
            generation: Generation {
                number,
                ..Generation::default()
            },
            pin,
        })
    }

    /// Stores some chunks, the first of which has number `first`. Blocks.
    pub(crate) fn put(&mut self, first: u32, chunks: &[Bytes]) -> Result<(), CheckpointError> {
        let damaged = |what: String| CheckpointError::Damaged(what);
        let generation = &mut self.generation;
        if first != generation.chunks {
            return Err(damaged(format!(
                "found chunk {first}, expected chunk {}",
                generation.chunks
            )));
        }
        for chunk in chunks {
            if chunk.len() > MAX_CHUNK {
                return Err(damaged(format!(
                    "a chunk has {} bytes, the limit is {MAX_CHUNK}",
                    chunk.len()
                )));
            }
            let raw = unpack(chunk).map_err(damaged)?;
            generation.raw_bytes += raw.len() as u64;
            generation.stored_bytes += chunk.len() as u64;
            generation.crc = crc32c::crc32c_append(generation.crc, chunk);
        }
        for batch in chunks.chunks(BATCH_CHUNKS) {
            let stored: Vec<Vec<u8>> = batch.iter().map(|chunk| chunk.to_vec()).collect();
            self.store
                .put_chunks(self.group, generation.number, generation.chunks, &stored)?;
            generation.chunks += stored.len() as u32;
        }
        Ok(())
    }

    /// Everything has come: makes it durable, and answers the manifest that names it. Blocks.
    pub(crate) fn end(
        self,
        cover: Cover,
        chunks: u32,
        crc: u32,
    ) -> Result<(Manifest, Pin), CheckpointError> {
        if self.generation.chunks != chunks || self.generation.crc != crc {
            return Err(CheckpointError::Damaged(format!(
                "{} chunks have come with check sum {:08x}, expected {chunks} with {crc:08x}",
                self.generation.chunks, self.generation.crc
            )));
        }
        self.store.flush(self.group)?;
        let manifest = Manifest {
            cover: Some(cover),
            generations: vec![self.generation],
        };
        Ok((manifest, self.pin))
    }
}
