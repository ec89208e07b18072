//! The actor of one shard on its owner: wakes customers and supervises them. One per term of office.

use super::customer::{CustomerActor, Start};
use super::live::{Live, PASSIVATE_EVERY, idle_since};
use super::{CustomerKey, Request};
use crate::limits;
use crate::shard::owner::Duties;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::sync::Arc;
use std::time::Instant;

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
}

impl ShardArgs {
    /// This shard's part of the customers that may be awake.
    fn keep(&self) -> usize {
        (limits::AWAKE_CUSTOMERS / self.shards.max(1)).max(1)
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
                let (actor, _) =
                    Actor::spawn_linked(None, CustomerActor, start, myself.get_cell()).await?;
                state.live.awake(&customer, actor);
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
                let mut shard = state.duties.state.lock();
                shard.pack_idle(idle_since(now), 4_096);
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
