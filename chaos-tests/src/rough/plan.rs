//! What is done to a cluster in rough times, drawn from a seed: the same seed gives the same steps, whatever comes of them.
//! Which node a draw hits depends on which run at that moment.

use crate::chance;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::time::Duration;

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// kill -9, and started again after a while.
    Kill,
    /// SIGSTOP for longer than an election, then SIGCONT.
    Standstill,
    /// The links between two sides are cut.
    Apart,
    /// One node is heard by nobody, or hears nobody.
    OneWay,
    /// Two halves that do not see each other, and one node that sees both.
    Bridge,
    /// A node's wall clock steps.
    ClockStep,
    /// Ownership of a shard is handed over.
    Transfer,
    /// A version of the journey is published.
    Publish,
    /// All nodes are stopped (SIGTERM) and started again, one after the other.
    Rolling,
    /// A node gives everything away, and takes its part again.
    Drain,
    /// A node joins and another one leaves for ever.
    Exchange,
    /// A node's disk takes no more; when it has ended, there is room again.
    DiskFull,
    /// Every fsync of a node fails; when it has ended, they work again.
    SyncFails,
    /// A file of a stopped node is damaged.
    Damage,
}

impl Kind {
    /// All.
    pub const ALL: [Kind; 14] = [
        Kind::Kill,
        Kind::Standstill,
        Kind::Apart,
        Kind::OneWay,
        Kind::Bridge,
        Kind::ClockStep,
        Kind::Transfer,
        Kind::Publish,
        Kind::Rolling,
        Kind::Drain,
        Kind::Exchange,
        Kind::DiskFull,
        Kind::SyncFails,
        Kind::Damage,
    ];

    /// It, as words.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9",
            Kind::Standstill => "standstill (SIGSTOP)",
            Kind::Apart => "links cut, symmetric",
            Kind::OneWay => "links cut, one way",
            Kind::Bridge => "links cut, bridge",
            Kind::ClockStep => "clock step",
            Kind::Transfer => "transfer of ownership",
            Kind::Publish => "version published",
            Kind::Rolling => "rolling restart (SIGTERM)",
            Kind::Drain => "drain and return",
            Kind::Exchange => "join and removal",
            Kind::DiskFull => "full disk",
            Kind::SyncFails => "failing fsync",
            Kind::Damage => "damaged file",
        }
    }

    /// Whether it stands on [`crate::faults`].
    pub fn needs_library(self) -> bool {
        matches!(self, Kind::ClockStep | Kind::DiskFull | Kind::SyncFails)
    }

    /// Whether another one may happen beside it: the others need a cluster that is whole, for a minority may be damaged
    /// at any time.
    pub fn is_light(self) -> bool {
        !matches!(
            self,
            Kind::Rolling
                | Kind::Drain
                | Kind::Exchange
                | Kind::DiskFull
                | Kind::SyncFails
                | Kind::Damage
        )
    }
}

/// What happens beside another one.
const BESIDE: [Kind; 5] = [
    Kind::Kill,
    Kind::Standstill,
    Kind::ClockStep,
    Kind::Transfer,
    Kind::Publish,
];

/// What was drawn for one thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Whom it hits, of those that there are.
    pub who: u32,
    /// Another one, or a shard.
    pub other: u32,
    /// How.
    pub how: u32,
    /// How long it lasts, where it lasts.
    pub lasts: Duration,
}

/// One step of the rough times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is waited before it.
    pub pause: Duration,
    /// What is done.
    pub kind: Kind,
    /// To whom and how.
    pub draw: Draw,
    /// What is done in its middle.
    pub beside: Option<(Kind, Draw)>,
}

/// The steps of a seed, without end: each kind comes once before any comes again.
pub struct Schedule {
    chance: StdRng,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
}

impl Schedule {
    /// Those of a seed, of these kinds.
    pub fn of(seed: u64, kinds: &[Kind]) -> Schedule {
        Schedule {
            chance: chance::of(seed),
            kinds: kinds.to_vec(),
            deck: Vec::new(),
        }
    }

    fn draw(&mut self, kind: Kind) -> Draw {
        let lasts = match kind {
            Kind::Kill => 0..10_000,
            // longer than an election
            Kind::Standstill => 3_000..9_000,
            _ => 3_000..12_000,
        };
        Draw {
            who: self.chance.random(),
            other: self.chance.random(),
            how: self.chance.random(),
            lasts: Duration::from_millis(self.chance.random_range(lasts)),
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.deck.shuffle(&mut self.chance);
        }
        let kind = self.deck.pop()?;
        let pause = Duration::from_millis(self.chance.random_range(0..4_000));
        let draw = self.draw(kind);
        let other = BESIDE[self.chance.random_range(0..BESIDE.len())];
        let also = self.draw(other);
        let wanted =
            kind.is_light() && self.kinds.contains(&other) && self.chance.random_ratio(1, 3);
        Some(Step {
            pause,
            kind,
            draw,
            beside: wanted.then_some((other, also)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_gives_the_same_steps_and_each_kind_comes_in_its_turn() {
        let steps = |seed| {
            Schedule::of(seed, &Kind::ALL)
                .take(3 * 14)
                .collect::<Vec<_>>()
        };
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
        for round in steps(7).chunks(14) {
            let kinds: BTreeSet<Kind> = round.iter().map(|s| s.kind).collect();
            assert_eq!(kinds.len(), 14);
        }
        assert!(steps(7).iter().any(|s| s.beside.is_some()));
        assert_eq!(Schedule::of(7, &[]).next(), None);
    }
}
