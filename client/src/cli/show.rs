//! How things of the wire are shown to people: times, numbers, events in a line. Knows no tables.

use crate::receipt::Fate;
use jiff::Timestamp;
use sojourn_proto::v1;

/// A time in UTC to the millisecond; `-` for none.
pub(super) fn time(us: Option<i64>) -> String {
    match us.and_then(|us| Timestamp::from_microsecond(us).ok()) {
        Some(time) => format!("{time:.3}"),
        None => "-".to_owned(),
    }
}

/// A whole number with thousands apart: `13,087`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with thousands apart and so many digits behind the point.
pub(super) fn decimal(number: f64, digits: usize) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    let text = format!("{:.digits$}", number.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), count);
    let sign = if number < 0.0 { "-" } else { "" };
    if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

pub(super) fn status(status: i32) -> &'static str {
    use v1::Status as S;
    match v1::Status::try_from(status) {
        Ok(S::Active) => "active",
        Ok(S::Held) => "held",
        Ok(S::Completed) => "completed",
        Ok(S::Exited) => "exited",
        Ok(S::Expired) => "expired",
        Ok(S::Stopped) => "stopped",
        Ok(S::Unspecified) | Err(_) => "other",
    }
}

/// How the circuit breaker of an endpoint stands.
pub(super) fn breaker(state: &v1::EndpointState) -> &'static str {
    use v1::Breaker as B;
    match v1::Breaker::try_from(state.breaker) {
        Ok(B::Closed) => "closed",
        Ok(B::Open) => "open",
        Ok(B::HalfOpen) => "half_open",
        Ok(B::Unspecified) | Err(_) => "other",
    }
}

pub(super) fn journey_state(state: i32) -> &'static str {
    use v1::JourneyState as S;
    match v1::JourneyState::try_from(state) {
        Ok(S::Active) => "active",
        Ok(S::Held) => "held",
        Ok(S::Dropped) => "dropped",
        Ok(S::Draining) => "draining",
        Ok(S::Unspecified) | Err(_) => "other",
    }
}

pub(super) fn identifier(identifier: Option<&v1::Identifier>) -> String {
    identifier.map_or_else(|| "-".to_owned(), |i| format!("{}={}", i.name, i.value))
}

/// A value as JSON would write it; bytes, times and lengths as text.
pub(super) fn value(value: Option<&v1::Value>) -> String {
    super::json::value(value).to_string()
}

/// The flags of an execution: `overdue stalled incident`.
pub(super) fn flags(execution: &v1::Execution) -> String {
    let mut flags = Vec::new();
    if execution.overdue {
        flags.push("overdue");
    }
    if execution.stalled {
        flags.push("stalled");
    }
    if execution.incident.is_some() {
        flags.push("incident");
    }
    if execution.goal_at.is_some() {
        flags.push("goal");
    }
    flags.join(" ")
}

pub(super) fn fate(fate: Option<v1::Fate>) -> String {
    Fate::of_wire(fate).map_or_else(|| "other".to_owned(), |f| f.to_string())
}

/// What made a decision: `signal bank.A_SUBMITTED bpic12-0`.
pub(super) fn cause(cause: Option<&v1::timeline_entry::Cause>) -> String {
    use v1::timeline_entry::cause::Cause as C;
    match cause.and_then(|c| c.cause.as_ref()) {
        Some(C::Signal(signal)) => format!("signal {} {}", signal.r#type, signal.id),
        Some(C::Timer(timer)) => format!("timer {}", timer.place),
        Some(C::Command(command)) => format!("command {command}"),
        Some(C::Action(number)) => format!("result of action {number}"),
        Some(C::Other(other)) => other.clone(),
        None => "-".to_owned(),
    }
}

/// One event in a line.
pub(super) fn event(event: &v1::Event) -> String {
    use v1::event::What as W;
    let by = |by: Option<&v1::By>| match by {
        Some(by) if by.reason.is_empty() => format!(" by {}", by.actor),
        Some(by) => format!(" by {} ({})", by.actor, by.reason),
        None => String::new(),
    };
    match &event.what {
        Some(W::Started(e)) => format!(
            "started in {} (version {}, run {})",
            e.stage, e.version, e.run
        ),
        Some(W::Fact(e)) => format!(
            "fact {} = {}{}",
            e.path,
            value(e.value.as_ref()),
            unchanged(e.changed)
        ),
        Some(W::Variable(e)) => format!(
            "variable {} = {}{}",
            e.name,
            value(e.value.as_ref()),
            unchanged(e.changed)
        ),
        Some(W::Kept(e)) => format!("kept {} = {}", e.name, value(e.value.as_ref())),
        Some(W::Seen(e)) => format!("seen step {} of {}", e.step, e.place),
        Some(W::Forgotten(e)) => format!("forgotten progress of {}", e.place),
        Some(W::Moved(e)) => {
            let cause = e.cause.as_ref();
            let how = match cause.map(|c| v1::CauseKind::try_from(c.kind)) {
                Some(Ok(v1::CauseKind::Signal)) => "signal",
                Some(Ok(v1::CauseKind::Condition)) => "condition",
                Some(Ok(v1::CauseKind::Timer)) => "timer",
                Some(Ok(v1::CauseKind::Deadline)) => "deadline",
                Some(Ok(v1::CauseKind::Override)) => "override",
                _ => "other",
            };
            format!(
                "moved {} > {} ({how}, visit {}){}",
                e.from,
                e.to,
                e.visit,
                by(cause.and_then(|c| c.by.as_ref()))
            )
        }
        Some(W::TimerArmed(e)) => match &e.timer {
            Some(timer) => format!("timer armed for {}: {}", time(Some(timer.due)), timer.place),
            None => "timer armed".to_owned(),
        },
        Some(W::TimerFired(e)) => format!("timer fired: {} (round {})", e.place, e.round),
        Some(W::Action(e)) => {
            let to = if e.to.is_empty() {
                String::new()
            } else {
                format!(" to {}", e.to)
            };
            format!("action {} owed: {}{to}, {}", event.number, e.kind, e.place)
        }
        Some(W::Attempted(e)) => {
            format!(
                "action {}: attempt {} failed: {}; next {}",
                e.action,
                e.attempt,
                e.error,
                time(Some(e.next))
            )
        }
        Some(W::Settled(e)) => {
            use v1::event::action_outcome::Outcome as O;
            let how = match e.outcome.as_ref().and_then(|o| o.outcome.as_ref()) {
                Some(O::Done(detail)) => format!("done: {detail}"),
                Some(O::Failed(error)) => format!("failed: {error}"),
                Some(O::Skipped(reason)) => format!("skipped: {reason}"),
                None => "other".to_owned(),
            };
            format!("action {}: {how} (attempt {})", e.action, e.attempt)
        }
        Some(W::Unmatched(e)) => format!("unmatched {}", e.r#type),
        Some(W::GoalReached(e)) => format!(
            "goal reached{}",
            if e.within { "" } else { ", after its time" }
        ),
        Some(W::Overdue(e)) => format!("overdue: {}", e.place),
        Some(W::Stalled(_)) => "stalled".to_owned(),
        Some(W::Retried(e)) => {
            let key = if e.new_key { " under a new key" } else { "" };
            format!(
                "action {} is tried again{key}{}",
                e.action,
                by(e.by.as_ref())
            )
        }
        Some(W::Skipped(e)) => format!("action {} is skipped{}", e.action, by(e.by.as_ref())),
        Some(W::Incident(e)) => format!("incident at {}: {}", e.place, e.message),
        Some(W::Held(e)) => format!("held{}", by(Some(e))),
        Some(W::Resumed(e)) => format!("resumed{}", by(Some(e))),
        Some(W::SignalWaits(e)) => format!("signal {} waits", e.r#type),
        Some(W::SignalTaken(_)) => "a waiting signal was taken".to_owned(),
        Some(W::TimerWaits(e)) => format!("timer waits: {}", e.place),
        Some(W::Ended(e)) => {
            let outcome = e
                .outcome
                .as_ref()
                .map(|o| format!(" as {o}"))
                .unwrap_or_default();
            format!("ended {}{outcome}{}", status(e.status), by(e.by.as_ref()))
        }
        Some(W::Refused(e)) => format!("refused: {}", e.reason),
        None => "something that this client does not know".to_owned(),
    }
}

fn unchanged(changed: bool) -> &'static str {
    if changed { "" } else { " (as before)" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(92_093)],
            ["0", "999", "1,000", "92,093"]
        );
        assert_eq!(decimal(244_160.083_9, 3), "244,160.084");
        assert_eq!(decimal(-0.5, 1), "-0.5");
        assert_eq!(decimal(f64::NAN, 1), "-");
        assert_eq!(decimal(1_234.6, 0), "1,235");
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        assert_eq!(
            time(Some(1_317_422_324_546_000)),
            "2011-09-30T22:38:44.546Z"
        );
        assert_eq!(time(None), "-");
    }
}
