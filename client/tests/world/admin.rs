//! The `Cluster` service of the world, as far as commands ask it: it answers what it was told to and remembers what it
//! was asked.

use super::World;
use sojourn_client::wire as v1;
use std::collections::VecDeque;
use tonic::{Request, Response, Status};

/// What the service answers.
#[derive(Default)]
pub struct Admin {
    pub status: v1::ClusterStatus,
    pub plan: v1::PlanResponse,
    pub verdict: v1::VerifyResponse,
    /// The change under way as each status shows it; the last one stays.
    pub changes: VecDeque<v1::Change>,
    /// The next call that changes something fails so.
    pub refusal: Option<Status>,
    /// What was asked for, in order.
    pub asked: Vec<String>,
}

impl World {
    fn asked(&self, what: String) -> Result<(), Status> {
        let mut state = self.state();
        state.admin.asked.push(what);
        state.admin.refusal.take().map_or(Ok(()), Err)
    }

    fn change(&self) -> Option<v1::Change> {
        self.state().admin.changes.front().cloned()
    }
}

/// The answers to commands; those about the topology are elsewhere.
impl World {
    pub fn get_status(&self) -> v1::ClusterStatus {
        let mut state = self.state();
        let change = state.admin.changes.front().cloned();
        if state.admin.changes.len() > 1 {
            state.admin.changes.pop_front();
        }
        v1::ClusterStatus {
            change,
            ..state.admin.status.clone()
        }
    }

    pub fn get_plan(&self, request: Request<v1::PlanRequest>) -> v1::PlanResponse {
        let mut state = self.state();
        let wishes = format!("plan {}", wishes(&request.into_inner().wishes));
        state.admin.asked.push(wishes);
        state.admin.plan.clone()
    }

    pub fn begin(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let r = request.into_inner();
        self.asked(format!(
            "apply {} by {} for {:?} on {}",
            wishes(&r.wishes),
            r.actor,
            r.reason,
            r.expected_layout
        ))?;
        let change = self.change();
        Ok(Response::new(v1::ApplyResponse { change }))
    }

    pub fn steer(
        &self,
        request: Request<v1::ControlRequest>,
    ) -> Result<Response<v1::ControlResponse>, Status> {
        let r = request.into_inner();
        self.asked(format!(
            "{} {} by {}",
            r.kind().as_str_name(),
            r.id,
            r.actor
        ))?;
        let change = self.change();
        Ok(Response::new(v1::ControlResponse { change }))
    }

    pub fn hand_over(
        &self,
        request: Request<v1::TransferRequest>,
    ) -> Result<Response<v1::TransferResponse>, Status> {
        let r = request.into_inner();
        self.asked(format!("transfer {} to {} by {}", r.shard, r.to, r.actor))?;
        Ok(Response::new(v1::TransferResponse {
            owner: r.to,
            was: 1,
        }))
    }

    pub fn compare(&self, request: Request<v1::VerifyRequest>) -> v1::VerifyResponse {
        let mut state = self.state();
        let asked = format!("verify {:?}", request.into_inner().shards);
        state.admin.asked.push(asked);
        state.admin.verdict.clone()
    }
}

fn wishes(wishes: &[v1::Wish]) -> String {
    let texts: Vec<String> = wishes.iter().map(|w| format!("{:?}", w.wish)).collect();
    texts
        .join(", ")
        .replace("Some(", "")
        .replace("))", ")")
        .to_lowercase()
}
