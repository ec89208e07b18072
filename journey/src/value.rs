//! Values of facts, variables and data: JSON's, with times, durations and bytes. No NaN, no infinity.

use crate::time::{Span, Time};
use std::collections::BTreeMap;

mod json;

/// One value. Maps are sorted, so equal values have equal bytes when stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's null.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number; beyond 64 bits it is an error where it is read.
    Int(i64),
    /// Any other number; finite.
    Double(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A map with text keys.
    Map(BTreeMap<String, Value>),
    /// A point in time.
    Timestamp(Time),
    /// A length of time.
    Duration(Span),
}

/// The most levels that JSON may nest.
pub const MAX_JSON_DEPTH: usize = 64;

impl Value {
    /// Reads JSON: whole numbers must fit 64 bits, all others are doubles.
    ///
    /// # Errors
    /// When the bytes are no JSON, a whole number is too large, or it nests deeper than [`MAX_JSON_DEPTH`].
    pub fn from_json(json: &[u8]) -> Result<Value, String> {
        json::read(json)
    }

    /// Its kind, as an error text names it: `a text`, `a whole number` …
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Double(_) => "a number",
            Value::String(_) => "a text",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Timestamp(_) => "a time",
            Value::Duration(_) => "a duration",
        }
    }

    /// Whether both are the same to an expression: numbers are compared as numbers, so 5 is the same as 5.0, also inside
    /// of lists and maps.
    pub fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Int(whole), Value::Double(number))
            | (Value::Double(number), Value::Int(whole)) => {
                // below 2^63 a number without a fraction is a whole one exactly
                *number < 9_223_372_036_854_775_808.0
                    && number.fract() == 0.0
                    && *number as i64 == *whole
            }
            (Value::List(one), Value::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.same(b))
            }
            (Value::Map(one), Value::Map(other)) => {
                one.len() == other.len()
                    && one
                        .iter()
                        .zip(other)
                        .all(|((a, x), (b, y))| a == b && x.same(y))
            }
            (one, other) => one == other,
        }
    }

    /// The value as JSON: times as RFC 3339, durations as seconds (`90s`), bytes as base 64. Equal values give equal
    /// bytes.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        json::write(self, &mut text);
        text
    }

    /// The value as a text for people: a text as it is, null as nothing, lists and maps as JSON.
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::String(s) => s.clone(),
            Value::Double(d) => d.to_string(),
            Value::Timestamp(_) | Value::Duration(_) | Value::Bytes(_) => {
                self.to_json().trim_matches('"').to_owned()
            }
            other => other.to_json(),
        }
    }
}
