//! From a seed to everything that a world is: how many nodes, for how long, what goes wrong and how often.
//!
//! Each kind of fault is there or not, so that no fault hides what another would show.

use super::net::Wires;
use sojourn_cluster::sim::Dice;

/// One kind of fault: once in so many milliseconds on average; 0: never.
pub type Rate = u64;

/// What the groups of a world replicate, the catalog's group aside: that one is always of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Lists: see [`super::machine`].
    Lists,
    /// The node's shards: see [`super::shards`].
    Shards,
}

/// A world, before it begins. Times in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What there is.
    pub of: Of,
    /// The seed.
    pub seed: u64,
    /// Nodes; three of them hold each group.
    pub nodes: u64,
    /// Groups beside the catalog's.
    pub shards: u64,
    /// How long things go wrong.
    pub rough: u64,
    /// How long it may take after that until everything works.
    pub calm: u64,
    /// How long it lasts after that at least: what nobody asks for must happen by itself.
    pub quiet: u64,
    /// Clients, each with one call at a time.
    pub clients: u64,
    /// The wires in the rough part.
    pub wires: Wires,
    /// Power cuts of one node.
    pub crashes: Rate,
    /// A node stands still, as a stopped process does.
    pub stands: Rate,
    /// Some wires are cut.
    pub cuts: Rate,
    /// A disk refuses a write of the log, and its node ends.
    pub disks: Rate,
    /// The checkpoint store refuses for a while.
    pub stores: Rate,
    /// Leaderships are handed over.
    pub transfers: Rate,
    /// A voter is replaced by a node that holds nothing.
    pub moves: Rate,
    /// A write of the log takes up to so many microseconds.
    pub write_takes: u64,
    /// The disk of history refuses a write, and its node ends. Of shards only, as all that follows.
    pub histories: Rate,
    /// The clocks of nodes go wrong by so many microseconds at most.
    pub skew: i64,
    /// An owner waits so long for an entry, in milliseconds.
    pub deadline: u64,
    /// One in so many calls that are neither a look nor a repetition is a command of an operator; 0: none.
    pub commands: u64,
    /// A version of the journey is published.
    pub publishes: Rate,
}

impl Plan {
    /// The world of a seed.
    pub fn of(seed: u64) -> Plan {
        let dice = &mut Dice::new(seed ^ 0x5eed);
        let mut rate = |often: u64| match dice.below(5) {
            0 | 1 => 0,
            2 => often * 4,
            3 => often,
            _ => often / 3,
        };
        let (crashes, stands, cuts) = (rate(2_000), rate(3_000), rate(2_000));
        let (disks, stores, transfers) = (rate(6_000), rate(5_000), rate(1_500));
        let moves = rate(3_000);
        let wires = match dice.below(4) {
            0 => Wires::GOOD,
            1 => Wires {
                least: 500,
                more: 20_000,
                lost: 0,
                twice: 20,
            },
            2 => Wires {
                lost: 5 + dice.below(60),
                twice: 50,
                ..Wires::GOOD
            },
            _ => Wires {
                least: 1_000,
                more: 120_000,
                lost: 40,
                twice: 10,
            },
        };
        Plan {
            of: Of::Lists,
            seed,
            nodes: 3 + dice.below(3),
            shards: 4,
            rough: 5_000 + dice.below(15_000),
            calm: 30_000,
            quiet: 0,
            clients: 2 + dice.below(7),
            wires,
            crashes,
            stands,
            cuts,
            disks,
            stores,
            transfers,
            moves,
            write_takes: [400, 3_000, 3_000, 60_000][dice.below(4) as usize],
            histories: 0,
            skew: 0,
            deadline: 0,
            commands: 0,
            publishes: 0,
        }
    }

    /// The world of shards of a seed.
    pub fn of_shards(seed: u64) -> Plan {
        let plan = Plan::of(seed);
        let dice = &mut Dice::new(seed ^ 0x5eed_5eed);
        // drawn apart: without them a seed is the world that it was before there were any
        let by_hand = &mut Dice::new(seed ^ super::shards::HANDS);
        Plan {
            of: Of::Shards,
            shards: 2,
            rough: 5_000 + dice.below(10_000),
            quiet: 7_000,
            clients: 6 + dice.below(15),
            histories: [0, 0, 8_000, 3_000][dice.below(4) as usize],
            skew: [0, 20_000, 700_000][dice.below(3) as usize],
            deadline: [150, 400, 1_000, 5_000][dice.below(4) as usize],
            commands: [0, 30, 8][by_hand.below(3) as usize],
            publishes: [0, 4_000, 1_500][by_hand.below(3) as usize],
            ..plan
        }
    }
}
