//! Simulated worlds: several nodes in one process, each with its own runtime, clock and disks, and one seed that decides
//! everything. First everything goes wrong that the seed's plan says, then all is mended, and then all must work.
//!
//! What runs is the real thing of `cluster` (log, groups, checkpoints, snapshots, changes of members, transfers); disks and
//! wires are simulated. What is replicated are lists ([`machine`]), or the node's own shards ([`shards`]). Doors and routes are
//! not in these worlds: the real processes have them.

pub mod judge;
pub mod machine;
mod moves;
mod nemesis;
pub mod net;
pub mod node;
pub mod record;
pub mod seed;
pub mod shards;
pub mod shrink;

use anyhow::Result;
use machine::Append;
use net::{Net, Wires};
use node::{Node, Part};
use record::{Asked, Record, Told};
use seed::{Of, Plan};
use sojourn_cluster::runtime::seed_thread;
use sojourn_cluster::sim::Dice;
use sojourn_cluster::{EntryKind, GroupId, NodeId, ProposeError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A step of the world, in microseconds: what one node sends reaches another one in the next at the earliest.
const STEP: u64 = 5_000;
/// What a client waits for an answer, at most.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Lists in each group.
const LISTS: u64 = 3;
/// How openraft 0.9 ends a group's task when a leader is deposed while it reads a snapshot: nothing is wrong with what the
/// replica keeps, and the node opens it again (of the catalog it does not).
const RACE: &str = "when Read Snapshot(None): replication channel closed";
/// A node opens a replica again that often at most, in microseconds (`node/src/place/opener.rs`).
const REOPEN_AFTER: u64 = 10_000_000;

/// How a world ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to complain about.
    Clean,
    /// Something that must never be.
    Safety(Vec<String>),
    /// After everything was mended, something did not work.
    Liveness(Vec<String>),
}

/// What happened in a world, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Appends, signals or commands that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Calls of which nobody knows what became of them.
    pub unknown: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Signals or commands that were sent again and got their first answer again.
    pub again: u64,
    /// Operators' commands that were done.
    pub commands: u64,
    /// Timers that fired.
    pub fired: u64,
    /// Actions that were settled.
    pub settled: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages that arrived.
    pub delivered: u64,
    /// Messages that were lost.
    pub lost: u64,
    /// How long the world lasted, in its own milliseconds.
    pub lasted: u64,
    /// A hash of everything that clients and replicas saw.
    pub digest: u64,
}

/// A world that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How.
    pub verdict: Verdict,
    /// What happened in it.
    pub seen: Seen,
}

/// A world.
pub(crate) struct World {
    plan: Plan,
    dice: Dice,
    /// What operators draw from.
    hands: Dice,
    now: u64,
    net: Arc<Net>,
    record: Arc<Record>,
    nodes: BTreeMap<NodeId, Node>,
    groups: Vec<GroupId>,
    clients: Vec<Client>,
    next_id: u64,
    faults: BTreeMap<&'static str, u64>,
    /// When replicas that had closed themselves were opened again.
    reopened: BTreeMap<(NodeId, GroupId), u64>,
    moves: moves::Moves,
    nemesis: nemesis::Nemesis,
    publishing: shards::Publishing,
    /// Resumes that are still to be asked for, once everything is mended.
    resumes: u64,
    /// In a world of shards.
    common: Option<shards::Common>,
}

/// A client: one call at a time.
#[derive(Default)]
struct Client {
    /// The call, the node, and which of its lives was asked.
    calling: Option<(Calling, NodeId, Option<u64>)>,
    /// It calls again from then on.
    rests_until: u64,
}

/// A call that is under way, by its number.
#[derive(Clone, Copy)]
enum Calling {
    List(usize),
    Shard(usize),
}

/// Lives through the world of a seed.
///
/// # Errors
/// A node does not open, or a runtime cannot be made: a crash of the world, not a verdict about it.
pub fn live(plan: &Plan) -> Result<Ended> {
    // everything that draws without being asked to draws from this
    seed_thread(plan.seed);
    let mut world = World::begin(plan)?;
    let rough = plan.rough * 1_000;
    while world.now < rough {
        world.go_wrong()?;
        world.step();
        if !world.record.broken().is_empty() {
            return Ok(world.end(Vec::new()));
        }
    }
    world.mend()?;
    let until = world.now + plan.calm * 1_000;
    let quiet = world.now + plan.quiet * 1_000;
    let waits = loop {
        if world.looks(quiet) {
            let waits = world.waits_for();
            if waits.is_empty() || world.now >= until {
                break waits;
            }
        }
        world.step();
        world.restart_failed()?;
    };
    Ok(world.end(waits))
}

impl World {
    fn begin(plan: &Plan) -> Result<World> {
        let mut dice = Dice::new(plan.seed);
        let net = Net::new(Dice::new(dice.roll()));
        let record = Arc::new(Record::default());
        net.set_wires(plan.wires.clone());
        let groups: Vec<GroupId> = (0..=plan.shards).map(GroupId).collect();
        let common = match plan.of {
            Of::Lists => None,
            Of::Shards => Some(shards::Common {
                views: shards::journey::views()?,
                books: Arc::default(),
                calm: Arc::default(),
                shards: plan.shards,
                deadline: Duration::from_millis(plan.deadline),
            }),
        };
        let mut skews = Dice::new(plan.seed ^ 0xc10c);
        let mut nodes: BTreeMap<NodeId, Node> = (1..=plan.nodes)
            .map(|id| {
                let drawn = skews.below(2 * plan.skew.unsigned_abs() + 1);
                let skew = drawn.cast_signed() - plan.skew;
                let node = Node::new(id, net.clone(), record.clone(), common.clone(), skew);
                (id, node)
            })
            .collect();
        for group in &groups {
            let voters: Vec<NodeId> = (0..3).map(|n| (group.0 + n) % plan.nodes + 1).collect();
            for voter in &voters {
                if let Some(node) = nodes.get_mut(voter) {
                    let part = Part::Begins(voters.clone());
                    node.parts.insert(*group, part);
                }
            }
        }
        let mut world = World {
            plan: plan.clone(),
            dice,
            hands: Dice::new(plan.seed ^ shards::HANDS.rotate_left(7)),
            now: 0,
            net,
            record,
            nodes,
            groups,
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            next_id: 1,
            faults: BTreeMap::new(),
            reopened: BTreeMap::new(),
            moves: moves::Moves::default(),
            nemesis: nemesis::Nemesis::default(),
            publishing: shards::Publishing::new(plan.seed),
            resumes: 0,
            common,
        };
        for id in 1..=plan.nodes {
            world.start(id)?;
        }
        Ok(world)
    }

    fn start(&mut self, id: NodeId) -> Result<()> {
        let takes = self.plan.write_takes;
        match self.nodes.get_mut(&id) {
            Some(node) if !node.runs() => node.start(self.now, &mut self.dice, takes)?,
            _ => return Ok(()),
        }
        self.tell(id);
        Ok(())
    }

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// One step: what has arrived is handed over, clients call, every node runs for a while.
    fn step(&mut self) {
        let stands: BTreeSet<NodeId> = self
            .nodes
            .values()
            .filter(|n| n.stands_until.is_some_and(|until| until > self.now))
            .map(|n| n.id)
            .collect();
        self.net.deliver(self.now, &stands);
        self.call();
        self.moves_step();
        self.learn();
        let to = self.now + STEP;
        for node in self.nodes.values_mut() {
            if !stands.contains(&node.id) {
                node.step(to);
            }
        }
        self.now = to;
        for (node, group, reason) in self.record.take_closed() {
            let expected = self.nodes.get(&node).is_none_or(|n| {
                n.has_failed()
                    || !matches!(n.parts.get(&group), Some(Part::Begins(_) | Part::Joins))
            });
            if expected {
                continue;
            }
            let last = self.reopened.insert((node, group), self.now);
            let rare = last.is_none_or(|last| self.now - last >= REOPEN_AFTER);
            if reason.contains(RACE) && group != GroupId::CATALOG && rare {
                self.count("closed itself, opened again");
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.open_again(group);
                }
            } else {
                let what = format!("node {node} closed {group} by itself: {reason}");
                self.record.fail(what);
            }
        }
    }

    /// The node that owns a group, if one says so; the one with the highest term of several.
    fn owner(&self, group: GroupId) -> Option<NodeId> {
        self.nodes
            .values()
            .filter(|n| n.stands_until.is_none())
            .filter_map(|node| {
                let role = node.replica(group)?.group.role().borrow().clone();
                match role {
                    sojourn_cluster::Role::Owner { term, .. } => Some((term, node.id)),
                    _ => None,
                }
            })
            .max()
            .map(|(_, node)| node)
    }

    /// Clients that have nothing under way call.
    fn call(&mut self) {
        for at in 0..self.clients.len() {
            if let Some((call, node, life)) = self.clients[at].calling {
                let now = self.nodes.get(&node).and_then(Node::life);
                if now.is_some() && now == life && !self.is_over(call) {
                    continue;
                }
                self.clients[at].calling = None;
                self.clients[at].rests_until = self.now + self.dice.below(60_000);
            }
            if self.clients[at].rests_until > self.now {
                continue;
            }
            let group = self.groups[self.dice.below(self.groups.len() as u64) as usize];
            // mostly the owner; now and then somebody who may only think that it is
            let node = match self.owner(group) {
                Some(owner) if !self.dice.once_in(4) => owner,
                _ => 1 + self.dice.below(self.plan.nodes),
            };
            let life = self.nodes.get(&node).and_then(Node::life);
            let call = if self.common.is_some() && group != GroupId::CATALOG {
                self.call_shard(group, node).map(Calling::Shard)
            } else {
                self.call_node(group, node).map(Calling::List)
            };
            self.clients[at].calling = call.map(|call| (call, node, life));
            if self.clients[at].calling.is_none() {
                self.clients[at].rests_until = self.now + self.dice.below(60_000);
            }
        }
    }

    fn is_over(&self, call: Calling) -> bool {
        match (call, &self.common) {
            (Calling::Shard(call), Some(common)) => common.books.is_over(call),
            (Calling::List(call) | Calling::Shard(call), _) => self.record.is_over(call),
        }
    }

    fn call_node(&mut self, group: GroupId, node: NodeId) -> Option<usize> {
        let list = self.dice.below(LISTS);
        let reads = self.dice.once_in(3);
        let node = self.nodes.get(&node)?;
        let replica = node.replica(group)?;
        let kept = replica.list()?.clone();
        let clock = node.clock();
        let record = self.record.clone();
        if reads {
            let call = record.begin(group, node.id, Asked::Read { list }, self.now);
            node.spawn(async move {
                let until = Instant::now() + PATIENCE;
                let told = match replica.group.read_index(until).await {
                    Ok(_) => Told::List(kept.read(list)),
                    // a read changes nothing: whatever became of it
                    Err(_) => Told::Refused,
                };
                record.end(call, clock(), told);
            });
            return Some(call);
        }
        let id = self.next_id;
        self.next_id += 1;
        let append = Append { list, id };
        let call = record.begin(group, node.id, Asked::Append { list, id }, self.now);
        node.spawn(async move {
            let until = Instant::now() + PATIENCE;
            let proposed = replica
                .group
                .propose(EntryKind::Decisions, append.body(), until)
                .await;
            let told = match proposed {
                Ok(proposed) => Told::Appended(proposed.at),
                Err(ProposeError::Unknown { .. }) => Told::Unknown,
                Err(_) => Told::Refused,
            };
            record.end(call, clock(), told);
        });
        Some(call)
    }

    /// Ends all faults: every node runs, every wire is good, every disk takes everything.
    fn mend(&mut self) -> Result<()> {
        self.net.set_wires(Wires::GOOD);
        self.net.set_cut(BTreeSet::new());
        for node in self.nodes.values_mut() {
            node.fail_checkpoints(None);
            node.heal_history();
            node.stands_until = node.stands_until.map(|_| self.now);
        }
        if let Some(common) = &self.common {
            common
                .calm
                .store(true, std::sync::atomic::Ordering::Relaxed);
        }
        if self.plan.commands > 0 {
            self.resumes = shards::RESUMES * self.plan.shards * self.customers(self.now);
        }
        self.restart_failed()?;
        for id in 1..=self.plan.nodes {
            self.start(id)?;
        }
        Ok(())
    }

    /// A node whose disk has refused has ended; somebody starts it again.
    fn restart_failed(&mut self) -> Result<()> {
        let failed: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|n| n.has_failed())
            .map(|n| n.id)
            .collect();
        for id in failed {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.crash(&mut self.dice);
            }
            self.start(id)?;
        }
        Ok(())
    }

    /// Whether it is time to see what does not work yet. All of history is read for that in a world of shards: so not at
    /// every step.
    fn looks(&self, quiet: u64) -> bool {
        self.common.is_none() || (self.now >= quiet && (self.now / STEP).is_multiple_of(20))
    }

    /// What does not work yet, after everything was mended.
    fn waits_for(&self) -> Vec<String> {
        let mut waits = Vec::new();
        for group in &self.groups {
            let Some(owner) = self.owner(*group) else {
                waits.push(format!("nobody owns {group}"));
                continue;
            };
            let Some(replica) = self.nodes.get(&owner).and_then(|n| n.replica(*group)) else {
                continue;
            };
            let members = replica.group.members();
            if members.changing {
                waits.push(format!("the voters of {group} are between two sets"));
            }
            let applied = *replica.group.applied().borrow();
            let all = replica.hash();
            for member in members.voters.iter().chain(&members.learners) {
                let theirs = self.nodes.get(member).and_then(|n| n.replica(*group));
                let there = theirs.as_ref().and_then(|r| *r.group.applied().borrow());
                if there != applied {
                    waits.push(format!(
                        "node {member} has {group} up to {there:?}, its owner {owner} up to {applied:?}"
                    ));
                } else if theirs.is_some_and(|r| r.hash() != all) {
                    self.record.fail(format!(
                        "same prefix, same state: node {member} and node {owner} differ in {group} at {applied:?}"
                    ));
                }
            }
        }
        // one answered append and read in each group since the end of the faults
        let since = self.plan.rough * 1_000;
        let mut answered: BTreeSet<(GroupId, bool)> = BTreeSet::new();
        for call in self.record.calls() {
            match call.told {
                Some((_, Told::Appended(_))) if call.begun >= since => {
                    answered.insert((call.group, true));
                }
                Some((_, Told::List(_))) if call.begun >= since => {
                    answered.insert((call.group, false));
                }
                _ => {}
            }
        }
        if let Some(common) = &self.common {
            for call in common.books.calls() {
                use shards::books::Told;
                match call.told {
                    Some((_, Told::Receipt { .. })) if call.begun >= since => {
                        answered.insert((call.group, true));
                    }
                    Some((_, Told::Seen(_))) if call.begun >= since => {
                        answered.insert((call.group, false));
                    }
                    _ => {}
                }
            }
        }
        if waits.is_empty() {
            waits = self.left_to_do();
        }
        for group in &self.groups {
            for (append, what) in [(true, "append"), (false, "read")] {
                if !answered.contains(&(*group, append)) {
                    waits.push(format!("no {what} of {group} was answered since"));
                }
            }
        }
        waits
    }

    fn end(self, waits: Vec<String>) -> Ended {
        let calls = self.record.calls();
        let finals: BTreeMap<GroupId, BTreeMap<u64, Vec<u64>>> = self
            .groups
            .iter()
            .filter_map(|group| {
                let owner = self.nodes.get(&self.owner(*group)?)?;
                Some((*group, owner.replica(*group)?.list()?.all()))
            })
            .collect();
        let mut broken = self.record.broken();
        if waits.is_empty() && broken.is_empty() {
            broken.extend(judge::judge(&calls, &finals));
        }
        let (mut fired, mut settled) = (0, 0);
        if let Some(common) = &self.common
            && broken.is_empty()
        {
            match self.everybody(common) {
                Ok(finals) => {
                    (fired, settled) = shards::judge::count(&finals);
                    broken.extend(shards::judge::judge(
                        &common.books,
                        &finals,
                        &self.bounds(),
                        waits.is_empty(),
                    ));
                }
                Err(why) => broken.push(format!("history can be read: {why}")),
            }
        }
        let (delivered, lost) = self.net.counts();
        let digest = self.record.digest();
        let digest = match &self.common {
            Some(common) => common.books.digest(digest),
            None => digest,
        };
        let mut seen = Seen {
            faults: self.faults,
            delivered,
            lost,
            lasted: self.now / 1_000,
            digest,
            fired,
            settled,
            ..Seen::default()
        };
        for call in &calls {
            match &call.told {
                Some((_, Told::Appended(_))) => seen.acknowledged += 1,
                Some((_, Told::List(_))) => seen.reads += 1,
                Some((_, Told::Refused)) => seen.refused += 1,
                Some((_, Told::Unknown)) | None => seen.unknown += 1,
            }
        }
        for call in self.common.iter().flat_map(|c| c.books.calls()) {
            use shards::books::Told;
            match &call.told {
                Some((_, Told::Receipt { again, .. })) => {
                    seen.acknowledged += 1;
                    seen.again += u64::from(*again);
                    seen.commands += u64::from(call.by_hand && !*again);
                }
                Some((_, Told::Seen(_) | Told::Nobody)) => seen.reads += 1,
                Some((_, Told::Refused)) => seen.refused += 1,
                Some((_, Told::Unknown)) | None => seen.unknown += 1,
            }
        }
        let verdict = if !broken.is_empty() {
            Verdict::Safety(broken)
        } else if !waits.is_empty() {
            Verdict::Liveness(waits)
        } else {
            Verdict::Clean
        };
        Ended { verdict, seen }
    }
}
