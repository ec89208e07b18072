//! Changing the catalog: one change at a time is judged on the applied state, proposed, and awaited.

use super::cluster::ClusterState;
use super::machine::{CatalogMachine, CatalogState};
use super::view::View;
use crate::clock;
use parking_lot::Mutex;
use prost::Message;
use sojourn_cluster::{EntryKind, Group, ProposeError};
use sojourn_proto::stored;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many old views are kept for shards that have not reached the newest.
const VIEWS_KEPT: usize = 64;

/// The catalog of this node.
pub struct Catalog {
    machine: Arc<CatalogMachine>,
    group: Group,
    turn: Arc<tokio::sync::Mutex<()>>,
    newest: watch::Sender<Arc<View>>,
    views: Mutex<BTreeMap<u64, Arc<View>>>,
}

/// Why the catalog was not, or may not have been, changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It was not.
    #[error("{0}")]
    Refused(String),
    /// It was not: others were being changed until the deadline.
    #[error("others change the catalog now, one after the other; try again")]
    Busy,
    /// It was not: this node cannot.
    #[error("the catalog cannot be changed from here: {0}")]
    NotOwner(String),
    /// It may have been.
    #[error("whether the catalog was changed is unknown: {0}; ask again before repeating")]
    Unknown(String),
}

impl Catalog {
    /// The catalog of an open group, its view built.
    pub fn new(machine: Arc<CatalogMachine>, group: Group) -> Arc<Catalog> {
        let view = Arc::new(View::build(&machine.state(), &View::default()));
        let catalog = Catalog {
            machine,
            group,
            turn: Arc::default(),
            views: Mutex::new(BTreeMap::from([(view.position, view.clone())])),
            newest: watch::channel(view).0,
        };
        Arc::new(catalog)
    }

    /// Builds a view of every change, until the node stops.
    pub async fn follow(self: Arc<Self>) {
        let mut position = self.machine.position.subscribe();
        loop {
            let (machine, old) = (self.machine.clone(), self.newest.borrow().clone());
            if machine.state().position != old.position {
                // compiling takes time and a large stack: not on the runtime's threads
                let built =
                    tokio::task::spawn_blocking(move || View::build(&machine.state(), &old)).await;
                match built {
                    Ok(view) => self.publish_view(Arc::new(view)),
                    Err(error) => tracing::error!(%error, "the catalog's view could not be built"),
                }
            }
            if position.changed().await.is_err() {
                return;
            }
        }
    }

    fn publish_view(&self, view: Arc<View>) {
        let mut views = self.views.lock();
        views.insert(view.position, view.clone());
        while views.len() > VIEWS_KEPT {
            views.pop_first();
        }
        drop(views);
        self.newest.send_replace(view);
    }

    /// Writes the cluster's own facts, once.
    pub async fn bootstrap(&self, facts: stored::Bootstrap) -> Result<(), ChangeError> {
        let message = stored::CatalogChange {
            change: Some(stored::catalog_change::Change::Bootstrap(facts)),
            at: clock::wall().0,
            actor: String::new(),
        };
        let until = Instant::now() + crate::limits::DEADLINE;
        let body = message.encode_to_vec().into();
        let proposed = self.group.propose(EntryKind::Decisions, body, until).await;
        proposed.map(|_| ()).map_err(not_owner)
    }

    /// The newest view.
    pub fn newest(&self) -> Arc<View> {
        self.newest.borrow().clone()
    }

    /// Told of every view.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.newest.subscribe()
    }

    /// The view at a position, or the first that was kept after it.
    pub fn view_at(&self, position: u64) -> Arc<View> {
        let views = self.views.lock();
        let at = views.range(position..).next();
        at.map_or_else(|| self.newest(), |(_, view)| view.clone())
    }

    /// The Raft group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Nodes, layout and change, now and whenever they change.
    pub fn cluster(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.machine.cluster.subscribe()
    }

    /// The cluster's own facts; `None` before they are known here.
    pub fn facts(&self) -> Option<stored::Bootstrap> {
        self.machine.state().bootstrap
    }

    /// Judges a change of definitions on the applied state, proposes it and waits until it is applied and its view is
    /// built. `None` from the judge: nothing to change. Answers the position from which it holds.
    ///
    /// # Errors
    /// As for [`ChangeError`].
    pub async fn change(
        &self,
        actor: &str,
        deadline: Duration,
        judge: impl FnOnce(&CatalogState) -> Result<Option<stored::catalog_change::Change>, String>,
    ) -> Result<u64, ChangeError> {
        let until = Instant::now() + deadline;
        let Some(position) = self.agree(actor, until, judge).await? else {
            return Ok(self.machine.state().position);
        };
        let mut views = self.newest.subscribe();
        let built =
            tokio::time::timeout_at(until, views.wait_for(|view| view.position >= position));
        match built.await {
            Ok(Ok(_)) => Ok(position),
            _ => Err(ChangeError::Unknown("its view is still being built".into())),
        }
    }

    /// Judges a change of nodes, layout or change on the applied state, proposes it and waits until it is applied here.
    /// `None` from the judge: nothing to change. Answers the state then.
    ///
    /// # Errors
    /// As for [`ChangeError`].
    pub async fn change_cluster(
        &self,
        actor: &str,
        deadline: Duration,
        judge: impl FnOnce(&ClusterState) -> Result<Option<stored::catalog_change::Change>, String>,
    ) -> Result<Arc<ClusterState>, ChangeError> {
        let until = Instant::now() + deadline;
        self.agree(actor, until, |state| judge(&state.cluster))
            .await?;
        Ok(self.machine.cluster.borrow().clone())
    }

    /// Answers where the change is in the catalog's log; `None` when there was nothing to change.
    async fn agree(
        &self,
        actor: &str,
        until: Instant,
        judge: impl FnOnce(&CatalogState) -> Result<Option<stored::catalog_change::Change>, String>,
    ) -> Result<Option<u64>, ChangeError> {
        let turn = tokio::time::timeout_at(until, self.turn.clone().lock_owned()).await;
        let turn = turn.map_err(|_| ChangeError::Busy)?;
        // judged on everything that is committed
        self.group.read_index(until).await.map_err(not_owner)?;
        let Some(change) = judge(&self.machine.state()).map_err(ChangeError::Refused)? else {
            return Ok(None);
        };
        let message = stored::CatalogChange {
            change: Some(change),
            at: clock::wall().0,
            actor: actor.to_owned(),
        };
        let body = message.encode_to_vec().into();
        // whoever asked may go: the turn is kept until the fate of the change is known, for the next is judged on it; or
        // until this node's time as owner is over: the next one's barrier stands behind whatever became of the change
        let (group, mut role) = (self.group.clone(), self.group.role());
        let owned = role.borrow_and_update().clone();
        let proposing = tokio::spawn(async move {
            let patience = Instant::now() + crate::limits::DEADLINE_MAX;
            let proposed = group.propose(EntryKind::Decisions, body, patience);
            let proposed = tokio::select! {
                proposed = proposed => proposed,
                _ = role.wait_for(|role| *role != owned) => Err(ProposeError::Unknown {
                    why: "this node does not own the catalog any more".to_owned(),
                }),
            };
            drop(turn);
            proposed
        });
        let proposed = match tokio::time::timeout_at(until, proposing).await {
            Ok(Ok(proposed)) => proposed.map_err(not_owner)?,
            Ok(Err(error)) => return Err(ChangeError::Unknown(error.to_string())),
            Err(_) => {
                return Err(ChangeError::Unknown(
                    "no answer within the deadline".to_owned(),
                ));
            }
        };
        if !proposed.reply.is_empty() {
            let why = String::from_utf8_lossy(&proposed.reply).into_owned();
            return Err(ChangeError::Refused(why));
        }
        Ok(Some(proposed.at.index))
    }
}

fn not_owner(error: ProposeError) -> ChangeError {
    match error {
        ProposeError::Unknown { why } => ChangeError::Unknown(why),
        error @ (ProposeError::NotOwner { .. } | ProposeError::Closed { .. }) => {
            ChangeError::NotOwner(error.to_string())
        }
        error @ ProposeError::TooLarge { .. } => ChangeError::Refused(error.to_string()),
    }
}
