//! The fate of a signal, in types of this library. Knows no wire beyond turning the wire's form into these.

use crate::error::Error;
use crate::signal::Identifier;
use jiff::Timestamp;
use sojourn_proto::v1;

/// Where in a shard's log something is true; a later read can ask for at least this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The shard.
    pub shard: u32,
    /// The index in its log.
    pub index: u64,
}

impl Position {
    pub(crate) fn of_wire(wire: Option<v1::Position>) -> Option<Position> {
        wire.map(|p| Position {
            shard: p.shard,
            index: p.index,
        })
    }

    pub(crate) fn wire(self) -> v1::Position {
        v1::Position {
            shard: self.shard,
            index: self.index,
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.shard, self.index)
    }
}

/// What a signal did to one execution, or why it did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The execution moved.
    Moved {
        /// The stage it left.
        from: String,
        /// The stage where it came to rest.
        to: String,
        /// The stages between, passed by moves that need no signal.
        via: Vec<String>,
    },
    /// The value of a fact or variable became another; no move.
    Recorded,
    /// An execution started.
    Started {
        /// The stage where it came to rest.
        stage: String,
        /// The stages before it, passed by moves that need no signal.
        via: Vec<String>,
    },
    /// An exit rule ended the execution.
    Exited {
        /// The stage that it was in.
        stage: String,
        /// With which outcome.
        outcome: String,
    },
    /// The execution is active, and nothing moved in it.
    Unmatched,
    /// There are only ended executions, and no entry rule took it.
    Ended,
    /// A rule said no.
    Refused {
        /// Which, and why.
        reason: String,
    },
    /// It waits until the hold ends.
    Held,
}

impl Fate {
    /// The fate as a word: `moved`, `started` …
    pub fn word(&self) -> &'static str {
        match self {
            Fate::Moved { .. } => "moved",
            Fate::Recorded => "recorded",
            Fate::Started { .. } => "started",
            Fate::Exited { .. } => "exited",
            Fate::Unmatched => "unmatched",
            Fate::Ended => "ended",
            Fate::Refused { .. } => "refused",
            Fate::Held => "held",
        }
    }

    pub(crate) fn of_wire(wire: Option<v1::Fate>) -> Option<Fate> {
        use v1::fate::Fate as W;
        Some(match wire?.fate? {
            W::Moved(m) => Fate::Moved {
                from: m.from,
                to: m.to,
                via: m.via,
            },
            W::Recorded(_) => Fate::Recorded,
            W::Started(s) => Fate::Started {
                stage: s.stage,
                via: s.via,
            },
            W::Exited(e) => Fate::Exited {
                stage: e.stage,
                outcome: e.outcome,
            },
            W::Unmatched(_) => Fate::Unmatched,
            W::Ended(_) => Fate::Ended,
            W::Refused(r) => Fate::Refused { reason: r.reason },
            W::Held(_) => Fate::Held,
        })
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fate::Moved { from, to, via } => {
                write!(f, "moved {from}")?;
                for stage in via {
                    write!(f, " > {stage}")?;
                }
                write!(f, " > {to}")
            }
            Fate::Started { stage, via } => {
                f.write_str("started in ")?;
                for stage in via {
                    write!(f, "{stage} > ")?;
                }
                f.write_str(stage)
            }
            Fate::Exited { stage, outcome } => write!(f, "exited from {stage} as {outcome}"),
            Fate::Refused { reason } => write!(f, "refused: {reason}"),
            Fate::Recorded | Fate::Unmatched | Fate::Ended | Fate::Held => f.write_str(self.word()),
        }
    }
}

/// One execution's part of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The execution's id; empty when none was started.
    pub execution: String,
    /// Its journey.
    pub journey: String,
    /// Its instance key; empty where the journey has none.
    pub instance: String,
    /// Its run.
    pub run: u32,
    /// What the signal did to it; `None` when this library is older than the server and does not know the answer.
    pub fate: Option<Fate>,
}

/// The fate of a signal: what it did, where and when that became true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The signal's id.
    pub signal_id: String,
    /// Its source.
    pub source: String,
    /// The customer key, as the server normalised it.
    pub customer: Option<Identifier>,
    /// The id of the decision; empty when nobody was concerned.
    pub decision: String,
    /// Where this is true: a token for later reads.
    pub position: Option<Position>,
    /// The owner's clock.
    pub at: Timestamp,
    /// The signal's own time, never later than `at`.
    pub occurred: Timestamp,
    /// The customer has no execution in any journey and no entry rule took the signal.
    pub no_match: bool,
    /// The signal had been decided before: everything else is the first answer.
    pub duplicate: bool,
    /// A duplicate id with other content.
    pub content_differs: bool,
    /// The signal's time lay in the future and was taken as `at`.
    pub time_ahead: bool,
    /// One part per execution that it concerned.
    pub parts: Vec<Part>,
    /// What else the sender should know: attributes dropped for their limit, and the like.
    pub notes: Vec<String>,
}

impl Receipt {
    pub(crate) fn of_wire(wire: v1::Receipt) -> Receipt {
        let time = |us| Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH);
        Receipt {
            signal_id: wire.signal_id,
            source: wire.source,
            customer: wire.customer.map(Identifier::of_wire),
            decision: wire.decision,
            position: Position::of_wire(wire.position),
            at: time(wire.at),
            occurred: time(wire.occurred),
            no_match: wire.no_match,
            duplicate: wire.duplicate,
            content_differs: wire.content_differs,
            time_ahead: wire.time_ahead,
            parts: wire
                .parts
                .into_iter()
                .map(|p| Part {
                    execution: p.execution,
                    journey: p.journey,
                    instance: p.instance,
                    run: p.run,
                    fate: Fate::of_wire(p.fate),
                })
                .collect(),
            notes: wire.notes,
        }
    }

    /// One word for the whole signal: `duplicate`, else as [`Receipt::first_word`].
    pub fn word(&self) -> &'static str {
        if self.duplicate {
            "duplicate"
        } else {
            self.first_word()
        }
    }

    /// One word for what the signal did when it was first decided: `no_match`, or the strongest fate of its parts
    /// (moved, started, exited, recorded, held, refused, unmatched, ended, in this order); `other` when the server knows
    /// fates that this library does not.
    pub fn first_word(&self) -> &'static str {
        if self.no_match {
            return "no_match";
        }
        strongest(
            self.parts
                .iter()
                .filter_map(|p| p.fate.as_ref().map(Fate::word)),
        )
        .unwrap_or("other")
    }
}

/// The fates from the strongest to the weakest, as words.
pub const FATES: [&str; 8] = [
    "moved",
    "started",
    "exited",
    "recorded",
    "held",
    "refused",
    "unmatched",
    "ended",
];

/// The strongest of several fates.
pub(crate) fn strongest(words: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let rank = |word: &str| FATES.iter().position(|f| *f == word).unwrap_or(FATES.len());
    words.min_by_key(|word| rank(word))
}

/// How sending a signal came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was decided, durably; the receipt says what it did.
    Done(Receipt),
    /// It is not a valid signal, or may not be sent; nothing was changed. The same signal again gets the same answer.
    Refused(Error),
    /// It was given to a server and no answer came in time: it may have been decided. Send the same id again (which is
    /// always safe), or ask for its receipt. The client goes on asking for a minute, before it sends the next signal
    /// of the same customer.
    Unknown(Error),
}

impl Outcome {
    /// The receipt, when there is one.
    pub fn receipt(&self) -> Option<&Receipt> {
        match self {
            Outcome::Done(receipt) => Some(receipt),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }
}
