//! What happened: the signal, as the rules see it. Knows no wire and no workspace.

use crate::time::Time;
use crate::value::Value;
use std::collections::BTreeMap;

/// One of the names under which a customer is known. Normalised (see [`Identifier::new`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier {
    /// A slug of at most 64 bytes: `email`, `application_id`.
    pub name: String,
    /// 1 to 256 bytes, NFC, trimmed; lower-cased when the name is `email`.
    pub value: String,
}

/// Something that happened in an application.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Chosen once by the sender; 1 to 128 bytes.
    pub id: String,
    /// The application that sent it.
    pub source: String,
    /// What kind of thing happened, `Books.Invoice.updated`; the wire calls it `type`.
    pub kind: String,
    /// When it happened; absent means: when it arrived.
    pub time: Option<Time>,
    /// The customer; the first is the customer key.
    pub identifiers: Vec<Identifier>,
    /// The data it carries: a JSON object.
    pub data: BTreeMap<String, Value>,
    /// What it says of the customer, merged into the customer record.
    pub attributes: BTreeMap<String, Value>,
}
