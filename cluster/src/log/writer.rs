//! The one writer of a node's log: whatever all groups want written while a write is under way becomes the next write.
//!
//! On a thread of its own in earnest, as a task in a simulated world. It knows groups and marks, and does not know Raft,
//! except that it calls openraft back when entries are durable.

use super::{LogStore, MetaKey, Op, StoreError};
use crate::bugs::{self, Bug};
use crate::error::Failure;
use crate::id::GroupId;
use crate::seam::Running;
use crate::stats::LogStats;
use crate::types::TypeConfig;
use openraft::storage::LogFlushed;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{Notify, oneshot, watch};

/// One write gathers at most this many bytes of entries, or one change: raft-engine takes less than 2 GiB at once, and
/// the largest entries of all groups together may be more.
const GATHERED_BYTES: usize = 64 << 20;

/// Whom to tell when a change is durable.
pub(crate) enum Done {
    /// openraft, of entries; `durable` then holds the index after the last of them.
    Flushed {
        callback: LogFlushed<TypeConfig>,
        durable: Arc<AtomicU64>,
        next: u64,
    },
    /// Somebody who waits.
    Told(oneshot::Sender<Result<(), Failure>>),
    /// Nobody.
    Nobody,
}

impl Done {
    fn tell(self, result: &Result<(), Failure>) {
        match self {
            Done::Flushed {
                callback,
                durable,
                next,
            } => {
                if result.is_ok() {
                    // In the order of writing, so the last one told is right; a truncation lowers it in its turn.
                    durable.store(next, Ordering::Release);
                }
                callback.log_io_completed(
                    result
                        .clone()
                        .map_err(|f| std::io::Error::other(f.to_string())),
                );
            }
            Done::Told(waiter) => drop(waiter.send(result.clone())),
            Done::Nobody => {}
        }
    }
}

/// What one caller wants written at once.
struct Change {
    ops: Vec<Op>,
    done: Done,
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    /// Commit marks: written along with the next entries, or when the log has been idle for a moment.
    marks: BTreeMap<GroupId, Vec<u8>>,
    /// Write the marks although no entries came.
    write_marks: bool,
    state: State,
}

#[derive(Default, Clone, PartialEq)]
enum State {
    #[default]
    Open,
    /// Write what is queued, then end.
    Closing,
    /// End at once, as if the process had been killed.
    Abandoned,
    Failed(Failure),
}

impl Queue {
    fn has_work(&self) -> bool {
        !self.changes.is_empty() || self.write_marks
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// For the thread.
    work: Condvar,
    /// For the task.
    work_task: Notify,
    ended: watch::Sender<bool>,
    failed: watch::Sender<Option<Failure>>,
    store: Arc<dyn LogStore>,
    stats: Arc<LogStats>,
}

/// Hands changes to the writer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
}

/// Ends the writer when dropped, without writing what is still queued.
pub(crate) struct WriterGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            if queue.state == State::Open {
                queue.state = State::Abandoned;
            }
        }
        self.shared.work.notify_all();
        self.shared.work_task.notify_one();
        if let Some(thread) = self.thread.take() {
            // The writer catches panics of the store, so joining can only find it ended.
            drop(thread.join());
        }
    }
}

impl LogWriter {
    /// Starts the writer of `store`.
    pub(crate) fn start(
        store: Arc<dyn LogStore>,
        running: &Running,
        stats: Arc<LogStats>,
        failed: watch::Sender<Option<Failure>>,
    ) -> std::io::Result<(Self, WriterGuard)> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            work_task: Notify::new(),
            ended: watch::Sender::new(false),
            failed,
            store,
            stats,
        });
        let writer = LogWriter {
            shared: shared.clone(),
        };
        let thread = match running {
            Running::Threads => {
                let shared = shared.clone();
                Some(
                    std::thread::Builder::new()
                        .name("sojourn-log".to_owned())
                        .spawn(move || shared.run_thread())?,
                )
            }
            Running::Tasks { write_takes } => {
                let write_takes = write_takes.clone();
                let shared = shared.clone();
                tokio::spawn(async move { shared.run_task(&*write_takes).await });
                None
            }
        };
        Ok((writer, WriterGuard { shared, thread }))
    }

    /// The store behind the writer, for reading.
    pub(crate) fn store(&self) -> &Arc<dyn LogStore> {
        &self.shared.store
    }

    /// Queues a change. Changes of one caller are written in the order given.
    pub(crate) fn write(&self, ops: impl IntoIterator<Item = Op>, done: Done) {
        let refused = {
            let mut queue = self.shared.queue.lock();
            match &queue.state {
                State::Open => {
                    let idle = !queue.has_work();
                    let ops = ops.into_iter().collect();
                    queue.changes.push_back(Change { ops, done });
                    if idle {
                        self.shared.wake();
                    }
                    return;
                }
                State::Failed(failure) => failure.clone(),
                State::Closing | State::Abandoned => Failure {
                    what: "writing the log: it is closed".to_owned(),
                    where_: self.shared.store.place(),
                    todo: "start the node again".to_owned(),
                },
            }
        };
        done.tell(&Err(refused));
    }

    /// Queues a change and waits until it is durable.
    pub(crate) async fn write_and_wait(
        &self,
        ops: impl IntoIterator<Item = Op>,
    ) -> Result<(), Failure> {
        let (tx, rx) = oneshot::channel();
        self.write(ops, Done::Told(tx));
        rx.await.unwrap_or_else(|_| {
            Err(Failure {
                what: "writing the log: its writer has ended".to_owned(),
                where_: self.shared.store.place(),
                todo: "start the node again".to_owned(),
            })
        })
    }

    /// Notes up to where `group` is committed; written with the next entries.
    pub(crate) fn note_committed(&self, group: GroupId, mark: Vec<u8>) {
        self.shared.queue.lock().marks.insert(group, mark);
    }

    /// Drops the noted mark of a group that is closed: written after the group is forgotten, it would be all there is.
    pub(crate) fn drop_mark(&self, group: GroupId) {
        self.shared.queue.lock().marks.remove(&group);
    }

    /// Writes noted marks, if there are any and nothing else is being written.
    pub(crate) fn write_marks(&self) {
        let mut queue = self.shared.queue.lock();
        if queue.state == State::Open && !queue.marks.is_empty() && !queue.has_work() {
            queue.write_marks = true;
            self.shared.wake();
        }
    }

    /// Stops writing for good, because the store failed elsewhere than in a write.
    pub(crate) fn give_up(&self, what: &str) {
        self.shared.fail(what);
        self.shared.wake();
    }

    /// Writes what is queued, and ends.
    pub(crate) async fn close(&self) {
        {
            let mut queue = self.shared.queue.lock();
            if queue.state == State::Open {
                queue.write_marks = !queue.marks.is_empty();
                queue.state = State::Closing;
            }
        }
        self.shared.wake();
        let mut ended = self.shared.ended.subscribe();
        // Fails only when the writer is gone, which is what is waited for.
        drop(ended.wait_for(|ended| *ended).await);
    }
}

/// What one write consists of.
struct Batch {
    ops: Vec<Op>,
    done: Vec<Done>,
}

impl Shared {
    fn wake(&self) {
        self.work.notify_one();
        self.work_task.notify_one();
    }

    /// The next batch; `None`: nothing to do now; `Err`: ended.
    fn take(queue: &mut Queue) -> Result<Option<Batch>, ()> {
        match queue.state {
            State::Abandoned | State::Failed(_) => return Err(()),
            State::Closing if !queue.has_work() => return Err(()),
            State::Open if !queue.has_work() => return Ok(None),
            State::Open | State::Closing => {}
        }
        let mut batch = Batch {
            ops: Vec::new(),
            done: Vec::with_capacity(queue.changes.len()),
        };
        let mut bytes = 0;
        while let Some(change) = queue.changes.pop_front() {
            bytes += change.ops.iter().map(Op::entry_bytes).sum::<usize>();
            if bytes > GATHERED_BYTES && !batch.done.is_empty() {
                queue.changes.push_front(change);
                return Ok(Some(batch));
            }
            batch.ops.extend(change.ops);
            batch.done.push(change.done);
        }
        // With the last of the entries: a mark must not be on disk before what it marks.
        queue.write_marks = false;
        for (group, value) in std::mem::take(&mut queue.marks) {
            batch.ops.push(Op::Put {
                group,
                key: MetaKey::Committed,
                value,
            });
        }
        Ok(Some(batch))
    }

    fn run_thread(&self) {
        let mut queue = self.queue.lock();
        loop {
            match Self::take(&mut queue) {
                Err(()) => break,
                Ok(None) => self.work.wait(&mut queue),
                Ok(Some(batch)) => {
                    parking_lot::MutexGuard::unlocked(&mut queue, || self.write(batch))
                }
            }
        }
        drop(queue);
        self.end();
    }

    async fn run_task(&self, write_takes: &(dyn Fn() -> std::time::Duration + Send + Sync)) {
        loop {
            let next = Self::take(&mut self.queue.lock());
            match next {
                Err(()) => break,
                Ok(None) => self.work_task.notified().await,
                Ok(Some(batch)) => {
                    let started = tokio::time::Instant::now();
                    let written = self.put(&batch.ops);
                    if bugs::has(Bug::AckBeforeFsync) && written.is_ok() {
                        batch.done.into_iter().for_each(|done| done.tell(&Ok(())));
                        tokio::time::sleep(write_takes()).await;
                        self.store.settle();
                        continue;
                    }
                    tokio::time::sleep(write_takes()).await;
                    self.tell(batch, written, started.elapsed());
                }
            }
        }
        self.end();
    }

    fn write(&self, batch: Batch) {
        let started = tokio::time::Instant::now();
        let written = self.put(&batch.ops);
        self.tell(batch, written, started.elapsed());
    }

    fn put(&self, ops: &[Op]) -> Result<(), StoreError> {
        if ops.is_empty() {
            Ok(())
        } else {
            self.store.write(ops)
        }
    }

    fn tell(&self, batch: Batch, written: Result<(), StoreError>, took: std::time::Duration) {
        self.stats.wrote(&batch.ops, took);
        let result = match written {
            Ok(()) => {
                self.store.settle();
                Ok(())
            }
            Err(e) => Err(self.fail(&e.what)),
        };
        for done in batch.done {
            done.tell(&result);
        }
    }

    /// Nothing is written after a failure: what the disk holds is not known any more.
    fn fail(&self, what: &str) -> Failure {
        let full =
            what.contains("nospace") || what.contains("No space left") || what.contains("ENOSPC");
        let failure = Failure {
            what: what.to_owned(),
            where_: self.store.place(),
            todo: if full {
                "the disk is full: free some space, then start the node again; nothing that was acknowledged is lost".to_owned()
            } else {
                "check the disk and the kernel's log, then start the node again; nothing that was acknowledged is lost \
                 as long as the disk kept what it confirmed"
                    .to_owned()
            },
        };
        tracing::error!(%failure, "the log cannot be written; this node stops");
        self.queue.lock().state = State::Failed(failure.clone());
        self.failed.send_replace(Some(failure.clone()));
        failure
    }

    fn end(&self) {
        let (left, result) = {
            let mut queue = self.queue.lock();
            let failure = match &queue.state {
                State::Failed(failure) => failure.clone(),
                _ => Failure {
                    what: "writing the log: it is closed".to_owned(),
                    where_: self.store.place(),
                    todo: "start the node again".to_owned(),
                },
            };
            (std::mem::take(&mut queue.changes), Err(failure))
        };
        for change in left {
            change.done.tell(&result);
        }
        self.ended.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimLog;
    use bytes::Bytes;
    use std::time::Duration;

    /// Queues five appends of 30 MiB and a commit mark before anything is written; answers how the appends went.
    async fn queue_much(log: &Arc<SimLog>) -> Vec<bool> {
        let running = Running::Tasks {
            write_takes: Arc::new(|| Duration::from_millis(1)),
        };
        let failed = watch::Sender::new(None);
        let (writer, _guard) =
            LogWriter::start(log.clone(), &running, Arc::default(), failed).expect("starts");
        let entry = Bytes::from(vec![0; 30 << 20]);
        let all = (0..5).map(|first| {
            writer.write_and_wait([Op::Append {
                group: GroupId(1),
                first,
                entries: vec![entry.clone()],
            }])
        });
        writer.note_committed(GroupId(1), b"mark".to_vec());
        let written = futures::future::join_all(all).await;
        writer.close().await;
        written.into_iter().map(|result| result.is_ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_gathered_is_written_in_pieces_the_marks_last() {
        let log = Arc::new(SimLog::new());
        assert_eq!(queue_much(&log).await, [true; 5]);
        assert_eq!((log.writes(), log.bounds(GroupId(1))), (3, Some((0, 4))));
        assert!(log.meta(GroupId(1), MetaKey::Committed).is_some());

        let log = Arc::new(SimLog::new());
        log.fail_after(2);
        assert_eq!(queue_much(&log).await, [true, true, true, true, false]);
        assert_eq!(log.meta(GroupId(1), MetaKey::Committed), None);
    }
}
