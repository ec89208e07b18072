//! A server as a process of its own: started, asked, killed, started again on the same data.

mod told;

use crate::binary;
use crate::cli::Cli;
use crate::faults::Faults;
use crate::http::ask;
use crate::wait::until;
use anyhow::{Context, Result, bail};
use sojourn_client::Client;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use told::{addresses, identity};

/// How long a start may take, recovery and a slow build included.
const START: Duration = Duration::from_secs(60);
/// How long a stop may take: what is in flight is answered, and a last checkpoint is made.
pub const STOP: Duration = Duration::from_secs(20);
/// Lines of its standard error that are kept for the report of a failure.
const LINES: usize = 400;
/// The file beside its data with all that it said.
const SAID: &str = "said.log";

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// For clients.
    pub grpc: SocketAddr,
    /// Health, readiness, metrics.
    pub http: SocketAddr,
    /// For other nodes.
    pub peer: SocketAddr,
}

impl Doors {
    /// Whichever ports are free at a loopback address that nobody else uses (on Linux all of 127/8 is loopback): the ports
    /// that a server leaves while it is dead are not given to another story's process, and it finds them again.
    pub fn free() -> Doors {
        let [a, b, c] = rand::random::<[u8; 3]>();
        // 127.0/16 is everybody's
        let any = SocketAddr::from(([127, a.max(1), b, c.clamp(1, 254)], 0));
        Doors {
            grpc: any,
            http: any,
            peer: any,
        }
    }
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many shards, at the first start.
    pub shards: u16,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
    /// The peer addresses of a cluster to join; none: it begins one.
    pub join: Vec<String>,
    /// Where it listens at its first start, unless at an address of its own; afterwards it keeps what it had.
    pub doors: Option<Doors>,
    /// The host under which it is told to others, when that is another one.
    pub advertise: Option<String>,
    /// Another binary than this work tree's: another version.
    pub binary: Option<PathBuf>,
    /// The library that makes its disk and its clock fail, when that is wanted.
    pub faults: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            shards: 4,
            binary: None,
            join: Vec::new(),
            doors: None,
            advertise: None,
            faults: None,
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
    doors: Doors,
    /// What it called itself last.
    node: u64,
    said: Said,
    faults: Option<Faults>,
}

struct Running {
    child: Child,
    /// What it says of itself; taken once it has.
    telling: Option<oneshot::Receiver<Told>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // ours, by its id; it may be gone already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// One on an empty data folder that has not been started.
    ///
    /// # Errors
    /// When there is no room for its folder.
    pub fn new(setup: Setup) -> Result<Server> {
        let folder = tempfile::Builder::new()
            .prefix("sojourn-chaos-")
            .tempdir()?;
        let control = folder.path().join("faults");
        let faults = setup.faults.as_ref();
        Ok(Server {
            doors: setup.doors.unwrap_or_else(Doors::free),
            faults: faults.map(|f| Faults::none(f, control)).transpose()?,
            setup,
            folder,
            running: None,
            node: 0,
            said: Said::default(),
        })
    }

    /// Starts one on an empty data folder; answers when it is ready.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub async fn start(setup: Setup) -> Result<Server> {
        let mut server = Server::new(setup)?;
        server.again().await?;
        Ok(server)
    }

    /// Starts it again, on the same data and the same ports; answers when it is ready.
    ///
    /// # Errors
    /// When it runs already, or does not start.
    pub async fn again(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.launch()?;
        self.listening().await?;
        self.ready().await?;
        Ok(begun.elapsed())
    }

    /// Starts its process and waits for nothing.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("the server runs already");
        }
        let (child, telling) = self.spawn()?;
        self.running = Some(Running {
            child,
            telling: Some(telling),
        });
        Ok(())
    }

    /// Waits until it has said who it is and where it listens.
    ///
    /// # Errors
    /// When it ends before, or does not say so in time; it does not run then.
    pub async fn listening(&mut self) -> Result<()> {
        let running = self.running.as_mut().context("the server does not run")?;
        let Some(telling) = running.telling.take() else {
            return Ok(());
        };
        match tokio::time::timeout(START, telling).await {
            Ok(Ok(told)) => {
                self.doors = told.doors;
                self.node = told.node;
                Ok(())
            }
            Ok(Err(_)) => {
                let status = running.child.wait()?;
                self.running = None;
                bail!(
                    "the server ended with {status} before it listened; it said:\n{}",
                    self.said.text()
                );
            }
            Err(_) => {
                self.running = None;
                bail!(
                    "the server did not say within {START:?} where it listens; it said:\n{}",
                    self.said.text()
                )
            }
        }
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ready(&self) -> Result<()> {
        let mut last = String::new();
        until("the server is ready", START, async || {
            Ok(match self.http("/ready").await {
                Ok((200, _)) => Some(()),
                Ok((code, body)) => {
                    last = format!("{code}: {body}");
                    None
                }
                Err(error) => {
                    last = error.to_string();
                    None
                }
            })
        })
        .await
        .with_context(|| format!("{last}; it said:\n{}", self.said.text()))
    }

    /// The command of a server on this data folder, with ports of its own.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn command(&self) -> Result<Command> {
        let mut command = match &self.setup.binary {
            Some(other) => Command::new(other),
            None => Command::new(binary::sojourn()?),
        };
        command.arg("serve").arg("--data").arg(self.data());
        if self.setup.join.is_empty() {
            command.arg("--bootstrap");
        }
        for seed in &self.setup.join {
            command.args(["--join", seed]);
        }
        if let Some(host) = &self.setup.advertise {
            command.args(["--advertise", host]);
        }
        command
            .args(["--listen", &self.doors.grpc.to_string()])
            .args(["--http", &self.doors.http.to_string()])
            .args(["--peer", &self.doors.peer.to_string()])
            .args(["--shards", &self.setup.shards.to_string()])
            .envs(self.setup.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(faults) = &self.faults {
            faults.stand_before(&mut command);
        }
        Ok(command)
    }

    fn spawn(&self) -> Result<(Child, oneshot::Receiver<Told>)> {
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
        let mut whole = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.said_file())?;
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            let mut doors = None;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                doors = doors.or_else(|| addresses(&line));
                if let (Some((grpc, http)), Some((node, peer))) = (doors, identity(&line))
                    && let Some(tell) = tell.take()
                {
                    let doors = Doors { grpc, http, peer };
                    // whoever asked may have given up
                    let _ = tell.send(Told { node, doors });
                }
                // for whoever looks at the folder afterwards; a test does not fail by it
                let _ = writeln!(whole, "{line}");
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

    /// The file with all that it said on its standard error.
    pub fn said_file(&self) -> PathBuf {
        self.folder.path().join(SAID)
    }

    /// What may be made to fail in it.
    ///
    /// # Errors
    /// When it was set up without.
    pub fn faults(&self) -> Result<&Faults> {
        self.faults
            .as_ref()
            .context("the server was set up without faults")
    }

    /// Leaves its folder where it is when this is dropped: evidence. Tells where.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Where its gRPC door is, for a client.
    pub fn url(&self) -> String {
        format!("http://{}", self.doors.grpc)
    }

    /// Where it listens, or last did.
    pub fn doors(&self) -> Doors {
        self.doors
    }

    /// The id of its node; 0 before it has ever said so.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.running.as_ref().map(|r| r.child.id())
    }

    /// Whether it was started and has not been stopped since.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Empties its data folder, as when a disk is replaced. From then on it joins the cluster at `seeds`.
    ///
    /// # Errors
    /// When it runs, or the folder cannot be removed.
    pub fn lose_disk(&mut self, seeds: Vec<String>) -> Result<()> {
        if self.running.is_some() {
            bail!("the server runs: its disk cannot be taken");
        }
        std::fs::remove_dir_all(self.data())?;
        self.setup.join = seeds;
        Ok(())
    }

    /// Runs as the binary of this work tree from its next start on.
    pub fn upgrade(&mut self) {
        self.setup.binary = None;
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
        if self.running.is_none() {
            bail!("the server does not run");
        }
        ask(self.doors.http, path).await
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
        self.signal("TERM")
    }

    /// Stops its clock: it does nothing until it is [resumed](Server::resume), and does not know of it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets a paused one go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let process = self.process().context("the server does not run")?;
        // std can only kill; the shell's own `kill` needs no package
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {process}")])
            .status()?;
        if !sent.success() {
            bail!("SIG{name} could not be sent: {sent}");
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

    /// The CLI against it.
    pub fn commands(&self) -> Cli {
        Cli::of(self.url())
    }

    /// As [`Cli::command`].
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn cli<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Result<Command> {
        self.commands().command(args)
    }

    /// As [`Cli::run`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Result<Output> {
        self.commands().run(args).await
    }
}

/// What a server says of itself when it listens.
struct Told {
    node: u64,
    doors: Doors,
}
