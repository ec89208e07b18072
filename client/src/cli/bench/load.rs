//! The load: virtual clients that each send the next signal when the last is answered (closed loop), or signals that
//! begin at their time whatever came of the others (open loop). The same code for a server and for the echo: both take
//! the same messages.

mod stream;

use super::measure::Run;
use crate::cli::exit::{Exit, Trouble};
use crate::client::Client;
use crate::error::Error;
use crate::nodes::Address;
use crate::topology;
use bytes::Bytes;
use sojourn_proto::v1::{self, echo_client::EchoClient, signals_client::SignalsClient};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stream::OneStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Signals of an open loop that may be without an answer; a server that falls this far behind slows the sender, and the
/// latencies, which count from the intended start, say so.
const OPEN_MAX: usize = 20_000;
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Server,
    Echo,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub workspace: String,
    pub run: String,
    pub customers: usize,
    pub data: Bytes,
    pub stream: bool,
    pub in_flight: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    /// Signals per second of an open loop.
    pub open: Option<u64>,
}

/// The name of a customer.
pub(super) fn customer(run: &str, number: usize) -> String {
    format!("{run}-{number}")
}

/// A signal of the load.
pub(super) fn signal(load: &Load, customer_number: usize, kind: &str, id: String) -> v1::Signal {
    v1::Signal {
        id,
        source: "bench".to_owned(),
        r#type: kind.to_owned(),
        identifiers: vec![v1::Identifier {
            name: "bench_id".to_owned(),
            value: customer(&load.run, customer_number),
        }],
        data: load.data.clone(),
        ..Default::default()
    }
}

/// The connections to one target: of a cluster, some to each node that owns something.
pub(super) struct Connections {
    target: Target,
    nodes: Vec<(Address, Vec<Channel>)>,
    /// Tells which node owns a customer.
    cluster: Option<Client>,
    next_id: Arc<AtomicU64>,
}

/// Which customers belong to which node while a run lasts.
struct Shares {
    /// By customer, the place of its node among the nodes.
    node: Vec<usize>,
    /// By node, its customers.
    customers: Vec<Vec<usize>>,
}

impl Connections {
    /// To one server.
    pub async fn open(target: Target, url: &str, count: usize) -> Result<Connections, Trouble> {
        Connections::to(target, vec![url.into()], count, None).await
    }

    /// To the cluster of a client, so that each signal goes straight to the owner of its customer; to the server that the
    /// client speaks to, when that knows of no cluster.
    pub async fn of_cluster(client: &Client, count: usize) -> Result<Connections, Trouble> {
        let view = client.nodes().view();
        let mut addresses: Vec<Address> = view.owning().into_iter().cloned().collect();
        if addresses.is_empty() {
            addresses.push(client.nodes().pick(None, &[]));
        }
        Connections::to(Target::Server, addresses, count, Some(client.clone())).await
    }

    async fn to(
        target: Target,
        addresses: Vec<Address>,
        count: usize,
        cluster: Option<Client>,
    ) -> Result<Connections, Trouble> {
        let each = count.div_ceil(addresses.len());
        let mut nodes = Vec::new();
        for address in addresses {
            let endpoint = Endpoint::from_shared(address.to_string())
                .map_err(|e| Trouble::usage(format!("the server is {address:?}: {e}")))?
                .tcp_nodelay(true)
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(8 << 20)
                .connect_timeout(Duration::from_secs(5));
            let mut channels = Vec::new();
            for _ in 0..each {
                let connected = endpoint.connect().await;
                channels.push(connected.map_err(|e| {
                    let text = format!("no server answers at {address}: {e}");
                    Trouble::new(Exit::Unreachable, text)
                })?);
            }
            nodes.push((address, channels));
        }
        Ok(Connections {
            target,
            nodes,
            cluster,
            next_id: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Where the customers of a load are now. A customer of whom that is not known is anybody's: nodes hand over.
    fn shares(&self, load: &Load) -> Shares {
        let view = self.cluster.as_ref().map(|c| c.nodes().view());
        let count = self.nodes.len();
        let node: Vec<usize> = (0..load.customers)
            .map(|number| {
                let name = customer(&load.run, number);
                let place = topology::place(&load.workspace, "bench_id", &name);
                let owner = view.as_ref().zip(place).and_then(|(v, p)| v.owner(p));
                let known = owner.and_then(|o| self.nodes.iter().position(|(a, _)| a == o));
                known.unwrap_or(number % count)
            })
            .collect();
        let mut customers = vec![Vec::new(); count];
        for (number, node) in node.iter().enumerate() {
            customers[*node].push(number);
        }
        Shares { node, customers }
    }

    /// One run: warms up, then measures.
    pub async fn run(&self, load: &Load) -> Run {
        match (load.stream, load.open) {
            (false, None) => self.calls(load).await,
            (false, Some(rate)) => self.open_calls(load, rate).await,
            (true, _) => self.streams(load).await,
        }
    }

    fn request(&self, load: &Load, customer: usize) -> v1::Signal {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        signal(load, customer, "bench.tick", format!("{}-{id}", load.run))
    }

    /// Closed loop, a call per signal.
    async fn calls(&self, load: &Load) -> Run {
        let begin = Instant::now() + load.warm_up;
        let end = begin + load.measured;
        let mut clients = JoinSet::new();
        let shares = Arc::new(self.shares(load));
        for slot in 0..load.in_flight {
            let channels: Vec<Channel> = self
                .nodes
                .iter()
                .map(|(_, channels)| channels[slot % channels.len()].clone())
                .collect();
            let shares = shares.clone();
            let (load, target, ids) = (load.clone(), self.target, self.next_id.clone());
            clients.spawn(async move {
                let mut run = Run::new();
                let mut turn = Turn::new(slot, load.in_flight, load.customers);
                loop {
                    let started = Instant::now();
                    if started >= end {
                        return run;
                    }
                    let id = format!("{}-{}", load.run, ids.fetch_add(1, Ordering::Relaxed));
                    let customer = turn.next();
                    let channel = channels[shares.node[customer]].clone();
                    let signal = signal(&load, customer, "bench.tick", id);
                    let answer = call(target, channel, &load.workspace, signal).await;
                    if started >= begin {
                        match answer {
                            Ok(()) => run.answered(started.elapsed()),
                            Err(status) => run.failed(Error::of_status(&status).to_string()),
                        }
                    }
                }
            });
        }
        gather(clients, load.measured).await
    }

    /// Open loop, a call per signal.
    async fn open_calls(&self, load: &Load, rate: u64) -> Run {
        let room = Arc::new(Semaphore::new(OPEN_MAX));
        let shares = self.shares(load);
        let first = Instant::now();
        let begin = first + load.warm_up;
        let end = begin + load.measured;
        let mut calls: JoinSet<Run> = JoinSet::new();
        let mut all = Run::new();
        let mut sent = 0_u64;
        loop {
            let intended = first + Duration::from_secs_f64(sent as f64 / rate as f64);
            if intended >= end {
                break;
            }
            if intended > Instant::now() {
                tokio::time::sleep_until(intended.into()).await;
            }
            let Ok(permit) = room.clone().acquire_owned().await else {
                break;
            };
            let number = usize::try_from(sent).unwrap_or(usize::MAX);
            let customer = number % load.customers;
            let (_, channels) = &self.nodes[shares.node[customer]];
            let channel = channels[number % channels.len()].clone();
            let signal = self.request(load, customer);
            let (target, workspace) = (self.target, load.workspace.clone());
            calls.spawn(async move {
                let answer = call(target, channel, &workspace, signal).await;
                drop(permit);
                let mut run = Run::new();
                if intended >= begin {
                    match answer {
                        Ok(()) => run.answered(intended.elapsed()),
                        Err(status) => run.failed(Error::of_status(&status).to_string()),
                    }
                }
                run
            });
            sent += 1;
            while let Some(done) = calls.try_join_next() {
                joined(&mut all, done);
            }
        }
        while let Some(done) = calls.join_next().await {
            joined(&mut all, done);
        }
        all.elapsed = load.measured;
        all
    }

    /// Closed or open loop, by streams: one on each connection, the signals shared out among them.
    async fn streams(&self, load: &Load) -> Run {
        let shares = self.shares(load);
        let customers: Vec<Arc<Vec<usize>>> = shares.customers.into_iter().map(Arc::new).collect();
        // first one of each node, then the second of each, so that few in flight still reach every node
        let mut places: Vec<(usize, Channel)> = Vec::new();
        for round in 0.. {
            let before = places.len();
            for (node, (_, channels)) in self.nodes.iter().enumerate() {
                if !customers[node].is_empty()
                    && let Some(channel) = channels.get(round)
                {
                    places.push((node, channel.clone()));
                }
            }
            if places.len() == before || places.len() >= load.in_flight {
                break;
            }
        }
        places.truncate(load.in_flight);
        let count = places.len();
        // of each node, how many virtual clients and streams share its customers
        let of_node = |node: usize| {
            let streams = places.iter().enumerate().filter(|(_, (n, _))| *n == node);
            let streams: Vec<usize> = streams.map(|(place, _)| place).collect();
            let slots: Vec<usize> = (0..load.in_flight)
                .filter(|slot| streams.contains(&(slot % count)))
                .collect();
            (streams, slots)
        };
        let mut running = JoinSet::new();
        for (place, (node, channel)) in places.iter().enumerate() {
            let (of_streams, of_slots) = of_node(*node);
            let mine = of_slots.iter().enumerate();
            let mine = mine.filter(|(_, slot)| *slot % count == place);
            let rate = load.open.map(|rate| rate as f64 / count as f64);
            let number = of_streams.iter().position(|p| *p == place).unwrap_or(0);
            let streams = of_streams.len();
            let stream = OneStream {
                target: self.target,
                channel: channel.clone(),
                ids: self.next_id.clone(),
                load: load.clone(),
                slots: mine.map(|(number, _)| number).collect(),
                step: of_slots.len(),
                customers: customers[*node].clone(),
            };
            running.spawn(async move {
                let done = match rate {
                    None => stream.closed().await,
                    Some(rate) => stream.open(rate, number, streams).await,
                };
                done.unwrap_or_else(|status| {
                    let mut run = Run::new();
                    run.failed(Error::of_status(&status).to_string());
                    run
                })
            });
        }
        gather(running, load.measured).await
    }
}

async fn gather(mut runs: JoinSet<Run>, measured: Duration) -> Run {
    let mut all = Run::new();
    while let Some(done) = runs.join_next().await {
        joined(&mut all, done);
    }
    all.elapsed = measured;
    all
}

fn joined(all: &mut Run, done: Result<Run, tokio::task::JoinError>) {
    match done {
        Ok(run) => all.merge(run),
        Err(e) => all.failed(format!("a virtual client ended: {e}")),
    }
}

/// Which customer a virtual client sends for next: its own ones in turn, so that no two send for one at once as long as
/// there are more customers than virtual clients.
struct Turn {
    slot: usize,
    at: usize,
    step: usize,
    customers: usize,
}

impl Turn {
    /// One of `step` that share so many customers, at least one.
    fn new(slot: usize, step: usize, customers: usize) -> Turn {
        Turn {
            slot: slot % customers,
            at: slot % customers,
            step,
            customers,
        }
    }

    fn next(&mut self) -> usize {
        let customer = self.at;
        self.at += self.step;
        if self.at >= self.customers {
            self.at = self.slot;
        }
        customer
    }
}

async fn call(
    target: Target,
    channel: Channel,
    workspace: &str,
    signal: v1::Signal,
) -> Result<(), Status> {
    let request = v1::SendRequest {
        workspace: workspace.to_owned(),
        signal: Some(signal),
    };
    match target {
        Target::Server => SignalsClient::new(channel).send(request).await.map(drop),
        Target::Echo => EchoClient::new(channel).send(request).await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{data, echo};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_echo_answers_calls_and_streams_in_closed_and_open_loop() {
        let (address, server) = echo::start().await.expect("a port is free");
        let server = tokio::spawn(server);
        let connections = Connections::open(Target::Echo, &format!("http://{address}"), 2)
            .await
            .expect("the echo is there");
        for (stream, open) in [
            (false, None),
            (true, None),
            (false, Some(400)),
            (true, Some(400)),
        ] {
            let load = Load {
                workspace: "default".to_owned(),
                run: "r".to_owned(),
                customers: 10,
                data: data(200),
                stream,
                in_flight: 4,
                warm_up: Duration::from_millis(50),
                measured: Duration::from_millis(500),
                open,
            };
            let run = connections.run(&load).await;
            let answers = run.latencies.len();
            assert_eq!(run.errors, 0, "{stream} {open:?}: {:?}", run.error);
            match open {
                Some(_) => assert!((190..=210).contains(&answers), "{stream}: {answers}"),
                None => assert!(answers > 100, "{stream}: {answers}"),
            }
        }
        server.abort();
        let load = Load {
            workspace: "default".to_owned(),
            run: "r".to_owned(),
            customers: 1,
            data: data(0),
            stream: false,
            in_flight: 1,
            warm_up: Duration::ZERO,
            measured: Duration::from_millis(50),
            open: None,
        };
        // a real server's service is not there: every call is counted as an error, none as an answer
        let (address, server) = echo::start().await.expect("a port is free");
        let server = tokio::spawn(server);
        let wrong = Connections::open(Target::Server, &format!("http://{address}"), 1)
            .await
            .expect("the echo is there");
        let run = wrong.run(&load).await;
        assert_eq!(run.latencies.len(), 0);
        assert!(run.errors > 0 && run.error.is_some());
        server.abort();
    }

    #[test]
    fn no_two_virtual_clients_share_a_customer_while_there_are_enough() {
        let load = |customers, in_flight| Load {
            workspace: String::new(),
            run: String::new(),
            customers,
            data: Bytes::new(),
            stream: false,
            in_flight,
            warm_up: Duration::ZERO,
            measured: Duration::ZERO,
            open: None,
        };
        let of = |slot, load: &Load| -> std::collections::BTreeSet<usize> {
            let mut turn = Turn::new(slot, load.in_flight, load.customers);
            (0..50).map(|_| turn.next()).collect()
        };
        let enough = load(10, 4);
        let all: Vec<_> = (0..4).map(|slot| of(slot, &enough)).collect();
        assert_eq!(
            all.iter()
                .map(std::collections::BTreeSet::len)
                .sum::<usize>(),
            10
        );
        let few = load(2, 4);
        assert_eq!(of(3, &few), [1].into());
    }
}
