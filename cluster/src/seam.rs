//! The seams: what a node uses of its machine, each real or simulated.
//!
//! Log, checkpoint store, threads or tasks. Time and randomness are in [`crate::runtime`]. This module does not know
//! what is stored.

use crate::checkpoint::CheckpointStore;
use crate::log::LogStore;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// On what the work of a host runs.
#[derive(Clone)]
pub enum Running {
    /// The log's writer has a thread; checkpoints are written on threads that may block.
    Threads,
    /// Everything is a task of the runtime that opens the host, so that a world on one thread is repeatable.
    Tasks {
        /// How long the next write of the log takes.
        write_takes: Arc<dyn Fn() -> Duration + Send + Sync>,
    },
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Running::Threads => "Threads",
            Running::Tasks { .. } => "Tasks",
        })
    }
}

/// What a host stands on.
#[derive(Clone)]
pub struct Seams {
    /// The log of all groups.
    pub log: Arc<dyn LogStore>,
    /// Their checkpoints.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Threads or tasks.
    pub running: Running,
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams")
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Runs work that may block for long.
    ///
    /// # Errors
    /// A text: it panicked, or the runtime ends.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        match self {
            Running::Threads => tokio::task::spawn_blocking(work)
                .await
                .map_err(|e| e.to_string()),
            Running::Tasks { .. } => {
                tokio::task::yield_now().await;
                Ok(work())
            }
        }
    }
}
