//! `simulate`: journeys over a file of signals, offline, in virtual time. The same rules as a server's, the same files
//! and mapping as `signal import`, the same report as `journey report`.

use super::exit::{Exit, Trouble};
use super::import::summary::{Failed, Summary};
use super::mapping::MappingArgs;
use super::report::{Flow, Outcome, Report, Stage};
use super::{GlobalOpts, Say, args, journey, show};
use crate::input::{Reader, RowError};
use crate::receipt::strongest;
use crate::signal::Signal;
use jiff::Timestamp;
use sojourn_journey::event::What;
use sojourn_journey::execution::Status;
use sojourn_journey::report as rules;
use sojourn_journey::signal as theirs;
use sojourn_journey::simulate::Simulation;
use sojourn_journey::time::Time;
use sojourn_journey::value::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `sojourn simulate JOURNEY… --input FILE`.
#[derive(Debug, clap::Args)]
pub struct SimulateArgs {
    /// Journeys, YAML or JSON
    #[arg(required = true, value_name = "JOURNEY")]
    journeys: Vec<PathBuf>,
    /// The signals: CSV or JSON Lines of CloudEvents, as for `signal import`; several are read one after the other
    #[arg(long, required = true, value_name = "FILE")]
    input: Vec<PathBuf>,
    #[command(flatten)]
    mapping: MappingArgs,
    /// Let time go on to here after the last signal
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    until: Option<Timestamp>,
    /// Take the signals in the order of the file instead of by their times
    #[arg(long)]
    file_order: bool,
}

/// What is counted beside the rules' own report.
#[derive(Default)]
struct Counted {
    reports: BTreeMap<String, rules::Report>,
    ends: BTreeMap<(String, Status, String, String), u64>,
    flows: BTreeMap<(String, String, String), u64>,
    overrides: BTreeMap<String, u64>,
    incidents: BTreeMap<String, u64>,
}

pub(super) fn run(
    args: &SimulateArgs,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let mapping = args.mapping.mapping()?;
    let mut compiled = Vec::new();
    let mut bad = Vec::new();
    for path in &args.journeys {
        match journey::compile(path, say)? {
            Some(journey) => compiled.push(journey),
            None => bad.push(path.display().to_string()),
        }
    }
    if !bad.is_empty() {
        return Err(Trouble::no(format!(
            "{}: it has errors, so nothing was simulated",
            bad.join(", ")
        )));
    }
    let mut summary = Summary::default();
    let signals = read(args, &mapping, &mut summary)?;
    if let Some(text) = timeless(&signals) {
        say.talk(format_args!("warning: {text}"));
    }
    let counted = RefCell::new(Counted::default());
    for journey in &compiled {
        counted
            .borrow_mut()
            .reports
            .insert(journey.name.clone(), rules::Report::new(journey));
    }
    let ends: BTreeMap<&str, Vec<&str>> = compiled
        .iter()
        .map(|c| {
            let ends = c
                .stages
                .iter()
                .filter(|s| s.end.is_some())
                .map(|s| s.name.as_str());
            (c.name.as_str(), ends.collect())
        })
        .collect();
    let mut simulation = Simulation::new(compiled.iter().cloned(), &global.workspace);
    simulation.watch(|happened| {
        let counted = &mut *counted.borrow_mut();
        let journey = &happened.key.journey;
        if let Some(report) = counted.reports.get_mut(journey) {
            report.observe(happened.before, happened.event);
        }
        match &happened.event.what {
            What::Moved {
                from, to, cause, ..
            } => {
                *counted
                    .flows
                    .entry((journey.clone(), from.clone(), to.clone()))
                    .or_default() += 1;
                if matches!(cause, sojourn_journey::event::Cause::Override(_)) {
                    *counted.overrides.entry(journey.clone()).or_default() += 1;
                }
            }
            What::Ended {
                status, outcome, ..
            } => {
                let stage = happened
                    .before
                    .map(|b| b.visit.stage.clone())
                    .unwrap_or_default();
                let key = (
                    journey.clone(),
                    *status,
                    outcome.clone().unwrap_or_default(),
                    stage,
                );
                *counted.ends.entry(key).or_default() += 1;
            }
            What::Incident { .. } => *counted.incidents.entry(journey.clone()).or_default() += 1,
            _ => {}
        }
    });
    for signal in &signals {
        let outcome = simulation.signal(signal);
        let first = strongest(outcome.parts.iter().map(|p| p.fate.word())).unwrap_or("no_match");
        summary.done(
            if outcome.duplicate {
                "duplicate"
            } else {
                first
            },
            first,
        );
    }
    if let Some(until) = args.until {
        let until = Time(until.as_microsecond());
        if simulation.clock().is_some_and(|clock| until < clock) {
            return Err(Trouble::usage(
                "--until is before the time of the last signal",
            ));
        }
        simulation.advance(until);
    }
    for trouble in simulation.troubles() {
        say.talk(format_args!("warning: {trouble}"));
    }
    let troubled = !simulation.troubles().is_empty();
    let actions = simulation.actions().len();
    let clock = simulation.clock();
    drop(simulation);
    let counted = counted.into_inner();
    let reports: Vec<Report> = counted
        .reports
        .values()
        .map(|r| shaped(r, &counted, ends.get(r.journey.as_str())))
        .collect();
    if say.json() {
        let mut value = summary.json();
        value["reports"] = reports.iter().map(Report::json).collect();
        value["actions"] = actions.into();
        value["clock"] = super::json::time(clock.map(|c| c.0));
        say.value(&value);
    } else {
        for report in &reports {
            say.data(format_args!("{}\n", report.text()));
        }
        say.data(summary.text());
        say.talk(format_args!(
            "the clock stands at {}; {} actions would have been done",
            show::time(clock.map(|c| c.0)),
            show::count(actions as u64)
        ));
    }
    Ok(if summary.failures() > 0 || troubled {
        Exit::No
    } else {
        Exit::Done
    })
}

/// All signals of all files, in the order in which they are taken.
fn read(
    args: &SimulateArgs,
    mapping: &crate::input::Mapping,
    summary: &mut Summary,
) -> Result<Vec<theirs::Signal>, Trouble> {
    let mut signals = Vec::new();
    for path in &args.input {
        let mut reader = Reader::open(path, mapping)?;
        while let Some(row) = reader
            .next_row()
            .map_err(|e| Trouble::no(format!("{}: {e}", path.display())))?
        {
            match row.signal.and_then(|s| converted(&s)) {
                Ok(signal) => signals.push(signal),
                Err(error) => summary.failed(Failed {
                    row: row.number,
                    line: row.line,
                    column: error.column,
                    message: error.message,
                }),
            }
        }
    }
    if !args.file_order {
        // stable: equal times keep the order of the file; a signal without a time happens when the one before it did
        let mut last = Time(i64::MIN);
        let mut timed: Vec<(Time, theirs::Signal)> = signals
            .into_iter()
            .map(|s| {
                last = s.time.unwrap_or(last);
                (last, s)
            })
            .collect();
        timed.sort_by_key(|(time, _)| *time);
        signals = timed.into_iter().map(|(_, s)| s).collect();
    }
    Ok(signals)
}

/// What clock there is where signals bear no time; nothing to say where all do.
fn timeless(signals: &[theirs::Signal]) -> Option<String> {
    let without = signals.iter().filter(|s| s.time.is_none()).count();
    if without == 0 {
        return None;
    }
    const HELP: &str = "the column is named with --time COLUMN";
    Some(if without == signals.len() {
        format!(
            "no signal bears a time, so the clock stands still at {}, and no time passes between them; {HELP}",
            Time::default()
        )
    } else {
        format!(
            "{} of {} signals bear no time: each is taken at the time of the one before it; {HELP}",
            show::count(without as u64),
            show::count(signals.len() as u64)
        )
    })
}

/// A signal as the rules see it, checked as a server would.
fn converted(signal: &Signal) -> Result<theirs::Signal, RowError> {
    let wire = &signal.wire;
    let wrong = |column: &str, message: String| RowError {
        column: column.to_owned(),
        message,
    };
    let object = |column: &str, json: &[u8]| -> Result<BTreeMap<String, Value>, RowError> {
        if json.is_empty() {
            return Ok(BTreeMap::new());
        }
        match Value::from_json(json) {
            Ok(Value::Map(map)) => Ok(map),
            Ok(_) => Err(wrong(column, "it is no object".to_owned())),
            Err(e) => Err(wrong(column, e)),
        }
    };
    let signal = theirs::Signal {
        id: wire.id.clone(),
        source: wire.source.clone(),
        kind: wire.r#type.clone(),
        time: wire.time.map(Time),
        identifiers: wire
            .identifiers
            .iter()
            .map(|i| theirs::Identifier::new(&i.name, &i.value).map_err(|e| wrong(&i.name, e)))
            .collect::<Result<Vec<_>, _>>()?,
        data: object("data", &wire.data)?,
        attributes: object("attributes", &wire.attributes)?,
    };
    signal.check().map_err(|problems| {
        problems.into_iter().next().map_or_else(
            || wrong("", "it is not valid".to_owned()),
            |(field, message)| wrong(field, message),
        )
    })?;
    Ok(signal)
}

/// The rules' report in the shape of a server's.
fn shaped(report: &rules::Report, counted: &Counted, ends: Option<&Vec<&str>>) -> Report {
    let is_end = |stage: &str| ends.is_some_and(|ends| ends.contains(&stage));
    let of = |map: &BTreeMap<String, u64>| map.get(&report.journey).copied().unwrap_or_default();
    Report {
        journey: report.journey.clone(),
        started: report.started,
        active: report.stages.iter().map(|s| s.people).sum(),
        moves: report.moves,
        stages: report
            .stages
            .iter()
            .map(|s| Stage {
                stage: s.stage.clone(),
                // as a server counts: in an end are those who reached it
                here: if is_end(&s.stage) {
                    s.people + s.ended
                } else {
                    s.people
                },
                entered: s.visits,
                completed: s.time.count() as u64,
                mean: s.time.mean(),
                median: s.time.median(),
                p90: s.time.quantile(0.9),
                end: is_end(&s.stage),
            })
            .collect(),
        outcomes: counted
            .ends
            .iter()
            .filter(|((journey, ..), _)| *journey == report.journey)
            .map(|((_, status, outcome, stage), count)| Outcome {
                status: status_word(*status).to_owned(),
                outcome: outcome.clone(),
                stage: stage.clone(),
                count: *count,
            })
            .collect(),
        flows: counted
            .flows
            .iter()
            .filter(|((journey, ..), _)| *journey == report.journey)
            .map(|((_, from, to), count)| Flow {
                from: from.clone(),
                to: to.clone(),
                count: *count,
            })
            .collect(),
        overrides: of(&counted.overrides),
        incidents: of(&counted.incidents),
    }
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Held => "held",
        Status::Completed => "completed",
        Status::Exited => "exited",
        Status::Expired => "expired",
        Status::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clock_there_is_without_times_is_said() {
        let signal = |time: Option<i64>| theirs::Signal {
            id: "1".to_owned(),
            source: "test".to_owned(),
            kind: "a.b".to_owned(),
            time: time.map(Time),
            identifiers: Vec::new(),
            data: BTreeMap::new(),
            attributes: BTreeMap::new(),
        };
        assert_eq!(timeless(&[]), None);
        assert_eq!(timeless(&[signal(Some(7))]), None);
        let all = timeless(&[signal(None), signal(None)]).unwrap_or_default();
        assert!(
            all.contains("stands still at 1970-01-01T00:00:00Z"),
            "{all}"
        );
        let some = timeless(&[signal(Some(7)), signal(None)]).unwrap_or_default();
        assert!(some.starts_with("1 of 2 signals bear no time"), "{some}");
    }
}
