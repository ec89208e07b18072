//! Plans hold their bounds, move little, and what follows a plan that was carried out is nothing.

use proptest::prelude::*;
use sojourn_cluster::layout::Layout;
use sojourn_cluster::planner::{Plan, PlanError, PlanNode, Standing, Wishes, plan};
use sojourn_cluster::{NodeId, ShardId};
use std::collections::{BTreeMap, BTreeSet};

fn node(id: NodeId, zone: &str, standing: Standing) -> PlanNode {
    PlanNode {
        id,
        zone: zone.to_owned(),
        standing,
    }
}

/// Nodes 1 to `count`, all of them active, each in a zone of its own.
fn nodes(count: u64) -> Vec<PlanNode> {
    let all = (1..=count).map(|id| node(id, &format!("z{id}"), Standing::Active));
    all.collect()
}

fn planned(layout: &Layout, nodes: &[PlanNode]) -> Plan {
    plan(layout, nodes, Wishes::default()).expect("a plan")
}

fn shards(layout: &Layout) -> impl Iterator<Item = ShardId> {
    (0..layout.shards()).map(ShardId)
}

/// How many replicas and how many shards to own each active node has.
fn loads(layout: &Layout, nodes: &[PlanNode]) -> [BTreeMap<NodeId, usize>; 2] {
    let active = nodes.iter().filter(|n| n.standing == Standing::Active);
    let active: Vec<NodeId> = active.map(|n| n.id).collect();
    let held = active.iter().map(|id| (*id, layout.shards_of(*id).count()));
    let owns = |id: NodeId| {
        shards(layout)
            .filter(|s| layout.owner(*s) == Some(id))
            .count()
    };
    [
        held.collect(),
        active.iter().map(|id| (*id, owns(*id))).collect(),
    ]
}

/// Each within a quarter of the average, rounded away from it.
fn is_even(loads: &BTreeMap<NodeId, usize>) -> bool {
    let (sum, count) = (loads.values().sum::<usize>(), loads.len());
    let most = (sum * 5).div_ceil(count * 4);
    let least = sum * 3 / (count * 4);
    loads.values().all(|load| (least..=most).contains(load))
}

fn added(plan: &Plan) -> usize {
    plan.moves.iter().map(|m| m.add.len()).sum()
}

/// What must hold of every plan. `evenly`: whether zones leave the choice to be even.
fn check(
    before: &Layout,
    nodes: &[PlanNode],
    made: &Plan,
    evenly: bool,
) -> Result<(), TestCaseError> {
    let active: BTreeMap<NodeId, &str> = nodes
        .iter()
        .filter(|n| n.standing == Standing::Active)
        .map(|n| (n.id, n.zone.as_str()))
        .collect();
    let zones = active.values().collect::<BTreeSet<_>>().len();
    let replicas = active.len().min(3);
    prop_assert_eq!(made.replicas, replicas);
    let fixed: BTreeSet<ShardId> = made.stuck.iter().map(|s| s.shard).collect();
    for shard in shards(&made.target).filter(|shard| !fixed.contains(shard)) {
        let voters = made.target.voters(shard);
        prop_assert_eq!(voters.len(), replicas, "{} has {:?}", shard, voters);
        prop_assert!(
            voters.iter().all(|v| active.contains_key(v)),
            "{} has {:?}",
            shard,
            voters
        );
        let used = voters
            .iter()
            .map(|v| active[v])
            .collect::<BTreeSet<_>>()
            .len();
        prop_assert_eq!(used, zones.min(replicas), "{} is on {:?}", shard, voters);
    }
    if evenly && fixed.is_empty() {
        for load in loads(&made.target, nodes) {
            prop_assert!(is_even(&load), "{:?}", load);
        }
    }
    // The moves are what makes the one layout the other, each shard once.
    let mut now: Vec<Vec<NodeId>> = shards(before).map(|s| before.voters(s).to_vec()).collect();
    let mut moved = BTreeSet::new();
    for step in &made.moves {
        prop_assert!(moved.insert(step.shard) && !fixed.contains(&step.shard));
        let old: BTreeSet<NodeId> = before.voters(step.shard).iter().copied().collect();
        let new: BTreeSet<NodeId> = step.voters.iter().copied().collect();
        prop_assert_eq!(
            &new - &old,
            step.add.iter().copied().collect::<BTreeSet<_>>()
        );
        prop_assert_eq!(
            &old - &new,
            step.remove.iter().copied().collect::<BTreeSet<_>>()
        );
        prop_assert!(before.voters(step.shard) != step.voters);
        now[usize::from(step.shard.0)].clone_from(&step.voters);
    }
    let version = before.version() + u64::from(!made.moves.is_empty());
    prop_assert_eq!(&Layout::new(version, now).expect("a layout"), &made.target);
    // The same again gives the same, and carried out there is nothing left to do.
    prop_assert_eq!(&planned(before, nodes), made);
    let again = planned(&made.target, nodes);
    prop_assert!(again.is_empty(), "{:?}", again.moves);
    prop_assert_eq!(&again.target, &made.target);
    Ok(())
}

/// Something that happens to the nodes of a cluster.
#[derive(Debug, Clone)]
enum Happens {
    Comes(u64),
    Drains(prop::sample::Index),
    Dies(prop::sample::Index),
    Stays(prop::sample::Index),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0_u64..4).prop_map(Happens::Comes),
        1 => any::<prop::sample::Index>().prop_map(Happens::Drains),
        1 => any::<prop::sample::Index>().prop_map(Happens::Dies),
        1 => any::<prop::sample::Index>().prop_map(Happens::Stays),
    ]
}

/// What would be of `before` if only those who may hold replicas stayed.
fn kept(before: &Layout, nodes: &[PlanNode]) -> BTreeMap<NodeId, usize> {
    let [held, _] = loads(before, nodes);
    held
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bounds_hold_whatever_happens(
        bits in 0_u32..7,
        zones in 1_u64..5,
        story in prop::collection::vec(happens(), 1..14),
    ) {
        let mut all = vec![node(1, "z0", Standing::Active)];
        let mut layout = Layout::alone(1 << bits, 1).expect("a layout");
        let mut next = 2;
        for event in story {
            let before = all.clone();
            match event {
                Happens::Comes(zone) if all.len() < 9 => {
                    all.push(node(next, &format!("z{}", zone % zones), Standing::Active));
                    next += 1;
                }
                Happens::Comes(_) => {}
                Happens::Drains(which) => which.get_mut(&mut all).standing = Standing::Draining,
                Happens::Dies(which) => which.get_mut(&mut all).standing = Standing::Dead,
                Happens::Stays(which) => which.get_mut(&mut all).standing = Standing::Active,
            }
            if all.iter().all(|n| n.standing != Standing::Active) {
                let why = plan(&layout, &all, Wishes::default()).expect_err("nobody is left");
                prop_assert!(matches!(why, PlanError::Nobody { .. }), "{}", why);
                all = before;
                continue;
            }
            let made = planned(&layout, &all);
            check(&layout, &all, &made, zones == 1)?;
            if zones == 1 && made.stuck.is_empty() {
                // Each replica that is lacking, and each that one node has above what all have, moves once.
                let held = kept(&layout, &all);
                let each = usize::from(layout.shards()) * made.replicas;
                let lacking = each.saturating_sub(held.values().sum());
                let even = each / held.len();
                let above: usize = held.values().map(|n| n.saturating_sub(even)).sum();
                prop_assert!(added(&made) <= lacking + above, "{} added, {} lacked, {} above", added(&made), lacking, above);
            }
            layout = made.target;
            // Who has nothing left and may not have anything is taken away.
            all.retain(|n| n.standing == Standing::Active || layout.shards_of(n.id).count() > 0);
        }
    }

    #[test]
    fn another_node_takes_its_share_and_no_more(count in 3_u64..9, bits in 3_u32..7) {
        let alone = Layout::alone(1 << bits, 1).expect("a layout");
        let first = planned(&alone, &nodes(count)).target;
        let made = planned(&first, &nodes(count + 1));
        check(&first, &nodes(count + 1), &made, true)?;
        let share = (usize::from(first.shards()) * 3).div_ceil(count as usize + 1);
        prop_assert!(added(&made) <= share, "{} moved, the share is {}", added(&made), share);
        for step in &made.moves {
            prop_assert!(step.add.is_empty() || step.add == [count + 1], "{:?}", step);
        }
        // And when it goes again, only what it had moves.
        let mut without = nodes(count + 1);
        without[count as usize].standing = Standing::Draining;
        let back = planned(&made.target, &without);
        check(&made.target, &without, &back, true)?;
        prop_assert_eq!(added(&back), added(&made));
    }

    #[test]
    fn nodes_stay_evenly_loaded_on_the_way(count in 3_u64..9, bits in 3_u32..7) {
        let alone = Layout::alone(1 << bits, 1).expect("a layout");
        let mut layout = planned(&alone, &nodes(count)).target;
        let all = nodes(count + 1);
        let made = planned(&layout, &all);
        let most = |layout: &Layout| loads(layout, &all)[0].values().copied().max().unwrap_or(0);
        let before = most(&layout);
        for step in &made.moves {
            let now = shards(&layout).map(|s| if s == step.shard { step.voters.clone() } else { layout.voters(s).to_vec() });
            layout = layout.follow(layout.version() + 1, now.collect()).expect("follows");
            prop_assert!(most(&layout) <= before);
        }
    }
}

#[test]
fn zones_keep_replicas_apart_and_cost_evenness_only_where_they_must() {
    // A zone with one node only has a replica of every shard, for there are just three zones.
    let mut all = nodes(7);
    for node in &mut all {
        node.zone = ["a", "b", "b", "b", "c", "c", "c"][node.id as usize - 1].to_owned();
    }
    let layout = Layout::alone(32, 4).expect("a layout");
    let made = planned(&layout, &all);
    check(&layout, &all, &made, false).expect("holds");
    let [held, owned] = loads(&made.target, &all);
    assert_eq!(held[&1], 32);
    assert!(
        held.iter().all(|(id, n)| *id == 1 || (10..=11).contains(n)),
        "{held:?}"
    );
    assert!(is_even(&owned), "{owned:?}");
    // With a fourth zone there is a choice again.
    all.extend([8, 9, 10].map(|id| node(id, "d", Standing::Active)));
    let next = planned(&made.target, &all);
    check(&made.target, &all, &next, false).expect("holds");
    let [held, _] = loads(&next.target, &all);
    assert!(held[&1] < 32, "{held:?}");
    // Two zones: one replica at least in each.
    let two: Vec<PlanNode> = all
        .iter()
        .filter(|n| n.zone == "a" || n.zone == "b")
        .cloned()
        .collect();
    let layout = Layout::alone(16, 2).expect("a layout");
    check(&layout, &two, &planned(&layout, &two), false).expect("holds");
}

#[test]
fn lacking_replicas_come_first_then_those_who_must_go() {
    let layout = Layout::alone(32, 1).expect("a layout");
    let layout = planned(&layout, &nodes(5)).target;
    let mut all = nodes(6);
    all[1].standing = Standing::Dead;
    all[2].standing = Standing::Draining;
    let made = planned(&layout, &all);
    assert!(made.stuck.is_empty());
    let kind = |step: &sojourn_cluster::planner::Move| {
        if step.remove.contains(&2) {
            0
        } else if step.remove.contains(&3) {
            1
        } else {
            2
        }
    };
    let kinds: Vec<_> = made.moves.iter().map(kind).collect();
    assert!(
        kinds.is_sorted() && kinds.contains(&0) && kinds.contains(&1),
        "{kinds:?}"
    );
    assert_eq!(
        made.target.shards_of(2).count() + made.target.shards_of(3).count(),
        0
    );
}

#[test]
fn a_shard_without_a_majority_is_left_and_said() {
    let layout = Layout::new(7, vec![vec![1, 2, 3], vec![1, 4, 5]]).expect("a layout");
    let mut all = nodes(6);
    all[1].standing = Standing::Dead;
    all[2].standing = Standing::Dead;
    let made = planned(&layout, &all);
    check(&layout, &all, &made, false).expect("holds");
    assert_eq!(made.stuck.len(), 1);
    assert_eq!(made.target.voters(ShardId(0)), [1, 2, 3]);
    let why = made.whole().expect_err("not whole").to_string();
    assert!(
        why.starts_with(
            "nodes [2, 3] of the voters [1, 2, 3] of shard 0 are dead: without a majority"
        ) && why.contains("bring one of them back"),
        "{why}"
    );
}

#[test]
fn a_plan_that_cannot_be_says_why() {
    let layout = Layout::new(1, vec![vec![1, 2, 3]]).expect("a layout");
    let why = |nodes: &[PlanNode], replicas| {
        let refused = plan(&layout, nodes, Wishes { replicas });
        refused.expect_err("no plan").to_string()
    };
    assert_eq!(why(&nodes(3), 0), "0 replicas are wished, expected 1 to 7");
    assert_eq!(why(&nodes(3), 8), "8 replicas are wished, expected 1 to 7");
    assert!(
        why(&nodes(2), 3).starts_with("shard 0 names node 3, which is not among the nodes [1, 2]")
    );
    let mut twice = nodes(3);
    twice.push(node(2, "z", Standing::Dead));
    assert_eq!(
        why(&twice, 3),
        "node 2 is named twice, expected each node once"
    );
    let mut none = nodes(3);
    for (node, standing) in
        none.iter_mut()
            .zip([Standing::Draining, Standing::Dead, Standing::Joining])
    {
        node.standing = standing;
    }
    let why = why(&none, 3);
    assert!(
        why.contains("draining: [1], dead: [2], joining: [3]") && why.contains("add a node"),
        "{why}"
    );
}

#[test]
fn fewer_nodes_than_wished_hold_what_they_can() {
    let layout = Layout::new(1, vec![vec![1, 2, 3], vec![3, 2, 1]]).expect("a layout");
    let mut all = nodes(3);
    all[0].standing = Standing::Draining;
    let made = planned(&layout, &all);
    assert_eq!(made.replicas, 2);
    assert_eq!(made.target.voters(ShardId(0)), [2, 3]);
    assert_eq!(made.target.voters(ShardId(1)), [3, 2]);
    assert!(
        made.moves
            .iter()
            .all(|m| m.add.is_empty() && m.remove == [1])
    );
    // One replica of each: the owner stays where it can.
    let wishes = Wishes { replicas: 1 };
    let one = plan(&made.target, &all[1..], wishes)
        .expect("a plan")
        .target;
    assert_eq!(
        (one.voters(ShardId(0)), one.voters(ShardId(1))),
        (&[2][..], &[3][..])
    );
}
