//! Calls that the owner of a shard, or of the catalog, must answer: done here when it is this node, else handed over,
//! once. While nobody is the owner the call waits, within its deadline, and what was certainly not done is tried again.

use super::call::Call;
use crate::core::Core;
use crate::limits;
use crate::place::topology::Owner;
use crate::rpc::errors;
use crate::shard::owner::Shard;
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::v1;
use sojourn_proto::v1::executions_client::ExecutionsClient;
use sojourn_proto::v1::journeys_client::JourneysClient;
use sojourn_proto::v1::signals_client::SignalsClient;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// A call that could not be done is tried again after this long; sooner when an owner changes.
const AGAIN: Duration = Duration::from_millis(25);
/// A replica that is not the owner is waited for at most this part of the time that is left; then the owner is asked.
const PATIENCE_PART: u32 = 2;

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing: asked again wherever it got no answer.
    Read,
    /// It changes something: without an answer its outcome is unknown.
    Change,
}

/// What a read shows.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The position of the state.
    pub position: v1::Position,
    /// How old it may be, in milliseconds; 0 when it is the owner's.
    pub age_ms: i64,
}

/// A client of the executions of another node.
pub fn executions(channel: Channel) -> ExecutionsClient<Channel> {
    ExecutionsClient::new(channel)
        .max_decoding_message_size(limits::ANSWER_BYTES)
        .max_encoding_message_size(limits::MESSAGE_BYTES)
}

/// A client of the signals of another node.
pub fn signals(channel: Channel) -> SignalsClient<Channel> {
    SignalsClient::new(channel)
        .max_decoding_message_size(limits::ANSWER_BYTES)
        .max_encoding_message_size(limits::MESSAGE_BYTES)
}

/// A client of the journeys of another node.
pub fn journeys(channel: Channel) -> JourneysClient<Channel> {
    JourneysClient::new(channel)
        .max_decoding_message_size(limits::ANSWER_BYTES)
        .max_encoding_message_size(limits::MESSAGE_BYTES)
}

impl Core {
    /// Has the owner of a shard do something: `here` with this node's replica, or `there` with a connection to the owner.
    ///
    /// # Errors
    /// Theirs; `not_owner` when no owner did anything within the deadline, or, when it was handed over, at once.
    pub async fn at_owner<A, H, T>(
        &self,
        call: &Call,
        kind: Kind,
        shard: u16,
        here: impl Fn(Arc<Shard>) -> H,
        there: impl Fn(Channel) -> T,
    ) -> Result<Response<A>, Status>
    where
        H: Future<Output = Result<A, Status>>,
        T: Future<Output = Result<Response<A>, Status>>,
    {
        let mut version = self.topology.version();
        loop {
            version.borrow_and_update();
            let owner = self.topology.owner(shard);
            let (answer, handed_over) = match owner {
                Owner::Here(replica) => {
                    let answer = here(replica).await.map(Response::new);
                    (answer, false)
                }
                Owner::There(_) | Owner::Unknown if call.forwarded => {
                    return Err(self.not_owner(shard));
                }
                Owner::There(node) => (self.hand_over(node, &there).await, true),
                Owner::Unknown => (Err(self.not_owner(shard)), false),
            };
            match answer {
                Err(status) if call.forwarded && errors::is_not_owner(&status) => {
                    return Err(self.not_owner(shard));
                }
                Err(status) => again(call, kind, handed_over, status)?,
                done => return done,
            }
            if !wait(call, version.changed()).await {
                return Err(self.not_owner(shard));
            }
        }
    }

    /// The same for the owner of the catalog; `here` without anything, for every node has a replica.
    ///
    /// # Errors
    /// As [`Core::at_owner`].
    pub async fn at_catalog_owner<A, H, T>(
        &self,
        call: &Call,
        here: impl Fn() -> H,
        there: impl Fn(Channel) -> T,
    ) -> Result<Response<A>, Status>
    where
        H: Future<Output = Result<A, Status>>,
        T: Future<Output = Result<Response<A>, Status>>,
    {
        let mut version = self.topology.version();
        let mut role = self.catalog.group().role();
        loop {
            version.borrow_and_update();
            role.borrow_and_update();
            let owner = self.place.catalog_owner();
            let (answer, handed_over) = match owner {
                _ if self.place.owns_catalog() => (here().await.map(Response::new), false),
                owner if call.forwarded => return Err(self.moved(None, owner)),
                Some(node) if node != self.topology.me => {
                    (self.hand_over(node, &there).await, true)
                }
                Some(_) | None => (Err(self.moved(None, None)), false),
            };
            match answer {
                Err(status) if call.forwarded && errors::is_not_owner(&status) => {
                    return Err(self.moved(None, owner));
                }
                Err(status) => again(call, Kind::Change, handed_over, status)?,
                done => return done,
            }
            let news = async {
                tokio::select! {
                    _ = version.changed() => {}
                    _ = role.changed() => {}
                }
            };
            if !wait(call, news).await {
                return Err(self.moved(None, self.place.catalog_owner()));
            }
        }
    }

    /// Reads from a shard as `options` want it: from the owner, linearizably; when they say `stale`, from this node's
    /// replica if it has one, else from any that answers; with `at_least`, from that replica once it has applied it. A replica that cannot show what
    /// it should leaves it to the owner.
    ///
    /// # Errors
    /// Those of `here` and `there`, and of [`Core::at_owner`].
    pub async fn read<A, H, T>(
        &self,
        call: &Call,
        shard: u16,
        options: Option<&v1::ReadOptions>,
        here: impl Fn(Arc<Shard>, Seen) -> H,
        there: impl Fn(Channel) -> T,
    ) -> Result<Response<A>, Status>
    where
        H: Future<Output = Result<A, Status>>,
        T: Future<Output = Result<Response<A>, Status>>,
    {
        let at_least = options.and_then(|o| o.at_least.as_ref());
        let at_least = at_least.filter(|p| p.shard == u32::from(shard));
        let stale = options.is_some_and(|o| o.stale);
        if (stale || at_least.is_some())
            && let Some(replica) = self.shards.local(shard)
        {
            let patience = Instant::now() + call.left() / PATIENCE_PART;
            let there_already = match at_least {
                Some(at) => applied(&replica, at.index, patience).await,
                None => true,
            };
            if there_already {
                let seen = seen(&replica);
                match here(replica, seen).await {
                    Err(status) if errors::reason(&status).as_deref() == Some("behind") => {}
                    answer => return answer.map(Response::new),
                }
            }
        }
        if stale && !call.forwarded && self.shards.local(shard).is_none() {
            for node in self.replicas_elsewhere(shard) {
                let within = call.left() / PATIENCE_PART;
                let asked = tokio::time::timeout(within, self.hand_over(node, &there)).await;
                match asked {
                    // another replica may show it, or its owner
                    Err(_) => {}
                    Ok(Err(status)) if errors::is_not_owner(&status) || !was_answered(&status) => {}
                    Ok(answer) => return answer,
                }
            }
        }
        let here = &here;
        let confirmed = |replica: Arc<Shard>| async move {
            let read = replica.group.read_index(call.until).await;
            read.map_err(|e| {
                errors::with_reason(Code::Unavailable, errors::NOT_OWNER, e.to_string())
            })?;
            let seen = Seen {
                age_ms: 0,
                ..seen(&replica)
            };
            here(replica, seen).await
        };
        self.at_owner(call, Kind::Read, shard, confirmed, there)
            .await
    }

    /// The other nodes that can be reached and have a replica of a shard, its owner first.
    fn replicas_elsewhere(&self, shard: u16) -> Vec<NodeId> {
        let owner = match self.topology.owner(shard) {
            Owner::There(node) => Some(node),
            Owner::Here(_) | Owner::Unknown => None,
        };
        let layout = self.topology.cluster().layout().ok();
        let voters = layout.map(|l| l.voters(ShardId(shard)).to_vec());
        let heard = self.topology.heard();
        let mut nodes: Vec<NodeId> = owner.into_iter().collect();
        for node in voters.into_iter().flatten() {
            if node != self.topology.me && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes.retain(|node| heard.get(node).is_some_and(|h| h.why.is_none()));
        nodes
    }

    async fn hand_over<A, T>(
        &self,
        node: NodeId,
        there: impl Fn(Channel) -> T,
    ) -> Result<Response<A>, Status>
    where
        T: Future<Output = Result<Response<A>, Status>>,
    {
        match self.ways.to(node) {
            Ok(way) => there(way.channel).await,
            Err(why) => Err(errors::with_reason(
                Code::Unavailable,
                errors::NOT_OWNER,
                why,
            )),
        }
    }
}

/// What this replica shows now.
fn seen(replica: &Shard) -> Seen {
    let age = replica.group.age();
    Seen {
        position: v1::Position {
            shard: replica.number.into(),
            index: replica.duties.state.lock().applied,
        },
        // one that has heard of nobody since it was opened may be of any age
        age_ms: age.map_or(i64::MAX, |a| {
            i64::try_from(a.as_millis()).unwrap_or(i64::MAX)
        }),
    }
}

/// Waits until a replica has applied an entry; says whether it has.
pub async fn applied(replica: &Shard, index: u64, until: Instant) -> bool {
    let mut applied = replica.group.applied();
    let reached = applied.wait_for(|p| p.is_some_and(|p| p.index >= index));
    matches!(tokio::time::timeout_at(until, reached).await, Ok(Ok(_)))
}

/// Whether a call that failed is made again; else its error.
fn again(call: &Call, kind: Kind, handed_over: bool, status: Status) -> Result<(), Status> {
    if call.forwarded {
        return Err(status);
    }
    if errors::is_not_owner(&status) || (handed_over && was_not_sent(&status)) {
        return Ok(());
    }
    if !handed_over || was_answered(&status) {
        return Err(status);
    }
    match kind {
        Kind::Read => Ok(()),
        Kind::Change => Err(errors::unknown(&format!(
            "the owner has not answered: {}",
            status.message()
        ))),
    }
}

/// Whether the other node said this, and not the way to it.
fn was_answered(status: &Status) -> bool {
    let of_the_way = matches!(
        status.code(),
        Code::Unavailable
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
    );
    status.source().is_none() && (!of_the_way || errors::reason(status).is_some())
}

/// Whether there was no connection.
fn was_not_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Waits for news, or a little; says whether there is still time.
pub async fn wait<T>(call: &Call, news: impl Future<Output = T>) -> bool {
    let now = Instant::now();
    if now >= call.until {
        return false;
    }
    // without news too: what the owner refused may be over without anybody saying so
    drop(tokio::time::timeout_at((now + AGAIN).min(call.until), news).await);
    Instant::now() < call.until
}
