//! Rule 2: what a signal says becomes facts and variables.

use super::Deciding;
use crate::compiled::{FactPath, Variable, VariableKind};
use crate::event::What;
use crate::expr::Miss;
use crate::limits;
use crate::signal::Signal;
use crate::time::Time;
use crate::value::Value;

impl Deciding<'_> {
    /// Takes the facts and variables of a signal.
    pub(super) fn take_facts(&mut self, signal: &Signal) {
        let compiled = self.compiled;
        for (path, value) in facts_of(signal, compiled.facts.paths.iter()) {
            let newest = self
                .state
                .facts
                .get(&path)
                .is_none_or(|known| self.occurred >= known.occurred);
            if !newest {
                continue;
            }
            let known = self.state.facts.get(&path).map(|fact| &fact.value);
            if let Err(full) = self.room(&path, value, known) {
                self.incident("facts", format!("fact `{path}` {full}"));
                continue;
            }
            self.set_fact(path, value.clone());
        }
        for variable in &compiled.variables {
            self.take_variable(variable, Some(signal));
        }
    }

    /// Takes the variables that follow the customer and no signal: the customer may have changed without one.
    pub(super) fn take_customer(&mut self) {
        let compiled = self.compiled;
        for variable in &compiled.variables {
            let from = variable.from.as_ref();
            if from.is_some_and(|f| f.uses("customer") && !f.uses("signal")) {
                self.take_variable(variable, None);
            }
        }
    }

    /// Sets a fact, and notes whether its value became another.
    pub(super) fn set_fact(&mut self, path: String, value: Value) {
        let changed = self
            .state
            .facts
            .get(&path)
            .is_none_or(|known| !known.value.same(&value));
        self.emit(What::Fact {
            path,
            value,
            changed,
        });
        self.note_change(changed);
    }

    fn note_change(&mut self, changed: bool) {
        self.changed |= changed;
        self.unsettled |= changed;
    }

    fn take_variable(&mut self, variable: &Variable, signal: Option<&Signal>) {
        let Some(from) = &variable.from else { return };
        let place = || format!("variable/{}", variable.name);
        let value = match from.eval(&self.compiled.base, &self.scope(signal)) {
            Ok(value) => value,
            Err(Miss::Unknown(_)) => return,
            Err(Miss::Error(error)) => {
                self.incident(
                    &place(),
                    format!("`{}` cannot be computed: {error}", from.source),
                );
                return;
            }
        };
        let value = match fit(variable.kind, value) {
            Ok(value) => value,
            Err(wrong) => {
                self.incident(&place(), format!("variable `{}` {wrong}", variable.name));
                return;
            }
        };
        let known = self.state.vars.get(&variable.name);
        if known.is_some_and(|known| known.same(&value)) {
            return;
        }
        match self.room(&variable.name, &value, known) {
            Ok(()) => {
                self.emit(What::Variable {
                    name: variable.name.clone(),
                    value,
                    changed: true,
                });
                self.note_change(true);
            }
            Err(full) => self.incident(&place(), format!("variable `{}` {full}", variable.name)),
        }
    }

    /// Whether the execution may take a value in the place of one that it knows: neither too deep nor too large. Every
    /// value from outside or from an expression passes here before an event bears it.
    pub(super) fn room(
        &self,
        name: &str,
        value: &Value,
        known: Option<&Value>,
    ) -> Result<(), String> {
        let depth = value.depth();
        if depth > limits::VALUE_DEPTH {
            return Err(format!(
                "nests {depth} levels: expected at most {}",
                limits::VALUE_DEPTH
            ));
        }
        let weight = value.weight();
        if weight > limits::FACT_BYTES {
            return Err(format!(
                "has {weight} bytes: expected at most {}",
                limits::FACT_BYTES
            ));
        }
        let before = known.map_or(0, |known| name.len() + known.weight());
        let after = self.state.weight() - before + name.len() + weight;
        if after > limits::STATE_BYTES {
            return Err(format!(
                "is not taken: the execution would know {after} bytes, at most {} are allowed",
                limits::STATE_BYTES
            ));
        }
        Ok(())
    }
}

/// The facts that a signal brings, of those wanted: a signal of type `A.B.verb` with data `{x: {y: 1}}` brings `A.B.x.y`.
fn facts_of<'s>(
    signal: &'s Signal,
    wanted: impl Iterator<Item = &'s FactPath>,
) -> impl Iterator<Item = (String, &'s Value)> {
    let mut prefix: Vec<&str> = signal.kind.split('.').collect();
    prefix.pop();
    let reserved = prefix
        .first()
        .is_none_or(|first| limits::RESERVED_APPLICATIONS.contains(first));
    wanted.filter_map(move |path| {
        let rest = path.0.get(prefix.len()..)?;
        let (first, deeper) = rest.split_first()?;
        let mine = !reserved && prefix.iter().zip(&path.0).all(|(a, b)| a == b);
        let start = if mine {
            signal.data.get(first)?
        } else {
            return None;
        };
        let value = deeper
            .iter()
            .try_fold(start, |value, segment| match value {
                Value::Map(map) => map.get(segment),
                _ => None,
            })?;
        Some((path.to_string(), value))
    })
}

/// The value as the variable may hold it.
fn fit(kind: VariableKind, value: Value) -> Result<Value, String> {
    match (kind, value) {
        (VariableKind::Any, value)
        | (VariableKind::Text, value @ Value::String(_))
        | (VariableKind::Number, value @ (Value::Int(_) | Value::Double(_)))
        | (VariableKind::Bool, value @ Value::Bool(_))
        | (VariableKind::Time, value @ Value::Timestamp(_)) => Ok(value),
        (VariableKind::Time, Value::String(text)) => Time::parse(&text)
            .map(Value::Timestamp)
            .map_err(|_| format!("is {text:?}: expected a time such as 2026-01-31T09:00:00+01:00")),
        (kind, value) => Err(format!(
            "is {}: expected {}",
            name_of(&value),
            expected(kind)
        )),
    }
}

fn expected(kind: VariableKind) -> &'static str {
    match kind {
        VariableKind::Text => "text",
        VariableKind::Number => "a number",
        VariableKind::Bool => "true or false",
        VariableKind::Time => "a time",
        VariableKind::Any => "anything",
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Int(_) | Value::Double(_) => "a number",
        Value::String(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Timestamp(_) => "a time",
        Value::Duration(_) => "a duration",
    }
}
