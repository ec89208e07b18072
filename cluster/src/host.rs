//! A host: what one node has once for all its groups. The log, its writer, the checkpoints, and the care of both.
//!
//! Knows how many groups there are and what they weigh; does not know what they replicate.

mod forgetting;
mod opening;
mod serving;
mod upkeep;

use self::upkeep::PurgeSignal;
use crate::checkpoint::sled_store::{SetAside, SledStore};
use crate::error::{Failure, OpenError, todo};
use crate::group::{Group, Request};
use crate::id::{GroupId, NodeId};
use crate::log::engine::{EngineLog, LogFiles};
use crate::log::scan::TornTail;
use crate::log::writer::{LogWriter, WriterGuard};
use crate::seam::{Running, Seams};
use crate::stats::{HostStats, LogStats};
use crate::transport::{Serve, Transport, Unconnected};
use parking_lot::Mutex;
use raft_engine::env::{DefaultFileSystem, FileSystem};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What is around an entry in a frame, generously.
const FRAME_OVERHEAD: usize = 4096;

/// Settings of a host. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The data folder; `log/` and `checkpoints/` are made in it.
    pub dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// A group's checkpoint starts after this much log; applying waits at twice as much. 64 MiB.
    pub checkpoint_log_bytes: u64,
    /// A group's checkpoint starts when this much history waits; applying waits at twice as much. 32 MiB.
    pub checkpoint_waiting_bytes: u64,
    /// A group's checkpoint starts this long after the last, if anything was applied since. 60 s.
    pub checkpoint_every: Duration,
    /// The sum of log over all groups that a restart may have to replay; above it, the group with the most is
    /// checkpointed. 256 MiB.
    pub replay_bytes: u64,
    /// Log kept for slow followers, per group, behind a checkpoint. 64 MiB.
    pub keep_log_bytes: u64,
    /// The same in a group of one voter, where nobody can be slow. 0.
    pub keep_log_bytes_alone: u64,
    /// Recent entries kept in memory, per group. 1 MiB.
    pub log_cache_bytes: usize,
    /// The largest body of an entry. 16 MiB.
    pub max_entry_bytes: usize,
    /// The log's files.
    pub log_files: LogFiles,
    /// How often old log files are freed. 10 s.
    pub purge_every: Duration,
    /// sled's cache: checkpoints are written and read in order, so little of it helps. 16 MiB.
    pub checkpoint_cache_bytes: u64,
    /// How fast a snapshot is given to another node, in bytes a second. 64 MiB.
    pub snapshot_bytes_per_second: u64,
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            dir: PathBuf::from("data"),
            node: 1,
            checkpoint_log_bytes: 64 << 20,
            checkpoint_waiting_bytes: 32 << 20,
            checkpoint_every: Duration::from_secs(60),
            replay_bytes: 256 << 20,
            keep_log_bytes: 64 << 20,
            keep_log_bytes_alone: 0,
            log_cache_bytes: 1 << 20,
            max_entry_bytes: 16 << 20,
            log_files: LogFiles::default(),
            purge_every: Duration::from_secs(10),
            checkpoint_cache_bytes: 16 << 20,
            snapshot_bytes_per_second: 64 << 20,
        }
    }
}

impl HostConfig {
    fn check(&self) -> Result<(), OpenError> {
        let bad = |name: &str, why: String| {
            Err(OpenError::Config {
                name: name.to_owned(),
                why,
            })
        };
        for (name, bytes) in [
            ("checkpoint_log_bytes", self.checkpoint_log_bytes),
            ("checkpoint_waiting_bytes", self.checkpoint_waiting_bytes),
        ] {
            if bytes == 0 {
                return bad(name, "found 0, expected at least 1 byte".to_owned());
            }
        }
        // Far below what one write of the log may carry.
        if self.max_entry_bytes == 0 || self.max_entry_bytes > 32 << 20 {
            return bad(
                "max_entry_bytes",
                format!("found {}, expected 1 to 33554432", self.max_entry_bytes),
            );
        }
        if self.snapshot_bytes_per_second == 0 {
            return bad(
                "snapshot_bytes_per_second",
                "found 0, expected at least 1 byte".to_owned(),
            );
        }
        Ok(())
    }

    /// An entry that the transport cannot carry would hold up its group for ever.
    fn check_with(&self, transport: &dyn Transport) -> Result<(), OpenError> {
        let room = transport.frame_bytes().saturating_sub(FRAME_OVERHEAD);
        if self.max_entry_bytes > room {
            return Err(OpenError::Config {
                name: "max_entry_bytes".to_owned(),
                why: format!(
                    "found {}, expected at most {room}: the transport's message_bytes is {}",
                    self.max_entry_bytes,
                    transport.frame_bytes()
                ),
            });
        }
        Ok(())
    }
}

/// What opening the folders of a host brought to light.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Torn ends of log files that were cut.
    pub torn: Vec<TornTail>,
    /// Checkpoints that could not be used.
    pub set_aside: Option<SetAside>,
}

/// The real log on a given file system, for faults that only a file system can have.
///
/// # Errors
/// As [`Host::open`].
pub fn open_log<F: FileSystem + 'static>(
    cfg: &HostConfig,
    system: Arc<F>,
) -> Result<(Arc<dyn crate::log::LogStore>, Vec<TornTail>), OpenError> {
    let (log, torn) = EngineLog::open(&cfg.dir.join("log"), &cfg.log_files, system)?;
    Ok((Arc::new(log), torn))
}

/// The real checkpoint store.
///
/// # Errors
/// As [`Host::open`].
pub fn open_checkpoints(
    cfg: &HostConfig,
) -> Result<
    (
        Arc<dyn crate::checkpoint::CheckpointStore>,
        Option<SetAside>,
    ),
    OpenError,
> {
    let (store, aside) = SledStore::open(&cfg.dir.join("checkpoints"), cfg.checkpoint_cache_bytes)?;
    Ok((Arc::new(store), aside))
}

struct Shared {
    cfg: HostConfig,
    seams: Seams,
    writer: LogWriter,
    stats: Arc<LogStats>,
    failed: watch::Sender<Option<Failure>>,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    /// Groups that are being opened, closed or forgotten, so that only one of that is done with each at once.
    opening: Mutex<BTreeSet<GroupId>>,
    requests: mpsc::UnboundedSender<Request>,
    purge: Arc<PurgeSignal>,
    /// Held while old log files are freed, and while a group is taken out of the log: rewriting what is being deleted
    /// would mix its old entries with those of its next life.
    freeing: tokio::sync::Mutex<()>,
    transport: Arc<dyn Transport>,
}

/// A group that is being opened, closed or forgotten, until this is dropped.
struct Opening {
    shared: Arc<Shared>,
    id: GroupId,
}

impl Opening {
    /// `None` while somebody else has it.
    fn of(shared: &Arc<Shared>, id: GroupId) -> Option<Opening> {
        shared.opening.lock().insert(id).then(|| Opening {
            shared: shared.clone(),
            id,
        })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.shared.opening.lock().remove(&self.id);
    }
}

/// What one node has once for all its groups. Dropped without [`Host::close`], it ends as if the process had been killed:
/// nothing more is written. Its groups find that out at their next write, and hold the files until the runtime ends.
pub struct Host {
    shared: Arc<Shared>,
    report: OpenReport,
    /// Frees old log files; `None` in a world, or once it has ended.
    purging: Mutex<Option<JoinHandle<()>>>,
    _writer: WriterGuard,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("node", &self.shared.cfg.node)
            .field("dir", &self.shared.cfg.dir)
            .finish_non_exhaustive()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(thread) = self.stop_purging() {
            // It catches the store's panics, so joining can only find it ended.
            drop(thread.join());
        }
    }
}

impl Host {
    /// Opens the log and the checkpoints in `cfg.dir`, made if they are not there. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// In use by another process; a damaged log (nothing is changed then); refused by the file system; settings that
    /// make no sense.
    pub async fn open(cfg: HostConfig) -> Result<Host, OpenError> {
        Host::open_among(cfg, Arc::new(Unconnected)).await
    }

    /// The same, among the nodes that `transport` reaches. Other nodes' questions are answered from now on.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub async fn open_among(
        cfg: HostConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Host, OpenError> {
        cfg.check()?;
        let dir = cfg.dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&cfg.dir)
                .map_err(|e| OpenError::io("making the data folder", &cfg.dir, e))?;
            let (log, torn) = open_log(&cfg, Arc::new(DefaultFileSystem))?;
            let (checkpoints, set_aside) = open_checkpoints(&cfg)?;
            Ok((
                cfg,
                Seams {
                    log,
                    checkpoints,
                    running: Running::Threads,
                },
                OpenReport { torn, set_aside },
            ))
        });
        let opened = opened
            .await
            .map_err(|e| OpenError::io("opening the data folder", dir, e))?;
        let (cfg, seams, report) = opened?;
        let mut host = Host::open_with_among(cfg, seams, transport).await?;
        host.report = report;
        Ok(host)
    }

    /// Opens on any seams; of `cfg`, the folder is not looked at.
    ///
    /// # Errors
    /// Settings that make no sense; no thread to be had.
    pub async fn open_with(cfg: HostConfig, seams: Seams) -> Result<Host, OpenError> {
        Host::open_with_among(cfg, seams, Arc::new(Unconnected)).await
    }

    /// The same, among the nodes that `transport` reaches.
    ///
    /// # Errors
    /// As [`Host::open_with`].
    pub async fn open_with_among(
        cfg: HostConfig,
        seams: Seams,
        transport: Arc<dyn Transport>,
    ) -> Result<Host, OpenError> {
        cfg.check()?;
        cfg.check_with(&*transport)?;
        let stats = Arc::new(LogStats::default());
        let failed = watch::Sender::new(None);
        let (writer, guard) = LogWriter::start(
            seams.log.clone(),
            &seams.running,
            stats.clone(),
            failed.clone(),
        )
        .map_err(|e| OpenError::io("starting the log's writer", seams.log.place(), e))?;
        let (requests, requested) = mpsc::unbounded_channel();
        let purge = Arc::new(PurgeSignal::default());
        let shared = Arc::new(Shared {
            cfg,
            seams,
            writer,
            stats,
            failed,
            groups: Mutex::default(),
            opening: Mutex::default(),
            requests,
            purge,
            freeing: tokio::sync::Mutex::default(),
            transport,
        });
        let serving: Weak<dyn Serve> = Arc::<Shared>::downgrade(&shared);
        shared.transport.serve(serving);
        tokio::spawn(upkeep::make_checkpoints(Arc::downgrade(&shared), requested));
        tokio::spawn(upkeep::look_after(Arc::downgrade(&shared)));
        let purging = Mutex::new(upkeep::start_purging(&shared)?);
        Ok(Host {
            shared,
            report: OpenReport::default(),
            purging,
            _writer: guard,
        })
    }

    /// What opening brought to light.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// The group, if it is open.
    pub fn group(&self, id: GroupId) -> Option<Group> {
        self.shared.groups.lock().get(&id).cloned()
    }

    /// Every group of which the log has anything.
    pub fn stored_groups(&self) -> Vec<GroupId> {
        self.shared.seams.log.groups()
    }

    /// Why the host has stopped, once a write or fsync has failed: the node must end then.
    pub fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.shared.failed.subscribe()
    }

    /// Ends the thread that frees old log files. Answers it if it can be waited for: after a failed fsync it may hang.
    fn stop_purging(&self) -> Option<JoinHandle<()>> {
        *self.shared.purge.ended.lock() = true;
        self.shared.purge.changed.notify_all();
        let thread = self.purging.lock().take();
        thread.filter(|_| self.shared.failed.borrow().is_none())
    }

    /// The way to the other nodes.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.shared.transport.clone()
    }

    /// Figures, now.
    pub fn stats(&self) -> HostStats {
        let groups: Vec<Group> = self.shared.groups.lock().values().cloned().collect();
        let mut log = self.shared.stats.read();
        log.used_bytes = self.shared.seams.log.used_bytes();
        HostStats {
            log,
            groups: groups.iter().map(Group::figures).collect(),
            checkpoint_disk_bytes: self.shared.seams.checkpoints.used_bytes(),
        }
    }

    /// Closes all groups, writes what is queued, and lets go of the files. No checkpoint is made.
    pub async fn close(&self) {
        self.shared.transport.stop();
        let groups = std::mem::take(&mut *self.shared.groups.lock());
        futures::future::join_all(groups.values().map(Group::close)).await;
        drop(groups);
        if let Some(thread) = self.stop_purging() {
            // As in `drop`; but rewriting may take a moment, and this is not a thread to block.
            drop(tokio::task::spawn_blocking(|| thread.join()).await);
        }
        self.shared.writer.close().await;
    }
}

impl Shared {
    fn damaged(&self, group: GroupId, why: &str) -> OpenError {
        OpenError::Damaged {
            what: format!("the log of {group} cannot be replayed: {why}"),
            where_: self.seams.log.place(),
            consequence: format!("{group} stays closed on this node"),
            todo: todo("`sojourn repair` shows what would be lost"),
        }
    }

    fn group(&self, id: GroupId) -> Option<Group> {
        self.groups.lock().get(&id).cloned()
    }

    fn ask(&self, group: &Group) {
        if !group.asked().swap(true, Ordering::AcqRel) {
            // Fails only when the host is gone.
            drop(self.requests.send(Request::Due(group.id())));
        }
    }

    fn look(&self) {
        let groups: Vec<Group> = self.groups.lock().values().cloned().collect();
        let mut sum = 0;
        let mut largest: Option<(u64, &Group)> = None;
        for group in &groups {
            let bytes = group.replica().replay_bytes();
            sum += bytes;
            if largest.is_none_or(|(most, _)| bytes > most) {
                largest = Some((bytes, group));
            }
            if group.replica().is_due(self.cfg.checkpoint_every) {
                self.ask(group);
            }
            group.campaign_if_whole();
        }
        if let Some((_, group)) = largest
            && sum > self.cfg.replay_bytes
        {
            // Asked as due by time: it is not by its own size.
            let (tx, _) = tokio::sync::oneshot::channel();
            if !group.asked().swap(true, Ordering::AcqRel) {
                drop(self.requests.send(Request::Now(group.id(), tx)));
            }
        }
    }
}
