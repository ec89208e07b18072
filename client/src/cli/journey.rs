//! `journey`: check and try texts offline; publish and look at them on a server.

use super::exit::{Exit, Trouble};
use super::report::Report;
use super::table::{Align, Table};
use super::{ActorArgs, GlobalOpts, Say, json, show};
use crate::journeys::Deactivation;
use serde_json::{Value, json};
use sojourn_journey::compile::{Checked, Journey, Known};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::problem::{Problem, Severity};
use sojourn_journey::{graph, testfile};
use sojourn_proto::v1;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `sojourn journey …`.
#[derive(Debug, clap::Subcommand)]
pub enum JourneyCommand {
    /// Check the text of journeys, offline
    Lint(FilesArgs),
    /// Run test files of journeys, offline, in virtual time
    Test(TestArgs),
    /// Make a text a version, live for new executions
    Publish(PublishArgs),
    /// List all journeys
    List,
    /// Show a journey and its text
    Show(ShowArgs),
    /// Draw a journey, from a file (offline) or by its name
    Graph(GraphArgs),
    /// Where people are, how they ended, how long they stayed
    Report(ReportArgs),
    /// Let a deactivated journey go on
    Activate(ActivateArgs),
    /// Take a journey out of use
    Deactivate(DeactivateArgs),
}

/// Files of journeys.
#[derive(Debug, clap::Args)]
pub struct FilesArgs {
    /// Journeys, YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// `sojourn journey test FILE…`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Test files; X.test.yaml tests X.yaml, or else journey.yaml, in the same folder
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The journey that they test
    #[arg(long, value_name = "FILE")]
    journey: Option<PathBuf>,
}

/// `sojourn journey publish FILE`.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// The journey, YAML or JSON
    file: PathBuf,
    #[command(flatten)]
    by: ActorArgs,
}

/// `sojourn journey show NAME`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The journey
    name: String,
    /// Which version [default: the live one]
    #[arg(long, value_name = "N")]
    version: Option<u32>,
}

/// `sojourn journey graph FILE|NAME`.
#[derive(Debug, clap::Args)]
pub struct GraphArgs {
    /// A file, or the name of a published journey
    #[arg(value_name = "FILE|NAME")]
    journey: String,
    /// For which program
    #[arg(long, default_value = "mermaid")]
    format: GraphFormat,
}

/// What draws a graph.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum GraphFormat {
    /// Mermaid
    Mermaid,
    /// Graphviz
    Dot,
}

/// `sojourn journey report NAME`.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// The journey
    name: String,
    /// Which version [default: all]
    #[arg(long, value_name = "N")]
    version: Option<u32>,
}

/// `sojourn journey activate NAME`.
#[derive(Debug, clap::Args)]
pub struct ActivateArgs {
    /// The journey
    name: String,
    #[command(flatten)]
    by: ActorArgs,
}

/// `sojourn journey deactivate NAME --mode MODE`.
#[derive(Debug, clap::Args)]
pub struct DeactivateArgs {
    /// The journey
    name: String,
    /// What becomes of those inside
    #[arg(long)]
    mode: Mode,
    #[command(flatten)]
    by: ActorArgs,
}

/// What becomes of those inside.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Mode {
    /// Nothing moves, signals wait, timers fire when it is activated again
    Hold,
    /// They are stopped
    Drop,
    /// Closed to entry; those inside finish
    Drain,
}

pub(super) async fn run(
    command: JourneyCommand,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    match command {
        JourneyCommand::Lint(args) => lint(&args, say),
        JourneyCommand::Test(args) => test(&args, say),
        JourneyCommand::Publish(args) => publish(&args, global, say).await,
        JourneyCommand::List => list(global, say).await,
        JourneyCommand::Show(args) => {
            let answer = global
                .client()
                .await?
                .journey(&args.name, args.version)
                .await
                .map_err(Trouble::reading)?;
            if say.json() {
                let mut value = answer
                    .journey
                    .as_ref()
                    .map_or_else(|| json!({}), json::journey);
                value["version"] = answer.version.into();
                value["text"] = answer.text.into();
                say.value(&value);
            } else {
                let info = answer.journey.unwrap_or_default();
                say.talk(format_args!(
                    "{} version {} ({}, {} active, live version {})",
                    info.name,
                    answer.version,
                    show::journey_state(info.state),
                    show::count(info.active),
                    info.live_version
                ));
                say.data(answer.text.trim_end());
            }
            Ok(Exit::Done)
        }
        JourneyCommand::Graph(args) => graph(&args, global, say).await,
        JourneyCommand::Report(args) => {
            let answer = global
                .client()
                .await?
                .report(&args.name, args.version)
                .await
                .map_err(Trouble::reading)?;
            let report = Report::of_wire(answer);
            if say.json() {
                say.value(&report.json());
            } else {
                say.data(report.text());
            }
            Ok(Exit::Done)
        }
        JourneyCommand::Activate(args) => {
            let info = global
                .client()
                .await?
                .activate(&args.name, args.by.name())
                .await?;
            state(&info, say);
            Ok(Exit::Done)
        }
        JourneyCommand::Deactivate(args) => {
            let mode = match args.mode {
                Mode::Hold => Deactivation::Hold,
                Mode::Drop => Deactivation::Drop,
                Mode::Drain => Deactivation::Drain,
            };
            let info = global
                .client()
                .await?
                .deactivate(&args.name, mode, args.by.name())
                .await?;
            state(&info, say);
            Ok(Exit::Done)
        }
    }
}

fn state(info: &v1::JourneyInfo, say: &mut Say) {
    if say.json() {
        say.value(&json::journey(info));
    } else {
        say.data(format_args!(
            "{} is {}, {} active",
            info.name,
            show::journey_state(info.state),
            show::count(info.active)
        ));
    }
}

/// Reads and compiles a file; what is wrong with it is said, and `None` returned.
pub(super) fn compile(path: &Path, say: &mut Say) -> Result<Option<Arc<Compiled>>, Trouble> {
    let (checked, problems) = check(path)?;
    tell(path, &problems, say);
    Ok(checked.map(Arc::new))
}

fn read(path: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(path)
        .map_err(|e| Trouble::no(format!("{} cannot be read: {e}", path.display())))
}

fn check(path: &Path) -> Result<(Option<Compiled>, Vec<Problem>), Trouble> {
    let text = read(path)?;
    Ok(match Journey::compile(&text, &Known::default()) {
        Ok(Checked { compiled, warnings }) => (Some(compiled), warnings),
        Err(problems) => (None, problems),
    })
}

/// Problems as talk.
fn tell(path: &Path, problems: &[Problem], say: &mut Say) {
    for problem in problems {
        say.talk(line(path, problem));
    }
}

/// `loan.yaml:12:5: error: stages[2].to: no such stage` and, below it, what to do.
fn line(path: &Path, p: &Problem) -> String {
    let severity = match p.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    located(
        &path.display().to_string(),
        p.line,
        p.column,
        severity,
        &p.path,
        &p.message,
        p.help.as_deref(),
    )
}

fn located(
    file: &str,
    line: u32,
    column: u32,
    severity: &str,
    path: &str,
    message: &str,
    help: Option<&str>,
) -> String {
    let path = if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    };
    let help = help
        .filter(|h| !h.is_empty())
        .map(|h| format!("\n    help: {h}"))
        .unwrap_or_default();
    format!("{file}:{line}:{column}: {severity}: {path}{message}{help}")
}

fn lint(args: &FilesArgs, say: &mut Say) -> Result<Exit, Trouble> {
    let mut exit = Exit::Done;
    let mut files = Vec::new();
    for path in &args.files {
        let (compiled, problems) = check(path)?;
        if compiled.is_none() {
            exit = Exit::No;
        }
        if say.json() {
            files.push(json!({
                "file": path.display().to_string(),
                "journey": compiled.as_ref().map(|c| c.name.as_str()),
                "valid": compiled.is_some(),
                "problems": problems.iter().map(problem_json).collect::<Vec<_>>(),
            }));
            continue;
        }
        for problem in &problems {
            say.data(line(path, problem));
        }
        match compiled {
            Some(c) => say.talk(format_args!(
                "{}: journey {} can be published: {} stages, {}",
                path.display(),
                c.name,
                c.stages.len(),
                count_of(problems.len(), "warning")
            )),
            None => {
                let errors = problems
                    .iter()
                    .filter(|p| p.severity == Severity::Error)
                    .count();
                say.talk(format_args!(
                    "{}: it cannot be published: {}",
                    path.display(),
                    count_of(errors, "error")
                ));
            }
        }
    }
    if say.json() {
        say.value(&Value::from(files));
    }
    Ok(exit)
}

fn count_of(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

fn problem_json(p: &Problem) -> Value {
    json!({
        "path": p.path, "line": p.line, "column": p.column, "message": p.message, "help": p.help,
        "warning": p.severity == Severity::Warning,
    })
}

/// The journey that a test file tests, by the names.
fn tested(file: &Path) -> Result<PathBuf, Trouble> {
    let name = file
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = [".test.yaml", ".test.yml", ".test.json"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending));
    let mut tried = Vec::new();
    for stem in stem.into_iter().chain(["journey"]) {
        for ending in ["yaml", "yml", "json"] {
            let candidate = file.with_file_name(format!("{stem}.{ending}"));
            if candidate != file && candidate.is_file() {
                return Ok(candidate);
            }
        }
        tried.push(
            file.with_file_name(format!("{stem}.yaml"))
                .display()
                .to_string(),
        );
    }
    Err(Trouble::usage(format!(
        "{}: which journey does it test? found no {}; name it with --journey FILE",
        file.display(),
        tried.join(" and no ")
    )))
}

fn test(args: &TestArgs, say: &mut Say) -> Result<Exit, Trouble> {
    let mut exit = Exit::Done;
    let mut files = Vec::new();
    let (mut passed, mut failed) = (0_usize, 0_usize);
    for path in &args.files {
        let journey = match &args.journey {
            Some(journey) => journey.clone(),
            None => tested(path)?,
        };
        let Some(compiled) = compile(&journey, say)? else {
            return Err(Trouble::no(format!(
                "{}: the journey has errors, so nothing was tested",
                journey.display()
            )));
        };
        let report =
            testfile::run(&read(path)?, &compiled).map_err(|p| Trouble::no(line(path, &p)))?;
        if !report.passed() {
            exit = Exit::No;
        }
        let mut tests = Vec::new();
        for test in &report.tests {
            let ok = test.failures.is_empty();
            if ok {
                passed += 1;
            } else {
                failed += 1;
            }
            if say.json() {
                let failures: Vec<Value> = test
                    .failures
                    .iter()
                    .map(|f| json!({ "step": f.step, "line": f.line, "message": f.message }))
                    .collect();
                tests.push(json!({
                    "test": test.name, "line": test.line, "steps": test.steps, "passed": ok, "failures": failures,
                }));
                continue;
            }
            let word = if ok { "passed" } else { "FAILED" };
            say.data(format_args!(
                "{word}  {} ({})",
                test.name,
                count_of(test.steps, "step")
            ));
            for failure in &test.failures {
                say.data(format_args!(
                    "    {}:{}: step {}: {}",
                    path.display(),
                    failure.line,
                    failure.step,
                    failure.message
                ));
            }
        }
        files.push(
            json!({ "file": path.display().to_string(), "journey": compiled.name, "tests": tests }),
        );
    }
    if say.json() {
        say.value(&json!({ "passed": passed, "failed": failed, "files": files }));
    } else {
        say.talk(format_args!("{passed} passed, {failed} failed"));
    }
    Ok(exit)
}

async fn publish(args: &PublishArgs, global: &GlobalOpts, say: &mut Say) -> Result<Exit, Trouble> {
    let text = read(&args.file)?;
    let client = global.client().await?;
    let file = args.file.display().to_string();
    // validated first: the answer of a publish that is refused has no lines and columns
    let checked = client.validate(&text).await.map_err(Trouble::reading)?;
    for p in &checked.problems {
        let severity = if p.warning { "warning" } else { "error" };
        say.talk(located(
            &file,
            p.line,
            p.column,
            severity,
            &p.path,
            &p.message,
            Some(&p.help),
        ));
    }
    if !checked.valid {
        if say.json() {
            let problems: Vec<Value> = checked.problems.iter().map(json::problem).collect();
            say.value(&json!({ "published": false, "problems": problems }));
        }
        return Err(Trouble::no(format!(
            "{file}: it was not published, the problems stand above"
        )));
    }
    let answer = client.publish(&text, args.by.name()).await?;
    if say.json() {
        let lagging: Vec<Value> = answer
            .lagging
            .iter()
            .map(|l| json!({ "shard": l.shard, "why": l.why }))
            .collect();
        say.value(&json!({
            "published": true, "journey": answer.journey, "version": answer.version, "unchanged": answer.unchanged,
            "live": answer.live, "lagging": lagging,
            "problems": answer.problems.iter().map(json::problem).collect::<Vec<_>>(),
        }));
    } else {
        let how = match (answer.unchanged, answer.live) {
            (true, _) => "was live already",
            (false, true) => "is live",
            (false, false) => "is published, and not yet live everywhere",
        };
        say.data(format_args!(
            "{} version {} {how}",
            answer.journey, answer.version
        ));
        for lag in &answer.lagging {
            say.talk(format_args!(
                "shard {} does not decide with it yet: {}",
                lag.shard, lag.why
            ));
        }
    }
    Ok(Exit::Done)
}

async fn list(global: &GlobalOpts, say: &mut Say) -> Result<Exit, Trouble> {
    let journeys = global
        .client()
        .await?
        .journeys()
        .await
        .map_err(Trouble::reading)?;
    if say.json() {
        say.value(&journeys.iter().map(json::journey).collect());
    } else if journeys.is_empty() {
        say.talk("no journeys; publish one with `sojourn journey publish FILE`");
    } else {
        let mut table = Table::new(&[
            ("journey", Align::Left),
            ("title", Align::Left),
            ("state", Align::Left),
            ("live", Align::Right),
            ("active", Align::Right),
        ]);
        for info in &journeys {
            table.row([
                info.name.clone(),
                info.title.clone(),
                show::journey_state(info.state).to_owned(),
                info.live_version.to_string(),
                show::count(info.active),
            ]);
        }
        say.data(table);
    }
    Ok(Exit::Done)
}

async fn graph(args: &GraphArgs, global: &GlobalOpts, say: &mut Say) -> Result<Exit, Trouble> {
    let path = Path::new(&args.journey);
    // names are slugs: what has a dot or a slash in it can only be a file
    let compiled = if path.is_file() || args.journey.contains(['.', '/']) {
        match compile(path, say)? {
            Some(compiled) => compiled,
            None => {
                return Err(Trouble::no(format!(
                    "{}: it has errors and cannot be drawn",
                    path.display()
                )));
            }
        }
    } else {
        let answer = global
            .client()
            .await?
            .journey(&args.journey, None)
            .await
            .map_err(Trouble::reading)?;
        match Journey::compile(&answer.text, &Known::default()) {
            Ok(checked) => Arc::new(checked.compiled),
            Err(_) => {
                let text = format!(
                    "{} cannot be read by this program; is the server newer?",
                    args.journey
                );
                return Err(Trouble::new(Exit::Bug, text));
            }
        }
    };
    let drawing = match args.format {
        GraphFormat::Mermaid => graph::mermaid(&compiled),
        GraphFormat::Dot => graph::graphviz(&compiled),
    };
    if say.json() {
        say.value(&json!({ "journey": compiled.name, "graph": drawing }));
    } else {
        say.data(drawing.trim_end());
    }
    Ok(Exit::Done)
}
