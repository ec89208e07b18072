//! Arithmetic and order of values. Knows no nodes and no scope.

use super::Miss;
use super::tree::Op;
use crate::time::{Span, Time};
use crate::value::Value;
use std::cmp::Ordering;

/// The kind of a value, as an error text names it.
pub(super) fn kind(value: &Value) -> &'static str {
    value.kind()
}

fn error(text: impl Into<String>) -> Miss {
    Miss::Error(text.into())
}

/// The order of two values of one kind; whole and other numbers are compared exactly.
pub(super) fn order(left: &Value, right: &Value) -> Result<Ordering, Miss> {
    Ok(match (left, right) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        // values are finite, so there is an order
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::Int(a), Value::Double(b)) => whole_and_other(*a, *b),
        (Value::Double(a), Value::Int(b)) => whole_and_other(*b, *a).reverse(),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (a, b) => {
            return Err(error(format!(
                "{} cannot be compared with {}",
                kind(a),
                kind(b)
            )));
        }
    })
}

/// 2^63 as a number: every `i64` lies below it.
const BEYOND: f64 = 9_223_372_036_854_775_808.0;

fn whole_and_other(a: i64, b: f64) -> Ordering {
    if b >= BEYOND {
        Ordering::Less
    } else if b < -BEYOND {
        Ordering::Greater
    } else {
        // the whole part of `b` fits: it lies between -2^63 and 2^63
        a.cmp(&(b.trunc() as i64))
            .then_with(|| 0.0f64.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal))
    }
}

pub(super) fn negate(value: &Value) -> Result<Value, Miss> {
    match value {
        Value::Int(i) => i
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| error("a whole number became too large")),
        Value::Double(d) => Ok(Value::Double(-d)),
        Value::Duration(d) => {
            d.0.checked_neg()
                .map(|d| Value::Duration(Span(d)))
                .ok_or_else(|| error("a duration became too long"))
        }
        other => Err(error(format!(
            "`-` needs a number or a duration, found {}",
            kind(other)
        ))),
    }
}

pub(super) fn arithmetic(op: Op, left: &Value, right: &Value) -> Result<Value, Miss> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => whole(op, *a, *b),
        (Value::Double(a), Value::Double(b)) => double(op, *a, *b),
        // data says 100 or 100.5 as it comes: a whole number beside another is taken as a number
        (Value::Int(a), Value::Double(b)) => double(op, *a as f64, *b),
        (Value::Double(a), Value::Int(b)) => double(op, *a, *b as f64),
        (Value::String(a), Value::String(b)) if op == Op::Add => {
            Ok(Value::String(format!("{a}{b}")))
        }
        (Value::Bytes(a), Value::Bytes(b)) if op == Op::Add => {
            Ok(Value::Bytes([a.as_slice(), b].concat()))
        }
        (Value::List(a), Value::List(b)) if op == Op::Add => {
            Ok(Value::List([a.as_slice(), b].concat()))
        }
        _ => times(op, left, right),
    }
}

fn times(op: Op, left: &Value, right: &Value) -> Result<Value, Miss> {
    let long = || error("a time or duration went out of range");
    match (op, left, right) {
        (Op::Add, Value::Timestamp(t), Value::Duration(d))
        | (Op::Add, Value::Duration(d), Value::Timestamp(t)) => {
            t.0.checked_add(d.0)
                .map(|t| Value::Timestamp(Time(t)))
                .ok_or_else(long)
        }
        (Op::Subtract, Value::Timestamp(t), Value::Duration(d)) => {
            t.0.checked_sub(d.0)
                .map(|t| Value::Timestamp(Time(t)))
                .ok_or_else(long)
        }
        (Op::Subtract, Value::Timestamp(a), Value::Timestamp(b)) => {
            a.0.checked_sub(b.0)
                .map(|d| Value::Duration(Span(d)))
                .ok_or_else(long)
        }
        (Op::Add, Value::Duration(a), Value::Duration(b)) => {
            a.0.checked_add(b.0)
                .map(|d| Value::Duration(Span(d)))
                .ok_or_else(long)
        }
        (Op::Subtract, Value::Duration(a), Value::Duration(b)) => {
            a.0.checked_sub(b.0)
                .map(|d| Value::Duration(Span(d)))
                .ok_or_else(long)
        }
        _ => Err(error(format!(
            "`{}` does not go with {} and {}",
            sign(op),
            kind(left),
            kind(right)
        ))),
    }
}

fn sign(op: Op) -> &'static str {
    match op {
        Op::Add => "+",
        Op::Subtract => "-",
        Op::Multiply => "*",
        Op::Divide => "/",
        Op::Modulo => "%",
        Op::Equal => "==",
        Op::NotEqual => "!=",
        Op::Less => "<",
        Op::LessOrEqual => "<=",
        Op::Greater => ">",
        Op::GreaterOrEqual => ">=",
        Op::In => "in",
    }
}

fn whole(op: Op, a: i64, b: i64) -> Result<Value, Miss> {
    if b == 0 && matches!(op, Op::Divide | Op::Modulo) {
        return Err(error("division by zero"));
    }
    let made = match op {
        Op::Add => a.checked_add(b),
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        Op::Divide => a.checked_div(b),
        Op::Modulo => a.checked_rem(b),
        _ => None,
    };
    made.map(Value::Int)
        .ok_or_else(|| error("a whole number became too large"))
}

fn double(op: Op, a: f64, b: f64) -> Result<Value, Miss> {
    let made = match op {
        Op::Add => a + b,
        Op::Subtract => a - b,
        Op::Multiply => a * b,
        Op::Divide => a / b,
        _ => return Err(error("`%` needs two whole numbers")),
    };
    if made.is_finite() {
        Ok(Value::Double(made))
    } else if b == 0.0 {
        Err(error("division by zero"))
    } else {
        Err(error("a number became too large"))
    }
}
