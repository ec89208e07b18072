//! Events, actions, timers, fates.

use super::signal::{signal_from_stored, signal_to};
use super::value::{identifier_from, identifier_to, value_from, value_to};
use super::{Unreadable, need};
use sojourn_journey::event::{Action, ActionOutcome, By, Cause, Event, What};
use sojourn_journey::execution::{Status, Timer, TimerKind};
use sojourn_journey::receipt::Fate;
use sojourn_journey::time::Time;
use sojourn_proto::v1;
use v1::event as wire;

/// To the wire, with its number and times.
pub fn event_to(event: &Event) -> v1::Event {
    v1::Event {
        number: event.number,
        at: event.at.0,
        occurred: event.occurred.0,
        what: Some(what_to(&event.what)),
    }
}

/// To a stored part: number and times stand once in the part and the decision.
pub fn event_to_stored(event: &Event) -> v1::Event {
    v1::Event {
        number: 0,
        at: 0,
        occurred: 0,
        what: Some(what_to(&event.what)),
    }
}

/// From a stored part.
pub fn event_from_stored(
    event: v1::Event,
    number: u64,
    at: Time,
    occurred: Time,
) -> Result<Event, Unreadable> {
    Ok(Event {
        number,
        at,
        occurred,
        what: what_from(need(event.what, "an event")?)?,
    })
}

fn what_to(what: &What) -> wire::What {
    match what {
        What::Started {
            journey,
            version,
            customer,
            instance,
            run,
            stage,
        } => wire::What::Started(wire::Started {
            journey: journey.clone(),
            version: *version,
            customer: Some(identifier_to(customer)),
            instance: instance.clone(),
            run: *run,
            stage: stage.clone(),
        }),
        What::Fact {
            path,
            value,
            changed,
        } => wire::What::Fact(wire::Fact {
            path: path.clone(),
            value: Some(value_to(value)),
            changed: *changed,
        }),
        What::Variable {
            name,
            value,
            changed,
        } => wire::What::Variable(wire::Variable {
            name: name.clone(),
            value: Some(value_to(value)),
            changed: *changed,
        }),
        What::Kept { name, value } => wire::What::Kept(wire::Kept {
            name: name.clone(),
            value: Some(value_to(value)),
        }),
        What::Seen { place, step } => wire::What::Seen(wire::Seen {
            place: place.clone(),
            step: *step,
        }),
        What::Forgotten { place } => wire::What::Forgotten(wire::Forgotten {
            place: place.clone(),
        }),
        What::Moved {
            from,
            to,
            visit,
            cause,
        } => wire::What::Moved(wire::Moved {
            from: from.clone(),
            to: to.clone(),
            visit: *visit,
            cause: Some(cause_to(cause)),
        }),
        What::TimerArmed(timer) => wire::What::TimerArmed(wire::TimerArmed {
            timer: Some(timer_to(timer)),
        }),
        What::TimerFired {
            visit,
            place,
            round,
        } => wire::What::TimerFired(timer_ref(*visit, place, *round)),
        What::Action(action) => wire::What::Action(action_to(action)),
        What::Attempted {
            action,
            attempt,
            error,
            next,
        } => wire::What::Attempted(wire::Attempted {
            action: *action,
            attempt: *attempt,
            error: error.clone(),
            next: next.0,
        }),
        What::Settled {
            action,
            attempt,
            outcome,
        } => wire::What::Settled(wire::Settled {
            action: *action,
            attempt: *attempt,
            outcome: Some(outcome_to(outcome)),
        }),
        What::Unmatched { kind } => wire::What::Unmatched(wire::Unmatched {
            r#type: kind.clone(),
        }),
        What::GoalReached { within } => {
            wire::What::GoalReached(wire::GoalReached { within: *within })
        }
        What::Overdue { place } => wire::What::Overdue(wire::Overdue {
            place: place.clone(),
        }),
        What::Stalled => wire::What::Stalled(wire::Stalled {}),
        What::Incident {
            place,
            message,
            action,
        } => wire::What::Incident(wire::Incident {
            place: place.clone(),
            message: message.clone(),
            action: *action,
        }),
        What::Retried {
            action,
            new_key,
            by,
        } => wire::What::Retried(wire::Retried {
            action: *action,
            new_key: *new_key,
            by: Some(by_to(by)),
        }),
        What::Skipped { action, by } => wire::What::Skipped(wire::Skipped {
            action: *action,
            by: Some(by_to(by)),
        }),
        What::Held { actor, reason } => wire::What::Held(v1::By {
            actor: actor.clone(),
            reason: reason.clone(),
        }),
        What::Resumed { actor, reason } => wire::What::Resumed(v1::By {
            actor: actor.clone(),
            reason: reason.clone(),
        }),
        What::SignalWaits(signal) => wire::What::SignalWaits(signal_to(signal)),
        What::SignalTaken => wire::What::SignalTaken(wire::SignalTaken {}),
        What::TimerWaits {
            visit,
            place,
            round,
        } => wire::What::TimerWaits(timer_ref(*visit, place, *round)),
        What::Ended {
            status,
            stage,
            outcome,
            by,
        } => wire::What::Ended(wire::Ended {
            status: status_to(*status) as i32,
            outcome: outcome.clone(),
            by: by.as_ref().map(by_to),
            stage: stage.clone(),
        }),
        What::Refused { kind, reason } => wire::What::Refused(wire::Refused {
            r#type: kind.clone(),
            reason: reason.clone(),
        }),
    }
}

fn what_from(what: wire::What) -> Result<What, Unreadable> {
    Ok(match what {
        wire::What::Started(s) => What::Started {
            journey: s.journey,
            version: s.version,
            customer: identifier_from(need(s.customer, "the customer of a start")?),
            instance: s.instance,
            run: s.run,
            stage: s.stage,
        },
        wire::What::Fact(f) => What::Fact {
            path: f.path,
            value: value_from(need(f.value, "the value of a fact")?)?,
            changed: f.changed,
        },
        wire::What::Variable(v) => What::Variable {
            name: v.name,
            value: value_from(need(v.value, "the value of a variable")?)?,
            changed: v.changed,
        },
        wire::What::Kept(k) => What::Kept {
            name: k.name,
            value: value_from(need(k.value, "a kept value")?)?,
        },
        wire::What::Seen(s) => What::Seen {
            place: s.place,
            step: s.step,
        },
        wire::What::Forgotten(f) => What::Forgotten { place: f.place },
        wire::What::Moved(m) => What::Moved {
            from: m.from,
            to: m.to,
            visit: m.visit,
            cause: cause_from(need(m.cause, "the cause of a move")?)?,
        },
        wire::What::TimerArmed(t) => What::TimerArmed(timer_from(need(t.timer, "a timer")?)?),
        wire::What::TimerFired(t) => What::TimerFired {
            visit: t.visit,
            place: t.place,
            round: t.round,
        },
        wire::What::Action(a) => What::Action(action_from(a)),
        wire::What::Attempted(a) => What::Attempted {
            action: a.action,
            attempt: a.attempt,
            error: a.error,
            next: Time(a.next),
        },
        wire::What::Settled(s) => What::Settled {
            action: s.action,
            attempt: s.attempt,
            outcome: outcome_from(need(s.outcome, "the outcome of an action")?)?,
        },
        wire::What::Unmatched(u) => What::Unmatched { kind: u.r#type },
        wire::What::GoalReached(g) => What::GoalReached { within: g.within },
        wire::What::Overdue(o) => What::Overdue { place: o.place },
        wire::What::Stalled(_) => What::Stalled,
        wire::What::Incident(i) => What::Incident {
            place: i.place,
            message: i.message,
            action: i.action,
        },
        wire::What::Retried(r) => What::Retried {
            action: r.action,
            new_key: r.new_key,
            by: by_from(need(r.by, "the author of a retry")?),
        },
        wire::What::Skipped(s) => What::Skipped {
            action: s.action,
            by: by_from(need(s.by, "the author of a skip")?),
        },
        wire::What::Held(by) => What::Held {
            actor: by.actor,
            reason: by.reason,
        },
        wire::What::Resumed(by) => What::Resumed {
            actor: by.actor,
            reason: by.reason,
        },
        wire::What::SignalWaits(s) => What::SignalWaits(Box::new(signal_from_stored(s)?)),
        wire::What::SignalTaken(_) => What::SignalTaken,
        wire::What::TimerWaits(t) => What::TimerWaits {
            visit: t.visit,
            place: t.place,
            round: t.round,
        },
        wire::What::Ended(e) => What::Ended {
            status: status_from(e.status)?,
            stage: e.stage,
            outcome: e.outcome,
            by: e.by.map(by_from),
        },
        wire::What::Refused(r) => What::Refused {
            kind: r.r#type,
            reason: r.reason,
        },
    })
}

fn timer_ref(visit: u32, place: &str, round: u32) -> wire::TimerRef {
    wire::TimerRef {
        visit,
        place: place.to_owned(),
        round,
    }
}

/// To the wire.
pub fn by_to(by: &By) -> v1::By {
    v1::By {
        actor: by.actor.clone(),
        reason: by.reason.clone(),
    }
}

/// From the wire.
pub fn by_from(by: v1::By) -> By {
    By {
        actor: by.actor,
        reason: by.reason,
    }
}

fn cause_to(cause: &Cause) -> wire::Cause {
    let (kind, place, by) = match cause {
        Cause::Signal { place } => (v1::CauseKind::Signal, place.as_str(), None),
        Cause::Condition { place } => (v1::CauseKind::Condition, place.as_str(), None),
        Cause::Timer { place } => (v1::CauseKind::Timer, place.as_str(), None),
        Cause::Deadline { place } => (v1::CauseKind::Deadline, place.as_str(), None),
        Cause::Override(by) => (v1::CauseKind::Override, "", Some(by_to(by))),
    };
    wire::Cause {
        kind: kind as i32,
        place: place.to_owned(),
        by,
    }
}

fn cause_from(cause: wire::Cause) -> Result<Cause, Unreadable> {
    let place = cause.place;
    Ok(match v1::CauseKind::try_from(cause.kind) {
        Ok(v1::CauseKind::Signal) => Cause::Signal { place },
        Ok(v1::CauseKind::Condition) => Cause::Condition { place },
        Ok(v1::CauseKind::Timer) => Cause::Timer { place },
        Ok(v1::CauseKind::Deadline) => Cause::Deadline { place },
        Ok(v1::CauseKind::Override) => {
            Cause::Override(by_from(need(cause.by, "the author of an override")?))
        }
        Ok(v1::CauseKind::Unspecified) | Err(_) => {
            return Err(unknown("the cause of a move", cause.kind));
        }
    })
}

fn unknown(what: &'static str, number: i32) -> Unreadable {
    Unreadable {
        what,
        why: format!("kind {number} is not known to this version"),
    }
}

/// To the wire.
pub fn status_to(status: Status) -> v1::Status {
    match status {
        Status::Active => v1::Status::Active,
        Status::Held => v1::Status::Held,
        Status::Completed => v1::Status::Completed,
        Status::Exited => v1::Status::Exited,
        Status::Expired => v1::Status::Expired,
        Status::Stopped => v1::Status::Stopped,
    }
}

/// From the wire.
pub fn status_from(status: i32) -> Result<Status, Unreadable> {
    Ok(match v1::Status::try_from(status) {
        Ok(v1::Status::Active) => Status::Active,
        Ok(v1::Status::Held) => Status::Held,
        Ok(v1::Status::Completed) => Status::Completed,
        Ok(v1::Status::Exited) => Status::Exited,
        Ok(v1::Status::Expired) => Status::Expired,
        Ok(v1::Status::Stopped) => Status::Stopped,
        Ok(v1::Status::Unspecified) | Err(_) => return Err(unknown("a status", status)),
    })
}

/// To the wire.
pub fn timer_to(timer: &Timer) -> v1::Timer {
    let kind = match timer.kind {
        TimerKind::Absent => v1::TimerKind::Absent,
        TimerKind::Delay => v1::TimerKind::Delay,
        TimerKind::Repeat => v1::TimerKind::Repeat,
        TimerKind::Stalled => v1::TimerKind::Stalled,
        TimerKind::StageDeadline => v1::TimerKind::StageDeadline,
        TimerKind::JourneyDeadline => v1::TimerKind::JourneyDeadline,
    };
    v1::Timer {
        visit: timer.visit,
        kind: kind as i32,
        place: timer.place.clone(),
        due: timer.due.0,
        round: timer.round,
        waits: timer.waits,
        behind: timer.behind,
    }
}

/// From the wire.
pub fn timer_from(timer: v1::Timer) -> Result<Timer, Unreadable> {
    let kind = match v1::TimerKind::try_from(timer.kind) {
        Ok(v1::TimerKind::Absent) => TimerKind::Absent,
        Ok(v1::TimerKind::Delay) => TimerKind::Delay,
        Ok(v1::TimerKind::Repeat) => TimerKind::Repeat,
        Ok(v1::TimerKind::Stalled) => TimerKind::Stalled,
        Ok(v1::TimerKind::StageDeadline) => TimerKind::StageDeadline,
        Ok(v1::TimerKind::JourneyDeadline) => TimerKind::JourneyDeadline,
        Ok(v1::TimerKind::Unspecified) | Err(_) => return Err(unknown("a timer", timer.kind)),
    };
    Ok(Timer {
        visit: timer.visit,
        kind,
        place: timer.place,
        due: Time(timer.due),
        round: timer.round,
        waits: timer.waits,
        behind: timer.behind,
    })
}

/// To the wire.
pub fn action_to(action: &Action) -> v1::Action {
    v1::Action {
        place: action.place.clone(),
        kind: action.kind.clone(),
        to: action.to.clone(),
        body: action.body.clone().into(),
        awaited: action.awaited.clone(),
    }
}

/// From the wire.
pub fn action_from(action: v1::Action) -> Action {
    Action {
        place: action.place,
        kind: action.kind,
        to: action.to,
        body: action.body.to_vec(),
        awaited: action.awaited,
    }
}

fn outcome_to(outcome: &ActionOutcome) -> wire::ActionOutcome {
    use wire::action_outcome::Outcome;
    let outcome = match outcome {
        ActionOutcome::Done { detail } => Outcome::Done(detail.clone()),
        ActionOutcome::Failed { error } => Outcome::Failed(error.clone()),
        ActionOutcome::Skipped { reason } => Outcome::Skipped(reason.clone()),
    };
    wire::ActionOutcome {
        outcome: Some(outcome),
    }
}

fn outcome_from(outcome: wire::ActionOutcome) -> Result<ActionOutcome, Unreadable> {
    use wire::action_outcome::Outcome;
    Ok(match need(outcome.outcome, "the outcome of an action")? {
        Outcome::Done(detail) => ActionOutcome::Done { detail },
        Outcome::Failed(error) => ActionOutcome::Failed { error },
        Outcome::Skipped(reason) => ActionOutcome::Skipped { reason },
    })
}

/// To the wire.
pub fn fate_to(fate: &Fate) -> v1::Fate {
    use v1::fate as w;
    let fate = match fate {
        Fate::Moved { from, to, via } => w::Fate::Moved(w::Moved {
            from: from.clone(),
            to: to.clone(),
            via: via.clone(),
        }),
        Fate::Recorded => w::Fate::Recorded(w::Recorded {}),
        Fate::Started { stage, via } => w::Fate::Started(w::Started {
            stage: stage.clone(),
            via: via.clone(),
        }),
        Fate::Exited { stage, outcome } => w::Fate::Exited(w::Exited {
            stage: stage.clone(),
            outcome: outcome.clone().unwrap_or_default(),
        }),
        Fate::Unmatched => w::Fate::Unmatched(w::Unmatched {}),
        Fate::Ended => w::Fate::Ended(w::Ended {}),
        Fate::Refused { reason } => w::Fate::Refused(w::Refused {
            reason: reason.clone(),
        }),
        Fate::Held => w::Fate::Held(w::Held {}),
    };
    v1::Fate { fate: Some(fate) }
}
