//! One node of a world: a runtime and a clock of its own, disks that outlive it, and the real thing on top.
//!
//! A node that ends does so between any two awaits: its runtime is dropped with everything that runs on it.

use super::machine::{Chronicle, List};
use super::net::Net;
use super::record::Record;
use super::shards::{Common, Ground, Office, Watched};
use anyhow::{Context, Result};
use parking_lot::Mutex;
use sojourn_cluster::sim::{Dice, SimCheckpoints, SimLog};
use sojourn_cluster::{Group, GroupId, Host, HostConfig, Machine, NodeId, Role, Running, Seams};
use sojourn_node::catalog::View;
use sojourn_node::history::Memory;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// How a node takes part in a group.
#[derive(Clone, Debug)]
pub enum Part {
    /// It began the group with these voters.
    Begins(Vec<NodeId>),
    /// It was added.
    Joins,
    /// It was taken out, and its replica is to be forgotten.
    Leaves,
}

/// A replica that is open.
#[derive(Clone)]
pub struct Replica {
    /// The group.
    pub group: Group,
    /// Its state here.
    pub kept: Kept,
}

/// What a replica keeps.
#[derive(Clone)]
pub enum Kept {
    /// Lists.
    List(Arc<List>),
    /// A shard, and what runs it.
    Shard(Arc<Watched>, Office),
}

impl Replica {
    /// The lists, if it keeps such.
    pub fn list(&self) -> Option<&Arc<List>> {
        match &self.kept {
            Kept::List(list) => Some(list),
            Kept::Shard(..) => None,
        }
    }

    /// The shard, if it is one.
    pub fn office(&self) -> Option<&Office> {
        match &self.kept {
            Kept::List(_) => None,
            Kept::Shard(_, office) => Some(office),
        }
    }

    /// A hash of all that it keeps.
    pub fn hash(&self) -> u128 {
        match &self.kept {
            Kept::List(list) => list.hash(),
            Kept::Shard(shard, _) => shard.hash(),
        }
    }
}

thread_local! {
    /// The node that runs on this thread at the moment, and the world's time when its clock stood at the instant.
    static RUNNING: Cell<Option<(NodeId, u64, Instant)>> = const { Cell::new(None) };
}

/// The node that runs on this thread at the moment, and the world's time there, in microseconds: for what is told of a
/// world while it goes on.
pub fn running() -> Option<(NodeId, u64)> {
    let (node, begun, started) = RUNNING.get()?;
    let elapsed = Instant::now().saturating_duration_since(started);
    Some((
        node,
        begun + u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX / 2),
    ))
}

type Replicas = Arc<Mutex<BTreeMap<GroupId, Replica>>>;

/// What runs while a node runs.
struct Run {
    runtime: Runtime,
    host: Arc<Host>,
    replicas: Replicas,
    /// What it has of shards, in a world of such.
    ground: Option<Arc<Ground>>,
    /// The world's time when its clock stood at `started`, both at its start.
    begun: u64,
    started: Instant,
}

/// One node.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    net: Arc<Net>,
    record: Arc<Record>,
    log: Arc<SimLog>,
    checkpoints: Arc<SimCheckpoints>,
    chronicles: BTreeMap<GroupId, Arc<Chronicle>>,
    /// The disk of the shards' history.
    history: Arc<Memory>,
    common: Option<Common>,
    /// How much its clock is ahead, in microseconds.
    skew: i64,
    /// The groups that it is to have, as the catalog would say.
    pub parts: BTreeMap<GroupId, Part>,
    /// Groups that it has let go of.
    forgotten: Arc<Mutex<BTreeSet<GroupId>>>,
    run: Option<Run>,
    /// How often it was started.
    lives: u64,
    /// It stands still until then.
    pub stands_until: Option<u64>,
}

impl Node {
    /// A node with empty disks that does not run.
    ///
    /// `common`: what it shares with the others in a world of shards. `skew`: how much its clock is ahead, in microseconds.
    pub fn new(
        id: NodeId,
        net: Arc<Net>,
        record: Arc<Record>,
        common: Option<Common>,
        skew: i64,
    ) -> Node {
        Node {
            id,
            net,
            record,
            log: Arc::default(),
            checkpoints: Arc::default(),
            chronicles: BTreeMap::new(),
            history: Arc::default(),
            common,
            skew,
            parts: BTreeMap::new(),
            forgotten: Arc::default(),
            run: None,
            lives: 0,
            stands_until: None,
        }
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.run.is_some()
    }

    /// Which of its lives this is; `None` while it does not run. What was asked of one life is not answered by the next.
    pub fn life(&self) -> Option<u64> {
        self.run.as_ref().map(|_| self.lives)
    }

    /// Starts it on the disks that it has.
    ///
    /// # Errors
    /// It does not open: always a bug.
    pub fn start(&mut self, now: u64, dice: &mut Dice, write_takes: u64) -> Result<()> {
        let runtime = runtime(dice.roll())?;
        let writes = Mutex::new(Dice::new(dice.roll()));
        let running = Running::Tasks {
            write_takes: Arc::new(move || {
                Duration::from_micros(50 + writes.lock().below(write_takes))
            }),
        };
        let seams = Seams {
            log: self.log.clone(),
            checkpoints: self.checkpoints.clone(),
            running: running.clone(),
        };
        // a decision has many times the bytes of an append
        let scale = if self.common.is_some() { 6 } else { 1 };
        let cfg = HostConfig {
            node: self.id,
            // small enough that checkpoints, purges and snapshots happen all the time
            checkpoint_log_bytes: 3_000 * scale,
            log_cache_bytes: if self.common.is_some() { 2_000 } else { 300 },
            keep_log_bytes: 2_000 * scale * dice.below(3),
            ..HostConfig::default()
        };
        let started = runtime.block_on(async { Instant::now() });
        self.net
            .plug(self.id, runtime.handle().clone(), now, started);
        let transport = self.net.of(self.id);
        let host = runtime
            .block_on(Host::open_with_among(cfg, seams, transport))
            .with_context(|| format!("node {} does not open", self.id))?;
        let ground = self.common.clone().map(|common| {
            let clock = clock_of(now, started);
            let begun = Ground::begin(
                common,
                self.history.clone(),
                running,
                self.skew,
                Arc::new(clock),
            );
            runtime.block_on(begun).map(Arc::new)
        });
        self.lives += 1;
        self.run = Some(Run {
            ground: ground.transpose()?,
            runtime,
            host: Arc::new(host),
            replicas: Arc::default(),
            begun: now,
            started,
        });
        for id in self.parts.keys().copied().collect::<Vec<_>>() {
            self.take_part(id);
        }
        Ok(())
    }

    /// Makes true on this node what [`Node::parts`] says of a group, in a task of its own.
    pub fn take_part(&mut self, id: GroupId) {
        self.begin_part(id, false);
    }

    /// `again`: its replica has closed itself.
    fn begin_part(&mut self, id: GroupId, again: bool) {
        let Some(run) = &self.run else {
            return;
        };
        let Some(part) = self.parts.get(&id).cloned() else {
            return;
        };
        let (host, replicas, record) =
            (run.host.clone(), run.replicas.clone(), self.record.clone());
        let node = self.id;
        let ground = run.ground.clone().filter(|_| id != GroupId::CATALOG);
        if matches!(part, Part::Leaves) {
            self.chronicles.remove(&id);
            let forgotten = self.forgotten.clone();
            // asked again after a restart it is under way again, whatever had ended before
            forgotten.lock().remove(&id);
            run.runtime.spawn(async move {
                if let Some(Kept::Shard(_, office)) = replicas.lock().remove(&id).map(|r| r.kept) {
                    office.stop.cancel();
                }
                if let Some(ground) = ground {
                    // as the node does it: marked, then history, then the rest
                    while host.mark_forgotten(id).await.is_err() || ground.forget(id).is_err() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                // busy for a moment after it was closed: it is asked again
                while host.forget_group(id).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                forgotten.lock().insert(id);
            });
            return;
        }
        let chronicle = self.chronicles.entry(id).or_default().clone();
        let record_ = record.clone();
        run.runtime.spawn(async move {
            while again && host.close_group(id).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if again && host.half_forgotten().contains(&id) {
                // meanwhile it has been let go of
                return;
            }
            let list = List::new(node, id, chronicle, record_.clone());
            let shard = ground.as_ref().map(|g| g.machine(id, &record_, node));
            let machine: Arc<dyn Machine> = match &shard {
                Some(shard) => shard.clone(),
                None => list.clone(),
            };
            let opened = match part {
                Part::Begins(voters) => host.open_group(id, machine, voters).await,
                Part::Joins | Part::Leaves => host.join_group(id, machine, 0).await,
            };
            let group = match opened {
                Ok(group) => group,
                // its disk has refused just now: the process ends
                Err(_) if host.failed().borrow().is_some() => return,
                Err(error) => {
                    record.fail(format!("node {node} cannot open {id}: {error}"));
                    return;
                }
            };
            let mut role = group.role();
            let kept = match ground.zip(shard) {
                Some((ground, shard)) => {
                    let office = ground.run(&shard, group.clone());
                    Kept::Shard(shard, office)
                }
                None => Kept::List(list),
            };
            replicas.lock().insert(id, Replica { group, kept });
            loop {
                let now = role.borrow_and_update().clone();
                if let Role::Owner { term, .. } = now {
                    record.owns(node, id, term);
                }
                if let Role::Closed { reason } = now {
                    record.closed(node, id, &reason);
                }
                if role.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Opens a replica again that has closed itself, as the node's opener does.
    pub fn open_again(&mut self, id: GroupId) {
        let Some(run) = &self.run else {
            return;
        };
        let gone = run.replicas.lock().remove(&id);
        if let Some(Kept::Shard(_, office)) = gone.map(|r| r.kept) {
            office.stop.cancel();
        }
        self.begin_part(id, true);
    }

    /// Whether it may be added to a group: it is in it neither now nor with anything left of an earlier time.
    pub fn is_spare(&mut self, id: GroupId) -> bool {
        if self.forgotten.lock().remove(&id) {
            self.parts.remove(&id);
        }
        self.runs() && !self.parts.contains_key(&id)
    }

    /// Its power goes.
    pub fn crash(&mut self, dice: &mut Dice) {
        self.net.unplug(self.id);
        self.stands_until = None;
        drop(self.run.take());
        self.log.crash(dice);
        self.checkpoints.crash(dice);
        for chronicle in self.chronicles.values() {
            chronicle.crash(dice);
        }
        if self.common.is_some() {
            self.history
                .crash(|unsynced| dice.below(unsynced as u64 + 1) as usize);
        }
    }

    /// Lets it run until the world's time is `to`. One that has stood still finds its clock moved at once.
    pub fn step(&mut self, to: u64) {
        let Some(run) = &self.run else {
            return;
        };
        let until = run.started + Duration::from_micros(to.saturating_sub(run.begun));
        let stood = self.stands_until.take().is_some();
        RUNNING.set(Some((self.id, run.begun, run.started)));
        run.runtime.block_on(async {
            if stood {
                let behind = until.saturating_duration_since(Instant::now());
                tokio::time::advance(behind.saturating_sub(Duration::from_millis(1))).await;
            }
            tokio::time::sleep_until(until).await;
        });
        RUNNING.set(None);
    }

    /// Runs something on it, beside what it does.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(run) = &self.run {
            run.runtime.spawn(task);
        }
    }

    /// The world's time, to be asked from its tasks.
    pub fn clock(&self) -> impl Fn() -> u64 + Send + Sync + Clone + 'static {
        let (begun, started) = match &self.run {
            Some(run) => (run.begun, run.started),
            None => (0, Instant::now()),
        };
        clock_of(begun, started)
    }

    /// Its replica of a group.
    pub fn replica(&self, id: GroupId) -> Option<Replica> {
        self.run.as_ref()?.replicas.lock().get(&id).cloned()
    }

    /// Whether it owns a group.
    pub fn owns(&self, id: GroupId) -> bool {
        self.replica(id)
            .is_some_and(|r| matches!(*r.group.role().borrow(), Role::Owner { .. }))
    }

    /// Whether a write of its log has failed: the process would end.
    pub fn has_failed(&self) -> bool {
        self.run.as_ref().is_some_and(|run| {
            let history = run.ground.as_ref().is_some_and(|g| g.has_failed());
            history || run.host.failed().borrow().is_some()
        })
    }

    /// It has learnt of a catalog.
    pub fn learn(&self, view: &Arc<View>) {
        if let Some(ground) = self.run.as_ref().and_then(|run| run.ground.as_ref()) {
            ground.learn(view);
        }
    }

    /// Its history refuses a write, after some more.
    pub fn fail_history(&self, after: u64) {
        self.history.fail_after(after);
    }

    /// Its history takes everything again.
    pub fn heal_history(&self) {
        self.history.heal();
    }

    /// Its log refuses a write, after some more.
    pub fn fail_log(&self, after: u64) {
        self.log.fail_after(after);
    }

    /// Its checkpoint store refuses from now on, or does not any more.
    pub fn fail_checkpoints(&self, after: Option<u64>) {
        match after {
            Some(calls) => self.checkpoints.fail_after(calls),
            None => self.checkpoints.heal(),
        }
    }
}

/// The world's time on a node that has begun.
fn clock_of(begun: u64, started: Instant) -> impl Fn() -> u64 + Send + Sync + Clone + 'static {
    move || {
        let elapsed = Instant::now().saturating_duration_since(started);
        begun + u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX / 2)
    }
}

/// A runtime whose clock stands until somebody waits, and whose choices follow from a seed.
fn runtime(seed: u64) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    #[cfg(not(tokio_unstable))]
    let _ = seed;
    builder
        .enable_time()
        .start_paused(true)
        .build()
        .context("a runtime cannot be made")
}
