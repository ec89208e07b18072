//! One stream of the load, closed or open loop.

use super::{LAST_ANSWERS, Load, OPEN_MAX, Target, Turn, signal};
use crate::cli::bench::measure::Run;
use crate::error::Error;
use prost::Message as _;
use sojourn_proto::v1::{self, echo_client::EchoClient, signals_client::SignalsClient};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

pub(super) struct OneStream {
    pub target: Target,
    pub channel: Channel,
    pub ids: Arc<AtomicU64>,
    pub load: Load,
    /// Its virtual clients, numbered among the `step` of its node.
    pub slots: Vec<usize>,
    pub step: usize,
    /// Those of its node.
    pub customers: Arc<Vec<usize>>,
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
    pub async fn closed(self) -> Result<Run, Status> {
        let (requests, mut answers) = self.begin().await?;
        let begin = Instant::now() + self.load.warm_up;
        let end = begin + self.load.measured;
        let mut run = Run::new();
        let mut turns: Vec<Turn> = self
            .slots
            .iter()
            .map(|s| Turn::new(*s, self.step, self.customers.len()))
            .collect();
        let mut started = vec![Instant::now(); turns.len()];
        let send = |number: usize, turn: &mut Turn| {
            // a stream that has ended says so in its answers
            let customer = self.customers[turn.next()];
            let _ = requests.send(self.request(number as u64, customer));
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
    pub async fn open(
        self,
        rate: f64,
        place: usize,
        count_of_streams: usize,
    ) -> Result<Run, Status> {
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
                    let turn = (number * count_of_streams + place) % self.customers.len();
                    let customer = self.customers[turn];
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
