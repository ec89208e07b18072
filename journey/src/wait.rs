//! Spans and points in time as a journey writes them: `3d`, one month in Amsterdam, a date, a field and an offset,
//! sixteen business hours. Knows no timers: it says when something is due. Time zones are those compiled into the
//! program, never the machine's, so that every node computes the same instants.

use crate::expr::{Base, Expression, Miss, Scope};
use crate::time::{Span, Time};
use crate::value::Value;
use jiff::civil::{self, Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The longest span that can be written: about a thousand years.
pub const LONGEST: Span = Span::from_seconds(366 * 1_000 * 86_400);

/// The most business time that can be waited for.
pub const LONGEST_BUSINESS: Span = Span::from_seconds(10_000 * 3_600);

/// Steps of open hours that are skipped one by one when a repeat is late; beyond it the rhythm starts anew.
const SKIPPED_ROUNDS: u32 = 10_000;

/// More rounds than a rhythm of a second has between the ends of the calendar.
const MOST_ROUNDS: i64 = 1 << 40;

/// A span or a point in time, ready to be computed.
#[derive(Debug)]
pub struct Wait {
    /// The text, as the author wrote it.
    pub source: String,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// Seconds to weeks, a day being 24 hours.
    Exact(Span),
    /// Days to years by the calendar of a zone.
    Calendar {
        span: jiff::Span,
        at: Option<civil::Time>,
        zone: TimeZone,
    },
    /// A fixed point.
    Point(Time),
    /// A time that an expression gives, and an offset.
    Field {
        field: Expression,
        offset: Span,
        at: Option<civil::Time>,
        zone: TimeZone,
    },
    /// Time that passes only while business is open.
    Business { span: Span, open: Open },
}

/// When business is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) from: civil::Time,
    pub(crate) to: civil::Time,
    /// Monday is 0.
    pub(crate) weekdays: [bool; 7],
    pub(crate) holidays: BTreeSet<Date>,
    pub(crate) zone: TimeZone,
}

impl Wait {
    /// When the wait is over that begins at `from`. The result may lie before `from`: it is due at once.
    ///
    /// # Errors
    /// When it needs a value that is unknown or is no time, or the result is beyond the calendar.
    pub fn due(&self, from: Time, base: &Base, scope: &Scope<'_>) -> Result<Time, Miss> {
        match &self.kind {
            Kind::Exact(span) => Ok(from.plus(*span)),
            Kind::Point(time) => Ok(*time),
            Kind::Calendar { span, at, zone } => calendar(from, *span, *at, zone),
            Kind::Field {
                field,
                offset,
                at,
                zone,
            } => {
                let value = field.eval(base, scope)?;
                let time = point(&value, zone).ok_or_else(|| {
                    Miss::Error(format!(
                        "`{}` is no time; expected a time like 2026-03-01T09:00:00Z or a date like 2026-03-01, found `{}`",
                        crate::problem::short(&field.source),
                        crate::problem::short(&value.to_text())
                    ))
                })?;
                let time = time.plus(*offset);
                match at {
                    Some(at) => instant(local(time, zone)?.date().to_datetime(*at), zone),
                    None => Ok(time),
                }
            }
            Kind::Business { span, open } => business(from, *span, open),
        }
    }

    /// The exact span, where it is one.
    pub fn exact(&self) -> Option<Span> {
        match self.kind {
            Kind::Exact(span) => Some(span),
            _ => None,
        }
    }

    /// Whether it asks about a built-in name.
    pub(crate) fn uses(&self, root: &str) -> bool {
        self.expression().is_some_and(|e| e.uses(root))
    }

    /// The first point of the rhythm that begins at `begin` which lies after `last`, its latest point, and after `now`.
    /// The n-th is `n` times the span from the begin, so that a month after 31 January and a night whose clocks skip an
    /// hour shift none of those that follow. Only time that business is open is counted on from `last`, which is the same.
    ///
    /// # Errors
    /// As [`Wait::due`]; and when the rhythm makes no step forward.
    pub fn next_in_rhythm(&self, begin: Time, last: Time, now: Time) -> Result<Time, Miss> {
        let nth = |n: i64| match &self.kind {
            Kind::Exact(span) => n
                .checked_mul(span.0)
                .and_then(|all| begin.0.checked_add(all))
                .map(Time)
                .ok_or_else(beyond),
            Kind::Calendar { span, at, zone } => {
                let all = span.checked_mul(n).map_err(|_| beyond())?;
                calendar(begin, all, *at, zone)
            }
            Kind::Business { span, open } => business_after(last, now, *span, open),
            Kind::Point(_) | Kind::Field { .. } => {
                Err(Miss::Error("a point in time is no rhythm".to_owned()))
            }
        };
        let from = last.max(now);
        // beyond the calendar is after it too
        let after = |n: i64| nth(n).map_or(true, |due| due > from);
        let mut high = 1;
        while high < MOST_ROUNDS && !after(high) {
            high *= 2;
        }
        let mut low = high / 2;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if after(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        let due = nth(high)?;
        if due > from {
            Ok(due)
        } else {
            Err(Miss::Error("it makes no step forward".to_owned()))
        }
    }

    /// The expression in it, if it has one.
    pub fn expression(&self) -> Option<&Expression> {
        match &self.kind {
            Kind::Field { field, .. } => Some(field),
            _ => None,
        }
    }
}

/// A value as a point in time: a time, RFC 3339 text, or a date (its first instant in the zone).
pub fn point(value: &Value, zone: &TimeZone) -> Option<Time> {
    match value {
        Value::Timestamp(time) => Some(*time),
        Value::String(text) => match Time::parse(text) {
            Ok(time) => Some(time),
            Err(_) => {
                let date: Date = text.parse().ok()?;
                instant(date.to_datetime(civil::Time::midnight()), zone).ok()
            }
        },
        _ => None,
    }
}

/// Reads an exact span: whole numbers with `s`, `m`, `h`, `d`, `w`, from large to small: `90s`, `1d12h`.
///
/// # Errors
/// When the text is no such span, or longer than [`LONGEST`].
pub fn exact(text: &str) -> Result<Span, String> {
    let refuse = |why: &str| {
        format!(
            "`{}` is no duration: {why}; expected a whole number with s, m, h, d or w, like `90s`, `3d`, `1d12h`",
            crate::problem::short(text)
        )
    };
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let mut total: i64 = 0;
    let mut last = i64::MAX;
    while !rest.is_empty() || last == i64::MAX {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        if digits == 0 {
            return Err(refuse("a number is missing"));
        }
        let unit = match rest[digits..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some(_) => return Err(refuse("the unit is not known")),
            None => return Err(refuse("the unit is missing")),
        };
        if unit >= last {
            return Err(refuse("units go from large to small, each once"));
        }
        last = unit;
        total = rest[..digits]
            .parse::<i64>()
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .and_then(|n| n.checked_add(total))
            .filter(|n| *n <= LONGEST.0 / 1_000_000)
            .ok_or_else(|| refuse("it is longer than a thousand years"))?;
        rest = &rest[digits + 1..];
    }
    Ok(Span::from_seconds(sign * total))
}

/// The time zone of a name, from the rules compiled into the program.
///
/// # Errors
/// When there is no zone of that name.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
    ZONES.get(name).map_err(|_| {
        format!(
            "`{}` is no time zone; expected a name like `Europe/Amsterdam` or `UTC`",
            crate::problem::short(name)
        )
    })
}

fn beyond() -> Miss {
    Miss::Error("the time is beyond the calendar (years -9999 to 9999)".to_owned())
}

fn local(time: Time, zone: &TimeZone) -> Result<DateTime, Miss> {
    let instant = jiff::Timestamp::from_microsecond(time.0).map_err(|_| beyond())?;
    Ok(zone.to_datetime(instant))
}

/// The instant of a local time: where clocks skip it, the next valid instant; where it comes twice, the first.
pub(crate) fn instant(local: DateTime, zone: &TimeZone) -> Result<Time, Miss> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let timestamp = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local),
        // read with the later offset the skipped time lies before the change: the change itself is the next instant
        AmbiguousOffset::Gap { after, .. } => after.to_timestamp(local).map(|before| {
            zone.following(before)
                .next()
                .map_or(before, |change| change.timestamp())
        }),
    };
    timestamp
        .map(|t| Time(t.as_microsecond()))
        .map_err(|_| beyond())
}

/// The instant that lies a calendar span after another.
fn calendar(
    from: Time,
    span: jiff::Span,
    at: Option<civil::Time>,
    zone: &TimeZone,
) -> Result<Time, Miss> {
    let local = local(from, zone)?;
    let date = local.date().checked_add(span).map_err(|_| beyond())?;
    instant(date.to_datetime(at.unwrap_or(local.time())), zone)
}

/// The first step of a rhythm of open hours, counted on from `last`, that lies after `now`.
fn business_after(last: Time, now: Time, span: Span, open: &Open) -> Result<Time, Miss> {
    let mut due = last;
    for _ in 0..SKIPPED_ROUNDS {
        let next = business(due, span, open)?;
        if next <= due {
            return Ok(due);
        }
        due = next;
        if due > now {
            return Ok(due);
        }
    }
    business(now, span, open)
}

/// When `span` of open hours has passed since `from`.
fn business(from: Time, span: Span, open: &Open) -> Result<Time, Miss> {
    let mut left = span.0;
    let mut date = local(from, &open.zone)?.date();
    // ten years of days: more closed days than that in a row is a calendar that never opens
    for _ in 0..3_660 + left / 3_600_000_000 {
        let weekday = date.weekday().to_monday_zero_offset();
        let works = usize::try_from(weekday).is_ok_and(|day| open.weekdays[day])
            && !open.holidays.contains(&date);
        if works {
            let start = instant(date.to_datetime(open.from), &open.zone)?.max(from);
            let end = instant(date.to_datetime(open.to), &open.zone)?;
            let available = end.since(start).0;
            if available > 0 && left <= available {
                return Ok(start.plus(Span(left)));
            }
            left -= available.max(0);
        }
        date = date.tomorrow().map_err(|_| beyond())?;
    }
    Err(Miss::Error("business is never open long enough".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::customer::Customer;
    use crate::signal::Identifier;
    use std::collections::BTreeMap;

    fn due(kind: Kind, from: &str) -> String {
        let customer = Customer {
            key: Identifier {
                name: "id".to_owned(),
                value: "1".to_owned(),
            },
            identifiers: vec![],
            attributes: BTreeMap::from([(
                "birthday".to_owned(),
                crate::customer::Attribute {
                    value: Value::String("2026-05-01".to_owned()),
                    occurred: Time(0),
                },
            )]),
            runs: vec![],
            forgotten: 0,
        };
        let from = Time::parse(from).unwrap();
        let scope = Scope {
            signal: None,
            customer: &customer,
            execution: None,
            now: from,
        };
        let wait = Wait {
            source: String::new(),
            kind,
        };
        match wait.due(from, &Base::default(), &scope) {
            Ok(time) => time.to_string(),
            Err(Miss::Unknown(paths)) => format!("unknown {}", paths.join(", ")),
            Err(Miss::Error(error)) => error,
        }
    }

    fn amsterdam() -> TimeZone {
        zone("Europe/Amsterdam").unwrap()
    }

    #[test]
    fn spans_are_read() {
        let cases: &[(&str, Result<i64, &str>)] = &[
            ("90s", Ok(90)),
            ("3d", Ok(259_200)),
            ("1w2d3h4m5s", Ok(604_800 + 172_800 + 10_800 + 240 + 5)),
            ("0s", Ok(0)),
            ("-3d", Ok(-259_200)),
            ("", Err("a number is missing")),
            ("-", Err("a number is missing")),
            ("3", Err("the unit is missing")),
            ("3 d", Err("the unit is not known")),
            ("d", Err("a number is missing")),
            ("3M", Err("the unit is not known")),
            ("3é", Err("the unit is not known")),
            ("1s1m", Err("from large to small")),
            ("1d1d", Err("from large to small")),
            ("1.5h", Err("the unit is not known")),
            ("999999999999w", Err("longer than a thousand years")),
            ("99999999999999999999s", Err("longer than a thousand years")),
        ];
        for (text, expected) in cases {
            match (exact(text), expected) {
                (Ok(span), Ok(seconds)) => assert_eq!(span, Span::from_seconds(*seconds), "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn calendar_spans_follow_the_zone() {
        let days = |n: i64, at: Option<(i8, i8)>| Kind::Calendar {
            span: jiff::Span::new().days(n),
            at: at.map(|(h, m)| civil::time(h, m, 0, 0)),
            zone: amsterdam(),
        };
        // clocks go from 02:00 to 03:00 on 2026-03-29, and back from 03:00 to 02:00 on 2026-10-25
        let cases = [
            (
                days(1, None),
                "2026-03-28T11:00:00Z",
                "2026-03-29T10:00:00Z",
            ),
            (
                days(1, None),
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:00:00Z",
            ),
            (
                days(1, None),
                "2026-10-24T00:30:00Z",
                "2026-10-25T00:30:00Z",
            ),
            (
                days(0, Some((9, 0))),
                "2026-07-01T20:00:00Z",
                "2026-07-01T07:00:00Z",
            ),
            (
                Kind::Calendar {
                    span: jiff::Span::new().months(1),
                    at: None,
                    zone: amsterdam(),
                },
                "2026-01-31T11:00:00Z",
                "2026-02-28T11:00:00Z",
            ),
        ];
        for (kind, from, expected) in cases {
            let name = format!("{kind:?} from {from}");
            assert_eq!(due(kind, from), expected, "{name}");
        }
    }

    #[test]
    fn fields_dates_and_business_hours() {
        let field = |text: &str, offset: &str, at: Option<i8>| Kind::Field {
            field: Expression::parse(text).unwrap(),
            offset: exact(offset).unwrap(),
            at: at.map(|h| civil::time(h, 0, 0, 0)),
            zone: amsterdam(),
        };
        let hours = |n: i64, holidays: &[(i16, i8, i8)]| Kind::Business {
            span: Span::from_seconds(n * 3_600),
            open: Open {
                from: civil::time(9, 0, 0, 0),
                to: civil::time(17, 0, 0, 0),
                weekdays: [true, true, true, true, true, false, false],
                holidays: holidays
                    .iter()
                    .map(|(y, m, d)| civil::date(*y, *m, *d))
                    .collect(),
                zone: amsterdam(),
            },
        };
        let cases = [
            (
                field("customer.birthday", "-3d", None),
                "2026-01-01T00:00:00Z",
                "2026-04-27T22:00:00Z",
            ),
            (
                field("customer.birthday", "-3d", Some(9)),
                "2026-01-01T00:00:00Z",
                "2026-04-28T07:00:00Z",
            ),
            (
                field("customer.wedding", "0s", None),
                "2026-01-01T00:00:00Z",
                "unknown customer.wedding",
            ),
            (
                field("timestamp(\"2026-06-01T12:00:00+02:00\")", "1h", None),
                "2026-01-01T00:00:00Z",
                "2026-06-01T11:00:00Z",
            ),
            // a Friday at 16:00 local, two hours: Monday at 10:00
            (
                hours(2, &[]),
                "2026-11-20T15:00:00Z",
                "2026-11-23T09:00:00Z",
            ),
            (
                hours(1, &[]),
                "2026-11-20T15:00:00Z",
                "2026-11-20T16:00:00Z",
            ),
            (
                hours(1, &[]),
                "2026-11-21T15:00:00Z",
                "2026-11-23T09:00:00Z",
            ),
            (
                hours(1, &[(2026, 11, 23)]),
                "2026-11-21T15:00:00Z",
                "2026-11-24T09:00:00Z",
            ),
            (
                hours(16, &[]),
                "2026-11-16T05:00:00Z",
                "2026-11-17T16:00:00Z",
            ),
            (
                Kind::Point(Time(0)),
                "2026-11-16T05:00:00Z",
                "1970-01-01T00:00:00Z",
            ),
        ];
        for (kind, from, expected) in cases {
            let name = format!("{kind:?} from {from}");
            assert_eq!(due(kind, from), expected, "{name}");
        }
    }
}
