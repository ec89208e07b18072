//! Evaluation: three answers (a value, unknown, an error) and a budget. Knows no text and no parser.
//!
//! Where one side of an operator is unknown the whole is unknown, and unknown wins over an error: what has not arrived
//! may yet put the error right. `&&`, `||`, `all` and `any` absorb both, whichever side they stand on.

use super::functions;
use super::lookup;
use super::operators;
use super::tree::{Node, Op};
use super::{Base, Miss, Scope};
use crate::value::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) type Out<'a> = Result<Cow<'a, Value>, Miss>;

pub(super) struct Eval<'a> {
    scope: Scope<'a>,
    left: u64,
    pub(super) locals: Vec<Cow<'a, Value>>,
}

impl<'a> Eval<'a> {
    pub(super) fn new(base: &Base, scope: &Scope<'a>) -> Eval<'a> {
        Eval {
            scope: *scope,
            left: base.cost,
            locals: Vec::new(),
        }
    }

    /// Takes from the budget.
    pub(super) fn charge(&mut self, cost: usize) -> Result<(), Miss> {
        match self.left.checked_sub(cost as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Miss::Error("the expression takes too much work on this data; shorten the lists or texts it works on".to_owned())),
        }
    }

    /// Takes from the budget for a text or bytes that were read or made.
    pub(super) fn charge_bytes(&mut self, bytes: usize) -> Result<(), Miss> {
        self.charge(1 + bytes / 64)
    }

    pub(super) fn eval(&mut self, node: &'a Node) -> Out<'a> {
        self.charge(1)?;
        match node {
            Node::Literal(value) => Ok(Cow::Borrowed(value)),
            Node::Path(path) => match lookup::path(&self.scope, path) {
                Some(value) => {
                    if let Cow::Owned(made) = &value {
                        self.charge(weight(made))?;
                    }
                    Ok(value)
                }
                None => Err(Miss::Unknown(vec![path.text.clone()])),
            },
            Node::Local => {
                // lowering makes `Local` only inside a macro, which puts a value here first
                let value = self
                    .locals
                    .last()
                    .cloned()
                    .unwrap_or(Cow::Owned(Value::Null));
                if let Cow::Owned(made) = &value {
                    self.charge(weight(made))?;
                }
                Ok(value)
            }
            Node::Select(operand, field) => {
                let operand = self.eval(operand)?;
                select(operand, field).map_err(|miss| named(miss, node))
            }
            Node::Index(operand, index) => match (self.eval(operand), self.eval(index)) {
                (Ok(operand), Ok(index)) => {
                    index_into(operand, &index).map_err(|miss| named(miss, node))
                }
                (a, b) => Err(both(a, b)),
            },
            Node::Has(operand) => match self.eval(operand) {
                Ok(_) => Ok(truth(true)),
                Err(Miss::Unknown(_)) => Ok(truth(false)),
                Err(error) => Err(error),
            },
            Node::Not(operand) => Ok(truth(!self.condition(operand, "!")?)),
            Node::Negate(operand) => {
                operators::negate(self.eval(operand)?.as_ref()).map(Cow::Owned)
            }
            Node::And(operands) => self.logic(operands, false),
            Node::Or(operands) => self.logic(operands, true),
            Node::If(parts) => {
                let [condition, yes, no] = parts.as_ref();
                if self.condition(condition, "?")? {
                    self.eval(yes)
                } else {
                    self.eval(no)
                }
            }
            Node::Binary(op, sides) => {
                let [left, right] = sides.as_ref();
                match (self.eval(left), self.eval(right)) {
                    (Ok(left), Ok(right)) => self.binary(*op, &left, &right).map(Cow::Owned),
                    (a, b) => Err(both(a, b)),
                }
            }
            Node::List(elements) => Ok(Cow::Owned(Value::List(self.values(elements)?))),
            Node::Map(entries) => self.map(entries),
            Node::Call(function, args) => {
                let args = self.args(args)?;
                functions::call(self, *function, &args).map(Cow::Owned)
            }
            Node::Matches(text, regex) => {
                let text = self.eval(text)?;
                match text.as_ref() {
                    Value::String(text) => {
                        self.charge(1 + text.len() / 8)?;
                        Ok(truth(regex.is_match(text)))
                    }
                    other => Err(Miss::Error(format!(
                        "`matches` needs a text, found {}",
                        operators::kind(other)
                    ))),
                }
            }
            Node::Macro(call) => self.walk(call),
        }
    }

    /// A value that must be a truth value.
    pub(super) fn condition(&mut self, node: &'a Node, by: &str) -> Result<bool, Miss> {
        match self.eval(node)?.as_ref() {
            Value::Bool(b) => Ok(*b),
            other => Err(Miss::Error(format!(
                "`{by}` needs true or false, found {}",
                operators::kind(other)
            ))),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true).
    fn logic(&mut self, operands: &'a [Node], decides: bool) -> Out<'a> {
        let mut miss = None;
        for operand in operands {
            match self.condition(operand, if decides { "||" } else { "&&" }) {
                Ok(value) if value == decides => return Ok(truth(decides)),
                Ok(_) => {}
                Err(other) => miss = Some(worse(miss, other)),
            }
        }
        miss.map_or(Ok(truth(!decides)), Err)
    }

    fn args(&mut self, nodes: &'a [Node]) -> Result<Vec<Cow<'a, Value>>, Miss> {
        let mut values = Vec::with_capacity(nodes.len());
        let mut miss = None;
        for node in nodes {
            match self.eval(node) {
                Ok(value) => values.push(value),
                Err(other) => miss = Some(worse(miss, other)),
            }
        }
        miss.map_or(Ok(values), Err)
    }

    fn values(&mut self, nodes: &'a [Node]) -> Result<Vec<Value>, Miss> {
        let values = self.args(nodes)?;
        let mut owned = Vec::with_capacity(values.len());
        for value in values {
            self.charge(weight(&value))?;
            owned.push(value.into_owned());
        }
        Ok(owned)
    }

    fn map(&mut self, entries: &'a [(Node, Node)]) -> Out<'a> {
        let mut map = BTreeMap::new();
        let mut miss = None;
        for (key, value) in entries {
            match (self.eval(key), self.eval(value)) {
                (Ok(key), Ok(value)) => {
                    self.charge(weight(&value))?;
                    let Value::String(key) = key.into_owned() else {
                        return Err(Miss::Error("the keys of a map must be texts".to_owned()));
                    };
                    if map.insert(key.clone(), value.into_owned()).is_some() {
                        return Err(Miss::Error(format!("the map has the key `{key}` twice")));
                    }
                }
                (a, b) => miss = Some(worse(miss, both(a, b))),
            }
        }
        miss.map_or(Ok(Cow::Owned(Value::Map(map))), Err)
    }

    fn binary(&mut self, op: Op, left: &Value, right: &Value) -> Result<Value, Miss> {
        Ok(Value::Bool(match op {
            Op::Equal => self.equal(left, right)?,
            Op::NotEqual => !self.equal(left, right)?,
            Op::Less => operators::order(left, right)?.is_lt(),
            Op::LessOrEqual => operators::order(left, right)?.is_le(),
            Op::Greater => operators::order(left, right)?.is_gt(),
            Op::GreaterOrEqual => operators::order(left, right)?.is_ge(),
            Op::In => match right {
                Value::List(list) => {
                    for element in list {
                        if self.equal(left, element)? {
                            return Ok(Value::Bool(true));
                        }
                    }
                    false
                }
                Value::Map(map) => matches!(left, Value::String(key) if map.contains_key(key)),
                other => {
                    return Err(Miss::Error(format!(
                        "`in` needs a list or a map on its right, found {}",
                        operators::kind(other)
                    )));
                }
            },
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Modulo => {
                let made = operators::arithmetic(op, left, right)?;
                self.charge(weight(&made))?;
                return Ok(made);
            }
        }))
    }

    /// Whether two values are equal; values of different kinds are not, numbers are compared as numbers.
    pub(super) fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, Miss> {
        self.charge(1)?;
        Ok(match (left, right) {
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b) {
                    if !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(a), Value::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for ((ka, a), (kb, b)) in a.iter().zip(b) {
                    if ka != kb || !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::String(a), Value::String(b)) => {
                self.charge_bytes(a.len().min(b.len()))?;
                a == b
            }
            (Value::Int(_), Value::Double(_)) | (Value::Double(_), Value::Int(_)) => {
                operators::order(left, right)?.is_eq()
            }
            _ => left == right,
        })
    }
}

/// Puts the name of what was looked for where `select` and `index_into` found nothing.
fn named(miss: Miss, node: &Node) -> Miss {
    match miss {
        Miss::Unknown(paths) if paths.is_empty() => Miss::Unknown(vec![node.written()]),
        other => other,
    }
}

pub(super) fn truth<'a>(value: bool) -> Cow<'a, Value> {
    Cow::Owned(Value::Bool(value))
}

/// One miss of two: unknown wins, and names the paths of both.
pub(super) fn worse(first: Option<Miss>, second: Miss) -> Miss {
    match (first, second) {
        (Some(Miss::Unknown(mut a)), Miss::Unknown(b)) => {
            for path in b {
                if !a.contains(&path) {
                    a.push(path);
                }
            }
            Miss::Unknown(a)
        }
        (Some(Miss::Unknown(a)), Miss::Error(_)) => Miss::Unknown(a),
        (Some(Miss::Error(_)), Miss::Unknown(b)) => Miss::Unknown(b),
        (Some(error), Miss::Error(_)) => error,
        (None, second) => second,
    }
}

fn both(a: Out<'_>, b: Out<'_>) -> Miss {
    match (a, b) {
        (Err(a), Err(b)) => worse(Some(a), b),
        (Err(miss), Ok(_)) | (Ok(_), Err(miss)) => miss,
        (Ok(_), Ok(_)) => Miss::Error("nothing is missing".to_owned()),
    }
}

/// How much a value weighs in the budget.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::String(s) => 1 + s.len() / 64,
        Value::Bytes(b) => 1 + b.len() / 64,
        Value::List(list) => 1 + list.iter().map(weight).sum::<usize>(),
        Value::Map(map) => {
            1 + map
                .iter()
                .map(|(k, v)| 1 + k.len() / 64 + weight(v))
                .sum::<usize>()
        }
        _ => 1,
    }
}

fn select<'a>(operand: Cow<'a, Value>, field: &str) -> Out<'a> {
    let missing = || Miss::Unknown(Vec::new());
    match operand {
        Cow::Borrowed(Value::Map(map)) => map.get(field).map(Cow::Borrowed).ok_or_else(missing),
        Cow::Owned(Value::Map(mut map)) => map.remove(field).map(Cow::Owned).ok_or_else(missing),
        other => match other.as_ref() {
            Value::Null => Err(missing()),
            other => Err(Miss::Error(format!(
                "`.{field}` needs a map, found {}",
                operators::kind(other)
            ))),
        },
    }
}

fn index_into<'a>(operand: Cow<'a, Value>, index: &Value) -> Out<'a> {
    match (operand.as_ref(), index) {
        (Value::Map(_) | Value::Null, Value::String(key)) => select(operand, key),
        (Value::List(list), Value::Int(i)) => {
            let at = usize::try_from(*i).ok().filter(|at| *at < list.len());
            let Some(at) = at else {
                return Err(Miss::Unknown(Vec::new()));
            };
            Ok(match operand {
                Cow::Borrowed(Value::List(list)) => Cow::Borrowed(&list[at]),
                Cow::Owned(Value::List(mut list)) => Cow::Owned(list.swap_remove(at)),
                other => other,
            })
        }
        (Value::Null, _) => Err(Miss::Unknown(Vec::new())),
        (other, index) => Err(Miss::Error(format!(
            "{} cannot be indexed by {}; a list takes a whole number, a map a text",
            operators::kind(other),
            operators::kind(index)
        ))),
    }
}
