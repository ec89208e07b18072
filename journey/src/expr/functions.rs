//! The functions of expressions: CEL's own, and those of its extension for texts. Knows no names of data.

use super::Miss;
use super::eval::Eval;
use super::operators::kind;
use crate::time::{Span, Time};
use crate::value::Value;
use crate::wait;
use std::borrow::Cow;

/// A function that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    ToInt,
    ToDouble,
    ToText,
    ToBool,
    ToTime,
    ToDuration,
    Dyn,
    Lower,
    Upper,
    Trim,
    Replace,
    Split,
    Join,
    Substring,
    IndexOf,
    /// A part of a time (in a time zone) or of a duration.
    Part(TimePart),
}

/// What can be asked of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimePart {
    Year,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// Name, function, least and most arguments; the value before the dot is the first argument.
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("size", Function::Size, 1, 1),
    ("contains", Function::Contains, 2, 2),
    ("startsWith", Function::StartsWith, 2, 2),
    ("endsWith", Function::EndsWith, 2, 2),
    ("int", Function::ToInt, 1, 1),
    ("double", Function::ToDouble, 1, 1),
    ("string", Function::ToText, 1, 1),
    ("bool", Function::ToBool, 1, 1),
    ("timestamp", Function::ToTime, 1, 1),
    ("duration", Function::ToDuration, 1, 1),
    ("dyn", Function::Dyn, 1, 1),
    ("lowerAscii", Function::Lower, 1, 1),
    ("upperAscii", Function::Upper, 1, 1),
    ("trim", Function::Trim, 1, 1),
    ("replace", Function::Replace, 3, 3),
    ("split", Function::Split, 2, 2),
    ("join", Function::Join, 1, 2),
    ("substring", Function::Substring, 2, 3),
    ("indexOf", Function::IndexOf, 2, 2),
    ("getFullYear", Function::Part(TimePart::Year), 1, 2),
    ("getMonth", Function::Part(TimePart::Month), 1, 2),
    ("getDate", Function::Part(TimePart::Date), 1, 2),
    ("getDayOfMonth", Function::Part(TimePart::DayOfMonth), 1, 2),
    ("getDayOfWeek", Function::Part(TimePart::DayOfWeek), 1, 2),
    ("getDayOfYear", Function::Part(TimePart::DayOfYear), 1, 2),
    ("getHours", Function::Part(TimePart::Hours), 1, 2),
    ("getMinutes", Function::Part(TimePart::Minutes), 1, 2),
    ("getSeconds", Function::Part(TimePart::Seconds), 1, 2),
    (
        "getMilliseconds",
        Function::Part(TimePart::Milliseconds),
        1,
        2,
    ),
];

pub(super) fn find(name: &str) -> Option<(Function, usize, usize)> {
    FUNCTIONS
        .iter()
        .find(|f| f.0 == name)
        .map(|f| (f.1, f.2, f.3))
}

/// The function whose name is nearest, if any is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let names = FUNCTIONS.iter().map(|f| f.0).chain([
        "matches",
        "has",
        "all",
        "any",
        "exists",
        "exists_one",
        "map",
        "filter",
    ]);
    crate::problem::nearest(name, names)
}

pub(super) fn call(
    eval: &mut Eval<'_>,
    function: Function,
    args: &[Cow<'_, Value>],
) -> Result<Value, Miss> {
    let args: Vec<&Value> = args.iter().map(AsRef::as_ref).collect();
    for arg in &args {
        if let Value::String(s) = arg {
            eval.charge_bytes(s.len())?;
        }
    }
    let refuse = || {
        let found: Vec<&str> = args.iter().map(|a| kind(a)).collect();
        let name = FUNCTIONS
            .iter()
            .find(|f| f.1 == function)
            .map_or("?", |f| f.0);
        Miss::Error(format!("`{name}` does not go with {}", found.join(" and ")))
    };
    let made = match (function, args.as_slice()) {
        (Function::Size, [Value::String(s)]) => whole(s.chars().count()),
        (Function::Size, [Value::Bytes(b)]) => whole(b.len()),
        (Function::Size, [Value::List(l)]) => whole(l.len()),
        (Function::Size, [Value::Map(m)]) => whole(m.len()),
        (Function::Contains, [Value::String(a), Value::String(b)]) => {
            Value::Bool(a.contains(b.as_str()))
        }
        (Function::StartsWith, [Value::String(a), Value::String(b)]) => {
            Value::Bool(a.starts_with(b.as_str()))
        }
        (Function::EndsWith, [Value::String(a), Value::String(b)]) => {
            Value::Bool(a.ends_with(b.as_str()))
        }
        (Function::ToInt, [value]) => {
            to_int(value).ok_or_else(|| unreadable(value, "a whole number"))?
        }
        (Function::ToDouble, [value]) => {
            to_double(value).ok_or_else(|| unreadable(value, "a number"))?
        }
        (Function::ToBool, [value]) => match value {
            Value::Bool(b) => Value::Bool(*b),
            Value::String(s) if s == "true" => Value::Bool(true),
            Value::String(s) if s == "false" => Value::Bool(false),
            other => return Err(unreadable(other, "true or false")),
        },
        (Function::ToText, [value]) => Value::String(value.to_text()),
        (Function::ToTime, [value]) => match value {
            Value::Timestamp(t) => Value::Timestamp(*t),
            Value::Int(seconds) => Value::Timestamp(Time(
                seconds
                    .checked_mul(1_000_000)
                    .ok_or_else(|| unreadable(value, "a time"))?,
            )),
            Value::String(s) => Value::Timestamp(
                Time::parse(s)
                    .map_err(|_| unreadable(value, "a time like 2026-03-01T09:00:00Z"))?,
            ),
            other => return Err(unreadable(other, "a time")),
        },
        (Function::ToDuration, [value]) => match value {
            Value::Duration(d) => Value::Duration(*d),
            Value::String(s) => Value::Duration(wait::exact(s).map_err(Miss::Error)?),
            other => return Err(unreadable(other, "a duration like 90s or 3d")),
        },
        (Function::Lower, [Value::String(s)]) => Value::String(s.to_ascii_lowercase()),
        (Function::Upper, [Value::String(s)]) => Value::String(s.to_ascii_uppercase()),
        (Function::Trim, [Value::String(s)]) => Value::String(s.trim().to_owned()),
        (Function::Replace, [Value::String(s), Value::String(from), Value::String(to)]) => {
            replace(eval, s, from, to)?
        }
        (Function::Split, [Value::String(s), Value::String(by)]) => {
            let parts: Vec<Value> = s
                .split(by.as_str())
                .map(|p| Value::String(p.to_owned()))
                .collect();
            eval.charge(parts.len())?;
            Value::List(parts)
        }
        (Function::Join, [Value::List(list)]) => join(eval, list, "")?,
        (Function::Join, [Value::List(list), Value::String(by)]) => join(eval, list, by)?,
        (Function::Substring, [Value::String(s), Value::Int(from)]) => substring(s, *from, None)?,
        (Function::Substring, [Value::String(s), Value::Int(from), Value::Int(to)]) => {
            substring(s, *from, Some(*to))?
        }
        (Function::IndexOf, [Value::String(s), Value::String(part)]) => match s.find(part.as_str())
        {
            Some(at) => whole(s[..at].chars().count()),
            None => Value::Int(-1),
        },
        (Function::Part(part), [Value::Timestamp(t)]) => time_part(*t, part, "UTC")?,
        (Function::Part(part), [Value::Timestamp(t), Value::String(zone)]) => {
            time_part(*t, part, zone)?
        }
        (Function::Part(part), [Value::Duration(d)]) => {
            duration_part(*d, part).ok_or_else(refuse)?
        }
        _ => return Err(refuse()),
    };
    if let Value::String(s) = &made {
        eval.charge_bytes(s.len())?;
    }
    Ok(made)
}

fn whole(n: usize) -> Value {
    // a length in memory is far below 2^63
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn unreadable(value: &Value, wanted: &str) -> Miss {
    Miss::Error(match value {
        Value::String(s) => format!(
            "the text `{}` cannot be read as {wanted}",
            crate::problem::short(s)
        ),
        other => format!("{} cannot be made {wanted}", kind(other)),
    })
}

fn to_int(value: &Value) -> Option<Value> {
    Some(Value::Int(match value {
        Value::Int(i) => *i,
        Value::Double(d)
            if d.trunc() > -9.3e18 && d.trunc().abs() < 9_223_372_036_854_775_808.0 =>
        {
            d.trunc() as i64
        }
        Value::String(s) => s.parse().ok()?,
        Value::Timestamp(t) => t.0.div_euclid(1_000_000),
        _ => return None,
    }))
}

fn to_double(value: &Value) -> Option<Value> {
    let made = match value {
        Value::Int(i) => *i as f64,
        Value::Double(d) => *d,
        Value::String(s) => s.parse().ok()?,
        _ => return None,
    };
    made.is_finite().then_some(Value::Double(made))
}

fn replace(eval: &mut Eval<'_>, text: &str, from: &str, to: &str) -> Result<Value, Miss> {
    // an empty `from` stands before, between and after all characters
    let times = if from.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(from).count()
    };
    eval.charge_bytes(times.saturating_mul(to.len()))?;
    Ok(Value::String(text.replace(from, to)))
}

fn join(eval: &mut Eval<'_>, list: &[Value], by: &str) -> Result<Value, Miss> {
    let mut parts = Vec::with_capacity(list.len());
    for value in list {
        let Value::String(s) = value else {
            return Err(Miss::Error(format!(
                "`join` needs a list of texts, found {} in it",
                kind(value)
            )));
        };
        eval.charge_bytes(s.len() + by.len())?;
        parts.push(s.as_str());
    }
    Ok(Value::String(parts.join(by)))
}

fn substring(text: &str, from: i64, to: Option<i64>) -> Result<Value, Miss> {
    let length = text.chars().count();
    let end = to.map_or(Some(length), |to| usize::try_from(to).ok());
    match (usize::try_from(from).ok(), end) {
        (Some(from), Some(end)) if from <= end && end <= length => Ok(Value::String(
            text.chars().skip(from).take(end - from).collect(),
        )),
        _ => Err(Miss::Error(format!(
            "`substring` reaches outside of a text of {length} characters"
        ))),
    }
}

fn time_part(time: Time, part: TimePart, zone: &str) -> Result<Value, Miss> {
    let zone = wait::zone(zone).map_err(Miss::Error)?;
    let instant = jiff::Timestamp::from_microsecond(time.0)
        .map_err(|_| Miss::Error("a time is out of range".to_owned()))?;
    let t = instant.to_zoned(zone);
    Ok(Value::Int(match part {
        TimePart::Year => i64::from(t.year()),
        TimePart::Month => i64::from(t.month()) - 1,
        TimePart::Date => i64::from(t.day()),
        TimePart::DayOfMonth => i64::from(t.day()) - 1,
        TimePart::DayOfWeek => i64::from(t.weekday().to_sunday_zero_offset()),
        TimePart::DayOfYear => i64::from(t.day_of_year()) - 1,
        TimePart::Hours => i64::from(t.hour()),
        TimePart::Minutes => i64::from(t.minute()),
        TimePart::Seconds => i64::from(t.second()),
        TimePart::Milliseconds => i64::from(t.millisecond()),
    }))
}

/// CEL gives hours, minutes and seconds of a duration as its whole length in that unit.
fn duration_part(span: Span, part: TimePart) -> Option<Value> {
    Some(Value::Int(match part {
        TimePart::Hours => span.0 / 3_600_000_000,
        TimePart::Minutes => span.0 / 60_000_000,
        TimePart::Seconds => span.0 / 1_000_000,
        TimePart::Milliseconds => span.0 / 1_000 % 1_000,
        _ => return None,
    }))
}
