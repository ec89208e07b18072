//! Links between nodes that a story can cut: a door in front of each node's doors, through which what others are told of
//! goes. A cut link is silent, as a broken cable is: nothing is refused, nothing arrives, and what waited goes on when the
//! link is mended.
//!
//! Who speaks is found out by the process that holds the other end of a connection (`/proc`), so that each direction of
//! each pair of nodes can be cut alone. Whoever is no node, a client of the story for instance, passes always.

use crate::process::Doors;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The host of the doors that others are told of: on Linux all of 127/8 is loopback, so that a node can be told of under
/// its own ports at another address.
pub const HOST: [u8; 4] = [127, 0, 0, 2];
/// Tries for a port that is free at both addresses.
const TRIES: u32 = 50;
/// What is held of a silent connection, besides the buffers of the system.
const BUFFER: usize = 64 << 10;

/// A direction: who speaks, and to whom.
pub type Way = (usize, usize);

type Processes = Arc<Mutex<BTreeMap<usize, u32>>>;

/// The links between the nodes of a cluster, by their places.
pub struct Links {
    cut: watch::Sender<HashSet<Way>>,
    processes: Processes,
    doors: JoinSet<()>,
}

impl Default for Links {
    fn default() -> Self {
        Links::new()
    }
}

impl Links {
    /// None, and nothing cut.
    pub fn new() -> Links {
        Links {
            cut: watch::channel(HashSet::new()).0,
            processes: Processes::default(),
            doors: JoinSet::new(),
        }
    }

    /// Opens the doors in front of a node, and tells where the node itself must listen.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn stand_before(&mut self, place: usize) -> Result<Doors> {
        let mut doors = Doors::free();
        for door in [&mut doors.grpc, &mut doors.peer] {
            *door = self.open(place, door.ip()).await?;
        }
        Ok(doors)
    }

    async fn open(&mut self, place: usize, host: IpAddr) -> Result<SocketAddr> {
        for _ in 0..TRIES {
            let listener = TcpListener::bind((std::net::Ipv4Addr::from(HOST), 0)).await?;
            let behind = SocketAddr::from((host, listener.local_addr()?.port()));
            if std::net::TcpListener::bind(behind).is_err() {
                continue;
            }
            let (cut, processes) = (self.cut.subscribe(), self.processes.clone());
            self.doors
                .spawn(serve(listener, behind, place, cut, processes));
            return Ok(behind);
        }
        bail!("no port is free at both addresses after {TRIES} tries")
    }

    /// Says which process a node is now.
    pub fn is_process(&self, place: usize, process: u32) {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.insert(place, process);
    }

    /// Cuts these directions, beside those that are cut.
    pub fn cut(&self, ways: impl IntoIterator<Item = Way>) {
        self.cut.send_modify(|cut| cut.extend(ways));
    }

    /// Cuts every link between the nodes of one side and those of the other.
    pub fn part(&self, one: &[usize], other: &[usize]) {
        let both = one
            .iter()
            .flat_map(|a| other.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
        self.cut(both);
    }

    /// Mends all.
    pub fn heal(&self) {
        self.cut.send_modify(HashSet::clear);
    }
}

/// Takes connections to a node until it is dropped, and all of them with it.
async fn serve(
    listener: TcpListener,
    behind: SocketAddr,
    to: usize,
    cut: watch::Receiver<HashSet<Way>>,
    processes: Processes,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let (cut, processes) = (cut.clone(), processes.clone());
                connections.spawn(async move {
                    let from = speaker(&stream, &processes);
                    // a connection that breaks is nothing that anybody need be told: both ends see it
                    let _ = join(stream, behind, from.map(|from| (from, to)), cut).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Joins a connection with the node, as long as both ends live.
async fn join(
    stream: TcpStream,
    behind: SocketAddr,
    way: Option<Way>,
    mut cut: watch::Receiver<HashSet<Way>>,
) -> Result<()> {
    let back = way.map(|(from, to)| (to, from));
    open(&mut cut, way).await?;
    open(&mut cut, back).await?;
    let node = TcpStream::connect(behind).await?;
    for one in [&stream, &node] {
        one.set_nodelay(true)?;
    }
    let ((read, write), (node_read, node_write)) = (stream.into_split(), node.into_split());
    let there = carry(read, node_write, way, cut.clone());
    let here = carry(node_read, write, back, cut);
    // when one direction breaks, so does the other
    tokio::try_join!(there, here).map(drop)
}

/// Waits until a direction is not cut.
async fn open(cut: &mut watch::Receiver<HashSet<Way>>, way: Option<Way>) -> Result<()> {
    if let Some(way) = way {
        cut.wait_for(|cut| !cut.contains(&way)).await?;
    }
    Ok(())
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Option<Way>,
    mut cut: watch::Receiver<HashSet<Way>>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await;
        // of the end of a connection nobody hears either
        open(&mut cut, way).await?;
        match read? {
            0 => return Ok(to.shutdown().await?),
            count => to.write_all(&buffer[..count]).await?,
        }
    }
}

/// The node whose process holds the other end.
fn speaker(stream: &TcpStream, processes: &Processes) -> Option<usize> {
    let processes = processes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let (SocketAddr::V4(theirs), SocketAddr::V4(ours)) =
        (stream.peer_addr().ok()?, stream.local_addr().ok()?)
    else {
        return None;
    };
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = format!("socket:[{}]", inode(&table, theirs, ours)?);
    processes
        .into_iter()
        .find(|(_, process)| holds(*process, &socket).unwrap_or(false))
        .map(|(place, _)| place)
}

/// The number of the socket between two addresses, in the system's table of connections.
fn inode(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<u64> {
    let written = |address: SocketAddrV4| {
        // as it lies in memory, read as a number
        let host = u32::from_ne_bytes(address.ip().octets());
        format!("{host:08X}:{:04X}", address.port())
    };
    let (local, remote) = (written(local), written(remote));
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next()? == local && fields.next()? == remote;
        found.then(|| fields.nth(6)?.parse().ok()).flatten()
    })
}

fn holds(process: u32, socket: &str) -> Result<bool> {
    let folder = format!("/proc/{process}/fd");
    for entry in std::fs::read_dir(&folder).with_context(|| folder.clone())? {
        // one that was closed meanwhile is not it
        let Ok(target) = std::fs::read_link(entry?.path()) else {
            continue;
        };
        if target == Path::new(socket) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A listener that answers every byte with itself.
    async fn echo(at: SocketAddr) -> Result<JoinSet<Result<()>>> {
        let listener = TcpListener::bind(at).await?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        Ok(serving)
    }

    #[tokio::test]
    async fn a_cut_link_is_silent_and_a_mended_one_goes_on() -> Result<()> {
        let mut links = Links::new();
        let behind = links.stand_before(1).await?.grpc;
        let _echo = echo(behind).await?;
        // this very process is the node that speaks
        links.is_process(0, std::process::id());
        let told = SocketAddr::from((HOST, behind.port()));
        let mut stream = TcpStream::connect(told).await?;
        let mut answer = [0; 1];
        stream.write_all(b"a").await?;
        stream.read_exact(&mut answer).await?;
        for way in [(0, 1), (1, 0)] {
            links.cut([way]);
            stream.write_all(b"b").await?;
            let silent = stream.read_exact(&mut answer);
            let silent = tokio::time::timeout(Duration::from_millis(200), silent).await;
            assert!(silent.is_err(), "cut at {way:?}, {answer:?} came through");
            links.heal();
            stream.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"b");
        }
        // others' links are not cut with it
        links.part(&[2], &[0, 1]);
        stream.write_all(b"c").await?;
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"c");
        Ok(())
    }
}
