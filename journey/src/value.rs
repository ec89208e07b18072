//! Values of facts, variables and data: JSON's, with times, durations and bytes. No NaN, no infinity.

use crate::time::{Span, Time};
use std::collections::BTreeMap;

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
