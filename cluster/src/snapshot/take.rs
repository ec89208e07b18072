//! Taking a snapshot from the node that leads.
//!
//! Nothing of the replica changes before everything is here and durable; then openraft installs it.

use crate::error::CheckpointError;
use crate::format::{self, Covering};
use crate::group::Group;
use crate::id::NodeId;
use crate::machine::Machine;
use crate::transport::{SnapshotAnswer, SnapshotIn, SnapshotPart};
use crate::types::{SnapshotHandle, SnapshotMeta, Vote};
use crate::wire;
use openraft::Snapshot;
use sojourn_proto::cluster as proto;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A snapshot's name may have this many bytes.
const MAX_ID: usize = 256;

/// Takes the snapshot that node `from` sends for `group`, and tells it how that goes.
pub(crate) async fn take(
    group: Group,
    from: NodeId,
    begin: proto::SnapshotBegin,
    stream: SnapshotIn,
) {
    let SnapshotIn { mut parts, answers } = stream;
    let taken = tokio::select! {
        biased;
        () = group.closed() => Err("the group is closed on this node".to_owned()),
        taken = take_all(&group, from, begin, &mut parts, &answers) => taken,
    };
    let last = match taken {
        Ok(vote) => SnapshotAnswer::Installed(proto::SnapshotInstalled {
            vote: Some(format::vote_record(&vote)),
        }),
        Err(why) => {
            tracing::warn!(group = %group.id(), node = from, %why, "a snapshot was not taken");
            SnapshotAnswer::Refused(proto::Refused { why, behind: false })
        }
    };
    // When the leader is gone, it will ask again.
    drop(answers.send(last).await);
}

async fn take_all(
    group: &Group,
    from: NodeId,
    begin: proto::SnapshotBegin,
    parts: &mut mpsc::Receiver<SnapshotPart>,
    answers: &mpsc::Sender<SnapshotAnswer>,
) -> Result<Vote, String> {
    let vote = wire::vote_of(from, true, begin.vote.as_ref())?;
    let at = wire::cover(group.id().0, begin.cover.as_ref())?;
    if begin.id.len() > MAX_ID {
        return Err(format!(
            "the snapshot's name has {} bytes, the limit is {MAX_ID}",
            begin.id.len()
        ));
    }
    let replica = group.replica().clone();
    let _one = replica
        .try_receive()
        .ok_or("another snapshot is being taken")?;
    let mine = group.vote();
    let higher = mine.partial_cmp(&vote) == Some(std::cmp::Ordering::Greater);
    if higher || replica.applied_log_id() >= Some(at) {
        return Ok(mine);
    }
    let machine = replica.machine();
    let running = replica.running();
    let history = {
        let replica = replica.clone();
        let asked = running.blocking(move || replica.guard(|machine| Ok(machine.history_upto())));
        asked.await??
    };
    let wanted = proto::SnapshotWanted {
        history_upto: history.map(|at| format::position(&at.into())),
    };
    let gone = |_| "the leader is gone".to_owned();
    answers
        .send(SnapshotAnswer::Wanted(wanted))
        .await
        .map_err(gone)?;
    // It would only disturb whoever leads: it cannot own before its state is whole.
    let _quiet = group.hold_back();
    let mut received = {
        let replica = replica.clone();
        let begun = running.blocking(move || replica.begin_received());
        begun.await?.map_err(|e| e.to_string())?
    };
    let mut taken = 0_u64;
    let mut history_done = false;
    loop {
        let part = parts.recv().await.ok_or("the stream broke off")?;
        match part {
            SnapshotPart::Begin(_) => return Err("the snapshot begins a second time".to_owned()),
            SnapshotPart::History(piece) if !history_done => {
                taken += piece.len() as u64;
                let machine = machine.clone();
                run(&running, move || {
                    guarded(&*machine, |m| m.take_history(&piece))
                })
                .await?;
            }
            SnapshotPart::HistoryEnd(end) if !history_done => {
                history_done = true;
                if end.kept {
                    let machine = machine.clone();
                    run(&running, move || {
                        guarded(&*machine, |m| m.history_taken(at.into()))
                    })
                    .await?;
                }
            }
            SnapshotPart::Chunks(chunks) if history_done => {
                taken += chunks.chunks.iter().map(|c| c.len() as u64).sum::<u64>();
                received = run(&running, move || {
                    received
                        .put(chunks.first, &chunks.chunks)
                        .map_err(|e| e.to_string())?;
                    Ok(received)
                })
                .await?;
            }
            SnapshotPart::End(end) if history_done => {
                let cover = begin.cover.clone().unwrap_or_default();
                let meta = SnapshotMeta {
                    last_log_id: cover.log_id(),
                    last_membership: cover.stored_membership(),
                    snapshot_id: begin.id.clone(),
                };
                let finished = run(&running, move || {
                    received
                        .end(cover, end.chunks, end.crc)
                        .map_err(|e: CheckpointError| e.to_string())
                });
                let (manifest, pin) = finished.await?;
                let handle = SnapshotHandle {
                    manifest: Some(manifest),
                    store: replica.store(),
                    machine: None,
                    _pin: Some(Arc::new(pin)),
                    own: true,
                };
                let snapshot = Snapshot {
                    meta,
                    snapshot: Box::new(handle),
                };
                tracing::info!(group = %group.id(), node = from, id = %begin.id, bytes = taken, "a snapshot has arrived");
                return group.install(vote, snapshot).await;
            }
            SnapshotPart::History(_) | SnapshotPart::HistoryEnd(_) => {
                return Err("history comes after its end".to_owned());
            }
            SnapshotPart::Chunks(_) | SnapshotPart::End(_) => {
                return Err("chunks come before the end of history".to_owned());
            }
        }
        answers
            .send(SnapshotAnswer::TakenBytes(taken))
            .await
            .map_err(gone)?;
    }
}

async fn run<T: Send + 'static>(
    running: &crate::seam::Running,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    running.blocking(work).await?
}

fn guarded<T>(
    machine: &dyn Machine,
    call: impl FnOnce(&dyn Machine) -> Result<T, String>,
) -> Result<T, String> {
    crate::replica::guarded(machine, call)
}
