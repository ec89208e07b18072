//! What other nodes ask of this host: each question goes to its group.
//!
//! It does not know what is asked.

use super::Shared;
use crate::group::Group;
use crate::id::{GroupId, NodeId};
use crate::snapshot;
use crate::transport::{FrameBody, Serve, SnapshotAnswer, SnapshotIn, SnapshotPart};
use crate::wire::refused;
use futures::future::BoxFuture;
use sojourn_proto::cluster::Refused;

impl Shared {
    /// The group, if it may answer.
    fn answering(&self, id: GroupId) -> Result<Group, String> {
        if let Some(failure) = &*self.failed.borrow() {
            return Err(format!("the node has stopped: {failure}"));
        }
        self.group(id)
            .ok_or_else(|| format!("{id} is not open on node {}", self.cfg.node))
    }
}

impl Serve for Shared {
    fn answer(
        &self,
        from: NodeId,
        group: GroupId,
        body: FrameBody,
    ) -> BoxFuture<'static, FrameBody> {
        match self.answering(group) {
            Ok(group) => Box::pin(async move { group.answer(from, body).await }),
            Err(why) => Box::pin(std::future::ready(refused(why))),
        }
    }

    fn take_snapshot(&self, from: NodeId, mut stream: SnapshotIn) -> BoxFuture<'static, ()> {
        // Only the first part says of which group it is.
        let groups: std::collections::BTreeMap<GroupId, Group> = self.groups.lock().clone();
        let node = self.cfg.node;
        let failed = self.failed.borrow().clone();
        Box::pin(async move {
            let begin = match stream.parts.recv().await {
                Some(SnapshotPart::Begin(begin)) => begin,
                _ => {
                    return refuse(&stream, "a snapshot begins with its beginning".to_owned())
                        .await;
                }
            };
            if let Some(failure) = failed {
                return refuse(&stream, format!("the node has stopped: {failure}")).await;
            }
            let id = GroupId(begin.cover.as_ref().map_or(u64::MAX, |cover| cover.group));
            match groups.get(&id).cloned() {
                Some(group) => {
                    drop(groups);
                    snapshot::take(group, from, begin, stream).await;
                }
                None => refuse(&stream, format!("{id} is not open on node {node}")).await,
            }
        })
    }
}

async fn refuse(stream: &SnapshotIn, why: String) {
    let refused = SnapshotAnswer::Refused(Refused { why, behind: false });
    // Whoever asked may be gone.
    drop(stream.answers.send(refused).await);
}
