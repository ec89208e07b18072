//! Answers that no entry carries: nobody is known and no rule takes the signal, a command cannot be done, there is no such
//! execution. Each stands on what this node had applied when it decided; were another node the owner by then, what that
//! one acknowledged meanwhile would be missing in it. So they leave once a majority has said, after they were decided,
//! that this node leads still. Those that come together share one confirmation; a single voter answers itself.

use crate::actors::{Answer, Request};
use crate::limits;
use sojourn_cluster::{Group, ProposeError};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Answers that share one confirmation, at most.
const AT_ONCE: usize = 1_024;

/// Where a term of office confirms its answers. With its end they go back: nothing was proposed for them.
pub type Confirm = mpsc::UnboundedSender<(Request, Answer)>;

/// Confirms answers of one term of office, that of this (term, node), until the channel closes, or the group says that this
/// node is not the owner.
pub async fn run(
    group: Group,
    leader: (u64, u64),
    mut decided: mpsc::UnboundedReceiver<(Request, Answer)>,
) {
    let mut gathered = Vec::new();
    while decided.recv_many(&mut gathered, AT_ONCE).await > 0 {
        let until = Instant::now() + limits::DEADLINE;
        // what is read then is of this leadership's own time, or its term is over: an owner has applied an entry of its
        // own term, and a later leadership confirms nothing before one of its own
        let read = group.read_index(until).await;
        let confirmed = match &read {
            Ok(at) => (at.term, at.node) == leader,
            Err(error) => {
                tracing::debug!(%error, answers = gathered.len(), "answers were not confirmed");
                false
            }
        };
        for (request, answer) in gathered.drain(..) {
            request.answer(if confirmed { answer } else { Answer::NotOwner });
        }
        if let Err(ProposeError::NotOwner { .. }) = read {
            // nor would the next be: what is decided now would only go back
            return;
        }
    }
}
