//! A server as a process of its own: started, asked, killed, started again on the same data.

use crate::binary;
use crate::wait::until;
use anyhow::{Context, Result, bail};
use sojourn_client::Client;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How long a start may take, recovery and a slow build included.
const START: Duration = Duration::from_secs(60);
/// How long a stop may take: what is in flight is answered, and a last checkpoint is made.
pub const STOP: Duration = Duration::from_secs(20);
/// Lines of its standard error that are kept for the report of a failure.
const LINES: usize = 400;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many shards, at the first start.
    pub shards: u16,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            shards: 4,
            // test machines are small: what is tested about a full disk is tested on purpose elsewhere
            env: vec![
                ("SOJOURN_LIMITS__DISK_FREE_MIN".into(), "1048576".into()),
                // what is kept for the report of a failure is what went wrong
                ("SOJOURN_LOG".into(), "warn,openraft=error".into()),
            ],
        }
    }
}

impl Setup {
    /// Checkpoints every second and after 64 KiB, so that a short test has many of them.
    pub fn many_checkpoints(mut self) -> Setup {
        for (key, value) in [
            ("SOJOURN_CHECKPOINT__EVERY_SECONDS", "1"),
            ("SOJOURN_CHECKPOINT__LOG_BYTES", "65536"),
            ("SOJOURN_CHECKPOINT__WAITING_BYTES", "65536"),
        ] {
            self.env.push((key.into(), value.into()));
        }
        self
    }

    /// With one more environment variable.
    pub fn env(mut self, key: &str, value: &str) -> Setup {
        self.env.push((key.into(), value.into()));
        self
    }
}

/// What a process said on its standard error.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|l| format!("  | {l}\n")).collect()
    }
}

/// A server with its data folder. Dropped, it is killed.
pub struct Server {
    setup: Setup,
    folder: tempfile::TempDir,
    running: Option<Running>,
    /// Kept over restarts, so that a client that goes on finds it again.
    ports: Option<(SocketAddr, SocketAddr)>,
    said: Said,
}

struct Running {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        // ours, by its id; it may be gone already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts one on an empty data folder; answers when it is ready.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub async fn start(setup: Setup) -> Result<Server> {
        let mut server = Server {
            setup,
            folder: tempfile::Builder::new()
                .prefix("sojourn-chaos-")
                .tempdir()?,
            running: None,
            ports: None,
            said: Said::default(),
        };
        server.again().await?;
        Ok(server)
    }

    /// Starts it again, on the same data and the same ports.
    ///
    /// # Errors
    /// When it runs already, or does not start.
    pub async fn again(&mut self) -> Result<Duration> {
        if self.running.is_some() {
            bail!("the server runs already");
        }
        let begun = Instant::now();
        let (child, addresses) = self.spawn()?;
        // from here on a failure kills it
        let mut running = Running {
            child,
            grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        match tokio::time::timeout(START, addresses).await {
            Ok(Ok((grpc, http))) => (running.grpc, running.http) = (grpc, http),
            Ok(Err(_)) => {
                let status = running.child.wait()?;
                bail!(
                    "the server ended with {status} before it listened; it said:\n{}",
                    self.said.text()
                );
            }
            Err(_) => bail!(
                "the server did not say within {START:?} where it listens; it said:\n{}",
                self.said.text()
            ),
        }
        self.ports = Some((running.grpc, running.http));
        self.running = Some(running);
        until("the server is ready", START, async || {
            Ok(self
                .http("/ready")
                .await
                .ok()
                .filter(|(code, _)| *code == 200))
        })
        .await
        .with_context(|| format!("it said:\n{}", self.said.text()))?;
        Ok(begun.elapsed())
    }

    /// The command of a server on this data folder, with ports of its own.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn command(&self) -> Result<Command> {
        let (grpc, http) = self.ports.map_or_else(
            || ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()),
            |(g, h)| (g.to_string(), h.to_string()),
        );
        let mut command = Command::new(binary::sojourn()?);
        command
            .args(["serve", "--bootstrap"])
            .arg("--data")
            .arg(self.data())
            .args(["--listen", &grpc, "--http", &http, "--peer", "127.0.0.1:0"])
            .args(["--shards", &self.setup.shards.to_string()])
            .envs(self.setup.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(command)
    }

    fn spawn(&self) -> Result<(Child, oneshot::Receiver<(SocketAddr, SocketAddr)>)> {
        let mut child = self
            .command()?
            .spawn()
            .context("the server cannot be started")?;
        let stderr = child
            .stderr
            .take()
            .context("its standard error is a pipe")?;
        let (tell, told) = oneshot::channel();
        let said = self.said.clone();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(addresses) = addresses(&line)
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(addresses);
                }
                said.add(line);
            }
        });
        Ok((child, told))
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder of this test beside the data.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Where its gRPC door is, for a client.
    pub fn url(&self) -> String {
        let port = self.ports.map_or(0, |(grpc, _)| grpc.port());
        format!("http://127.0.0.1:{port}")
    }

    /// What it said on its standard error, over all its starts.
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// A client of it that waits for it within each call's deadline.
    ///
    /// # Errors
    /// Never for an address that a server printed.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::builder(self.url())
            .deadline(Duration::from_secs(20))
            .connect_lazy()?)
    }

    /// Its HTTP door: status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn http(&self, path: &str) -> Result<(u16, String)> {
        let running = self.running.as_ref().context("the server does not run")?;
        let mut stream = TcpStream::connect(running.http).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
        let code = answer.split(' ').nth(1).and_then(|c| c.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((code.context("no status line")?, body.to_owned()))
    }

    /// How many receipts it has given since it started.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn receipts(&self) -> Result<u64> {
        let (_, text) = self.http("/metrics").await?;
        Ok(text
            .lines()
            .filter(|l| l.starts_with("sojourn_receipts_total"))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
            .sum())
    }

    /// Whether the process still runs.
    pub fn lives(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|r| matches!(r.child.try_wait(), Ok(None)))
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the server does not run")?;
        running.child.kill()?;
        running.child.wait()?;
        Ok(())
    }

    /// SIGTERM, without waiting.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self) -> Result<()> {
        let running = self.running.as_ref().context("the server does not run")?;
        // std can only kill; the shell's own `kill` needs no package
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", running.child.id())])
            .status()?;
        if !sent.success() {
            bail!("SIGTERM could not be sent: {sent}");
        }
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it has not within `within`.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let running = self.running.as_mut().context("the server does not run")?;
        let status = until("the server ends", within, async || {
            Ok(running.child.try_wait()?)
        })
        .await
        .with_context(|| format!("it said:\n{}", self.said.text()))?;
        self.running = None;
        Ok(status)
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.terminate()?;
        self.ended(STOP).await
    }

    /// kill -9 and start again.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn crash(&mut self) -> Result<()> {
        self.kill()?;
        self.again().await.map(drop)
    }

    /// A command of the CLI against it, not started yet.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn cli<I: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = I>,
    ) -> Result<Command> {
        let mut command = Command::new(binary::sojourn()?);
        command
            .current_dir(binary::workspace())
            .args(["--server", &self.url(), "--deadline", "30s"])
            .args(args)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command of the CLI to its end without blocking the test's other tasks.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run<I: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = I>,
    ) -> Result<Output> {
        let mut command = self.cli(args)?;
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }
}

/// The addresses in the line that a server prints when it listens.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let rest = line.strip_prefix("sojourn serves gRPC on ")?;
    let (grpc, http) = rest.split_once(" and HTTP on ")?;
    Some((grpc.parse().ok()?, http.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn the_line_that_names_the_doors_is_read() {
        let line = "sojourn serves gRPC on 127.0.0.1:41 and HTTP on 127.0.0.1:42";
        let ports = addresses(line).map(|(g, h)| (g.port(), h.port()));
        assert_eq!(ports, Some((41, 42)));
        assert_eq!(addresses("error: no"), None);
    }
}
