//! JSON, read and written. Knows our values and nothing of where they come from.

use super::{MAX_JSON_DEPTH, Value};
use crate::time::Span;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

pub(super) fn read(json: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(json)
        .map_err(|e| format!("the JSON is not UTF-8 from byte {} on", e.valid_up_to()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Level(0)
        .deserialize(&mut reader)
        .map_err(|e| format!("the JSON cannot be read: {e}"))?;
    reader
        .end()
        .map_err(|e| format!("the JSON cannot be read: {e}"))?;
    if let Some(number) = too_large(text) {
        return Err(format!(
            "the whole number {} is beyond 64 bits; send it as a text",
            crate::problem::short(number)
        ));
    }
    Ok(value)
}

/// The first whole number beyond `i64`. The reader has made a double of it if it was beyond `u64` too, so only the text
/// still says what it was.
fn too_large(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'"' => {
                i += 1;
                while i < bytes.len() && bytes[i] != b'"' {
                    i += if bytes[i] == b'\\' { 2 } else { 1 };
                }
            }
            b'-' | b'0'..=b'9' => {
                let start = i;
                while i < bytes.len()
                    && matches!(bytes[i], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                {
                    i += 1;
                }
                let number = &text[start..i];
                if i - start >= 19
                    && !number.contains(['.', 'e', 'E'])
                    && number.parse::<i64>().is_err()
                {
                    return Some(number);
                }
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// Reads one value at a level of nesting.
#[derive(Clone, Copy)]
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl Level {
    fn down<E: Error>(self) -> Result<Level, E> {
        if self.0 >= MAX_JSON_DEPTH {
            return Err(E::custom(format_args!(
                "it nests deeper than {MAX_JSON_DEPTH} levels"
            )));
        }
        Ok(Level(self.0 + 1))
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        i64::try_from(v).map(Value::Int).map_err(|_| {
            E::custom(format_args!(
                "the whole number {v} is beyond 64 bits; send it as a text"
            ))
        })
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        if v.is_finite() {
            Ok(Value::Double(v))
        } else {
            Err(E::custom("a number is not finite"))
        }
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let level = self.down()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(level)? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let level = self.down()?;
        let mut map = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(level)?;
            map.insert(key, value);
        }
        Ok(Value::Map(map))
    }
}

impl<'de> Deserialize<'de> for Value {
    /// From a self-describing format; in JSON [`Value::from_json`] is stricter with whole numbers beyond 64 bits.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
        from.deserialize_any(Level(0))
    }
}

pub(super) fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => {
            let _ = write!(out, "{i}"); // writing to a String does not fail
        }
        Value::Double(d) => match serde_json::Number::from_f64(*d) {
            Some(number) => {
                let _ = write!(out, "{number}");
            }
            None => out.push_str("null"),
        },
        Value::String(s) => text(s, out),
        Value::Bytes(b) => text(&base64(b), out),
        Value::List(list) => {
            out.push('[');
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                text(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Timestamp(t) => text(&t.to_string(), out),
        Value::Duration(d) => text(&seconds(*d), out),
    }
}

fn text(s: &str, out: &mut String) {
    let _ = write!(out, "{}", serde_json::Value::from(s));
}

/// A duration in seconds with as many decimals as it needs: `90s`, `0.25s`.
fn seconds(span: Span) -> String {
    let sign = if span.0 < 0 { "-" } else { "" };
    let whole = span.0.unsigned_abs() / 1_000_000;
    let micros = span.0.unsigned_abs() % 1_000_000;
    if micros == 0 {
        return format!("{sign}{whole}s");
    }
    let decimals = format!("{micros:06}");
    format!("{sign}{whole}.{}s", decimals.trim_end_matches('0'))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    #[test]
    fn json_is_read_and_written() {
        let cases = [
            "null",
            "true",
            "-7",
            "9223372036854775807",
            "1.5",
            "\"a\\\"b\\n\"",
            "[]",
            "{}",
            "{\"a\":[1,{\"b\":null}],\"c\":\"\u{e9}\"}",
        ];
        for json in cases {
            assert_eq!(
                Value::from_json(json.as_bytes()).map(|v| v.to_json()),
                Ok(json.to_owned())
            );
        }
    }

    /// The first of these is read one step off without serde_json's `float_roundtrip`.
    #[test]
    fn a_double_is_read_as_the_nearest_and_written_as_it_was() {
        let table = [
            "31.245270191439438",
            "121.48791951161945",
            "100.78399658203125",
            "2.0030397744267762e-253",
        ];
        for text in table {
            let expected: f64 = text.parse().expect("a number");
            let Ok(Value::Double(found)) = Value::from_json(text.as_bytes()) else {
                panic!("{text} is no double");
            };
            assert_eq!(found.to_bits(), expected.to_bits(), "{text}: {found}");
            assert_eq!(Value::Double(found).to_json(), text);
        }
        let mut bits: u64 = 0x9E37_79B9_7F4A_7C15;
        for _ in 0..2_000 {
            // xorshift: any bits, so that all exponents are met
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            let value = Value::Double(f64::from_bits(bits));
            if f64::from_bits(bits).is_finite() {
                let json = value.to_json();
                assert_eq!(Value::from_json(json.as_bytes()), Ok(value), "{json}");
            }
        }
    }

    #[test]
    fn what_is_no_json_or_too_large_is_named() {
        let deep = "[".repeat(MAX_JSON_DEPTH + 1) + &"]".repeat(MAX_JSON_DEPTH + 1);
        let cases: &[(&[u8], &str)] = &[
            (b"", "EOF"),
            (b"{", "EOF"),
            (b"1 2", "trailing"),
            (b"9223372036854775808", "beyond 64 bits"),
            (b"[-9223372036854775809]", "beyond 64 bits"),
            (b"{\"a\":123456789012345678901234567890}", "beyond 64 bits"),
            (b"1e999", "out of range"),
            (b"\"\xff\"", "not UTF-8 from byte 1"),
            (deep.as_bytes(), "deeper than 64"),
        ];
        for (json, expected) in cases {
            let error = Value::from_json(json).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(
            Value::from_json(b"\"123456789012345678901234567890\"").map(|v| v.to_text().len()),
            Ok(30)
        );
    }

    #[test]
    fn times_durations_and_bytes_are_texts_in_json() {
        let cases = [
            (
                Value::Timestamp(Time(1_500_000)),
                "\"1970-01-01T00:00:01.5Z\"",
            ),
            (Value::Duration(Span(90_000_000)), "\"90s\""),
            (Value::Duration(Span(-250_000)), "\"-0.25s\""),
            (
                Value::Bytes(b"any carnal pleas".to_vec()),
                "\"YW55IGNhcm5hbCBwbGVhcw==\"",
            ),
            (Value::Bytes(vec![]), "\"\""),
        ];
        for (value, json) in cases {
            assert_eq!(value.to_json(), json);
        }
    }
}
