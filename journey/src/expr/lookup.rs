//! What a name stands for when an expression is evaluated. Knows the scope and nothing of operators.

use super::Scope;
use super::tree::{Path, Root};
use crate::signal::Signal;
use crate::value::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The value at a path, or `None` where nothing has arrived.
pub(super) fn path<'a>(scope: &Scope<'a>, path: &Path) -> Option<Cow<'a, Value>> {
    let fields = path.fields.as_slice();
    match path.root {
        Root::Signal => signal(scope, scope.signal?, fields),
        Root::Customer => customer(scope, fields),
        Root::Vars => {
            let vars = &scope.execution?.vars;
            match fields.split_first() {
                None => Some(Cow::Owned(Value::Map(vars.clone()))),
                Some((name, rest)) => below(vars.get(name)?, rest).map(Cow::Borrowed),
            }
        }
        Root::Execution => execution(scope, fields),
        Root::Now => fields
            .is_empty()
            .then_some(Cow::Owned(Value::Timestamp(scope.now))),
        // results of awaited actions are facts under their whole path, `action.<name>.status`
        Root::Action | Root::Fact => scope
            .execution?
            .facts
            .get(&path.text)
            .map(|f| Cow::Borrowed(&f.value)),
    }
}

/// The value below a value; nothing lies below a null.
pub(super) fn below<'v>(value: &'v Value, fields: &[String]) -> Option<&'v Value> {
    fields.iter().try_fold(value, |value, field| match value {
        Value::Map(map) => map.get(field),
        _ => None,
    })
}

fn signal<'a>(scope: &Scope<'a>, signal: &'a Signal, fields: &[String]) -> Option<Cow<'a, Value>> {
    let text = |s: &str| Some(Cow::Owned(Value::String(s.to_owned())));
    let time = || Value::Timestamp(signal.time.map_or(scope.now, |t| t.min(scope.now)));
    let Some((name, rest)) = fields.split_first() else {
        let text = |s: &str| Value::String(s.to_owned());
        return Some(Cow::Owned(Value::Map(BTreeMap::from([
            ("id".to_owned(), text(&signal.id)),
            ("source".to_owned(), text(&signal.source)),
            ("type".to_owned(), text(&signal.kind)),
            ("time".to_owned(), time()),
            ("data".to_owned(), Value::Map(signal.data.clone())),
        ]))));
    };
    match (name.as_str(), rest.split_first()) {
        ("id", None) => text(&signal.id),
        ("source", None) => text(&signal.source),
        ("type", None) => text(&signal.kind),
        ("time", None) => Some(Cow::Owned(time())),
        ("data", None) => Some(Cow::Owned(Value::Map(signal.data.clone()))),
        ("data", Some((key, rest))) => below(signal.data.get(key)?, rest).map(Cow::Borrowed),
        _ => None,
    }
}

/// `customer.id` is the customer key; then come identifiers, the first of a name; then attributes.
fn customer<'a>(scope: &Scope<'a>, fields: &[String]) -> Option<Cow<'a, Value>> {
    let customer = scope.customer;
    let Some((name, rest)) = fields.split_first() else {
        let mut all: BTreeMap<String, Value> = customer
            .attributes
            .iter()
            .map(|(k, a)| (k.clone(), a.value.clone()))
            .collect();
        for identifier in customer.identifiers.iter().rev() {
            all.insert(
                identifier.name.clone(),
                Value::String(identifier.value.clone()),
            );
        }
        all.insert("id".to_owned(), Value::String(customer.key.value.clone()));
        return Some(Cow::Owned(Value::Map(all)));
    };
    if name == "id" {
        return rest
            .is_empty()
            .then(|| Cow::Owned(Value::String(customer.key.value.clone())));
    }
    let identifiers = std::iter::once(&customer.key).chain(&customer.identifiers);
    if let Some(found) = identifiers.into_iter().find(|i| i.name == *name) {
        return rest
            .is_empty()
            .then(|| Cow::Owned(Value::String(found.value.clone())));
    }
    below(&customer.attributes.get(name)?.value, rest).map(Cow::Borrowed)
}

fn execution<'a>(scope: &Scope<'a>, fields: &[String]) -> Option<Cow<'a, Value>> {
    let execution = scope.execution?;
    let field = |name: &str| {
        Some(match name {
            "stage" => Value::String(execution.visit.stage.clone()),
            "visits" => Value::Int(i64::from(execution.visit.number)),
            "entered_at" => Value::Timestamp(execution.visit.began.at),
            "started_at" => Value::Timestamp(execution.started.at),
            _ => return None,
        })
    };
    match fields {
        [] => {
            let names = ["stage", "visits", "entered_at", "started_at"];
            Some(Cow::Owned(Value::Map(
                names
                    .iter()
                    .filter_map(|n| Some(((*n).to_owned(), field(n)?)))
                    .collect(),
            )))
        }
        [name] => field(name).map(Cow::Owned),
        _ => None,
    }
}
