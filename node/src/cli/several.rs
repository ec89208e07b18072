//! Several nodes on this machine, for development: real processes of this very binary, each with its own data folder.
//!
//! It does not know more of them than anybody: it reads what they print, asks them over the wire, and ends them by signal.

use crate::config::Config;
use sojourn_proto::v1;
use sojourn_proto::v1::cluster_client::ClusterClient;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Nodes that may be started so.
pub const NODES_MAX: u16 = 9;
/// Between the ports of one node and those of the next.
const PORTS: u16 = 10;
/// How long all of them may take to start and to share the shards.
const START_WITHIN: Duration = Duration::from_secs(120);
/// The pause before it is looked again whether they have.
const LOOK: Duration = Duration::from_millis(200);
/// How long a node may take to stop; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// What a node printed about itself.
#[derive(Clone, Debug, Default)]
struct Addresses {
    grpc: Option<String>,
    http: Option<String>,
    peer: Option<String>,
}

impl Addresses {
    /// Takes what a line says; says whether it was for us.
    fn take(&mut self, line: &str) -> bool {
        if let Some(rest) = line.strip_prefix("sojourn serves gRPC on ") {
            if let Some((grpc, http)) = rest.split_once(" and HTTP on ") {
                self.grpc = Some(grpc.to_owned());
                self.http = Some(http.to_owned());
                return true;
            }
        } else if line.starts_with("node ")
            && let Some((_, peer)) = line.split_once(", for other nodes on ")
        {
            self.peer = Some(peer.to_owned());
            return true;
        }
        false
    }
}

struct Process {
    number: u16,
    child: Child,
    said: watch::Receiver<Addresses>,
}

/// Several nodes.
pub struct Several {
    processes: Vec<Process>,
    /// Where the first one's gRPC is.
    pub grpc: String,
}

fn address(base: SocketAddr, number: u16) -> Result<SocketAddr, String> {
    let mut address = base;
    if base.port() != 0 {
        let port = base.port().checked_add(PORTS * (number - 1));
        address.set_port(
            port.ok_or_else(|| format!("there is no port {} above {base}", PORTS * (number - 1)))?,
        );
    }
    Ok(address)
}

fn spawn(config: &Config, number: u16, join: Option<&str>) -> Result<Process, String> {
    let program =
        std::env::current_exe().map_err(|e| format!("this program cannot be found: {e}"))?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--data")
        .arg(config.data.dir.join(format!("node-{number}")))
        .args([
            "--listen",
            &address(config.listen.grpc, number)?.to_string(),
        ])
        .args(["--http", &address(config.listen.http, number)?.to_string()])
        .args(["--peer", &address(config.listen.peer, number)?.to_string()])
        .args(["--name", &format!("node-{number}")])
        .args(["--shards", &config.cluster.shards.to_string()]);
    match join {
        Some(peer) => command.args(["--join", peer]),
        None => command.arg("--bootstrap"),
    };
    if std::env::var_os("SOJOURN_LOG").is_none() {
        command.env("SOJOURN_LOG", "warn,openraft=off,raft_engine=warn");
    }
    // Ctrl-C is for this process: it ends the others in order
    command.process_group(0);
    let spawned = command
        // however this process ends, the others see the end of their standard input, and stop
        .arg("--end-with-stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|e| format!("node {number} cannot be started: {e}"))?;
    let (say, said) = watch::channel(Addresses::default());
    if let Some(errors) = child.stderr.take() {
        tokio::spawn(async move {
            let mut lines = BufReader::new(errors).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut taken = false;
                say.send_modify(|addresses| taken = addresses.take(&line));
                if !taken && line != "stopping" {
                    eprintln!("node-{number}: {line}");
                }
            }
        });
    }
    Ok(Process {
        number,
        child,
        said,
    })
}

impl Several {
    /// Starts so many nodes and waits until each holds its part.
    ///
    /// # Errors
    /// A text: which one does not start, or what is waited for in vain. All are ended then.
    pub async fn start(config: &Config, count: u16) -> Result<Several, String> {
        let until = Instant::now() + START_WITHIN;
        let mut first = spawn(config, 1, None)?;
        let known = config.listen.peer.port() != 0;
        let peer = if known {
            // not waited for: alone it may have no majority
            config.listen.peer.to_string()
        } else {
            let told = told(&mut first, until).await?;
            told.peer.unwrap_or_default()
        };
        let mut processes = vec![first];
        for number in 2..=count {
            processes.push(spawn(config, number, Some(&peer))?);
        }
        let mut grpc = String::new();
        for process in &mut processes {
            let told = told(process, until).await?;
            let address = told.grpc.unwrap_or_default();
            eprintln!(
                "node-{}: gRPC on {address}, HTTP on {}, process {}",
                process.number,
                told.http.unwrap_or_default(),
                process.child.id().unwrap_or_default()
            );
            if grpc.is_empty() {
                grpc = address;
            }
        }
        shared(&grpc, usize::from(count), until).await?;
        Ok(Several { processes, grpc })
    }

    /// Waits until one of `stop` says so; a node that ends by itself is told of, and missed no further.
    pub async fn watch(&mut self, stop: impl Future<Output = ()>) {
        let (tx, mut ended) = mpsc::channel::<(u16, std::io::Result<ExitStatus>)>(1);
        let watching = async {
            let waits = self.processes.iter_mut().map(|p| {
                let tx = tx.clone();
                async move {
                    let status = p.child.wait().await;
                    // nobody reads any more when all are being stopped
                    let _ = tx.send((p.number, status)).await;
                }
            });
            futures::future::join_all(waits).await;
        };
        let telling = async {
            while let Some((number, status)) = ended.recv().await {
                let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                eprintln!("node-{number} has ended ({how}); the others go on");
            }
        };
        tokio::select! {
            () = stop => {}
            ((), ()) = async { tokio::join!(watching, telling) } => {}
        }
    }

    /// Stops all of them, in order, the first one last.
    pub async fn stop(mut self) {
        while let Some(mut process) = self.processes.pop() {
            let pid = process.child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                // one that is gone needs no signal
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            if tokio::time::timeout(STOP_WITHIN, process.child.wait())
                .await
                .is_err()
            {
                eprintln!("node-{} does not stop, and is killed", process.number);
                let _ = process.child.kill().await;
            }
        }
    }
}

/// Waits until a node has said where it is.
async fn told(process: &mut Process, until: Instant) -> Result<Addresses, String> {
    let number = process.number;
    let all = process
        .said
        .wait_for(|a| a.grpc.is_some() && a.peer.is_some());
    tokio::select! {
        told = tokio::time::timeout_at(until, all) => match told {
            Ok(Ok(told)) => Ok(told.clone()),
            Ok(Err(_)) => Err(format!("node-{number} ended before it served")),
            Err(_) => Err(format!("node-{number} has not started within {} s", START_WITHIN.as_secs())),
        },
        status = process.child.wait() => Err(format!(
            "node-{number} ended before it served ({})",
            status.map_or_else(|e| e.to_string(), |s| s.to_string())
        )),
    }
}

/// Waits until so many nodes share the shards, each shard with an owner and as many voters as it may have.
async fn shared(grpc: &str, count: usize, until: Instant) -> Result<(), String> {
    let mut why = String::from("the first node does not answer");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{grpc}"));
    let mut client = ClusterClient::new(endpoint.map_err(|e| e.to_string())?.connect_lazy());
    while Instant::now() < until {
        match client.get_status(v1::GetClusterStatusRequest {}).await {
            Ok(status) => match missing(&status.into_inner(), count) {
                None => return Ok(()),
                Some(missing) => why = missing,
            },
            Err(status) => status.message().clone_into(&mut why),
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!(
        "the nodes do not share the shards within {} s: {why}",
        START_WITHIN.as_secs()
    ))
}

fn missing(status: &v1::ClusterStatus, count: usize) -> Option<String> {
    let there = status.nodes.iter().filter(|n| {
        n.reachable
            && n.info
                .as_ref()
                .is_some_and(|i| i.state() == v1::NodeState::Active)
    });
    let there = there.count();
    if there < count {
        return Some(format!("{there} of {count} nodes are active"));
    }
    let voters = count.min(3);
    let lacking = status
        .shards
        .iter()
        .filter(|s| s.owner == 0 || s.voters.len() < voters)
        .count();
    if lacking > 0 {
        return Some(format!(
            "{lacking} shards have fewer than {voters} replicas, or no owner"
        ));
    }
    status
        .change
        .as_ref()
        .filter(|c| c.state() == v1::ChangeState::Running)
        .map(|c| format!("change {} is under way", c.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_prints_is_understood() {
        let mut addresses = Addresses::default();
        assert!(addresses.take("sojourn serves gRPC on 127.0.0.1:1 and HTTP on 127.0.0.1:2"));
        assert!(addresses.take("node 3 of cluster ab, for other nodes on 127.0.0.1:4"));
        assert!(!addresses.take("node 3 has a problem"));
        assert_eq!(addresses.grpc.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(addresses.http.as_deref(), Some("127.0.0.1:2"));
        assert_eq!(addresses.peer.as_deref(), Some("127.0.0.1:4"));
    }
}
