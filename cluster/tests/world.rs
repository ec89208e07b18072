//! A small world on simulated disks: many crashes, and after each everything acknowledged is there, once, where it was
//! said to be. Time is paused and everything random follows from the seed, which a failure names.

mod common;

use bytes::Bytes;
use common::*;
use parking_lot::Mutex;
use sojourn_cluster::runtime::seed_thread;
use sojourn_cluster::sim::{Dice, SimCheckpoints, SimLog};
use sojourn_cluster::{
    EntryKind, Group, GroupId, Host, HostConfig, Position, Role, Running, Seams, Source,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const GROUPS: u64 = 3;

type Acknowledged = Arc<Mutex<BTreeMap<(GroupId, String), Position>>>;

#[derive(Default, Debug)]
struct Seen {
    acknowledged: usize,
    unknown: usize,
    from_checkpoint: usize,
    from_history: usize,
    from_log: usize,
    purged: usize,
}

struct World {
    seed: u64,
    dice: Dice,
    log: Arc<SimLog>,
    checkpoints: Arc<SimCheckpoints>,
    histories: BTreeMap<GroupId, Arc<Mutex<History>>>,
    acknowledged: Acknowledged,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            seed,
            dice: Dice::new(seed),
            log: Arc::new(SimLog::new()),
            checkpoints: Arc::new(SimCheckpoints::new()),
            histories: (0..GROUPS).map(|n| (GroupId(n), Arc::default())).collect(),
            acknowledged: Arc::default(),
            seen: Seen::default(),
        }
    }

    fn round(&mut self, round: u64) {
        seed_thread(self.dice.roll());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(self.live(round));
        // The power goes: every task ends where it stands.
        drop(runtime);
        self.log.crash(&mut self.dice);
        self.checkpoints.crash(&mut self.dice);
        if self.dice.once_in(6) {
            let group = GroupId(self.dice.below(GROUPS));
            self.checkpoints.flip_bit(group, &mut self.dice);
        }
    }

    async fn live(&mut self, round: u64) {
        let writes = Mutex::new(Dice::new(self.dice.roll()));
        let write_takes = Arc::new(move || Duration::from_micros(50 + writes.lock().below(3000)));
        let seams = Seams {
            log: self.log.clone(),
            checkpoints: self.checkpoints.clone(),
            running: Running::Tasks { write_takes },
        };
        let cfg = HostConfig {
            // Small enough that checkpoints and purges happen all the time.
            checkpoint_log_bytes: 1500,
            log_cache_bytes: 300,
            keep_log_bytes_alone: if self.dice.once_in(3) { 100 << 10 } else { 0 },
            ..HostConfig::default()
        };
        let host = Host::open_with(cfg, seams).await.expect("opens");
        let mut groups = Vec::new();
        for (id, history) in &self.histories {
            let ledger = Ledger::with_history(history.clone());
            let group = host
                .open_group(*id, machine(&ledger), vec![1])
                .await
                .expect("the group opens");
            match group.opened().source {
                Source::Checkpoint { .. } => self.seen.from_checkpoint += 1,
                Source::History { .. } => self.seen.from_history += 1,
                Source::Log => self.seen.from_log += 1,
            }
            groups.push((group, ledger));
        }
        if self.dice.once_in(4) {
            // It may crash before anybody owns anything.
            sleep(Duration::from_micros(self.dice.below(5000))).await;
            return;
        }
        for (group, ledger) in &groups {
            owned(group).await;
            self.check(group.id(), ledger);
        }
        let unknown = Arc::new(Mutex::new(0));
        for (group, _) in &groups {
            for client in 0..3 {
                let dice = Dice::new(self.dice.roll());
                tokio::spawn(propose(
                    group.clone(),
                    format!("{round}/{client}"),
                    dice,
                    self.acknowledged.clone(),
                    unknown.clone(),
                ));
            }
        }
        if self.dice.once_in(3) {
            self.checkpoints.fail_after(self.dice.below(20));
        }
        if self.dice.once_in(8) {
            self.log.fail_after(self.dice.below(60));
        }
        sleep(Duration::from_millis(self.dice.below(400))).await;
        for (group, ledger) in &groups {
            if matches!(*group.role().borrow(), Role::Owner { .. })
                && group
                    .read_index(Instant::now() + Duration::from_secs(1))
                    .await
                    .is_ok()
            {
                self.check(group.id(), ledger);
            }
        }
        self.seen.unknown += *unknown.lock();
        let first = |id: GroupId| {
            sojourn_cluster::LogStore::bounds(&*self.log, id).map_or(0, |(first, _)| first)
        };
        self.seen.purged += self.histories.keys().filter(|id| first(**id) > 0).count();
    }

    fn check(&mut self, id: GroupId, ledger: &Ledger) {
        let lines = ledger.lines();
        let acknowledged = self.acknowledged.lock();
        self.seen.acknowledged = acknowledged.len();
        for ((group, text), at) in acknowledged.iter() {
            if *group == id {
                let line = lines.get(text).unwrap_or_else(|| {
                    panic!(
                        "{text} of {id} was acknowledged at {at} and is lost; seed {}",
                        self.seed
                    )
                });
                assert_eq!(line.first, *at, "{text} of {id} moved; seed {}", self.seed);
            }
        }
        for (text, line) in &lines {
            assert_eq!(
                line.times, 1,
                "{text} of {id} was applied {} times; seed {}",
                line.times, self.seed
            );
        }
    }
}

/// Proposes texts that are never proposed again, until the world ends.
async fn propose(
    group: Group,
    name: String,
    mut dice: Dice,
    acknowledged: Acknowledged,
    unknown: Arc<Mutex<usize>>,
) {
    for n in 0.. {
        let text = format!("{name}/{n}");
        // Some deadlines are too short on purpose.
        let deadline = Instant::now() + Duration::from_micros(200 + dice.below(40_000));
        match group
            .propose(EntryKind::Decisions, Bytes::from(text.clone()), deadline)
            .await
        {
            Ok(done) => {
                acknowledged.lock().insert((group.id(), text), done.at);
            }
            Err(_) => {
                *unknown.lock() += 1;
                sleep(Duration::from_millis(5)).await;
            }
        }
        if dice.once_in(3) {
            sleep(Duration::from_micros(dice.below(2000))).await;
        }
    }
}

fn crash_often(seed: u64, rounds: u64) -> Seen {
    let mut world = World::new(seed);
    for round in 0..rounds {
        world.round(round);
    }
    world.seen
}

#[test]
fn what_was_acknowledged_outlives_every_crash() {
    let mut sum = Seen::default();
    for seed in 1..=8 {
        let seen = crash_often(seed, 25);
        sum.acknowledged += seen.acknowledged;
        sum.unknown += seen.unknown;
        sum.from_checkpoint += seen.from_checkpoint;
        sum.from_history += seen.from_history;
        sum.from_log += seen.from_log;
        sum.purged += seen.purged;
    }
    // A world in which nothing happens proves nothing.
    assert!(sum.acknowledged > 2000, "{sum:?}");
    assert!(
        sum.unknown > 10 && sum.from_checkpoint > 50 && sum.from_history > 3 && sum.from_log > 20,
        "{sum:?}"
    );
    assert!(sum.purged > 50, "{sum:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    let once = crash_often(42, 6);
    let again = crash_often(42, 6);
    assert_eq!(format!("{once:?}"), format!("{again:?}"));
}
