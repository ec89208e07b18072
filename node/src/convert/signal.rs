//! Signals: checked at the door, with every wrong field named.

use super::Unreadable;
use super::value::{identifier_from, identifier_to};
use sojourn_journey::limits;
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::time::Time;
use sojourn_journey::value::Value;
use sojourn_proto::v1;
use std::collections::BTreeMap;

/// One wrong field and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field: `signal.identifiers[0].value`.
    pub field: String,
    /// What is wrong and what is expected.
    pub description: String,
}

/// A signal that was checked: for the rules, for the record, and the hash of its content.
pub struct Checked {
    /// For the rules.
    pub signal: Signal,
    /// For the record: as sent, with normalised identifiers.
    pub sent: v1::Signal,
    /// xxh3-64 of its content.
    pub content: u64,
}

/// Earliest and latest time that a signal may give: years 1 to 9999 of RFC 3339.
const TIME_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Checks a signal from outside.
pub fn signal_from(mut sent: v1::Signal) -> Result<Checked, Vec<Violation>> {
    let mut wrong = Vec::new();
    let mut add = |field: &str, description: String| {
        wrong.push(Violation {
            field: format!("signal.{field}"),
            description,
        });
    };
    let mut identifiers = Vec::with_capacity(sent.identifiers.len());
    for (i, identifier) in sent
        .identifiers
        .iter()
        .take(limits::SIGNAL_IDENTIFIERS)
        .enumerate()
    {
        match Identifier::new(&identifier.name, &identifier.value) {
            Ok(identifier) => identifiers.push(identifier),
            Err(why) => add(&format!("identifiers[{i}]"), why),
        }
    }
    if sent.identifiers.len() > limits::SIGNAL_IDENTIFIERS {
        add(
            "identifiers",
            format!(
                "{} identifiers: expected 1 to {}, the customer key first",
                sent.identifiers.len(),
                limits::SIGNAL_IDENTIFIERS
            ),
        );
    }
    let data = if sent.data.len() > limits::SIGNAL_DATA_BYTES {
        Err(format!(
            "the data has {} bytes: expected at most {}",
            sent.data.len(),
            limits::SIGNAL_DATA_BYTES
        ))
    } else {
        object(&sent.data)
    };
    if let Err(why) = &data {
        add("data", why.clone());
    }
    let attributes = if sent.attributes.len() > limits::ATTRIBUTE_BYTES {
        Err(format!(
            "the attributes have {} bytes: expected at most {}",
            sent.attributes.len(),
            limits::ATTRIBUTE_BYTES
        ))
    } else {
        object(&sent.attributes)
    };
    match &attributes {
        Err(why) => add("attributes", why.clone()),
        Ok(map) if map.len() > limits::ATTRIBUTES => add(
            "attributes",
            format!(
                "{} keys: expected at most {}",
                map.len(),
                limits::ATTRIBUTES
            ),
        ),
        Ok(_) => {}
    }
    if let Some(time) = sent.time
        && !TIME_RANGE.contains(&time)
    {
        add(
            "time",
            format!("{time} is no microsecond of the years 1 to 9999"),
        );
    }
    for (field, text) in [
        ("traceparent", &sent.traceparent),
        ("schema_version", &sent.schema_version),
    ] {
        if text.len() > 128 {
            add(field, format!("{} bytes: expected at most 128", text.len()));
        }
    }
    let signal = Signal {
        id: sent.id.clone(),
        source: sent.source.clone(),
        kind: sent.r#type.clone(),
        time: sent.time.map(Time),
        identifiers,
        data: data.unwrap_or_default(),
        attributes: attributes.unwrap_or_default(),
    };
    if let Err(more) = signal.check() {
        for (field, why) in more {
            // wrong identifiers were named one by one
            let told = field == "identifiers"
                && wrong
                    .iter()
                    .any(|v| v.field.starts_with("signal.identifiers"));
            if !told {
                wrong.push(Violation {
                    field: format!("signal.{field}"),
                    description: why,
                });
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    sent.identifiers = signal.identifiers.iter().map(identifier_to).collect();
    let content = content(&sent);
    Ok(Checked {
        signal,
        sent,
        content,
    })
}

/// A hash of what a signal says, its id and trace aside. Stored: its order and framing stay as they are.
fn content(sent: &v1::Signal) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(sent.source.as_bytes());
    add(sent.r#type.as_bytes());
    add(&sent.time.map_or([0; 9], |t| {
        let mut some = [1; 9];
        some[1..].copy_from_slice(&t.to_le_bytes());
        some
    }));
    for identifier in &sent.identifiers {
        add(identifier.name.as_bytes());
        add(identifier.value.as_bytes());
    }
    add(&sent.data);
    add(&sent.attributes);
    add(sent.schema_version.as_bytes());
    hasher.digest()
}

fn object(json: &[u8]) -> Result<BTreeMap<String, Value>, String> {
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    match Value::from_json(json)? {
        Value::Map(map) => Ok(map),
        _ => Err("it is JSON, but no object: expected {…}".into()),
    }
}

/// A signal as it is stored (one that waits for a hold to end).
pub fn signal_to(signal: &Signal) -> v1::Signal {
    let json = |map: &BTreeMap<String, Value>| {
        if map.is_empty() {
            bytes::Bytes::new()
        } else {
            Value::Map(map.clone()).to_json().into()
        }
    };
    v1::Signal {
        id: signal.id.clone(),
        source: signal.source.clone(),
        r#type: signal.kind.clone(),
        time: signal.time.map(|t| t.0),
        identifiers: signal.identifiers.iter().map(identifier_to).collect(),
        data: json(&signal.data),
        attributes: json(&signal.attributes),
        traceparent: String::new(),
        schema_version: String::new(),
    }
}

/// From its stored form, where everything was checked before.
pub fn signal_from_stored(sent: v1::Signal) -> Result<Signal, Unreadable> {
    let object = |bytes: &[u8]| {
        object(bytes).map_err(|why| Unreadable {
            what: "the data of a waiting signal",
            why,
        })
    };
    Ok(Signal {
        data: object(&sent.data)?,
        attributes: object(&sent.attributes)?,
        id: sent.id,
        source: sent.source,
        kind: sent.r#type,
        time: sent.time.map(Time),
        identifiers: sent.identifiers.into_iter().map(identifier_from).collect(),
    })
}
