//! A signal's receipt: made from its record, so the first answer can be given again for as long as the record is known.

use super::decision::Decision;
use crate::convert::value::identifier_to;
use sojourn_journey::identifier::{ExecutionId, slot_hash};
use sojourn_proto::{stored, v1};

/// The receipt of an applied decision.
pub fn of(decision: &Decision, shard: u16, index: u64) -> v1::Receipt {
    let (signal_id, source) = match &decision.cause {
        stored::cause::Cause::Signal(s) => (s.id.clone(), s.source.clone()),
        stored::cause::Cause::Command(c) => (c.id.clone(), String::new()),
        _ => (String::new(), String::new()),
    };
    v1::Receipt {
        signal_id,
        source,
        customer: Some(identifier_to(&decision.customer)),
        decision: decision.id.to_string(),
        position: Some(v1::Position {
            shard: shard.into(),
            index,
        }),
        at: decision.at.0,
        occurred: decision.occurred.0,
        // of a known customer too: another instance of theirs, say, is not concerned
        no_match: decision.parts.is_empty() && is_signal(decision),
        duplicate: false,
        content_differs: false,
        time_ahead: decision.time_ahead,
        parts: decision.parts.iter().map(|p| part(decision, p)).collect(),
        notes: decision.notes.clone(),
    }
}

fn is_signal(decision: &Decision) -> bool {
    matches!(decision.cause, stored::cause::Cause::Signal(_))
}

fn part(decision: &Decision, part: &super::decision::Part) -> v1::ReceiptPart {
    let execution = if part.run == 0 {
        String::new()
    } else {
        let id = ExecutionId {
            customer: decision.hash,
            slot: slot_hash(&part.journey, part.instance.as_deref()),
            run: part.run,
        };
        id.to_string()
    };
    v1::ReceiptPart {
        execution,
        journey: part.journey.clone(),
        instance: part.instance.clone().unwrap_or_default(),
        run: part.run,
        fate: Some(part.fate()),
    }
}

/// The same receipt for a repetition.
pub fn duplicate(mut first: v1::Receipt, content_differs: bool) -> v1::Receipt {
    first.duplicate = true;
    first.content_differs = content_differs;
    first
}
