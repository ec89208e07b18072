//! Watching: what happens from now on, of each shard from this node's replica, or where there is none from another
//! node's.
//!
//! Where a source ends (the replica is let go, the other node is lost) the watch goes on from the next one, and says by
//! `missed` that something may be missing.

use super::errors;
use super::timeline::{entry, execution_id};
use crate::core::{Core, identifier, workspace};
use crate::place::topology::Owner;
use crate::route::call::Call;
use crate::route::seek::executions;
use crate::shard::owner::Shard;
use sojourn_journey::identifier::{ExecutionId, customer_hash};
use sojourn_journey::signal::Identifier;
use sojourn_proto::v1;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use v1::watch_response::What;

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

/// Answers that wait for a slow client.
const AHEAD: usize = 64;
/// A watch that finds no room is worth another try after this long: others end when their clients go.
const WATCH_AGAIN: Duration = Duration::from_secs(1);
/// A shard without a source is looked at again after this long; sooner when an owner changes.
const AGAIN: Duration = Duration::from_millis(100);

struct Filter {
    workspace: String,
    journey: String,
    customer: Option<Identifier>,
    execution: Option<ExecutionId>,
}

impl Filter {
    /// The shard of the only customer that is watched.
    fn shard(&self, core: &Core) -> Option<u16> {
        let customer = self.customer.as_ref();
        let hash = customer
            .map(|c| customer_hash(&self.workspace, c))
            .or(self.execution.map(|id| id.customer))?;
        Some(core.shards.of(hash))
    }
}

/// What happens from now on.
///
/// # Errors
/// A field is wrong, or as many watches are open as may be.
pub fn watch(
    core: &Arc<Core>,
    request: v1::WatchRequest,
    call: &Call,
) -> Result<WatchStream, Status> {
    let customer = match request.customer.clone() {
        None => None,
        some => Some(identifier("customer", some)?),
    };
    let execution = match request.execution.as_str() {
        "" => None,
        id => Some(
            id.parse()
                .map_err(|e: String| errors::invalid_field("execution", e))?,
        ),
    };
    let filter = Filter {
        workspace: workspace(&request.workspace)?.to_owned(),
        journey: request.journey.clone(),
        customer,
        execution,
    };
    let room = if call.forwarded {
        &core.watches_handed
    } else {
        &core.watches
    };
    let Ok(place) = room.clone().try_acquire_owned() else {
        return Err(errors::overloaded("overloaded_watches", WATCH_AGAIN));
    };
    let (tx, rx) = mpsc::channel(AHEAD);
    let shards: Vec<u16> = match call.shard.or_else(|| filter.shard(core)) {
        Some(shard) if shard < core.shards.count() => vec![shard],
        Some(_) => Vec::new(),
        None => (0..core.shards.count()).collect(),
    };
    let watch = Arc::new(Watch {
        core: core.clone(),
        filter,
        request,
        call: *call,
        _place: place,
        tx,
    });
    for shard in shards {
        // the task ends with the stream: its sender is closed then
        tokio::spawn(watch.clone().follow(shard));
    }
    Ok(Box::pin(ReceiverStream::new(rx)))
}

struct Watch {
    core: Arc<Core>,
    filter: Filter,
    request: v1::WatchRequest,
    call: Call,
    _place: OwnedSemaphorePermit,
    tx: mpsc::Sender<Result<v1::WatchResponse, Status>>,
}

/// Why a source ended.
enum Ended {
    /// The client has gone.
    Unwanted,
    /// It cannot be followed any more; whether it ever was.
    Lost(bool),
}

impl Watch {
    /// Follows one shard from one source after the other, until the client goes.
    async fn follow(self: Arc<Self>, shard: u16) {
        let mut version = self.core.topology.version();
        let mut first = true;
        loop {
            version.borrow_and_update();
            let ended = match self.core.shards.local(shard) {
                Some(replica) => self.local(&replica, first).await,
                None if self.call.forwarded => {
                    // whoever handed it over looks for another source
                    let elsewhere = self.core.not_owner(shard);
                    drop(self.tx.send(Err(elsewhere)).await);
                    return;
                }
                None => self.remote(shard, first).await,
            };
            match ended {
                Ended::Unwanted => return,
                Ended::Lost(followed) => first &= !followed,
            }
            tokio::select! {
                _ = version.changed() => {}
                () = tokio::time::sleep(AGAIN) => {}
                () = self.tx.closed() => return,
            }
        }
    }

    async fn say(&self, what: What) -> bool {
        let response = v1::WatchResponse { what: Some(what) };
        self.tx.send(Ok(response)).await.is_ok()
    }

    /// That a source is there: at the beginning where it begins, later that something may have been missed.
    async fn begin(&self, started: v1::Position, first: bool) -> bool {
        if first {
            return self.say(What::Started(started)).await;
        }
        // how many, nobody can say
        self.say(What::Missed(0)).await
    }

    async fn local(&self, shard: &Shard, first: bool) -> Ended {
        let mut seen = shard.machine.watchers.subscribe();
        let started = v1::Position {
            shard: shard.number.into(),
            index: shard.duties.state.lock().applied,
        };
        if !self.begin(started, first).await {
            return Ended::Unwanted;
        }
        let mut version = self.core.topology.version();
        loop {
            let received = tokio::select! {
                received = seen.recv() => received,
                () = self.tx.closed() => return Ended::Unwanted,
                _ = version.changed() => {
                    // a replica that is let go says nothing any more
                    match self.core.shards.local(shard.number) {
                        Some(still) if std::ptr::eq(&*still, shard) => continue,
                        _ => return Ended::Lost(true),
                    }
                }
            };
            let what = match received {
                Ok(seen) => {
                    let d = &seen.decision;
                    let filter = &self.filter;
                    let mine = d.workspace == filter.workspace
                        && filter.customer.as_ref().is_none_or(|c| d.customer == *c);
                    let concerns = |p: &crate::shard::decision::Part| {
                        (filter.journey.is_empty() || p.journey == filter.journey)
                            && filter.execution.is_none_or(|id| execution_id(d, p) == id)
                    };
                    if !mine || !d.parts.iter().any(concerns) {
                        continue;
                    }
                    What::Entry(entry(d, seen.shard, seen.index, concerns))
                }
                Err(broadcast::error::RecvError::Lagged(n)) => What::Missed(n),
                Err(broadcast::error::RecvError::Closed) => return Ended::Lost(true),
            };
            if !self.say(what).await {
                return Ended::Unwanted;
            }
        }
    }

    /// From the owner, or while nobody is known to be that, from a node that the layout names.
    async fn remote(&self, shard: u16, first: bool) -> Ended {
        let node = match self.core.topology.owner(shard) {
            Owner::There(node) => Some(node),
            Owner::Here(_) | Owner::Unknown => {
                let layout = self.core.topology.cluster().layout().ok();
                let me = self.core.topology.me;
                layout.and_then(|l| {
                    let voters = l.voters(sojourn_cluster::ShardId(shard));
                    voters.iter().copied().find(|n| *n != me)
                })
            }
        };
        let way = node.and_then(|node| self.core.ways.to(node).ok());
        let Some(way) = way else {
            return Ended::Lost(false);
        };
        let call = self.call.of_shard(shard);
        let mut onward = call.onward(self.core.topology.me, self.request.clone());
        // it goes on as long as it is wanted
        onward.metadata_mut().remove("grpc-timeout");
        let mut client = executions(way.channel);
        let opened = tokio::select! {
            opened = client.watch(onward) => opened,
            () = self.tx.closed() => return Ended::Unwanted,
        };
        let Ok(opened) = opened else {
            return Ended::Lost(false);
        };
        let mut source = opened.into_inner();
        let mut followed = false;
        loop {
            let next = tokio::select! {
                next = source.message() => next,
                () = self.tx.closed() => return Ended::Unwanted,
            };
            let Ok(Some(v1::WatchResponse { what: Some(what) })) = next else {
                return Ended::Lost(followed);
            };
            let wanted = match what {
                What::Started(at) if !followed => {
                    followed = true;
                    self.begin(at, first).await
                }
                what => self.say(what).await,
            };
            if !wanted {
                return Ended::Unwanted;
            }
        }
    }
}
