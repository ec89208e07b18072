//! Giving a snapshot to another node.

use super::{PART_BYTES, Pace};
use crate::checkpoint::StoreFault;
use crate::format::{self, Covering, Manifest};
use crate::id::{GroupId, NodeId, Position};
use crate::machine::HistoryPieces;
use crate::transport::{SnapshotAnswer, SnapshotOut, SnapshotPart, Transport, TransportError};
use crate::types::{SnapshotHandle, TypeConfig, Vote};
use openraft::Snapshot;
use sojourn_proto::cluster as proto;
use std::time::Duration;
use tokio::time::Instant;

/// The way of one snapshot, with what has been sent on it.
struct Way {
    out: SnapshotOut,
    within: Duration,
    begun: Instant,
    sent_bytes: u64,
    bytes_per_second: u64,
}

/// What the receiver said that ends the giving.
enum Ended {
    Installed(Vote),
    Broken(String),
}

type Answered = Option<Result<SnapshotAnswer, TransportError>>;

impl Way {
    /// The end that an answer means; `None` when it is only progress.
    fn ended(answer: Answered) -> Option<Ended> {
        match answer {
            Some(Ok(SnapshotAnswer::TakenBytes(_))) => None,
            Some(Ok(SnapshotAnswer::Installed(installed))) => {
                let vote = installed.vote.as_ref().map(format::vote);
                Some(vote.map_or_else(
                    || Ended::Broken("it does not say which vote it knows".to_owned()),
                    Ended::Installed,
                ))
            }
            Some(Ok(SnapshotAnswer::Refused(refused))) => Some(Ended::Broken(refused.why)),
            Some(Ok(SnapshotAnswer::Wanted(_))) => {
                Some(Ended::Broken("it begins a second time".to_owned()))
            }
            Some(Err(error)) => Some(Ended::Broken(error.to_string())),
            None => Some(Ended::Broken("the stream has ended".to_owned())),
        }
    }

    /// Sends one part, when it is time for it and the receiver has room.
    async fn send(&mut self, part: SnapshotPart, bytes: usize) -> Result<(), Ended> {
        // Kept to an average since the beginning: a pause of the receiver may be caught up with.
        let due = self.sent_bytes as f64 / self.bytes_per_second.max(1) as f64;
        let due = self.begun + Duration::from_secs_f64(due.min(86_400.0));
        self.sent_bytes += bytes as u64;
        let latest = due.max(Instant::now()) + self.within;
        let mut part = Some(part);
        let SnapshotOut { parts, answers } = &mut self.out;
        loop {
            tokio::select! {
                biased;
                answer = answers.recv() => {
                    if let Some(ended) = Way::ended(answer) {
                        return Err(ended);
                    }
                }
                room = async { tokio::time::sleep_until(due).await; parts.reserve().await } => {
                    let room = match room {
                        Ok(room) => room,
                        // Why is said on the other channel, if at all.
                        Err(_) => return Err(match tokio::time::timeout_at(latest, answers.recv()).await {
                            Ok(answer) => Way::ended(answer).unwrap_or_else(|| Ended::Broken("the stream has ended".to_owned())),
                            Err(_) => Ended::Broken("the stream has ended".to_owned()),
                        }),
                    };
                    if let Some(part) = part.take() {
                        room.send(part);
                    }
                    return Ok(());
                }
                () = tokio::time::sleep_until(latest) => {
                    let why = format!("it has taken nothing for {} ms", self.within.as_millis());
                    return Err(Ended::Broken(why));
                }
            }
        }
    }

    async fn answer(&mut self) -> Answered {
        match tokio::time::timeout(self.within, self.out.answers.recv()).await {
            Ok(answer) => answer,
            Err(_) => Some(Ok(SnapshotAnswer::Refused(proto::Refused {
                why: format!("it has not answered within {} ms", self.within.as_millis()),
                behind: false,
            }))),
        }
    }
}

/// Gives `snapshot` to `target`; answers the vote that it knows when it stands there, or further. `within`: how long each
/// step of the receiver may take.
pub(crate) async fn give(
    transport: &dyn Transport,
    group: GroupId,
    target: NodeId,
    vote: Vote,
    snapshot: Snapshot<TypeConfig>,
    pace: &Pace,
    within: Duration,
) -> Result<Vote, String> {
    let handle = *snapshot.snapshot;
    let manifest = handle
        .manifest
        .clone()
        .ok_or("there is no checkpoint to give yet")?;
    let out = transport
        .open_snapshot(target)
        .await
        .map_err(|e| e.to_string())?;
    let mut way = Way {
        out,
        within,
        begun: Instant::now(),
        sent_bytes: 0,
        bytes_per_second: pace.bytes_per_second,
    };
    tracing::info!(%group, node = target, id = %snapshot.meta.snapshot_id, "giving a snapshot");
    match carry(
        &mut way,
        group,
        vote,
        snapshot.meta.snapshot_id,
        &handle,
        &manifest,
        pace,
    )
    .await
    {
        Ended::Installed(vote) => Ok(vote),
        Ended::Broken(why) => Err(why),
    }
}

/// Sends everything. Ends with what the receiver says last.
async fn carry(
    way: &mut Way,
    group: GroupId,
    vote: Vote,
    id: String,
    handle: &SnapshotHandle,
    manifest: &Manifest,
    pace: &Pace,
) -> Ended {
    let begin = proto::SnapshotBegin {
        vote: Some(format::vote_record(&vote)),
        cover: manifest.cover.clone(),
        id,
    };
    if let Err(ended) = way.send(SnapshotPart::Begin(begin), 0).await {
        return ended;
    }
    let wanted = match way.answer().await {
        Some(Ok(SnapshotAnswer::Wanted(wanted))) => wanted,
        other => {
            return Way::ended(other).unwrap_or_else(|| {
                Ended::Broken("it takes parts before it has said what it wants".to_owned())
            });
        }
    };
    let has = wanted.history_upto.as_ref().map(format::log_id);
    let given = give_history(way, handle, has.map(Position::from), manifest, pace).await;
    if let Err(ended) = given {
        return ended;
    }
    if let Err(ended) = give_chunks(way, group, handle, manifest, pace).await {
        return ended;
    }
    loop {
        let answer = way.answer().await;
        if let Some(ended) = Way::ended(answer) {
            return ended;
        }
    }
}

async fn give_history(
    way: &mut Way,
    handle: &SnapshotHandle,
    has: Option<Position>,
    manifest: &Manifest,
    pace: &Pace,
) -> Result<(), Ended> {
    let broken = |why: String| Ended::Broken(format!("history cannot be given: {why}"));
    let upto = manifest.log_id().map(Position::from);
    let mut kept = false;
    if let (Some(machine), Some(upto)) = (handle.machine.clone(), upto) {
        let opened = pace
            .running
            .blocking(move || machine.history_after(has, upto));
        let opened = opened.await.map_err(broken)?.map_err(broken)?;
        kept = opened.is_some();
        let mut pieces = opened;
        while let Some(source) = pieces.take() {
            let (source, piece) = pace
                .running
                .blocking(move || next_piece(source))
                .await
                .map_err(broken)?
                .map_err(broken)?;
            let Some(piece) = piece else { break };
            let bytes = piece.len();
            way.send(SnapshotPart::History(piece.into()), bytes).await?;
            pieces = Some(source);
        }
    }
    let end = proto::SnapshotHistoryEnd { kept };
    way.send(SnapshotPart::HistoryEnd(end), 0).await
}

type Piece = (Box<dyn HistoryPieces>, Option<Vec<u8>>);

fn next_piece(mut source: Box<dyn HistoryPieces>) -> Result<Piece, String> {
    let piece = source.next_piece()?;
    Ok((source, piece))
}

async fn give_chunks(
    way: &mut Way,
    group: GroupId,
    handle: &SnapshotHandle,
    manifest: &Manifest,
    pace: &Pace,
) -> Result<(), Ended> {
    let broken = |why: String| Ended::Broken(format!("the checkpoint cannot be read: {why}"));
    let (mut number, mut crc) = (0_u32, 0_u32);
    for generation in &manifest.generations {
        let mut from = 0_u32;
        while from < generation.chunks {
            let (store, generation) = (handle.store.clone(), generation.number);
            let read = pace.running.blocking(move || {
                let mut chunks: Vec<Vec<u8>> = Vec::new();
                let mut bytes = 0;
                let read = store.read_chunks_from(group, generation, from, &mut |number, chunk| {
                    if number as usize != from as usize + chunks.len() {
                        return Err(StoreFault {
                            what: format!("chunk {number} follows {} others", chunks.len()),
                            damaged: true,
                        });
                    }
                    bytes += chunk.len();
                    chunks.push(chunk.to_vec());
                    if bytes >= PART_BYTES {
                        return Err(StoreFault {
                            what: String::new(),
                            damaged: false,
                        });
                    }
                    Ok(())
                });
                match read {
                    Err(fault) if bytes < PART_BYTES => Err(fault.what),
                    _ => Ok((chunks, bytes)),
                }
            });
            let (chunks, bytes) = read.await.map_err(broken)?.map_err(broken)?;
            if chunks.is_empty() {
                return Err(broken(format!(
                    "chunk {from} of generation {generation} is missing"
                )));
            }
            for chunk in &chunks {
                crc = crc32c::crc32c_append(crc, chunk);
            }
            let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            let part = proto::SnapshotChunks {
                first: number,
                chunks: chunks.into_iter().map(Into::into).collect(),
            };
            way.send(SnapshotPart::Chunks(part), bytes).await?;
            from = from.saturating_add(count);
            number = number.saturating_add(count);
        }
    }
    let end = proto::SnapshotEnd {
        chunks: number,
        crc,
    };
    way.send(SnapshotPart::End(end), 0).await
}
