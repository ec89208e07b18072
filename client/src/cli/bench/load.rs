//! The load: virtual clients that each send the next signal when the last is answered (closed loop), or signals that
//! begin at their time whatever came of the others (open loop). The same code for a server and for the echo: both take
//! the same messages.

use super::measure::Run;
use crate::cli::exit::{Exit, Trouble};
use crate::error::Error;
use bytes::Bytes;
use prost::Message as _;
use sojourn_proto::v1::{self, echo_client::EchoClient, signals_client::SignalsClient};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
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

/// The connections to one target.
pub(super) struct Connections {
    target: Target,
    channels: Vec<Channel>,
    next_id: Arc<AtomicU64>,
}

impl Connections {
    pub async fn open(target: Target, url: &str, count: usize) -> Result<Connections, Trouble> {
        let nobody = |e: &dyn std::fmt::Display| {
            Trouble::new(
                Exit::Unreachable,
                format!("no server answers at {url}: {e}"),
            )
        };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|e| Trouble::usage(format!("the server is {url:?}: {e}")))?
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .connect_timeout(Duration::from_secs(5));
        let mut channels = Vec::new();
        for _ in 0..count {
            channels.push(endpoint.connect().await.map_err(|e| nobody(&e))?);
        }
        Ok(Connections {
            target,
            channels,
            next_id: Arc::new(AtomicU64::new(0)),
        })
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
        for slot in 0..load.in_flight {
            let channel = self.channels[slot % self.channels.len()].clone();
            let (load, target, ids) = (load.clone(), self.target, self.next_id.clone());
            clients.spawn(async move {
                let mut run = Run::new();
                let mut turn = Turn::new(slot, &load);
                loop {
                    let started = Instant::now();
                    if started >= end {
                        return run;
                    }
                    let id = format!("{}-{}", load.run, ids.fetch_add(1, Ordering::Relaxed));
                    let signal = signal(&load, turn.next(), "bench.tick", id);
                    let answer = call(target, channel.clone(), &load.workspace, signal).await;
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
            let channel = self.channels[number % self.channels.len()].clone();
            let signal = self.request(load, number % load.customers);
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
        let count = self.channels.len().min(load.in_flight);
        let mut streams = JoinSet::new();
        for place in 0..count {
            let slots: Vec<usize> = (place..load.in_flight).step_by(count).collect();
            let rate = load.open.map(|rate| rate as f64 / count as f64);
            let stream = OneStream {
                target: self.target,
                channel: self.channels[place].clone(),
                ids: self.next_id.clone(),
                load: load.clone(),
                slots,
            };
            streams.spawn(async move {
                let done = match rate {
                    None => stream.closed().await,
                    Some(rate) => stream.open(rate, place, count).await,
                };
                done.unwrap_or_else(|status| {
                    let mut run = Run::new();
                    run.failed(Error::of_status(&status).to_string());
                    run
                })
            });
        }
        gather(streams, load.measured).await
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
    fn new(slot: usize, load: &Load) -> Turn {
        Turn {
            slot: slot % load.customers,
            at: slot % load.customers,
            step: load.in_flight,
            customers: load.customers,
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

struct OneStream {
    target: Target,
    channel: Channel,
    ids: Arc<AtomicU64>,
    load: Load,
    slots: Vec<usize>,
}

type Requests = mpsc::UnboundedSender<v1::StreamRequest>;

impl OneStream {
    async fn begin(&self) -> Result<(Requests, tonic::Streaming<v1::StreamResponse>), Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let outgoing = UnboundedReceiverStream::new(receiver);
        let answers = match self.target {
            Target::Server => {
                SignalsClient::new(self.channel.clone())
                    .stream(outgoing)
                    .await?
            }
            Target::Echo => {
                EchoClient::new(self.channel.clone())
                    .stream(outgoing)
                    .await?
            }
        };
        Ok((requests, answers.into_inner()))
    }

    fn request(&self, number: u64, customer: usize) -> v1::StreamRequest {
        let id = format!(
            "{}-{}",
            self.load.run,
            self.ids.fetch_add(1, Ordering::Relaxed)
        );
        v1::StreamRequest {
            number,
            workspace: self.load.workspace.clone(),
            signal: signal(&self.load, customer, "bench.tick", id)
                .encode_to_vec()
                .into(),
        }
    }

    /// The number of a signal is the virtual client that sent it.
    async fn closed(self) -> Result<Run, Status> {
        let (requests, mut answers) = self.begin().await?;
        let begin = Instant::now() + self.load.warm_up;
        let end = begin + self.load.measured;
        let mut run = Run::new();
        let mut turns: Vec<Turn> = self
            .slots
            .iter()
            .map(|s| Turn::new(*s, &self.load))
            .collect();
        let mut started = vec![Instant::now(); turns.len()];
        let send = |number: usize, turn: &mut Turn| {
            // a stream that has ended says so in its answers
            let _ = requests.send(self.request(number as u64, turn.next()));
        };
        for (number, turn) in turns.iter_mut().enumerate() {
            send(number, turn);
        }
        let mut under_way = turns.len();
        while under_way > 0 {
            let waiting =
                tokio::time::timeout_at((end + LAST_ANSWERS).into(), answers.message()).await;
            let Ok(message) = waiting else {
                run.failed(format!(
                    "{under_way} signals got no answer within {} s",
                    LAST_ANSWERS.as_secs()
                ));
                break;
            };
            let Some(message) = message? else {
                run.failed("the server ended the stream");
                break;
            };
            let now = Instant::now();
            for ack in message.acks {
                let number = usize::try_from(ack.number).unwrap_or(usize::MAX);
                let Some(turn) = turns.get_mut(number) else {
                    run.failed(format!(
                        "an answer to the number {number}, which was not sent"
                    ));
                    continue;
                };
                if started[number] >= begin && started[number] < end {
                    count(&mut run, ack.result, now - started[number]);
                }
                if now < end {
                    started[number] = now;
                    send(number, turn);
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(run)
    }

    /// Signals begin at their time; the answers are taken beside.
    async fn open(self, rate: f64, place: usize, count_of_streams: usize) -> Result<Run, Status> {
        let (requests, mut answers) = self.begin().await?;
        let first = Instant::now();
        let begin = first + self.load.warm_up;
        let end = begin + self.load.measured;
        let mut run = Run::new();
        let mut under_way: HashMap<u64, Instant> = HashMap::new();
        let mut sent = 0_u64;
        loop {
            let intended = first + Duration::from_secs_f64(sent as f64 / rate);
            let sending = intended < end;
            if !sending && under_way.is_empty() {
                return Ok(run);
            }
            let room = under_way.len() < OPEN_MAX;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(intended.into()), if sending && room => {
                    let number = usize::try_from(sent).unwrap_or(usize::MAX);
                    let customer = (number * count_of_streams + place) % self.load.customers;
                    under_way.insert(sent, intended);
                    // a stream that has ended says so in its answers
                    let _ = requests.send(self.request(sent, customer));
                    sent += 1;
                    if !sent.is_multiple_of(64) {
                        continue;
                    }
                    // while behind, the sleep is always over: let the connection work all the same
                    tokio::task::yield_now().await;
                }
                message = answers.message() => {
                    let Some(message) = message? else {
                        run.failed("the server ended the stream");
                        return Ok(run);
                    };
                    for ack in message.acks {
                        let Some(intended) = under_way.remove(&ack.number) else { continue };
                        if intended >= begin {
                            count(&mut run, ack.result, intended.elapsed());
                        }
                    }
                }
                () = tokio::time::sleep_until((end + LAST_ANSWERS).into()) => {
                    run.failed(format!("{} signals got no answer within {} s", under_way.len(), LAST_ANSWERS.as_secs()));
                    return Ok(run);
                }
            }
        }
    }
}

fn count(run: &mut Run, result: Option<v1::ItemResult>, latency: Duration) {
    match result.and_then(|r| r.result) {
        Some(v1::item_result::Result::Receipt(_)) => run.answered(latency),
        Some(v1::item_result::Result::Error(e)) => run.failed(Error::of_item(&e).to_string()),
        None => run.failed("an answer without a result"),
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
            let mut turn = Turn::new(slot, load);
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
