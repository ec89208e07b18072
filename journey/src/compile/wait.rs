//! Waits: from how they are written to what can be computed.

use super::Builder;
use crate::definition::{Calendar, Count, Place, Prose, Span};
use crate::wait::{self, Kind, Open, Wait};
use jiff::civil;
use std::collections::BTreeSet;

/// The forms of a wait that is a map: the keys that make it, and those that go with it.
const FORMS: &str = "one of: days, weeks, months, years; date; field; business";

impl Builder<'_> {
    /// A wait in any form.
    pub(super) fn wait(&mut self, span: &Span) -> Option<Wait> {
        match span {
            Span::Exact(text) => {
                let kind = self.exact(text)?;
                if kind.0 < 0 {
                    self.problems.error(
                        &text.place,
                        format!("the wait `{}` lies in the past", text.text),
                    );
                    return None;
                }
                Some(Wait {
                    source: text.text.clone(),
                    kind: Kind::Exact(kind),
                })
            }
            Span::Calendar(calendar) => {
                let before = self.problems.count();
                let kind = self.calendar(calendar)?;
                (self.problems.count() == before).then(|| Wait {
                    source: source(calendar),
                    kind,
                })
            }
        }
    }

    pub(super) fn optional_wait(&mut self, span: Option<&Span>) -> Option<Option<Wait>> {
        match span {
            Some(span) => self.wait(span).map(Some),
            None => Some(None),
        }
    }

    /// An exact span that is not nothing, for rhythms.
    pub(super) fn rhythm(&mut self, span: &Span) -> Option<Wait> {
        let wait = self.wait(span)?;
        let refused = match wait.kind {
            Kind::Exact(span) if span.0 <= 0 => "a rhythm must be at least a second",
            Kind::Point(_) | Kind::Field { .. } => "a point in time is no rhythm; expected a span",
            _ => return Some(wait),
        };
        self.problems.error(span.place(), refused);
        None
    }

    pub(super) fn exact(&mut self, text: &Prose) -> Option<crate::time::Span> {
        match wait::exact(&text.text) {
            Ok(span) => Some(span),
            Err(error) => {
                self.problems.error(&text.place, error);
                None
            }
        }
    }

    fn calendar(&mut self, c: &Calendar) -> Option<Kind> {
        let zone = self
            .read(c.zone.as_ref(), wait::zone)
            .unwrap_or(jiff::tz::TimeZone::UTC);
        let at = self.read(c.at.as_ref(), clock);
        let spans = [&c.days, &c.weeks, &c.months, &c.years]
            .iter()
            .any(|s| s.is_some());
        let forms = [
            spans,
            c.date.is_some(),
            c.field.is_some(),
            c.business.is_some(),
        ];
        let forms = forms.iter().filter(|form| **form).count();
        if forms == 0 && self.problems.told_below(&c.place.path) {
            // what was to make it could not be read
            return None;
        }
        if forms != 1 {
            self.problems
                .error(&c.place, format!("a wait that is a map has {FORMS}"));
            return None;
        }
        let business_only = c.hours.is_some() || c.weekdays.is_some() || c.holidays.is_some();
        if business_only && c.business.is_none() {
            self.problems.error(
                &c.place,
                "`hours`, `weekdays` and `holidays` go with `business` only",
            );
        }
        if c.offset.is_some() && c.field.is_none() {
            self.problems
                .error(&c.place, "`offset` goes with `field` only");
        }
        if c.at.is_some() && c.business.is_some() {
            self.problems
                .error(&c.place, "`at` does not go with `business`");
        }
        if let Some(date) = &c.date {
            let date = self.read(Some(date), date_of)?;
            let local =
                jiff::civil::DateTime::from_parts(date, at.unwrap_or(civil::Time::midnight()));
            return self.point(local, &zone, &c.place);
        }
        if let Some(field) = &c.field {
            let offset = match &c.offset {
                Some(offset) => self.exact(offset)?,
                None => crate::time::Span(0),
            };
            return Some(Kind::Field {
                field: self.expression(field)?,
                offset,
                at,
                zone,
            });
        }
        if let Some(business) = &c.business {
            let span = self.exact(business)?;
            if span.0 < 0 || span > wait::LONGEST_BUSINESS {
                self.problems.error(
                    &business.place,
                    "business time must be between nothing and 10000 hours",
                );
                return None;
            }
            return Some(Kind::Business {
                span,
                open: self.open(c, zone)?,
            });
        }
        let number = |count: &Option<Count>| i64::from(count.as_ref().map_or(0, |c| c.number));
        let span = jiff::Span::new()
            .try_days(number(&c.days))
            .and_then(|s| s.try_weeks(number(&c.weeks)))
            .and_then(|s| s.try_months(number(&c.months)))
            .and_then(|s| s.try_years(number(&c.years)));
        match span {
            Ok(span) => Some(Kind::Calendar { span, at, zone }),
            Err(_) => {
                self.problems.error(
                    &c.place,
                    "the span is beyond the calendar (years -9999 to 9999)",
                );
                None
            }
        }
    }

    fn point(
        &mut self,
        local: civil::DateTime,
        zone: &jiff::tz::TimeZone,
        place: &Place,
    ) -> Option<Kind> {
        match wait::instant(local, zone) {
            Ok(time) => Some(Kind::Point(time)),
            Err(_) => {
                self.problems.error(
                    place,
                    "the date is beyond the calendar (years -9999 to 9999)",
                );
                None
            }
        }
    }

    fn open(&mut self, c: &Calendar, zone: jiff::tz::TimeZone) -> Option<Open> {
        let hours = self.read(c.hours.as_ref(), open_hours);
        let (from, to) = hours.unwrap_or((civil::time(9, 0, 0, 0), civil::time(17, 0, 0, 0)));
        let mut weekdays = [true, true, true, true, true, false, false];
        if let Some(names) = &c.weekdays {
            weekdays = [false; 7];
            for name in names {
                if let Some(day) = self.read(Some(name), weekday) {
                    weekdays[day] = true;
                }
            }
        }
        if !weekdays.contains(&true) {
            self.problems
                .error(&c.place, "business is never open: `weekdays` names no day");
            return None;
        }
        let mut holidays = BTreeSet::new();
        for day in super::listed(c.holidays.as_ref()) {
            holidays.extend(self.read(Some(day), date_of));
        }
        Some(Open {
            from,
            to,
            weekdays,
            holidays,
            zone,
        })
    }

    /// Reads a text with a reader of its own, noting what it says against it.
    fn read<T>(
        &mut self,
        text: Option<&Prose>,
        reader: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = text?;
        match reader(&text.text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.error(&text.place, error);
                None
            }
        }
    }
}

fn date_of(text: &str) -> Result<civil::Date, String> {
    text.parse().map_err(|_| {
        format!(
            "`{}` is no date; expected one like 2026-12-24",
            crate::problem::short(text)
        )
    })
}

fn clock(text: &str) -> Result<civil::Time, String> {
    let refuse = || {
        format!(
            "`{}` is no time of the day; expected one like 09:00",
            crate::problem::short(text)
        )
    };
    let (hours, minutes) = text.split_once(':').ok_or_else(refuse)?;
    let number = |s: &str| s.parse::<i8>().ok().filter(|_| s.len() == 2);
    let (hours, minutes) = number(hours).zip(number(minutes)).ok_or_else(refuse)?;
    civil::Time::new(hours, minutes, 0, 0).map_err(|_| refuse())
}

fn open_hours(text: &str) -> Result<(civil::Time, civil::Time), String> {
    let refuse = || {
        format!(
            "`{}` are no opening hours; expected some like 09:00-17:00",
            crate::problem::short(text)
        )
    };
    let (from, to) = text.split_once('-').ok_or_else(refuse)?;
    let (from, to) = (clock(from.trim())?, clock(to.trim())?);
    if from < to {
        Ok((from, to))
    } else {
        Err(refuse())
    }
}

fn weekday(text: &str) -> Result<usize, String> {
    ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .iter()
        .position(|day| *day == text)
        .ok_or_else(|| {
            format!(
                "`{}` is no day of the week; expected mon, tue, wed, thu, fri, sat or sun",
                crate::problem::short(text)
            )
        })
}

/// A short text for people.
fn source(c: &Calendar) -> String {
    let mut parts = Vec::new();
    for (name, count) in [
        ("years", &c.years),
        ("months", &c.months),
        ("weeks", &c.weeks),
        ("days", &c.days),
    ] {
        parts.extend(
            count
                .as_ref()
                .map(|count| format!("{} {name}", count.number)),
        );
    }
    parts.extend(c.date.as_ref().map(|date| date.text.clone()));
    parts.extend(c.field.as_ref().map(|field| field.text.clone()));
    parts.extend(
        c.offset
            .as_ref()
            .map(|offset| format!("offset {}", offset.text)),
    );
    parts.extend(
        c.business
            .as_ref()
            .map(|business| format!("{} of business time", business.text)),
    );
    parts.extend(c.at.as_ref().map(|at| format!("at {}", at.text)));
    parts.extend(c.zone.as_ref().map(|zone| format!("in {}", zone.text)));
    parts.join(" ")
}
