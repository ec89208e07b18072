//! The command line against a server or a cluster, as a person or a script uses it.

use crate::binary;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

/// The CLI with the servers that it talks to.
#[derive(Clone, Debug)]
pub struct Cli {
    servers: String,
}

impl Cli {
    /// Against one address, or several with commas between.
    pub fn of(servers: impl Into<String>) -> Cli {
        Cli {
            servers: servers.into(),
        }
    }

    /// A command, not started yet. Its folder is the root of the workspace.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Result<Command> {
        let mut command = Command::new(binary::sojourn()?);
        command
            .current_dir(binary::workspace())
            .args(["--server", &self.servers, "--deadline", "30s"])
            .args(args)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command to its end without blocking the caller's other tasks.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Result<Output> {
        output(self.command(args)?).await
    }
}

/// Runs a command to its end without blocking the caller's other tasks.
///
/// # Errors
/// When it cannot be started.
pub async fn output(mut command: Command) -> Result<Output> {
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// What a command wrote for programs.
///
/// # Errors
/// When that is no JSON, with all that it wrote.
pub fn json(output: &Output) -> Result<serde_json::Value> {
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "{}: no JSON: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
