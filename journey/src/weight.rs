//! How much memory values and signals take, roughly and alike on every machine, and how deep values nest: what the
//! limits of `limits` count.

use crate::execution::Execution;
use crate::signal::Signal;
use crate::value::Value;

/// What a value weighs beside its texts.
const EACH: usize = 16;

impl Value {
    /// The value's weight in bytes: its texts and names, and 16 for every value in it.
    pub fn weight(&self) -> usize {
        EACH + match self {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => items.iter().map(Value::weight).sum(),
            Value::Map(map) => map
                .iter()
                .map(|(name, value)| name.len() + value.weight())
                .sum(),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Double(_)
            | Value::Timestamp(_)
            | Value::Duration(_) => 0,
        }
    }

    /// How many lists and maps stand in one another here: 0 for a text or a number, 1 for a list of them.
    pub fn depth(&self) -> usize {
        match self {
            Value::List(items) => 1 + items.iter().map(Value::depth).max().unwrap_or(0),
            Value::Map(map) => 1 + map.values().map(Value::depth).max().unwrap_or(0),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Timestamp(_)
            | Value::Duration(_) => 0,
        }
    }
}

impl Signal {
    /// The signal's weight in bytes while it waits.
    pub fn weight(&self) -> usize {
        let named: usize = self
            .data
            .iter()
            .chain(&self.attributes)
            .map(|(name, value)| name.len() + value.weight())
            .sum();
        let who: usize = self
            .identifiers
            .iter()
            .map(|i| EACH + i.name.len() + i.value.len())
            .sum();
        4 * EACH + self.id.len() + self.source.len() + self.kind.len() + named + who
    }
}

impl Execution {
    /// The weight in bytes of all that it knows: facts, variables, kept values, with their names.
    pub fn weight(&self) -> usize {
        let facts = self
            .facts
            .iter()
            .map(|(path, fact)| path.len() + fact.value.weight());
        let vars = self
            .vars
            .iter()
            .map(|(name, value)| name.len() + value.weight());
        let kept = self
            .kept
            .iter()
            .map(|(name, value)| name.len() + value.weight());
        facts.chain(vars).chain(kept).sum()
    }
}
