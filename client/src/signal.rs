//! A signal as an application makes it. Knows no limits beyond its shape: the server answers for those, field by field.

use crate::error::{Code, Error};
use bytes::Bytes;
use jiff::Timestamp;
use sojourn_proto::v1;

/// One of the names under which a customer is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier {
    /// A slug of at most 64 bytes: `email`, `application_id`.
    pub name: String,
    /// 1 to 256 bytes.
    pub value: String,
}

impl Identifier {
    /// The identifier `name=value`.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Identifier {
        Identifier {
            name: name.into(),
            value: value.into(),
        }
    }

    pub(crate) fn of_wire(wire: v1::Identifier) -> Identifier {
        Identifier {
            name: wire.name,
            value: wire.value,
        }
    }

    pub(crate) fn wire(&self) -> v1::Identifier {
        v1::Identifier {
            name: self.name.clone(),
            value: self.value.clone(),
        }
    }
}

impl std::fmt::Display for Identifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl std::str::FromStr for Identifier {
    type Err = String;

    /// Reads `name=value`; the value may contain further `=`.
    fn from_str(text: &str) -> Result<Identifier, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok(Identifier::new(name, value))
            }
            _ => Err(format!(
                "{text:?} is not NAME=VALUE, for example email=ada@example.com"
            )),
        }
    }
}

/// Something that happened in an application.
///
/// A signal gets its id once, here. Sent again with the same id it changes nothing and gets the first answer.
///
/// ```
/// use sojourn_client::Signal;
/// let signal = Signal::new("web.form.submitted")
///     .source("web")
///     .customer("email", "ada@example.com")
///     .data(&serde_json::json!({ "form": "loan" }))?;
/// assert!(!signal.signal_id().is_empty());
/// # Ok::<(), sojourn_client::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    pub(crate) wire: v1::Signal,
}

impl Signal {
    /// A signal of this type (`[A-Za-z0-9_.-]`, 1 to 128 bytes) with a fresh id (a UUID of version 7) and the source
    /// `sojourn-client`.
    pub fn new(kind: impl Into<String>) -> Signal {
        Signal::with_id(kind, uuid::Uuid::now_v7().to_string())
    }

    /// The same with an id of the caller's: costs no fresh one, for those who bring many.
    pub fn with_id(kind: impl Into<String>, id: impl Into<String>) -> Signal {
        Signal {
            wire: v1::Signal {
                id: id.into(),
                source: "sojourn-client".to_owned(),
                r#type: kind.into(),
                ..Default::default()
            },
        }
    }

    /// With this id, 1 to 128 bytes: unique for ever within its source.
    pub fn id(mut self, id: impl Into<String>) -> Signal {
        self.wire.id = id.into();
        self
    }

    /// From this application, 1 to 128 bytes.
    pub fn source(mut self, source: impl Into<String>) -> Signal {
        self.wire.source = source.into();
        self
    }

    /// Of the customer known by this identifier. The first call gives the customer key; at most 16.
    pub fn customer(mut self, name: impl Into<String>, value: impl Into<String>) -> Signal {
        self.wire.identifiers.push(v1::Identifier {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// It happened at this time; without one it happened when it arrived.
    pub fn time(mut self, time: Timestamp) -> Signal {
        self.wire.time = Some(time.as_microsecond());
        self
    }

    /// It carries this data: whatever serialises to a JSON object, at most 256 KiB.
    ///
    /// # Errors
    /// [`Code::Invalid`] when it serialises to something else than an object, or not at all.
    pub fn data(mut self, data: &impl serde::Serialize) -> Result<Signal, Error> {
        self.wire.data = object(data, "signal.data")?;
        Ok(self)
    }

    /// It carries this data, JSON as it stands: the server checks it.
    pub fn data_bytes(mut self, json: impl Into<Bytes>) -> Signal {
        self.wire.data = json.into();
        self
    }

    /// It says this of the customer, merged into the customer record: a JSON object, at most 64 keys and 8 KiB.
    ///
    /// # Errors
    /// As [`Signal::data`].
    pub fn attributes(mut self, attributes: &impl serde::Serialize) -> Result<Signal, Error> {
        self.wire.attributes = object(attributes, "signal.attributes")?;
        Ok(self)
    }

    /// It belongs to this trace (W3C `traceparent`).
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Signal {
        self.wire.traceparent = traceparent.into();
        self
    }

    /// Its data follows this version of its schema.
    pub fn schema_version(mut self, version: impl Into<String>) -> Signal {
        self.wire.schema_version = version.into();
        self
    }
}

/// What a signal carries, for those who pass it on.
impl Signal {
    /// Its id; `(source, id)` is what makes it the same signal.
    pub fn signal_id(&self) -> &str {
        &self.wire.id
    }

    /// Its source.
    pub fn source_name(&self) -> &str {
        &self.wire.source
    }

    /// Its type.
    pub fn kind(&self) -> &str {
        &self.wire.r#type
    }

    /// When it happened.
    pub fn happened(&self) -> Option<Timestamp> {
        self.wire
            .time
            .and_then(|us| Timestamp::from_microsecond(us).ok())
    }

    /// The customer's identifiers, the key first.
    pub fn identifiers(&self) -> Vec<Identifier> {
        self.wire
            .identifiers
            .iter()
            .cloned()
            .map(Identifier::of_wire)
            .collect()
    }

    /// Its bytes on the wire.
    pub(crate) fn size(&self) -> usize {
        prost::Message::encoded_len(&self.wire)
    }

    /// Its data as JSON; empty means `{}`.
    pub fn data_json(&self) -> &[u8] {
        &self.wire.data
    }

    /// What it says of the customer, as JSON; empty means `{}`.
    pub fn attributes_json(&self) -> &[u8] {
        &self.wire.attributes
    }
}

fn object(value: &impl serde::Serialize, field: &str) -> Result<Bytes, Error> {
    let json = serde_json::to_value(value).map_err(|e| {
        Error::new(
            Code::Invalid,
            format!("{field} cannot be written as json: {e}"),
        )
    })?;
    if !json.is_object() {
        return Err(Error::new(
            Code::Invalid,
            format!("{field} is {}, expected a json object", kind_of(&json)),
        ));
    }
    Ok(Bytes::from(json.to_string()))
}

/// What a JSON value is, as a word.
pub(crate) fn kind_of(json: &serde_json::Value) -> &'static str {
    match json {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a truth value",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a text",
        serde_json::Value::Array(_) => "a list",
        serde_json::Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_ids_differ_and_data_must_be_an_object() {
        assert_ne!(Signal::new("a").signal_id(), Signal::new("a").signal_id());
        let error = Signal::new("a")
            .data(&[1, 2])
            .expect_err("a list is no object");
        assert_eq!(
            error.to_string(),
            "signal.data is a list, expected a json object"
        );
    }

    #[test]
    fn an_identifier_is_read_up_to_the_first_equals_sign() {
        assert_eq!(
            "token=a=b".parse::<Identifier>(),
            Ok(Identifier::new("token", "a=b"))
        );
        for bad in ["email", "=x", "email=", ""] {
            assert!(bad.parse::<Identifier>().is_err(), "{bad:?}");
        }
    }
}
