//! The wire's messages as JSON for programs: names as on the wire, times as RFC 3339, enums as words, what is absent
//! left out. Added to, never edited: scripts depend on it.

use super::show;
use crate::receipt::{Fate, Receipt};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sojourn_proto::v1;

/// A time; null for none.
pub(super) fn time(us: Option<i64>) -> Value {
    us.and_then(|us| Timestamp::from_microsecond(us).ok())
        .map_or(Value::Null, |t| Value::from(t.to_string()))
}

/// Drops the keys whose value is null, so that "absent" has one form.
fn present(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !v.is_null());
    }
    value
}

fn identifier(identifier: Option<&v1::Identifier>) -> Value {
    identifier.map_or(Value::Null, |i| json!({ "name": i.name, "value": i.value }))
}

fn position(position: Option<&v1::Position>) -> Value {
    position.map_or(
        Value::Null,
        |p| json!({ "shard": p.shard, "index": p.index }),
    )
}

/// A value of a fact or variable. Bytes are hexadecimal, times RFC 3339, lengths of time seconds with an `s`.
pub(super) fn value(value: Option<&v1::Value>) -> Value {
    use v1::value::Kind as K;
    match value.and_then(|v| v.kind.as_ref()) {
        None | Some(K::Null(_)) => Value::Null,
        Some(K::Bool(b)) => Value::from(*b),
        Some(K::Int64(i)) => Value::from(*i),
        Some(K::Double(d)) => Value::from(*d),
        Some(K::String(s)) => Value::from(s.as_str()),
        Some(K::Bytes(b)) => Value::from(hex::encode(b)),
        Some(K::List(l)) => l.values.iter().map(|v| self::value(Some(v))).collect(),
        Some(K::Map(m)) => m
            .fields
            .iter()
            .map(|(k, v)| (k.clone(), self::value(Some(v))))
            .collect(),
        Some(K::Timestamp(us)) => time(Some(*us)),
        Some(K::Duration(us)) => Value::from(format!("{}s", *us as f64 / 1e6)),
    }
}

/// JSON carried as bytes; as text where it is not JSON after all.
fn embedded(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes).into_owned()))
}

/// A fate: `{"fate": "moved", "from": …}`.
pub(super) fn fate(fate: Option<&Fate>) -> Value {
    let Some(fate) = fate else {
        return json!({ "fate": "other" });
    };
    let word = fate.word();
    match fate {
        Fate::Moved { from, to, via } => {
            json!({ "fate": word, "from": from, "to": to, "via": via })
        }
        Fate::Started { stage, via } => json!({ "fate": word, "stage": stage, "via": via }),
        Fate::Exited { stage, outcome } => {
            json!({ "fate": word, "stage": stage, "outcome": outcome })
        }
        Fate::Refused { reason } => json!({ "fate": word, "reason": reason }),
        Fate::Recorded | Fate::Unmatched | Fate::Ended | Fate::Held => json!({ "fate": word }),
    }
}

/// A receipt, with its one word in `fate`.
pub(super) fn receipt(receipt: &Receipt) -> Value {
    let parts: Vec<Value> = receipt
        .parts
        .iter()
        .map(|part| {
            let mut value = fate(part.fate.as_ref());
            value["execution"] = Value::from(part.execution.as_str());
            value["journey"] = Value::from(part.journey.as_str());
            value["instance"] = Value::from(part.instance.as_str());
            value["run"] = Value::from(part.run);
            value
        })
        .collect();
    present(json!({
        "fate": receipt.word(),
        "first_fate": receipt.first_word(),
        "signal_id": receipt.signal_id,
        "source": receipt.source,
        "customer": receipt.customer.as_ref().map(|c| json!({ "name": c.name, "value": c.value })),
        "decision": receipt.decision,
        "position": receipt.position.map(|p| json!({ "shard": p.shard, "index": p.index })),
        "at": receipt.at.to_string(),
        "occurred": receipt.occurred.to_string(),
        "no_match": receipt.no_match,
        "duplicate": receipt.duplicate,
        "content_differs": receipt.content_differs,
        "time_ahead": receipt.time_ahead,
        "parts": parts,
        "notes": receipt.notes,
    }))
}

pub(super) fn execution(e: &v1::Execution) -> Value {
    let facts: Map<String, Value> = e
        .facts
        .iter()
        .map(|(k, f)| {
            (
                k.clone(),
                json!({ "value": value(f.value.as_ref()), "occurred": time(Some(f.occurred)) }),
            )
        })
        .collect();
    let values = |map: &std::collections::BTreeMap<String, v1::Value>| -> Map<String, Value> {
        map.iter()
            .map(|(k, v)| (k.clone(), value(Some(v))))
            .collect()
    };
    let owed: Vec<Value> = e
        .owed
        .iter()
        .map(|o| {
            present(json!({
                "number": o.number,
                "action": o.action.as_ref().map(action),
                "attempts": o.attempts,
                "next": time(o.next),
            }))
        })
        .collect();
    let failed: Vec<Value> = e
        .failed
        .iter()
        .map(|f| {
            present(json!({
                "number": f.number,
                "action": f.action.as_ref().map(action),
                "attempts": f.attempts,
                "error": f.error,
                "at": time(Some(f.at)),
            }))
        })
        .collect();
    let incident = e.incident.as_ref().map(|i| {
        present(json!({
            "number": i.number, "place": i.place, "message": i.message, "action": i.action,
        }))
    });
    present(json!({
        "id": e.id, "journey": e.journey, "version": e.version, "customer": identifier(e.customer.as_ref()),
        "instance": e.instance, "run": e.run, "status": show::status(e.status), "stage": e.stage, "visit": e.visit,
        "entered_at": time(Some(e.entered_at)), "entered_occurred": time(Some(e.entered_occurred)),
        "started_at": time(Some(e.started_at)), "started_occurred": time(Some(e.started_occurred)),
        "ended_at": time(e.ended_at), "outcome": e.outcome, "overdue": e.overdue, "stalled": e.stalled,
        "incident": incident,
        "goal_at": time(e.goal_at), "hold": e.hold.as_ref().map(by), "waiting": e.waiting, "events": e.events,
        "facts": facts, "variables": values(&e.variables), "kept": values(&e.kept),
        "timers": e.timers.iter().map(timer).collect::<Vec<_>>(), "owed": owed,
        "journey_state": Some(e.journey_state.as_str()).filter(|s| !s.is_empty()),
        "failed": failed,
    }))
}

fn by(by: &v1::By) -> Value {
    json!({ "actor": by.actor, "reason": by.reason })
}

fn timer(timer: &v1::Timer) -> Value {
    let kind = v1::TimerKind::try_from(timer.kind)
        .map_or("other".to_owned(), |k| word(k.as_str_name(), "TIMER_KIND_"));
    json!({
        "visit": timer.visit, "kind": kind, "place": timer.place, "due": time(Some(timer.due)), "round": timer.round,
        "waits": timer.waits,
    })
}

fn action(action: &v1::Action) -> Value {
    present(json!({
        "place": action.place, "kind": action.kind, "to": action.to, "body": embedded(&action.body),
        "awaited": action.awaited,
    }))
}

/// `CAUSE_KIND_SIGNAL` as `signal`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

pub(super) fn timeline_entry(entry: &v1::TimelineEntry) -> Value {
    use v1::timeline_entry::cause::Cause as C;
    let cause = match entry.cause.as_ref().and_then(|c| c.cause.as_ref()) {
        Some(C::Signal(s)) => json!({ "signal": signal(s) }),
        Some(C::Timer(t)) => {
            json!({ "timer": { "visit": t.visit, "place": t.place, "round": t.round } })
        }
        Some(C::Command(c)) => json!({ "command": c }),
        Some(C::Action(number)) => json!({ "action": number }),
        Some(C::Other(other)) => json!({ "other": other }),
        None => Value::Null,
    };
    let parts: Vec<Value> = entry
        .parts
        .iter()
        .map(|part| {
            json!({
                "execution": part.execution, "journey": part.journey,
                "fate": part.fate.as_ref().map(|f| fate(Fate::of_wire(Some(f.clone())).as_ref())),
                "events": part.events.iter().map(event).collect::<Vec<_>>(),
            })
        })
        .collect();
    present(json!({
        "position": position(entry.position.as_ref()), "decision": entry.decision, "at": time(Some(entry.at)),
        "occurred": time(Some(entry.occurred)), "cause": cause, "parts": parts,
    }))
}

fn signal(s: &v1::Signal) -> Value {
    present(json!({
        "id": s.id, "source": s.source, "type": s.r#type, "time": time(s.time),
        "identifiers": s.identifiers.iter().map(|i| identifier(Some(i))).collect::<Vec<_>>(),
        "data": embedded(&s.data), "attributes": embedded(&s.attributes),
    }))
}

/// A signal that moved nothing.
pub(super) fn unmatched(s: &v1::UnmatchedSignal) -> Value {
    present(json!({
        "fate": "unmatched",
        "type": s.r#type,
        "signal_id": s.signal_id,
        "source": s.source,
        "customer": identifier(s.customer.as_ref()),
        "execution": s.execution,
        "journey": s.journey,
        "version": s.version,
        "stage": s.stage,
        "at": time(Some(s.at)),
        "occurred": time(Some(s.occurred)),
        "position": position(s.position.as_ref()),
        "signal": s.signal.as_ref().map(signal),
    }))
}

/// A signal that concerned nobody.
pub(super) fn no_match(s: &v1::NoMatchSample) -> Value {
    present(json!({
        "fate": "no_match",
        "at": time(Some(s.at)),
        "signal": s.signal.as_ref().map(signal),
    }))
}

/// An event: its number and times, `what` as a word, the rest as on the wire, and `text` for people.
fn event(e: &v1::Event) -> Value {
    use v1::event::What as W;
    let timer_ref =
        |t: &v1::event::TimerRef| json!({ "visit": t.visit, "place": t.place, "round": t.round });
    let (what, detail) = match &e.what {
        Some(W::Started(s)) => (
            "started",
            json!({ "journey": s.journey, "version": s.version, "customer": identifier(s.customer.as_ref()),
                    "instance": s.instance, "run": s.run, "stage": s.stage }),
        ),
        Some(W::Fact(f)) => (
            "fact",
            json!({ "path": f.path, "value": value(f.value.as_ref()), "changed": f.changed }),
        ),
        Some(W::Variable(v)) => (
            "variable",
            json!({ "name": v.name, "value": value(v.value.as_ref()), "changed": v.changed }),
        ),
        Some(W::Kept(k)) => (
            "kept",
            json!({ "name": k.name, "value": value(k.value.as_ref()) }),
        ),
        Some(W::Seen(s)) => ("seen", json!({ "place": s.place, "step": s.step })),
        Some(W::Forgotten(f)) => ("forgotten", json!({ "place": f.place })),
        Some(W::Moved(m)) => {
            let cause = m.cause.as_ref().map(|c| {
                let kind = v1::CauseKind::try_from(c.kind)
                    .map_or("other".to_owned(), |k| word(k.as_str_name(), "CAUSE_KIND_"));
                present(json!({ "kind": kind, "place": c.place, "by": c.by.as_ref().map(by) }))
            });
            (
                "moved",
                json!({ "from": m.from, "to": m.to, "visit": m.visit, "cause": cause }),
            )
        }
        Some(W::TimerArmed(t)) => ("timer_armed", t.timer.as_ref().map_or(Value::Null, timer)),
        Some(W::TimerFired(t)) => ("timer_fired", timer_ref(t)),
        Some(W::TimerWaits(t)) => ("timer_waits", timer_ref(t)),
        Some(W::Action(a)) => ("action", action(a)),
        Some(W::Attempted(a)) => (
            "attempted",
            json!({ "action": a.action, "attempt": a.attempt, "error": a.error, "next": time(Some(a.next)) }),
        ),
        Some(W::Settled(s)) => {
            use v1::event::action_outcome::Outcome as O;
            let (outcome, detail) = match s.outcome.as_ref().and_then(|o| o.outcome.as_ref()) {
                Some(O::Done(detail)) => ("done", detail.as_str()),
                Some(O::Failed(error)) => ("failed", error.as_str()),
                Some(O::Skipped(reason)) => ("skipped", reason.as_str()),
                None => ("other", ""),
            };
            (
                "settled",
                json!({ "action": s.action, "attempt": s.attempt, "outcome": outcome, "detail": detail }),
            )
        }
        Some(W::Unmatched(u)) => ("unmatched", json!({ "type": u.r#type })),
        Some(W::GoalReached(g)) => ("goal_reached", json!({ "within": g.within })),
        Some(W::Overdue(o)) => ("overdue", json!({ "place": o.place })),
        Some(W::Stalled(_)) => ("stalled", json!({})),
        Some(W::Incident(i)) => (
            "incident",
            json!({ "place": i.place, "message": i.message, "action": i.action }),
        ),
        Some(W::Retried(r)) => (
            "retried",
            json!({ "action": r.action, "new_key": r.new_key, "by": r.by.as_ref().map(by) }),
        ),
        Some(W::Skipped(s)) => (
            "skipped",
            json!({ "action": s.action, "by": s.by.as_ref().map(by) }),
        ),
        Some(W::Refused(r)) => ("refused", json!({ "reason": r.reason })),
        Some(W::Held(b)) => ("held", by(b)),
        Some(W::Resumed(b)) => ("resumed", by(b)),
        Some(W::SignalWaits(s)) => ("signal_waits", json!({ "signal": signal(s) })),
        Some(W::SignalTaken(_)) => ("signal_taken", json!({})),
        Some(W::Ended(x)) => (
            "ended",
            json!({ "status": show::status(x.status), "outcome": x.outcome, "by": x.by.as_ref().map(by) }),
        ),
        None => ("other", json!({})),
    };
    let mut value = present(detail);
    value["number"] = Value::from(e.number);
    value["at"] = time(Some(e.at));
    value["occurred"] = time(Some(e.occurred));
    value["what"] = Value::from(what);
    value["text"] = Value::from(show::event(e));
    value
}

pub(super) fn why(why: &v1::WhyResponse) -> Value {
    let ways = |ways: &[v1::Way]| -> Vec<Value> { ways.iter().map(way).collect() };
    present(json!({
        "summary": why.summary,
        "execution": why.execution.as_ref().map(execution),
        "position": position(why.position.as_ref()),
        "ways": ways(&why.ways), "exits": ways(&why.exits), "deadlines": ways(&why.deadlines),
    }))
}

fn way(way: &v1::Way) -> Value {
    let conditions: Vec<Value> = way
        .conditions
        .iter()
        .map(|c| {
            json!({ "source": c.source, "state": condition_state(c.state), "missing": c.missing, "error": c.error })
        })
        .collect();
    present(json!({
        "place": way.place, "to": way.to, "text": way.text, "waits_for": way.waits_for, "conditions": conditions,
        "opens_at": time(way.opens_at), "missing": way.missing,
    }))
}

/// A condition's state as a word.
pub(super) fn condition_state(state: i32) -> &'static str {
    use v1::condition::State as S;
    match S::try_from(state) {
        Ok(S::Holds) => "holds",
        Ok(S::DoesNotHold) => "does_not_hold",
        Ok(S::Unknown) => "unknown",
        Ok(S::Error) => "error",
        Ok(S::PerSignal) => "per_signal",
        Ok(S::Unspecified) | Err(_) => "other",
    }
}

pub(super) fn journey(info: &v1::JourneyInfo) -> Value {
    let versions: Vec<Value> = info
        .versions
        .iter()
        .map(|v| {
            json!({ "version": v.version, "sha256": v.sha256, "published_at": time(Some(v.published_at)), "actor": v.actor })
        })
        .collect();
    json!({
        "name": info.name, "title": info.title, "state": show::journey_state(info.state),
        "live_version": info.live_version, "active": info.active, "versions": versions,
    })
}

pub(super) fn problem(p: &v1::Problem) -> Value {
    json!({
        "path": p.path, "line": p.line, "column": p.column, "message": p.message, "help": p.help, "warning": p.warning,
    })
}

pub(super) fn endpoint(e: &v1::Endpoint) -> Value {
    json!({
        "name": e.name, "url": e.url, "secret_env": e.secret_env, "secret_file": e.secret_file,
        "timeout_ms": e.timeout_ms, "attempts": e.attempts, "backoff_first_ms": e.backoff_first_ms,
        "backoff_max_ms": e.backoff_max_ms, "concurrency": e.concurrency, "rate": e.rate,
        "breaker_failures": e.breaker_failures, "breaker_pause_ms": e.breaker_pause_ms,
    })
}

/// An endpoint and how it stands on the node that answered.
pub(super) fn endpoint_state(e: &v1::Endpoint, state: Option<&v1::EndpointState>) -> Value {
    let mut value = endpoint(e);
    if let Some(s) = state {
        value["state"] = present(json!({
            "breaker": show::breaker(s), "failures": s.failures, "running": s.running, "waiting": s.waiting,
            "open_until": time(s.open_until), "error": Some(&s.error).filter(|e| !e.is_empty()), "done": s.done,
            "failed": s.failed,
        }));
    }
    value
}

pub(super) fn command(answer: &v1::CommandResponse) -> Value {
    present(json!({
        "execution": answer.execution.as_ref().map(execution), "position": position(answer.position.as_ref()),
        "duplicate": answer.duplicate,
    }))
}
