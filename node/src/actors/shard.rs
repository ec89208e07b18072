//! The actor of one shard on its owner: wakes customers and supervises them. One per term of office.

use super::customer::{CustomerActor, Start};
use super::live::{Live, PASSIVATE_EVERY, idle_since};
use super::{Answer, Ask, CustomerKey, Reply, Request};
use crate::limits;
use crate::shard::customer::Slot;
use crate::shard::owner::Duties;
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use std::ops::Bound;
use std::sync::Arc;
use tokio::time::Instant;

/// Customers looked at in one tick, ten bytes each, under one lock.
const LOOK: usize = 8_192;

/// The actor.
pub struct ShardActor;

/// Everything that can wake a shard's actor.
pub enum ShardMsg {
    /// A request waits for this customer.
    Wake(CustomerKey),
    /// Time to passivate.
    Tick,
}

/// What it is started with.
pub struct ShardArgs {
    /// The awake customers.
    pub live: Arc<Live>,
    /// What customers need.
    pub duties: Arc<Duties>,
    /// How many shards share the node.
    pub shards: usize,
    /// Up to where it has looked for customers that may leave memory.
    pub looked: Bound<u64>,
}

impl ShardArgs {
    /// This shard's part of the customers that may be awake.
    fn keep(&self) -> usize {
        (limits::AWAKE_CUSTOMERS / self.shards.max(1)).max(1)
    }

    /// Looks at some of the customers, and asks those who have been idle for the dedup window to leave memory.
    fn send_away(&mut self) {
        let long_ago = self.duties.seams.clock.now().0 - self.duties.dedup_window.0;
        let idle: Vec<(u64, Slot)> = {
            let state = self.duties.state.lock();
            if state.waiting.bytes() > limits::HISTORY_WAITING_MAX / 2 {
                // it can wait until checkpoints have caught up
                return;
            }
            let mut found = Vec::new();
            let mut last = None;
            let next = state.buckets.range((self.looked, Bound::Unbounded));
            for (hash, slot) in next.take(LOOK) {
                if found.len() == limits::LEAVING {
                    break;
                }
                last = Some(*hash);
                if slot.idle_since().is_some_and(|since| since.0 < long_ago) {
                    found.push((*hash, slot.clone()));
                }
            }
            self.looked = match last {
                Some(hash) => Bound::Excluded(hash),
                None => Bound::Unbounded,
            };
            found
        };
        for (hash, slot) in idle {
            let bucket = match slot.open() {
                Ok(bucket) => bucket,
                Err(error) => {
                    tracing::error!(shard = self.duties.shard, %error, "a customer cannot be read");
                    continue;
                }
            };
            for customer in bucket.iter().flat_map(|bucket| bucket.iter()) {
                let who = CustomerKey {
                    hash,
                    workspace: customer.workspace.as_str().into(),
                    key: customer.customer.key.clone(),
                };
                let ask = Arc::new(Ask::Leave);
                // refused when this node does not own the shard any more: then it is its successor's to do
                let _ = self.live.submit_inner(who, ask, Reply::nobody());
            }
        }
    }
}

impl Actor for ShardActor {
    type Msg = ShardMsg;
    type State = ShardArgs;
    type Arguments = ShardArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ShardMsg>,
        args: ShardArgs,
    ) -> Result<ShardArgs, ActorProcessingErr> {
        myself.send_interval(PASSIVATE_EVERY, || ShardMsg::Tick);
        Ok(args)
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardMsg>,
        message: ShardMsg,
        state: &mut ShardArgs,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMsg::Wake(customer) => {
                let start = Start {
                    customer: customer.clone(),
                    duties: state.duties.clone(),
                    live: state.live.clone(),
                };
                match Actor::spawn_linked(None, CustomerActor, start, myself.get_cell()).await {
                    Ok((actor, _)) => state.live.awake(&customer, actor),
                    // the term of office ends: nothing was decided
                    Err(_)
                        if myself.get_status() != ActorStatus::Running
                            || state.live.session().is_none() =>
                    {
                        state.live.cannot_wake(&customer, &Answer::NotOwner);
                    }
                    Err(error) => {
                        tracing::error!(shard = state.duties.shard, %error, "a customer cannot be woken");
                        let answer = Answer::Internal(error.to_string());
                        state.live.cannot_wake(&customer, &answer);
                    }
                }
                // a quarter of slack, so that sorting by age is paid by many
                let keep = state.keep();
                if state.live.count() > keep + keep / 4 {
                    state.live.passivate(idle_since(Instant::now()), keep);
                }
            }
            ShardMsg::Tick => {
                state
                    .live
                    .passivate(idle_since(Instant::now()), state.keep());
                // packs as much as an entry would wait for, and goes on at the next tick
                let now = Instant::now();
                state.duties.state.lock().pack_idle(idle_since(now), 4_096);
                state.send_away();
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ShardMsg>,
        event: SupervisionEvent,
        state: &mut ShardArgs,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                tracing::error!(shard = state.duties.shard, %error, "a customer's actor failed; the next signal wakes a new one");
                state.live.gone(cell.get_id());
            }
            SupervisionEvent::ActorTerminated(cell, _, _) => state.live.gone(cell.get_id()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

/// The type of a customer's messages.
pub type CustomerMsg = Request;
