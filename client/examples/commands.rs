//! The commands as a program of their own: shows how to embed them.

use sojourn_client::cli::{Say, Standalone};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let mut say = Say::standard();
    match Standalone::run(std::env::args(), &mut say).await {
        Ok(exit) => exit.into(),
        Err(usage) => {
            // clap knows which stream a help text and which an error belongs to
            let _ = usage.print();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
        }
    }
}
