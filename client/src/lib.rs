//! The SDK of Sojourn, and the commands of its CLI ([`cli`]).
//!
//! ```no_run
//! use sojourn_client::{Client, Outcome, Signal};
//!
//! # async fn example() -> Result<(), sojourn_client::Error> {
//! let client = Client::connect("http://127.0.0.1:7410").await?;
//! let signal = Signal::new("web.form.submitted")
//!     .source("web")
//!     .customer("email", "ada@example.com")
//!     .data(&serde_json::json!({ "form": "loan" }))?;
//! match client.send(signal).await? {
//!     Outcome::Done(receipt) => println!("{}", receipt.word()),
//!     Outcome::Refused(error) => eprintln!("not a valid signal: {error}"),
//!     Outcome::Unknown(error) => eprintln!("it may have arrived, send it again: {error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What this crate does not know: how a cluster agrees on where customers live (it is told, and any node takes any
//! request), how journeys are decided (the `journey` crate, used here to lint and simulate offline, and to place
//! customers), and how anything is stored.

pub mod cli;
mod client;
mod cluster;
mod error;
mod executions;
pub mod input;
mod journeys;
mod lane;
mod nodes;
mod receipt;
mod signal;
mod topology;
mod unmatched;

pub use client::{Builder, Client, DEADLINE, DEADLINE_MAX, Pending};
pub use cluster::{Control, Wish};
pub use error::{Code, Error, Violation};
pub use executions::{Command, ExecutionRef, Filter, Read, Watched};
pub use journeys::Deactivation;
pub use receipt::{FATES, Fate, Outcome, Part, Position, Receipt};
pub use signal::{Identifier, Signal};
/// The messages of the public services, as queries return them.
pub use sojourn_proto::v1 as wire;
pub use unmatched::UnmatchedFilter;
