//! `signal`: send one, import a file of them, or list those that moved nothing.

use super::exit::{Exit, Trouble};
use super::{GlobalOpts, Say, args, import, json, unmatched};
use crate::error::Error;
use crate::receipt::{Outcome, Receipt};
use crate::signal::{Identifier, Signal};
use jiff::Timestamp;

/// `sojourn signal …`.
#[derive(Debug, clap::Subcommand)]
pub enum SignalCommand {
    /// Send one signal and show its receipt
    Send(Box<SendArgs>),
    /// Import signals from files
    Import(Box<import::ImportArgs>),
    /// List the signals of the last 30 days that moved nothing
    Unmatched(unmatched::UnmatchedArgs),
}

/// `sojourn signal send TYPE --customer NAME=VALUE`.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// The signal's type, for example web.form.submitted
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Whose signal it is; the first is the customer key
    #[arg(long, required = true, value_name = "NAME=VALUE")]
    customer: Vec<Identifier>,
    /// What it carries: a JSON object
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// What it says of the customer: a JSON object
    #[arg(long, value_name = "JSON")]
    attributes: Option<String>,
    /// Its id [default: a fresh one]
    #[arg(long)]
    id: Option<String>,
    /// The application that it comes from
    #[arg(long, default_value = "cli")]
    source: String,
    /// When it happened [default: now]
    #[arg(long, value_parser = args::time)]
    time: Option<Timestamp>,
}

pub(super) async fn run(
    command: SignalCommand,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    match command {
        SignalCommand::Send(args) => send(*args, global, say).await,
        SignalCommand::Import(args) => import::run(&args, global, say).await,
        SignalCommand::Unmatched(args) => unmatched::run(args, global, say).await,
    }
}

async fn send(args: SendArgs, global: &GlobalOpts, say: &mut Say) -> Result<Exit, Trouble> {
    let mut signal = Signal::new(args.kind).source(args.source);
    if let Some(id) = args.id {
        signal = signal.id(id);
    }
    for identifier in args.customer {
        signal = signal.customer(identifier.name, identifier.value);
    }
    // read here and not by the parser of the command line, which would print all of it with an error
    if let Some(data) = &args.data {
        signal = signal.data(&object("data", data)?)?;
    }
    if let Some(attributes) = &args.attributes {
        signal = signal.attributes(&object("attributes", attributes)?)?;
    }
    if let Some(time) = args.time {
        signal = signal.time(time);
    }
    let id = signal.signal_id().to_owned();
    let client = global.client().await?;
    match client.send(signal).await.map_err(|e| not_sent(&id, e))? {
        Outcome::Done(receipt) => {
            if say.json() {
                say.value(&json::receipt(&receipt));
            } else {
                say.data(lines(&receipt));
            }
            Ok(Exit::Done)
        }
        Outcome::Refused(error) => Err(Trouble::no(format!("the signal was not taken: {error}"))),
        Outcome::Unknown(error) => Err(Trouble::new(
            Exit::Unknown,
            format!("outcome unknown: {error}; send it again with --id {id}, which is always safe"),
        )),
    }
}

fn object(flag: &str, text: &str) -> Result<serde_json::Value, Trouble> {
    args::object(text).map_err(|why| Trouble::usage(format!("--{flag}: {why}")))
}

fn not_sent(id: &str, error: Error) -> Trouble {
    let mut trouble = Trouble::from(error);
    if trouble.exit == Exit::Unreachable {
        trouble.text.push_str(&format!(
            "; the signal was not taken, send it again with --id {id}"
        ));
    }
    trouble
}

/// A receipt for people: a line per execution that it concerned.
fn lines(receipt: &Receipt) -> String {
    let mut lines = Vec::new();
    let again = if receipt.duplicate {
        "duplicate; the first time: "
    } else {
        ""
    };
    if receipt.no_match {
        lines.push(format!(
            "{again}no_match: the customer has no execution, and no entry rule took the signal"
        ));
    }
    for part in &receipt.parts {
        let fate = part
            .fate
            .as_ref()
            .map_or_else(|| "other".to_owned(), ToString::to_string);
        let execution = if part.execution.is_empty() {
            "-"
        } else {
            &part.execution
        };
        lines.push(format!("{again}{} {fate} ({execution})", part.journey));
    }
    if receipt.content_differs {
        lines.push(
            "note: an earlier signal with this id had other content; this one was not taken"
                .to_owned(),
        );
    }
    if receipt.time_ahead {
        lines.push("note: its time lies in the future and was taken as now".to_owned());
    }
    lines.extend(receipt.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_is_no_object_is_told_without_showing_it() {
        let long = format!("{{\"a\": \"{}", "x".repeat(100_000));
        for (text, expected) in [
            ("[1]", "--data: it is a list, expected a json object"),
            ("{", "--data: it is not json"),
            (long.as_str(), "--data: it is not json"),
        ] {
            let trouble = object("data", text).expect_err("it is no object");
            assert_eq!(trouble.exit, Exit::Usage);
            assert!(trouble.text.starts_with(expected) && trouble.text.len() < 200);
        }
        assert!(object("data", "{\"a\": 1}").is_ok());
    }
}
