//! `execution`: where customers are, why, and by hand.

mod text;

use super::exit::{Exit, Trouble};
use super::table::{Align, Table};
use super::{ActorArgs, GlobalOpts, Say, json, show};
use crate::executions::{Command, ExecutionRef, Filter, Read, Watched};
use crate::signal::Identifier;
use futures::StreamExt as _;
use sojourn_proto::v1;
use text::{entry_text, one, why_text};

/// `sojourn execution …`.
#[derive(Debug, clap::Subcommand)]
pub enum ExecutionCommand {
    /// List executions
    List(ListArgs),
    /// Show one execution
    Show(RefArgs),
    /// Show all that happened in an execution, or, with --customer alone, to a customer
    Timeline(TimelineArgs),
    /// Show what an execution waits for
    Why(RefArgs),
    /// Move an execution to a stage by hand
    Override(OverrideArgs),
    /// Hold an execution: nothing moves, signals wait
    Hold(CommandArgs),
    /// Let a held execution go on
    Resume(CommandArgs),
    /// End an execution by hand
    Stop(StopArgs),
    /// Try a failed action again
    Retry(RetryArgs),
    /// Settle a failed action that is not wanted any more
    Skip(SkipArgs),
    /// Show what happens from now on, until Ctrl-C
    Watch(WatchArgs),
}

/// Which execution.
#[derive(Debug, clap::Args)]
pub struct RefArgs {
    /// The execution's id
    #[arg(required_unless_present = "customer", conflicts_with_all = ["customer", "journey", "instance"])]
    id: Option<String>,
    /// Or the customer
    #[arg(long, value_name = "NAME=VALUE", requires = "journey")]
    customer: Option<Identifier>,
    /// and the journey: the latest run
    #[arg(long, value_name = "NAME", requires = "customer")]
    journey: Option<String>,
    /// and its instance key, where the journey has one
    #[arg(long, value_name = "KEY", requires = "customer")]
    instance: Option<String>,
}

impl RefArgs {
    fn reference(&self) -> Result<ExecutionRef, Trouble> {
        match (&self.id, &self.customer, &self.journey) {
            (Some(id), _, _) => Ok(ExecutionRef::Id(id.clone())),
            (None, Some(customer), Some(journey)) => Ok(ExecutionRef::Latest {
                customer: customer.clone(),
                journey: journey.clone(),
                instance: self.instance.clone(),
            }),
            _ => Err(Trouble::usage(
                "which execution? give its id, or --customer NAME=VALUE --journey NAME",
            )),
        }
    }
}

/// `sojourn execution timeline`.
#[derive(Debug, clap::Args)]
pub struct TimelineArgs {
    /// The execution's id
    #[arg(required_unless_present = "customer", conflicts_with_all = ["customer", "journey", "instance"])]
    id: Option<String>,
    /// Or the customer: all that concerns it
    #[arg(long, value_name = "NAME=VALUE")]
    customer: Option<Identifier>,
    /// or only what concerns the latest run of this journey
    #[arg(long, value_name = "NAME", requires = "customer")]
    journey: Option<String>,
    /// and its instance key, where the journey has one
    #[arg(long, value_name = "KEY", requires = "journey")]
    instance: Option<String>,
}

impl TimelineArgs {
    fn reference(self) -> Result<ExecutionRef, Trouble> {
        match (self.customer, self.journey) {
            (Some(customer), None) => Ok(ExecutionRef::Customer(customer)),
            (customer, journey) => RefArgs {
                id: self.id,
                customer,
                journey,
                instance: self.instance,
            }
            .reference(),
        }
    }
}

/// `sojourn execution list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// In this journey
    #[arg(long, value_name = "NAME")]
    journey: Option<String>,
    /// In this stage
    #[arg(long)]
    stage: Option<String>,
    /// With one of these statuses
    #[arg(long, value_delimiter = ',')]
    status: Vec<StatusArg>,
    /// Of this customer
    #[arg(long, value_name = "NAME=VALUE")]
    customer: Option<Identifier>,
    /// On this version
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// With an incident
    #[arg(long)]
    incident: bool,
    /// Past a stage deadline
    #[arg(long)]
    overdue: bool,
    /// Stalled
    #[arg(long)]
    stalled: bool,
    /// At most so many; 0: all
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

/// A status to filter by.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[allow(
    missing_docs,
    reason = "the words are those of the language, shown as they stand"
)]
pub enum StatusArg {
    Active,
    Held,
    Completed,
    Exited,
    Expired,
    Stopped,
}

/// Which execution, who and why.
#[derive(Debug, clap::Args)]
pub struct CommandArgs {
    #[command(flatten)]
    execution: RefArgs,
    #[command(flatten)]
    by: ByArgs,
}

/// Who and why.
#[derive(Debug, clap::Args)]
pub struct ByArgs {
    #[command(flatten)]
    who: ActorArgs,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only in this visit of the execution
    #[arg(long, value_name = "N")]
    expected_visit: Option<u32>,
    /// The command's id: the same id again is the same command [default: a fresh one]
    #[arg(long = "command-id", value_name = "ID")]
    command_id: Option<String>,
}

impl ByArgs {
    fn command(&self) -> Command {
        let mut command = Command::new(self.who.name(), &self.reason);
        command.expected_visit = self.expected_visit;
        if let Some(id) = &self.command_id {
            command.id.clone_from(id);
        }
        command
    }
}

/// `sojourn execution override --to STAGE`.
#[derive(Debug, clap::Args)]
pub struct OverrideArgs {
    #[command(flatten)]
    execution: RefArgs,
    /// The stage to move to
    #[arg(long, value_name = "STAGE")]
    to: String,
    /// Do the transition's actions too, where one leads there
    #[arg(long)]
    run_actions: bool,
    #[command(flatten)]
    by: ByArgs,
}

/// `sojourn execution stop`.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    #[command(flatten)]
    execution: RefArgs,
    /// With this outcome
    #[arg(long)]
    outcome: Option<String>,
    #[command(flatten)]
    by: ByArgs,
}

/// `sojourn execution retry ID ACTION`.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
pub struct RetryArgs {
    #[command(flatten)]
    execution: RefArgs,
    /// The number of the failed action, as `show` gives it
    action: u64,
    /// Under a new idempotency key, for a receiver that remembers the old one as done
    #[arg(long)]
    new_key: bool,
    #[command(flatten)]
    by: ByArgs,
}

/// `sojourn execution skip ID ACTION`.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
pub struct SkipArgs {
    #[command(flatten)]
    execution: RefArgs,
    /// The number of the failed action, as `show` gives it
    action: u64,
    #[command(flatten)]
    by: ByArgs,
}

/// `sojourn execution watch`.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Only this execution
    id: Option<String>,
    /// Only this journey
    #[arg(long, value_name = "NAME")]
    journey: Option<String>,
    /// Only this customer
    #[arg(long, value_name = "NAME=VALUE")]
    customer: Option<Identifier>,
}

pub(super) async fn run(
    command: ExecutionCommand,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let client = global.client().await?;
    let read = Read::default();
    match command {
        ExecutionCommand::List(args) => return list(&client, args, say).await,
        ExecutionCommand::Watch(args) => return watch(&client, args, say).await,
        ExecutionCommand::Show(args) => {
            let answer = client
                .get(&args.reference()?, read)
                .await
                .map_err(Trouble::reading)?;
            let execution = answer.execution.unwrap_or_default();
            if say.json() {
                say.value(&json::execution(&execution));
            } else {
                say.data(one(&execution));
            }
        }
        ExecutionCommand::Timeline(args) => {
            let named = args.journey.is_none() && args.id.is_none();
            let mut entries = std::pin::pin!(client.timeline(args.reference()?, read));
            while let Some(entry) = entries.next().await {
                entry_out(&entry.map_err(Trouble::reading)?, named, say);
            }
        }
        ExecutionCommand::Why(args) => {
            let why = client
                .why(&args.reference()?, read)
                .await
                .map_err(Trouble::reading)?;
            if say.json() {
                say.value(&json::why(&why));
            } else {
                say.data(why_text(&why));
            }
        }
        ExecutionCommand::Override(args) => {
            let (execution, command) = (args.execution.reference()?, args.by.command());
            let moved = client.override_(&execution, &args.to, args.run_actions, &command);
            commanded(moved.await, &command, say)?;
        }
        ExecutionCommand::Hold(args) => {
            let (execution, command) = (args.execution.reference()?, args.by.command());
            commanded(client.hold(&execution, &command).await, &command, say)?;
        }
        ExecutionCommand::Resume(args) => {
            let (execution, command) = (args.execution.reference()?, args.by.command());
            commanded(client.resume(&execution, &command).await, &command, say)?;
        }
        ExecutionCommand::Stop(args) => {
            let (execution, command) = (args.execution.reference()?, args.by.command());
            let stopped = client.stop(&execution, args.outcome.as_deref(), &command);
            commanded(stopped.await, &command, say)?;
        }
        ExecutionCommand::Retry(args) => {
            let command = args.by.command();
            let execution = args.execution.reference()?;
            let answer = client
                .retry_action(&execution, args.action, args.new_key, &command)
                .await;
            commanded(answer, &command, say)?;
        }
        ExecutionCommand::Skip(args) => {
            let command = args.by.command();
            let execution = args.execution.reference()?;
            let answer = client.skip_action(&execution, args.action, &command).await;
            commanded(answer, &command, say)?;
        }
    }
    Ok(Exit::Done)
}

fn commanded(
    answer: Result<v1::CommandResponse, crate::Error>,
    command: &Command,
    say: &mut Say,
) -> Result<(), Trouble> {
    let answer = answer.map_err(|e| {
        let mut trouble = Trouble::from(e);
        if trouble.exit == Exit::Unknown {
            trouble.text = format!(
                "{}; the same with --command-id {} is always safe",
                trouble.text, command.id
            );
        }
        trouble
    })?;
    if answer.content_differs {
        return Err(Trouble::no(format!(
            "another command was done with the id {}; this one was not: give it an id of its own",
            command.id
        )));
    }
    if say.json() {
        say.value(&json::command(&answer));
        return Ok(());
    }
    let execution = answer.execution.unwrap_or_default();
    let again = if answer.duplicate {
        " (done before)"
    } else {
        ""
    };
    say.data(format_args!(
        "{} is {} in {}, visit {}{again}",
        execution.id,
        show::status(execution.status),
        execution.stage,
        execution.visit
    ));
    Ok(())
}

async fn list(client: &crate::Client, args: ListArgs, say: &mut Say) -> Result<Exit, Trouble> {
    let limit = if args.limit == 0 {
        usize::MAX
    } else {
        args.limit
    };
    let filter = Filter {
        journey: args.journey,
        stage: args.stage,
        statuses: args.status.into_iter().map(status_of).collect(),
        customer: args.customer,
        version: args.version,
        incident: args.incident.then_some(true),
        overdue: args.overdue.then_some(true),
        stalled: args.stalled.then_some(true),
        page_size: Some(u32::try_from(limit.min(1_000)).unwrap_or(1_000)),
    };
    let mut all = std::pin::pin!(client.list(filter));
    let mut table = Table::new(&[
        ("execution", Align::Left),
        ("journey", Align::Left),
        ("customer", Align::Left),
        ("status", Align::Left),
        ("stage", Align::Left),
        ("since", Align::Left),
        ("flags", Align::Left),
    ]);
    let mut shown = 0;
    let mut more = false;
    while let Some(execution) = all.next().await {
        let e = execution.map_err(Trouble::reading)?;
        if shown == limit {
            more = true;
            break;
        }
        shown += 1;
        if say.json() {
            say.line(&json::execution(&e));
            continue;
        }
        let stage = e
            .outcome
            .as_ref()
            .map_or_else(|| e.stage.clone(), |o| format!("{} ({o})", e.stage));
        table.row([
            e.id.clone(),
            e.journey.clone(),
            show::identifier(e.customer.as_ref()),
            show::status(e.status).to_owned(),
            stage,
            show::time(Some(e.entered_occurred)),
            show::flags(&e),
        ]);
    }
    if !say.json() {
        if table.is_empty() {
            say.talk("no executions");
        } else {
            say.data(table);
        }
    }
    if more {
        say.talk(format_args!(
            "the first {shown}; there are more, see --limit"
        ));
    }
    Ok(Exit::Done)
}

fn status_of(status: StatusArg) -> v1::Status {
    match status {
        StatusArg::Active => v1::Status::Active,
        StatusArg::Held => v1::Status::Held,
        StatusArg::Completed => v1::Status::Completed,
        StatusArg::Exited => v1::Status::Exited,
        StatusArg::Expired => v1::Status::Expired,
        StatusArg::Stopped => v1::Status::Stopped,
    }
}

async fn watch(client: &crate::Client, args: WatchArgs, say: &mut Say) -> Result<Exit, Trouble> {
    let journey = args.journey.unwrap_or_default();
    let id = args.id.unwrap_or_default();
    let seen = client
        .watch(&journey, &id, args.customer.as_ref())
        .await
        .map_err(Trouble::reading)?;
    let mut seen = std::pin::pin!(seen);
    let mut told = false;
    while let Some(what) = seen.next().await {
        match what.map_err(Trouble::reading)? {
            // every shard begins for itself
            Watched::Started(_) if told => {}
            Watched::Started(_) => {
                told = true;
                say.talk("watching; Ctrl-C ends it");
            }
            Watched::Missed(count) => say.talk(format_args!(
                "{count} entries were missed: too slow to take them"
            )),
            Watched::Entry(entry) => entry_out(&entry, id.is_empty(), say),
        }
    }
    Err(Trouble::new(
        Exit::Unreachable,
        "the server ended the watch; begin it again",
    ))
}

/// `named`: the entries are of more than one execution, so each is named.
fn entry_out(entry: &v1::TimelineEntry, named: bool, say: &mut Say) {
    if say.json() {
        say.line(&json::timeline_entry(entry));
    } else {
        say.data(entry_text(entry, named));
    }
}
