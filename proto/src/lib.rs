//! The wire and the stored formats of Sojourn: schemas and generated code, nothing else.
//!
//! Knows no rules: what a field means to the engine is decided elsewhere. Formats are added to, never edited.
//! `vectors/` holds bytes that every implementation must reproduce.

pub mod codec;

/// Generated modules, nested as their packages are.
mod packages {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("sojourn.v1");
    }
    pub mod stored {
        pub mod v1 {
            tonic::include_proto!("sojourn.stored.v1");
        }
    }
    pub mod cluster {
        pub mod v1 {
            tonic::include_proto!("sojourn.cluster.v1");
        }
    }
}

/// The frames of the replication layer.
pub use packages::cluster::v1 as cluster;
/// What is written to disk and sent between nodes.
pub use packages::stored::v1 as stored;
/// The public services.
pub use packages::v1;

/// The encoded `FileDescriptorSet` of all schemas, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
