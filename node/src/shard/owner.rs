//! One replica of a shard on this node, and the owner's term of office: opens when the group says so, closes at once
//! when it is lost.

use super::confirm;
use super::customer::DecisionId;
use super::machine::ShardMachine;
use super::pace::Pace;
use super::proposer;
use super::read::Replica;
use super::seams::Seams;
use super::state::Shared;
use crate::actors::Request;
use crate::actors::live::{Live, Session};
use crate::actors::shard::{ShardActor, ShardArgs, ShardMsg};
use crate::catalog::View;
use crate::hands::agenda::{self, Reopened};
use crate::hands::attempt::Outside;
use crate::history::Store;
use crate::limits;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use ractor::{Actor, ActorCell, ActorRef};
use sojourn_cluster::{EntryKind, Group, Role};
use sojourn_journey::plan::JourneyState;
use sojourn_journey::time::{Span, Time};
use sojourn_proto::{stored, v1};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the actors of a shard need of it.
pub struct Duties {
    /// The shard's number.
    pub shard: u16,
    /// Its state.
    pub state: Shared,
    /// The node's history.
    pub history: Arc<Store>,
    /// What was proposed and waits.
    pub pending: Arc<proposer::Pending>,
    /// How long a repeated signal is recognised; customers idle for longer leave memory.
    pub dedup_window: Span,
    /// What it uses of its machine.
    pub seams: Seams,
    /// The catalog that decisions are made with.
    view: RwLock<Arc<View>>,
    decides_with: watch::Sender<u64>,
    no_match: AtomicU64,
    sample: Mutex<VecDeque<NoMatch>>,
}

/// A signal that concerned nobody.
#[derive(Clone)]
pub struct NoMatch {
    /// The workspace.
    pub workspace: String,
    /// When it came.
    pub at: Time,
    /// As it was sent.
    pub signal: v1::Signal,
}

/// Bytes of data and attributes up to which a sampled signal keeps them.
const SAMPLE_BYTES: usize = 4 << 10;

impl Duties {
    /// The catalog that decisions are made with.
    pub fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// The catalog position that decisions are made with.
    pub fn decides_with(&self) -> watch::Receiver<u64> {
        self.decides_with.subscribe()
    }

    /// Counts a signal that concerned nobody, and keeps it among the newest of them, large data left out.
    pub fn no_match(&self, workspace: &str, sent: &v1::Signal, at: Time) {
        self.no_match.fetch_add(1, Ordering::Relaxed);
        let mut kept = sent.clone();
        if kept.data.len() + kept.attributes.len() > SAMPLE_BYTES {
            kept.data.clear();
            kept.attributes.clear();
        }
        let mut sample = self.sample.lock();
        if sample.len() >= limits::NO_MATCH_SAMPLE {
            sample.pop_front();
        }
        sample.push_back(NoMatch {
            workspace: workspace.to_owned(),
            at,
            signal: kept,
        });
    }

    /// The newest signals that concerned nobody, oldest first.
    pub fn no_match_sample(&self) -> Vec<NoMatch> {
        self.sample.lock().iter().cloned().collect()
    }
}

impl Replica for Duties {
    fn shard(&self) -> u16 {
        self.shard
    }
    fn state(&self) -> &Shared {
        &self.state
    }
    fn history(&self) -> &Arc<Store> {
        &self.history
    }
}

/// One replica of a shard.
pub struct Shard {
    /// Its number.
    pub number: u16,
    /// Its machine.
    pub machine: Arc<ShardMachine>,
    /// Its Raft group.
    pub group: Group,
    /// The awake customers.
    pub live: Arc<Live>,
    /// What its actors need.
    pub duties: Arc<Duties>,
    catalog: watch::Receiver<Arc<View>>,
    outside: Arc<dyn Outside>,
    supervisor: ActorCell,
    shards: usize,
    may_own: watch::Receiver<bool>,
    deadline: Duration,
    open: watch::Sender<bool>,
    /// The epoch of the last term of office in this process.
    last_epoch: Mutex<u64>,
}

impl Replica for Shard {
    fn shard(&self) -> u16 {
        self.number
    }
    fn state(&self) -> &Shared {
        &self.duties.state
    }
    fn history(&self) -> &Arc<Store> {
        &self.duties.history
    }
}

/// What a shard is made of.
pub struct Parts {
    /// Its machine.
    pub machine: Arc<ShardMachine>,
    /// Its Raft group.
    pub group: Group,
    /// The awake customers.
    pub live: Arc<Live>,
    /// The catalog: the newest view of it here.
    pub catalog: watch::Receiver<Arc<View>>,
    /// Where actions go.
    pub outside: Arc<dyn Outside>,
    /// The root of the supervision tree.
    pub supervisor: ActorCell,
    /// How many shards there are.
    pub shards: usize,
    /// Whether this node may own anything now: not while its clock cannot be trusted.
    pub may_own: watch::Receiver<bool>,
    /// How long it is waited for an entry, until what became of it counts as unknown.
    pub deadline: Duration,
}

impl Shard {
    /// A replica, not yet run.
    pub fn new(parts: Parts) -> Arc<Shard> {
        let machine = parts.machine;
        let duties = Duties {
            shard: machine.shard,
            state: machine.state.clone(),
            history: machine.history.clone(),
            pending: machine.pending.clone(),
            dedup_window: machine.keep.window,
            seams: machine.seams.clone(),
            view: RwLock::new(parts.catalog.borrow().clone()),
            decides_with: watch::channel(0).0,
            no_match: AtomicU64::new(0),
            sample: Mutex::default(),
        };
        Arc::new(Shard {
            number: machine.shard,
            machine,
            group: parts.group,
            live: parts.live,
            duties: Arc::new(duties),
            catalog: parts.catalog,
            outside: parts.outside,
            supervisor: parts.supervisor,
            shards: parts.shards,
            may_own: parts.may_own,
            deadline: parts.deadline,
            open: watch::channel(false).0,
            last_epoch: Mutex::new(0),
        })
    }

    /// Whether this node owns the shard and decides.
    pub fn open(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    /// Whether more history waits for its checkpoint than may.
    pub fn history_full(&self) -> bool {
        self.machine.history_full.load(Ordering::Relaxed)
    }

    /// Signals that matched nothing.
    pub fn no_matches(&self) -> u64 {
        self.duties.no_match.load(Ordering::Relaxed)
    }

    /// The catalog to show things with: the one that decisions are made with here, or, where none are made, the newest.
    pub fn view(&self) -> Arc<View> {
        if *self.open.borrow() {
            self.duties.view()
        } else {
            self.catalog.borrow().clone()
        }
    }

    /// Waits until decisions are made with a position of the catalog; says why not, if not in time.
    pub async fn await_catalog(&self, position: u64, until: Instant) -> Option<String> {
        let mut applied = self.duties.decides_with();
        let reached = applied.wait_for(|at| *at >= position);
        if let Ok(Ok(_)) = tokio::time::timeout_at(until, reached).await {
            return None;
        }
        let at = *self.duties.decides_with().borrow();
        Some(if *self.open.borrow() {
            format!("it decides with catalog {at} and has not applied {position} yet")
        } else {
            format!("it has no owner here now; its catalog is at {at}")
        })
    }

    /// Follows the group's role until it closes or the node stops.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut role = self.group.role();
        let mut may_own = self.may_own.clone();
        let mut transferring = self.group.transferring();
        loop {
            let now = role.borrow_and_update().clone();
            let handing_over = transferring.borrow_and_update().is_some();
            match now {
                Role::Owner { .. } if handing_over || !*may_own.borrow_and_update() => {}
                Role::Owner { term, node, epoch } => {
                    let mut lost = role.clone();
                    let mut may_not = may_own.clone();
                    let office = self.clone().office(term, node, epoch);
                    tokio::select! {
                        () = office => {}
                        _ = lost.wait_for(|r| *r != (Role::Owner { term, node, epoch })) => {}
                        _ = may_not.wait_for(|may| !*may) => {}
                        () = stop.cancelled() => {}
                    }
                    self.close();
                    if stop.is_cancelled() {
                        return;
                    }
                    if *role.borrow() == (Role::Owner { term, node, epoch }) {
                        // its actor failed, or nothing is proposed until a transfer has ended: opens anew
                        continue;
                    }
                }
                Role::Closed { reason } => {
                    tracing::error!(
                        shard = self.number,
                        reason,
                        "the shard is closed on this node"
                    );
                    return;
                }
                Role::Follower { .. } | Role::Leading => {}
            }
            tokio::select! {
                changed = role.changed() => if changed.is_err() { return },
                changed = may_own.changed() => if changed.is_err() { return },
                changed = transferring.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    fn close(&self) {
        self.open.send_replace(false);
        *self.machine.hands.lock() = None;
        self.live.set_session(None);
        self.duties.pending.abandon(self.group.applied());
    }

    /// One term of office: ends when an actor of it fails.
    async fn office(self: Arc<Self>, term: u64, node: u64, _group_epoch: u64) {
        if let Err(error) = self.use_newest_catalog().await {
            tracing::warn!(shard = self.number, error, "the shard cannot open");
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        }
        let (proposals, proposed) = mpsc::unbounded_channel();
        let (confirm, decided) = mpsc::unbounded_channel();
        let (stale_tx, mut stale) = mpsc::unbounded_channel();
        let (again_tx, mut again) = mpsc::unbounded_channel::<(DecisionId, Request)>();
        let (hands_tx, hands) = mpsc::unbounded_channel();
        let (reopened_tx, reopened) = mpsc::unbounded_channel();
        let args = ShardArgs {
            live: self.live.clone(),
            duties: self.duties.clone(),
            shards: self.shards,
            looked: std::ops::Bound::Unbounded,
        };
        let spawned = Actor::spawn_linked(None, ShardActor, args, self.supervisor.clone()).await;
        let (actor, actor_ended): (ActorRef<ShardMsg>, _) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                tracing::error!(shard = self.number, %error, "the shard's actor cannot start");
                return;
            }
        };
        let _stop_actor = StopOnDrop(actor.get_cell());
        let epoch = self.next_epoch();
        let session = Arc::new(Session::new(
            (term, node, epoch),
            (proposals, confirm),
            actor,
            self.duties.seams.clock.clone(),
        ));
        self.duties.pending.decide_again_by(again_tx);
        *self.machine.hands.lock() = Some(hands_tx);
        self.live.set_session(Some(session.clone()));
        self.open.send_replace(true);
        let proposer = proposer::run(
            self.group.clone(),
            self.duties.pending.clone(),
            node,
            epoch,
            proposed,
            stale_tx,
            (Pace::new(self.live.gauge()), self.deadline),
        );
        let confirmed = confirm::run(self.group.clone(), (term, node), decided);
        let agenda = agenda::run(
            self.duties.clone(),
            self.live.clone(),
            self.outside.clone(),
            hands,
            reopened,
        );
        let catalog = self.follow_catalog(reopened_tx);
        let restart = async {
            loop {
                tokio::select! {
                    Some((hash, decided)) = stale.recv() => self.live.distrust(hash, decided),
                    Some((ignored, request)) = again.recv() => {
                        self.live.distrust(request.customer.hash, ignored);
                        self.live.again(request);
                    }
                    else => return,
                }
            }
        };
        tokio::select! {
            () = proposer => {}
            () = confirmed => {}
            () = agenda => {}
            () = catalog => {}
            () = restart => {}
            _ = actor_ended => {}
        }
    }

    /// After the last `at` of the shard, so never one that an earlier term of office used for decisions that were applied;
    /// and after the one before it in this process, some of whose decisions may not be applied yet. Those of an earlier
    /// process were in the log before the barrier that made this node the owner.
    fn next_epoch(&self) -> u64 {
        let last_at = self.duties.state.lock().last_at.0;
        let mut last = self.last_epoch.lock();
        let epoch = self
            .duties
            .seams
            .clock
            .now()
            .0
            .max(last_at.saturating_add(1));
        *last = epoch.unsigned_abs().max(last.saturating_add(1));
        *last
    }

    /// Sees that the shard decides with the newest catalog.
    async fn follow_catalog(&self, reopened: mpsc::UnboundedSender<Reopened>) {
        let mut views = self.catalog.clone();
        loop {
            // what is there already is read after this
            views.mark_unchanged();
            let before = self.duties.view();
            if let Err(error) = self.use_newest_catalog().await {
                tracing::warn!(
                    shard = self.number,
                    error,
                    "the shard stays at its catalog for now"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            for journey in let_go(&before, &self.duties.view()) {
                // the agenda may have ended with its term of office
                let _ = reopened.send(journey);
            }
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    async fn use_newest_catalog(&self) -> Result<(), String> {
        let view = self.catalog.borrow().clone();
        let at = self.duties.state.lock().catalog;
        if at > view.position {
            return Err(format!(
                "the shard is at catalog {at}, this node at {}",
                view.position
            ));
        }
        if at < view.position {
            let entry = stored::CatalogAt {
                catalog: view.position,
                at: self.duties.seams.clock.now().0,
            };
            let body = entry.encode_to_vec().into();
            let until = Instant::now() + limits::DEADLINE;
            self.group
                .propose(EntryKind::CatalogAt, body, until)
                .await
                .map_err(|e| e.to_string())?;
        }
        let position = view.position;
        *self.duties.view.write() = view;
        self.duties.decides_with.send_replace(position);
        Ok(())
    }
}

/// Journeys that were held (or dropped signals) before and are not now.
fn let_go(before: &View, now: &View) -> Vec<Reopened> {
    let still = |s: JourneyState| matches!(s, JourneyState::Held | JourneyState::Dropped);
    let mut out = Vec::new();
    for (workspace, view) in &now.workspaces {
        let old = before.workspace(workspace);
        for (name, journey) in &view.journeys {
            let was = old.and_then(|w| w.journeys.get(name)).map(|j| j.state);
            if was.is_some_and(still) && !still(journey.state) {
                out.push(Reopened {
                    workspace: workspace.clone(),
                    journey: name.clone(),
                });
            }
        }
    }
    out
}

struct StopOnDrop(ActorCell);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(None);
    }
}
