//! `completions`: what a shell needs to complete our command lines.

use super::Say;
use super::exit::{Exit, Trouble};

/// `sojourn completions SHELL`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For which shell
    shell: clap_complete::Shell,
}

pub(super) fn run(
    args: &CompletionsArgs,
    mut root: clap::Command,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let name = root.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut root, name, &mut script);
    say.data(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}
