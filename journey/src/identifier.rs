//! Who is meant: identifiers in their one written form, the hash that places a customer, and the id of an execution.
//! Knows no shards: it gives the hash, others cut it.

use crate::limits;
use crate::problem::short;
use crate::signal::{Identifier, Signal};
use std::fmt;
use std::str::FromStr;
use unicode_normalization::UnicodeNormalization;
use xxhash_rust::xxh3::xxh3_64;

impl Identifier {
    /// An identifier in its one written form: the value NFC and trimmed, lower-cased when the name is `email`.
    ///
    /// # Errors
    /// When the name is no slug of at most 64 bytes, or the value is empty, too long or has control characters.
    pub fn new(name: &str, value: &str) -> Result<Identifier, String> {
        let slug = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !slug || name.len() > limits::IDENTIFIER_NAME_BYTES {
            return Err(format!(
                "identifier name {:?} is no slug: expected a lower-case letter, then lower-case letters, digits and `_`, \
                 at most {} bytes",
                short(name),
                limits::IDENTIFIER_NAME_BYTES
            ));
        }
        // Beyond this the value cannot fit, whatever normalising does to it (NFC shortens at most to a third).
        if value.len() > limits::IDENTIFIER_VALUE_BYTES * 16 {
            return Err(too_long(name, value.len()));
        }
        // ASCII is NFC already, and stays so in lower case
        let mut value = if value.is_ascii() {
            value.trim().to_owned()
        } else {
            let composed: String = value.trim().nfc().collect();
            composed.trim().to_owned()
        };
        if name == "email" && value.is_ascii() {
            value.make_ascii_lowercase();
        } else if name == "email" {
            value = value.to_lowercase().nfc().collect();
        }
        if value.is_empty() {
            return Err(format!(
                "identifier `{name}` has an empty value: expected 1 to 256 bytes"
            ));
        }
        if value.len() > limits::IDENTIFIER_VALUE_BYTES {
            return Err(too_long(name, value.len()));
        }
        if let Some(bad) = value.chars().find(|c| c.is_control()) {
            return Err(format!(
                "identifier `{name}` has the control character U+{:04X} in its value: expected plain text",
                u32::from(bad)
            ));
        }
        Ok(Identifier {
            name: name.to_owned(),
            value,
        })
    }
}

/// `name:value`.
impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.value)
    }
}

fn too_long(name: &str, length: usize) -> String {
    format!(
        "identifier `{name}` has a value of {length} bytes: expected at most {}",
        limits::IDENTIFIER_VALUE_BYTES
    )
}

/// The hash that places a customer: xxh3-64, seed 0, over the workspace, the name and the value of the customer key,
/// each after its length as two bytes, big end first.
pub fn customer_hash(workspace: &str, key: &Identifier) -> u64 {
    hash_of(&[workspace, &key.name, &key.value])
}

/// The hash that tells apart what one customer has: over the journey and the instance key, lengths before them as in
/// [`customer_hash`]; an absent instance key is an empty one.
pub fn slot_hash(journey: &str, instance: Option<&str>) -> u64 {
    hash_of(&[journey, instance.unwrap_or_default()])
}

fn hash_of(parts: &[&str]) -> u64 {
    let mut bytes = Vec::with_capacity(parts.iter().map(|p| p.len() + 2).sum());
    for part in parts {
        // Every part has a limit far below 64 KiB; beyond it the length is cut, which still is one value per text.
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh3_64(&bytes)
}

/// The id of an execution as text: `<16 hex of the customer>-<16 hex of journey and instance>-<run>`. It says where to
/// look; what is found there is compared in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionId {
    /// [`customer_hash`].
    pub customer: u64,
    /// [`slot_hash`].
    pub slot: u64,
    /// The run, from 1.
    pub run: u32,
}

impl ExecutionId {
    /// The id of one run of one customer.
    pub fn new(
        workspace: &str,
        key: &Identifier,
        journey: &str,
        instance: Option<&str>,
        run: u32,
    ) -> ExecutionId {
        ExecutionId {
            customer: customer_hash(workspace, key),
            slot: slot_hash(journey, instance),
            run,
        }
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}-{}", self.customer, self.slot, self.run)
    }
}

impl FromStr for ExecutionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "{:?} is no execution id: expected `<16 hex digits>-<16 hex digits>-<run>`",
                short(text)
            )
        };
        let hex = |part: &str| {
            let plain =
                part.len() == 16 && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if plain {
                u64::from_str_radix(part, 16).ok()
            } else {
                None
            }
        };
        let mut parts = text.split('-');
        let (Some(customer), Some(slot), Some(run), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        let number = run.bytes().all(|b| b.is_ascii_digit()) && !run.starts_with('0');
        match (hex(customer), hex(slot), run.parse::<u32>()) {
            (Some(customer), Some(slot), Ok(run)) if number => Ok(ExecutionId {
                customer,
                slot,
                run,
            }),
            _ => Err(refuse()),
        }
    }
}

/// Whether a text may be the source or the type of a signal: 1 to 128 bytes of `A-Z a-z 0-9 _ . -`.
pub fn is_name(text: &str) -> bool {
    (1..=limits::SIGNAL_TYPE_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl Signal {
    /// Checks what a sender may get wrong, beyond what the types hold: lengths, characters, reserved words.
    ///
    /// # Errors
    /// The field and what is wrong with it, one for every problem.
    pub fn check(&self) -> Result<(), Vec<(&'static str, String)>> {
        let mut wrong = Vec::new();
        if self.id.is_empty() || self.id.len() > limits::SIGNAL_ID_BYTES {
            wrong.push((
                "id",
                format!(
                    "the id has {} bytes: expected 1 to {}",
                    self.id.len(),
                    limits::SIGNAL_ID_BYTES
                ),
            ));
        }
        for (field, text) in [("source", &self.source), ("type", &self.kind)] {
            if !is_name(text) {
                wrong.push((
                    field,
                    format!(
                        "the {field} is {:?}: expected 1 to {} of the characters A-Z a-z 0-9 _ . -",
                        short(text),
                        limits::SIGNAL_TYPE_BYTES
                    ),
                ));
            }
        }
        let application = self.kind.split('.').next().unwrap_or_default();
        if limits::RESERVED_APPLICATIONS.contains(&application) {
            wrong.push((
                "type",
                format!("the type {:?} begins with `{application}`, which has a meaning of its own in expressions: \
                         expected the name of an application", short(&self.kind)),
            ));
        }
        if self.identifiers.is_empty() || self.identifiers.len() > limits::SIGNAL_IDENTIFIERS {
            wrong.push((
                "identifiers",
                format!(
                    "{} identifiers: expected 1 to {}, the customer key first",
                    self.identifiers.len(),
                    limits::SIGNAL_IDENTIFIERS
                ),
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
