//! The fate of a signal in one execution, read from the events that it made there. Knows no positions: those belong to
//! whoever ordered the decision.

use crate::event::{Event, What};
use crate::execution::Status;
use std::fmt;

/// What became of a signal in one execution. What concerns the signal as a whole (`duplicate`, `no_match`) is said by
/// whoever delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It moved.
    Moved {
        /// The stage before.
        from: String,
        /// The stage in which it now rests.
        to: String,
        /// The stages passed through by automatic moves on the way, in order.
        via: Vec<String>,
    },
    /// The value of a fact or variable became another; no move.
    Recorded,
    /// An execution started.
    Started {
        /// The stage in which it now rests.
        stage: String,
        /// The stages passed through by automatic moves on the way, in order.
        via: Vec<String>,
    },
    /// An exit rule ended it.
    Exited {
        /// The stage that it was in.
        stage: String,
        /// The outcome of the rule.
        outcome: Option<String>,
    },
    /// Nothing in it moved, and no value became another. Also where a pattern saw one of its signals or an absence ended:
    /// that stands in the timeline as what it is, not as an unmatched signal.
    Unmatched,
    /// It waits for a hold to end.
    Held,
    /// It was not taken.
    Refused {
        /// Why.
        reason: String,
    },
    /// The execution has ended, and no entry rule took the signal.
    Ended,
}

impl Fate {
    /// The word for it: `moved`, `recorded` …
    pub fn word(&self) -> &'static str {
        match self {
            Fate::Moved { .. } => "moved",
            Fate::Recorded => "recorded",
            Fate::Started { .. } => "started",
            Fate::Exited { .. } => "exited",
            Fate::Unmatched => "unmatched",
            Fate::Held => "held",
            Fate::Refused { .. } => "refused",
            Fate::Ended => "ended",
        }
    }
}

/// `moved offer_sent -> accepted`, `started submitted`, `refused: …`.
impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        let via = match self {
            Fate::Moved { from, to, via } => {
                write!(f, " {from} -> {to}")?;
                via
            }
            Fate::Started { stage, via } => {
                write!(f, " {stage}")?;
                via
            }
            Fate::Exited { stage, outcome } => {
                write!(f, " {stage}")?;
                return outcome.iter().try_for_each(|o| write!(f, " ({o})"));
            }
            Fate::Refused { reason } => return write!(f, ": {reason}"),
            Fate::Recorded | Fate::Unmatched | Fate::Held | Fate::Ended => return Ok(()),
        };
        if via.is_empty() {
            Ok(())
        } else {
            write!(f, " via {}", via.join(", "))
        }
    }
}

/// The fate of a signal, from the events that it made in one execution. No events at all: the execution had ended.
pub fn fate(events: &[Event]) -> Fate {
    let mut path: Vec<&String> = Vec::new();
    let mut start = None;
    let mut exit = None;
    let mut other = if events.is_empty() {
        Fate::Ended
    } else {
        Fate::Unmatched
    };
    for event in events {
        match &event.what {
            What::Started { stage, .. } => start = Some(stage),
            What::Moved { from, to, .. } => {
                if path.is_empty() {
                    path.push(from);
                }
                path.push(to);
            }
            What::Ended {
                status: Status::Exited,
                stage,
                outcome,
                ..
            } => {
                exit = Some(Fate::Exited {
                    stage: stage.clone(),
                    outcome: outcome.clone(),
                });
            }
            What::SignalWaits(_) if other == Fate::Unmatched => other = Fate::Held,
            What::Refused { reason, .. } => {
                other = Fate::Refused {
                    reason: reason.clone(),
                }
            }
            What::Fact { changed: true, .. } | What::Variable { changed: true, .. }
                if other == Fate::Unmatched =>
            {
                other = Fate::Recorded;
            }
            _ => {}
        }
    }
    let passed = |stages: &[&String]| stages.iter().map(|s| (*s).clone()).collect::<Vec<_>>();
    match (start, exit, path.as_slice()) {
        (None, Some(exited), _) => exited,
        (Some(stage), _, []) => Fate::Started {
            stage: stage.clone(),
            via: Vec::new(),
        },
        (Some(_), _, [passes @ .., last]) => Fate::Started {
            stage: (*last).clone(),
            via: passed(passes),
        },
        (None, None, [first, passes @ .., last]) => Fate::Moved {
            from: (*first).clone(),
            to: (*last).clone(),
            via: passed(passes),
        },
        (None, None, _) => other,
    }
}
