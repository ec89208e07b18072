//! How a client is made: which servers, which workspace, how patient.

use super::{Client, DEADLINE, DEADLINE_MAX};
use crate::error::{Code, Error};
use crate::lane::{
    self,
    book::{QUEUE_BYTES, Trouble},
};
use crate::nodes::Nodes;
use crate::topology;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// Signals handed over and not yet looked at by the lane.
const HANDOVER: usize = 1_024;

/// What a client is made of, for those who need something else than the defaults.
///
/// ```no_run
/// # async fn example() -> Result<(), sojourn_client::Error> {
/// use sojourn_client::Client;
/// use std::time::Duration;
/// let client = Client::builder("http://127.0.0.1:7410,http://127.0.0.1:7420")
///     .workspace("acme")
///     .deadline(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    server: String,
    workspace: String,
    deadline: Duration,
}

impl Builder {
    pub(super) fn new(server: String) -> Builder {
        Builder {
            server,
            workspace: "default".to_owned(),
            deadline: DEADLINE,
        }
    }

    /// In this workspace; `default` unless told.
    pub fn workspace(mut self, workspace: impl Into<String>) -> Builder {
        self.workspace = workspace.into();
        self
    }

    /// With this deadline for every call: [`DEADLINE`] unless told, at most [`DEADLINE_MAX`].
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// Connects now, to whichever of the servers answers first.
    ///
    /// # Errors
    /// [`Code::Invalid`] for an address that is none or a deadline out of range, [`Code::Unreachable`] when nobody
    /// answers at any of them.
    pub async fn connect(self) -> Result<Client, Error> {
        let (nodes, views) = self.nodes()?;
        if let Err(failed) = nodes.connect(self.deadline).await {
            let each: Vec<String> = failed
                .iter()
                .map(|(seed, why)| format!("{seed}: {why}"))
                .collect();
            let text = format!(
                "no server answers at {}; start one with `sojourn dev`, or name another with --server or SOJOURN_SERVER",
                each.join("; nor at ")
            );
            return Err(Error::new(Code::Unreachable, text));
        }
        Ok(self.with(nodes, views))
    }

    /// Makes a client that connects with its first call, and waits for a server within the deadline of each call.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Code::Invalid`] for an address that is none or a deadline out of range.
    pub fn connect_lazy(self) -> Result<Client, Error> {
        let (nodes, views) = self.nodes()?;
        Ok(self.with(nodes, views))
    }

    fn nodes(&self) -> Result<(Nodes, watch::Sender<Arc<topology::View>>), Error> {
        if self.deadline.is_zero() || self.deadline > DEADLINE_MAX {
            let text = format!(
                "the deadline is {} s, expected more than 0 and at most {} s",
                self.deadline.as_secs_f64(),
                DEADLINE_MAX.as_secs()
            );
            return Err(Error::new(Code::Invalid, text));
        }
        let (views, view) = watch::channel(Arc::default());
        let seeds = self.server.split(',').map(str::trim);
        let seeds: Vec<String> = seeds.filter(|s| !s.is_empty()).map(str::to_owned).collect();
        Ok((Nodes::new(&seeds, self.deadline, view)?, views))
    }

    fn with(self, nodes: Nodes, views: watch::Sender<Arc<topology::View>>) -> Client {
        let nodes = Arc::new(nodes);
        let (lane, submits) = mpsc::channel(HANDOVER);
        let trouble = Trouble::default();
        tokio::spawn(topology::watch(Arc::downgrade(&nodes), views));
        tokio::spawn(lane::run(nodes.clone(), submits, trouble.clone()));
        Client {
            nodes,
            workspace: self.workspace.into(),
            deadline: self.deadline,
            server: self.server.into(),
            lane,
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            trouble,
        }
    }
}
