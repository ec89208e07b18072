//! Values.

use super::{Unreadable, need};
use sojourn_journey::signal::Identifier;
use sojourn_journey::time::{Span, Time};
use sojourn_journey::value::Value;
use sojourn_proto::v1;
use v1::value::Kind;

/// To the wire.
pub fn value_to(value: &Value) -> v1::Value {
    let kind = match value {
        Value::Null => Kind::Null(0),
        Value::Bool(b) => Kind::Bool(*b),
        Value::Int(i) => Kind::Int64(*i),
        Value::Double(d) => Kind::Double(*d),
        Value::String(s) => Kind::String(s.clone()),
        Value::Bytes(b) => Kind::Bytes(b.clone().into()),
        Value::List(l) => Kind::List(v1::ListValue {
            values: l.iter().map(value_to).collect(),
        }),
        Value::Map(m) => Kind::Map(v1::MapValue {
            fields: m.iter().map(|(k, v)| (k.clone(), value_to(v))).collect(),
        }),
        Value::Timestamp(t) => Kind::Timestamp(t.0),
        Value::Duration(d) => Kind::Duration(d.0),
    };
    v1::Value { kind: Some(kind) }
}

/// From the wire.
pub fn value_from(value: v1::Value) -> Result<Value, Unreadable> {
    Ok(match need(value.kind, "a value")? {
        Kind::Null(_) => Value::Null,
        Kind::Bool(b) => Value::Bool(b),
        Kind::Int64(i) => Value::Int(i),
        Kind::Double(d) => Value::Double(d),
        Kind::String(s) => Value::String(s),
        Kind::Bytes(b) => Value::Bytes(b.to_vec()),
        Kind::List(l) => Value::List(
            l.values
                .into_iter()
                .map(value_from)
                .collect::<Result<_, _>>()?,
        ),
        Kind::Map(m) => Value::Map(
            m.fields
                .into_iter()
                .map(|(k, v)| Ok((k, value_from(v)?)))
                .collect::<Result<_, Unreadable>>()?,
        ),
        Kind::Timestamp(t) => Value::Timestamp(Time(t)),
        Kind::Duration(d) => Value::Duration(Span(d)),
    })
}

/// To the wire.
pub fn identifier_to(identifier: &Identifier) -> v1::Identifier {
    v1::Identifier {
        name: identifier.name.clone(),
        value: identifier.value.clone(),
    }
}

/// From a stored message, where it stands normalised already.
pub fn identifier_from(identifier: v1::Identifier) -> Identifier {
    Identifier {
        name: identifier.name,
        value: identifier.value,
    }
}
