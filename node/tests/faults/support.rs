//! A server as a process, what is sent to it, and what must be found again.

use futures::{StreamExt, TryStreamExt, stream};
use sojourn_client::{Client, ExecutionRef, Identifier, Outcome, Read, Signal};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Every wait of these tests ends after this long, as a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const JOURNEY: &str = "journey: steps
reentry: { mode: never }
entry:
  - on: t.start
stages:
  - stage: first
    transitions:
      - { to: second, on: t.go }
  - stage: second
    transitions:
      - { to: done, on: t.end }
  - { stage: done, end: converted }
";

/// Settings by which a checkpoint is made only when the node is stopped.
pub const NO_CHECKPOINTS: &[(&str, &str)] = &[
    ("SOJOURN_CHECKPOINT__EVERY_SECONDS", "3600"),
    ("SOJOURN_LIMITS__DISK_FREE_MIN", "0"),
];

/// The binary, told to use a folder.
pub fn sojourn(arguments: &[&str], dir: &Path, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sojourn"));
    command
        .args(arguments)
        .arg("--data")
        .arg(dir)
        .env_remove("SOJOURN_CONFIG")
        .env(
            "SOJOURN_LOG",
            "info,openraft=error,sled=warn,raft_engine=warn",
        )
        .env("NO_COLOR", "1")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running server. Dropped, it is killed.
pub struct Server {
    child: Child,
    pub client: Client,
    http: String,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

/// A server that has ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub said: String,
}

impl Ended {
    /// It said why it cannot run, naming all of `words`, and ended as a node with unsafe data does.
    pub fn refuses(&self, words: &[&str]) {
        self.ends(5, words);
    }

    pub fn ends(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        let error = self.error();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }

    /// The line for the operator.
    pub fn error(&self) -> &str {
        let error = self.said.lines().find(|line| line.starts_with("error: "));
        error.unwrap_or_else(|| panic!("no error was said:\n{}", self.said))
    }
}

impl Server {
    /// Starts a server and waits until it serves.
    pub async fn start(dir: &Path, env: &[(&str, &str)]) -> Result<Server, Ended> {
        let arguments = [
            "serve",
            "--bootstrap",
            "--shards",
            "2",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ];
        let mut child = sojourn(&arguments, dir, env)
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut said = Vec::new();
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    let addresses = line
                        .strip_prefix("sojourn serves gRPC on ")
                        .and_then(|rest| rest.split_once(" and HTTP on "))
                        .map(|(grpc, http)| (format!("http://{grpc}"), http.to_owned()));
                    said.push(line);
                    if let Some((grpc, http)) = addresses {
                        let client = Client::connect(grpc).await.expect("it answers");
                        let client = client.with_deadline(Duration::from_secs(20));
                        return Ok(Server {
                            child,
                            client,
                            http,
                            lines,
                            said,
                        });
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(ended(&mut child, said));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    panic!("it neither serves nor ends:\n{}", said.join("\n"));
                }
            }
        }
    }

    /// Starts a server that must start.
    pub async fn serves(dir: &Path, env: &[(&str, &str)]) -> Server {
        match Server::start(dir, env).await {
            Ok(server) => server,
            Err(ended) => panic!("it does not start, {:?}:\n{}", ended.code, ended.said),
        }
    }

    /// Waits until no history waits in memory: everything applied is in a checkpoint.
    pub async fn checkpointed(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let metrics = self.http("/metrics").await;
            let waiting = "sojourn_node{what=\"history_waiting_bytes\"} 0";
            if metrics.lines().any(|line| line == waiting) {
                return;
            }
            assert!(Instant::now() < until, "no checkpoint is made: {metrics}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a page of its HTTP door says.
    pub async fn http(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut door = tokio::net::TcpStream::connect(&self.http)
            .await
            .expect("it listens");
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        door.write_all(request.as_bytes()).await.expect("it reads");
        let mut page = String::new();
        door.read_to_string(&mut page).await.expect("it answers");
        page
    }

    /// kill -9.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("it runs");
        self.gone()
    }

    /// A stop as an init system asks for it, with a checkpoint at the end.
    pub fn stop(self) -> Ended {
        let told = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(told.expect("kill can be run").success());
        let ended = self.gone();
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        let without = ended.said.contains("no checkpoint at the end");
        assert!(!without, "{}", ended.said);
        ended
    }

    /// Waits until it has ended.
    pub fn gone(mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self
            .lines
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.said.push(line);
        }
        let said = std::mem::take(&mut self.said);
        ended(&mut self.child, said)
    }

    /// What it has said so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its standard error is closed: it is ending, or a test kills it for not doing so.
fn ended(child: &mut Child, said: Vec<String>) -> Ended {
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break status,
            None if Instant::now() > until => {
                let _ = child.kill();
                panic!("it does not end:\n{}", said.join("\n"));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let ended = Ended {
        code: status.code(),
        said: said.join("\n"),
    };
    no_panic_of_ours(&ended.said);
    ended
}

/// A library may panic where it is known to, and is caught there; we may not.
fn no_panic_of_ours(said: &str) {
    for line in said.lines().filter(|l| l.contains("panicked at")) {
        assert!(line.contains("registry/src"), "a panic of ours:\n{said}");
    }
}

/// Runs `sojourn repair`; gives what it answered, or else why it did not.
pub fn repair(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = sojourn(&[&["repair"], arguments].concat(), dir, &[])
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&stderr);
    no_panic_of_ours(&said);
    let out = String::from_utf8_lossy(&stdout);
    let code = status.code().unwrap_or_else(|| panic!("{status}: {said}"));
    let shown = if out.is_empty() { said } else { out };
    (code, shown.into_owned())
}

/// What was acknowledged: (customer, signal id) and the word of its receipt.
pub type Acknowledged = BTreeMap<(String, String), &'static str>;

pub async fn publish(client: &Client) {
    let published = client.publish(JOURNEY, "test").await.expect("publishes");
    assert!(published.live, "{published:?}");
}

pub fn signal(kind: &str, customer: &str, padding: usize) -> Signal {
    Signal::with_id(kind, format!("{kind}-{customer}"))
        .source("test")
        .customer("id", customer)
        .data(&serde_json::json!({ "padding": noise(customer, padding) }))
        .expect("it is data")
}

/// Text that does not compress.
fn noise(seed: &str, length: usize) -> String {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |n, b| {
        (n ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    }) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..length).map(|_| next()).collect()
}

/// Two signals of each customer: a start and a move.
pub async fn send_all(client: &Client, customers: std::ops::Range<usize>) -> Acknowledged {
    let all = customers.flat_map(|n| {
        let customer = format!("c{n}");
        ["t.start", "t.go"].map(|kind| (customer.clone(), kind))
    });
    let mut waiting = Vec::new();
    for (customer, kind) in all {
        let signal = signal(kind, &customer, 300);
        let id = signal.signal_id().to_owned();
        let pending = client.enqueue(signal).await.expect("there is room");
        waiting.push((customer, id, pending));
    }
    let mut done = Acknowledged::new();
    for (customer, id, pending) in waiting {
        let outcome = pending.await.expect("it is answered");
        let Outcome::Done(receipt) = outcome else {
            panic!("{customer} {id}: {outcome:?}");
        };
        done.insert((customer, id), receipt.word());
    }
    done
}

/// Every acknowledged signal has its receipt, and counts once.
#[track_caller]
pub fn nothing_lost(what: &str, lost: &[String]) {
    assert!(lost.is_empty(), "{what}: acknowledged and lost: {lost:?}");
}

pub async fn all_there(client: &Client, acknowledged: &Acknowledged) {
    let lost = missing(client, acknowledged).await;
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

pub async fn missing(client: &Client, acknowledged: &Acknowledged) -> Vec<String> {
    let asked = acknowledged
        .iter()
        .map(|((customer, id), word)| async move {
            let customer = Identifier::new("id", customer);
            match client.receipt(&customer, "test", id).await {
                Ok(receipt) => {
                    assert_eq!(receipt.first_word(), *word, "{id}");
                    None
                }
                Err(error) => Some(format!("{id}: {error}")),
            }
        });
    let asked = stream::iter(asked).buffer_unordered(16);
    asked.filter_map(async |lost| lost).collect().await
}

/// Report and timelines, as texts that can be compared.
pub async fn story(client: &Client, acknowledged: &Acknowledged) -> Vec<String> {
    let mut report = client.report("steps", None).await.expect("reports");
    // where it was read, not what was read
    report.positions.clear();
    let mut all = vec![format!("{report:?}")];
    let customers: std::collections::BTreeSet<&String> =
        acknowledged.keys().map(|(customer, _)| customer).collect();
    for customer in customers {
        let of = ExecutionRef::Customer(Identifier::new("id", customer));
        let entries: Vec<_> = client
            .timeline(of, Read::default())
            .try_collect()
            .await
            .unwrap_or_else(|e| panic!("{customer}: {e}"));
        assert!(!entries.is_empty(), "{customer} has no timeline");
        all.push(format!("{customer}: {entries:?}"));
    }
    all
}

/// It still decides.
pub async fn goes_on(client: &Client, customer: &str) {
    let outcome = client.send(signal("t.start", customer, 10)).await;
    let word = outcome
        .as_ref()
        .ok()
        .and_then(|o| o.receipt())
        .map(|r| r.word());
    assert_eq!(word, Some("started"), "{outcome:?}");
}

pub fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes a folder");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}

/// All files below a folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// How much of a file is not reserved space.
pub fn used(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("reads");
    bytes
        .iter()
        .rposition(|b| *b != 0)
        .map_or(0, |at| at as u64 + 1)
}

/// Turns a bit in every so many bytes that are used.
pub fn corrupt(path: &Path, every: usize) {
    let mut bytes = std::fs::read(path).expect("reads");
    let used = used(path) as usize;
    for at in (every / 2..used).step_by(every) {
        bytes[at] ^= 0x10;
    }
    std::fs::write(path, bytes).expect("writes");
}

pub fn flip(path: &Path, offset: u64) {
    let mut bytes = std::fs::read(path).expect("reads");
    bytes[offset as usize] ^= 0x10;
    std::fs::write(path, bytes).expect("writes");
}

pub fn truncate(path: &Path, length: u64) {
    let file = std::fs::File::options().write(true).open(path);
    file.and_then(|f| f.set_len(length)).expect("truncates");
}
