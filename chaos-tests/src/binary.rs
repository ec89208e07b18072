//! Where the binary is: built once per test process, so that what is tested is what stands in the work tree.
//! `SOJOURN_BIN` names another one.

use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The binary `sojourn`.
///
/// # Errors
/// When it cannot be built; the compiler's words are on the standard error.
pub fn sojourn() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| find().map_err(|e| format!("{e:#}")));
    built.as_deref().map_err(|why| anyhow!("{why}"))
}

fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("SOJOURN_BIN") {
        let named = PathBuf::from(named);
        if !named.is_file() {
            bail!("SOJOURN_BIN names {}, which is no file", named.display());
        }
        return Ok(named);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace())
        .args(["build", "-q", "-p", "sojourn-node", "--bin", "sojourn"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = command.output().context("cargo cannot be started")?;
    if !built.status.success() {
        bail!("the binary sojourn cannot be built: see above");
    }
    built
        .stdout
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "sojourn")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built sojourn and did not say where it is")
}
