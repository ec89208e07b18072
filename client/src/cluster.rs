//! The nodes, where the shards are, and how that is changed: the `Cluster` service. Answers are the wire's own messages
//! ([`crate::wire`]). Knows nothing of where this client sends its own calls.

use crate::client::Client;
use crate::error::{Code, Error};
use sojourn_proto::v1::{self, cluster_client::ClusterClient};

/// What is wished of a node, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// It gives its replicas away, and takes none.
    Drain(u64),
    /// It is gone or empty, and never comes back under this id.
    Remove(u64),
    /// Draining, it takes replicas again.
    Activate(u64),
}

impl Wish {
    fn wire(self) -> v1::Wish {
        use v1::wish::Wish as W;
        let wish = match self {
            Wish::Drain(node) => W::Drain(node),
            Wish::Remove(node) => W::Remove(node),
            Wish::Activate(node) => W::Activate(node),
        };
        v1::Wish { wish: Some(wish) }
    }
}

/// What is done with a change under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// It stands still until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// It ends: what has moved stays.
    Cancel,
}

impl Client {
    /// Nodes, shards and the change under way, as the node that answers sees them; `node` of the answer says which.
    ///
    /// # Errors
    /// As every call.
    pub async fn cluster_status(&self) -> Result<v1::ClusterStatus, Error> {
        let request = v1::GetClusterStatusRequest {};
        self.call(request, async |channel, request| {
            ClusterClient::new(channel)
                .max_decoding_message_size(crate::lane::DECODE_MAX)
                .get_status(request)
                .await
        })
        .await
    }

    /// What a change would do; changes nothing. Without a wish: what the layout would be best.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a node that is not there, [`Code::Conflict`] or [`Code::Invalid`] for a wish that cannot
    /// be.
    pub async fn cluster_plan(&self, wishes: &[Wish]) -> Result<v1::PlanResponse, Error> {
        let request = v1::PlanRequest {
            wishes: wishes.iter().map(|w| w.wire()).collect(),
        };
        self.call(request, async |channel, request| {
            ClusterClient::new(channel)
                .max_decoding_message_size(crate::lane::DECODE_MAX)
                .plan(request)
                .await
        })
        .await
    }

    /// Begins a change; `None` when there is nothing to do. `expected_layout`: only when the layout still has this
    /// version. A change has no id of the asker's, so it is not asked for again when the outcome is unknown: look at
    /// [`Client::cluster_status`] then.
    ///
    /// # Errors
    /// As [`Client::cluster_plan`]; [`Code::Conflict`] also while another change is under way.
    pub async fn cluster_apply(
        &self,
        wishes: &[Wish],
        expected_layout: Option<u64>,
        actor: &str,
        reason: &str,
    ) -> Result<Option<v1::Change>, Error> {
        let request = v1::ApplyRequest {
            wishes: wishes.iter().map(|w| w.wire()).collect(),
            actor: actor.to_owned(),
            reason: reason.to_owned(),
            expected_layout: expected_layout.unwrap_or_default(),
        };
        let answer = self.call_once(request, async |channel, request| {
            ClusterClient::new(channel).apply(request).await
        });
        Ok(answer.await?.change.filter(|c| !c.id.is_empty()))
    }

    /// Pauses, resumes or cancels a change.
    ///
    /// # Errors
    /// [`Code::NotFound`] for an unknown change, [`Code::Conflict`] for one that has ended.
    pub async fn cluster_control(
        &self,
        change: &str,
        control: Control,
        actor: &str,
        reason: &str,
    ) -> Result<v1::Change, Error> {
        let kind = match control {
            Control::Pause => v1::ControlKind::Pause,
            Control::Resume => v1::ControlKind::Resume,
            Control::Cancel => v1::ControlKind::Cancel,
        };
        let request = v1::ControlRequest {
            id: change.to_owned(),
            kind: kind.into(),
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = self.call(request, async |channel, request| {
            ClusterClient::new(channel).control(request).await
        });
        answer.await?.change.ok_or_else(|| {
            Error::new(
                Code::Internal,
                "the server answered without a change; is it newer than this client?",
            )
        })
    }

    /// Gives the ownership of a shard to another of its voters.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a shard or node that is not there, [`Code::Conflict`] when the node is no voter of it or
    /// too far behind.
    pub async fn cluster_transfer(
        &self,
        shard: u32,
        to: u64,
        actor: &str,
    ) -> Result<v1::TransferResponse, Error> {
        let request = v1::TransferRequest {
            shard,
            to,
            actor: actor.to_owned(),
        };
        self.call_patiently(request, async |channel, request| {
            ClusterClient::new(channel).transfer(request).await
        })
        .await
    }

    /// Has every replica of these shards hash its state at one position; of all shards when none is named.
    ///
    /// # Errors
    /// Only when the comparison could not be made: a difference is an answer.
    pub async fn cluster_verify(&self, shards: &[u32]) -> Result<v1::VerifyResponse, Error> {
        let request = v1::VerifyRequest {
            shards: shards.to_vec(),
        };
        self.call_patiently(request, async |channel, request| {
            ClusterClient::new(channel)
                .max_decoding_message_size(crate::lane::DECODE_MAX)
                .verify(request)
                .await
        })
        .await
    }
}
