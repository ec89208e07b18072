//! The root of the supervision tree.

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

/// The actor: supervises the shards' actors. What a shard does when its actor fails is decided by its owner's loop,
/// which awaits it.
pub struct NodeActor;

impl Actor for NodeActor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<()>, _args: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, error) = event {
            tracing::error!(%error, "a shard's actor failed; its shard opens anew");
        }
        Ok(())
    }
}
