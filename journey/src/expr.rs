//! Expressions: what a journey asks of a signal, a customer and what is known.
//!
//! The text is Common Expression Language, read by the `cel` crate's parser and lowered into a tree of our own, which is
//! evaluated here. Not by `cel`'s evaluator, for it has no budget of steps or memory, iterates hash maps, stops at the
//! first missing key without saying which path it was, and calls `has(a.b.c)` an error where `a` never arrived.
//! Knows no journey and no YAML: it is given a text and a [`Scope`].

use crate::compiled::FactPath;
use crate::customer::Customer;
use crate::execution::Execution;
use crate::signal::Signal;
use crate::time::Time;
use crate::value::Value;
use std::collections::BTreeSet;

/// What bounds every evaluation. Made once per compiled journey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The cost that one evaluation may reach: steps, and one per 64 bytes made.
    pub cost: u64,
}

impl Default for Base {
    fn default() -> Self {
        Base { cost: 200_000 }
    }
}

/// What an expression can see. What is not given is unknown to it.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The signal being decided.
    pub signal: Option<&'a Signal>,
    /// The customer.
    pub customer: &'a Customer,
    /// The execution: its stage, variables, facts, and results of actions (facts `action.<name>.status`).
    pub execution: Option<&'a Execution>,
    /// The time of the decision (`at`).
    pub now: Time,
}

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Something has never arrived: the paths, as written.
    Unknown(Vec<String>),
    /// The expression cannot be computed: a wrong type, an overflow, too much work.
    Error(String),
}

/// One compiled expression.
#[derive(Debug)]
pub struct Expression {
    /// The text, as the author wrote it.
    pub source: String,
    facts: BTreeSet<FactPath>,
}

/// One part of a condition, for `why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its own text.
    pub source: String,
    /// Whether it holds.
    pub state: Holds,
}

/// Whether a part holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It holds.
    Yes,
    /// It does not hold.
    No,
    /// Something that it needs has never arrived.
    Unknown {
        /// The paths, as written.
        missing: Vec<String>,
    },
    /// It cannot be computed.
    Error(String),
}

impl Expression {
    /// The value of the expression.
    ///
    /// # Errors
    /// [`Miss::Unknown`] names what has never arrived; [`Miss::Error`] says what cannot be computed.
    pub fn eval(&self, base: &Base, scope: &Scope<'_>) -> Result<Value, Miss> {
        let _ = (base, scope);
        Err(Miss::Error("being built".to_owned()))
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// As [`Expression::eval`]; a value that is not a truth value is an error too.
    pub fn holds(&self, base: &Base, scope: &Scope<'_>) -> Result<bool, Miss> {
        match self.eval(base, scope)? {
            Value::Bool(b) => Ok(b),
            _ => Err(Miss::Error("being built".to_owned())),
        }
    }

    /// The parts of the condition, each with its own text and whether it holds.
    pub fn parts(&self, base: &Base, scope: &Scope<'_>) -> Vec<Part> {
        let _ = (base, scope);
        Vec::new()
    }

    /// The facts that the expression mentions.
    pub fn mentions(&self) -> &BTreeSet<FactPath> {
        &self.facts
    }
}
