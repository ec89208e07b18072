//! Load through the SDK that keeps books: what was sent, what came back, when, and of which shard. At a rate that does not
//! wait for answers (open loop), or so many at once (closed loop).
//!
//! Knows nothing of what goes wrong meanwhile.

use anyhow::{Context, Result, ensure};
use sojourn_client::{Client, Identifier, Outcome, Receipt, Signal};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Two stages, and a way from each to the other: every signal moves its customer.
pub const JOURNEY: &str = "\
journey: load
entry: [{ on: l.tick }]
stages:
  - stage: here
    transitions: [{ to: there, on: l.tick }]
  - stage: there
    transitions: [{ to: here, on: l.tick }]
";

/// How signals are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many a second, whatever comes back.
    Rate(f64),
    /// So many without an answer.
    InFlight(usize),
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How.
    pub pace: Pace,
    /// Customers that take turns.
    pub customers: usize,
    /// What their names begin with: two loads on one cluster have two.
    pub name: String,
    /// The number of the first signal of each customer: a later load on the same customers begins further on.
    pub rounds_before: u64,
    /// Whether receipts are kept, to be checked afterwards.
    pub keep: bool,
}

/// A signal that was answered with a receipt.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// The shard that decided it.
    pub shard: u32,
    /// When it was to be sent.
    pub due: Instant,
    /// When its receipt was there.
    pub at: Instant,
}

/// What a load has sent and what it was told.
#[derive(Debug, Default)]
pub struct Books {
    /// In the order of the answers.
    pub acks: Vec<Ack>,
    /// If they are kept.
    pub receipts: Vec<Receipt>,
    /// What was answered with something else than a receipt.
    pub failed: Vec<String>,
    /// How many signals of each customer were answered with a receipt.
    pub of: BTreeMap<usize, u64>,
}

/// A load that runs until it is ended.
pub struct Load {
    books: Arc<Mutex<Books>>,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// The name of a load's customer.
pub fn customer(name: &str, number: usize) -> Identifier {
    Identifier::new("load_id", format!("{name}-{number}"))
}

fn signal(plan: &Plan, number: usize, count: u64) -> Signal {
    let who = customer(&plan.name, number);
    Signal::with_id("l.tick", format!("{}-{count}", plan.name))
        .source("load")
        .customer(&who.name, &who.value)
}

impl Books {
    fn enter(&mut self, number: usize, due: Instant, keep: bool, outcome: Answer) {
        match outcome {
            Ok(Outcome::Done(receipt)) => {
                self.acks.push(Ack {
                    shard: receipt.position.map_or(0, |p| p.shard),
                    due,
                    at: Instant::now(),
                });
                *self.of.entry(number).or_default() += 1;
                if keep {
                    self.receipts.push(receipt);
                }
            }
            Ok(other) => self.failed.push(format!("customer {number}: {other:?}")),
            Err(error) => self.failed.push(format!("customer {number}: {error}")),
        }
    }

    /// The answers between two instants.
    pub fn between(&self, from: Instant, until: Instant) -> impl Iterator<Item = &Ack> {
        self.acks
            .iter()
            .filter(move |a| (from..until).contains(&a.at))
    }

    /// Answers a second between two instants.
    pub fn rate(&self, from: Instant, until: Instant) -> f64 {
        let seconds = until.duration_since(from).as_secs_f64();
        self.between(from, until).count() as f64 / seconds.max(f64::MIN_POSITIVE)
    }

    /// The longest time without an answer of one shard that touches the time between two instants, with the shard. A
    /// shard that has not answered since is counted up to `until`.
    pub fn longest_gap(&self, from: Instant, until: Instant) -> Option<(Duration, u32)> {
        let mut last: BTreeMap<u32, Instant> = BTreeMap::new();
        let mut longest: Option<(Duration, u32)> = None;
        let mut acks: Vec<&Ack> = self.acks.iter().collect();
        acks.sort_by_key(|a| a.at);
        let shards: Vec<u32> = {
            let mut shards: Vec<u32> = acks.iter().map(|a| a.shard).collect();
            shards.sort_unstable();
            shards.dedup();
            shards
        };
        let end = shards.iter().map(|shard| (*shard, until));
        let all = acks
            .iter()
            .filter(|a| a.at < until)
            .map(|a| (a.shard, a.at));
        for (shard, at) in all.chain(end) {
            let before = last.insert(shard, at).unwrap_or(at);
            if at >= from {
                longest = longest.max(Some((at.duration_since(before), shard)));
            }
        }
        longest
    }

    /// The longest time from when a signal was to be sent to its receipt, of those answered between two instants.
    pub fn slowest(&self, from: Instant, until: Instant) -> Option<Duration> {
        self.between(from, until)
            .map(|a| a.at.duration_since(a.due))
            .max()
    }
}

type Answer = Result<Outcome, sojourn_client::Error>;

impl Load {
    /// Begins to send.
    pub fn start(client: Client, plan: Plan) -> Load {
        let books = Arc::new(Mutex::new(Books::default()));
        let (stop, stopped) = watch::channel(false);
        let kept = books.clone();
        let running = tokio::spawn(async move {
            match plan.pace {
                Pace::Rate(rate) => open(&client, &plan, rate, &kept, stopped).await,
                Pace::InFlight(count) => closed(&client, &plan, count, &kept, stopped).await,
            }
        });
        Load {
            books,
            stop,
            running,
        }
    }

    /// Looks into the books.
    pub fn look<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many receipts there are.
    pub fn answered(&self) -> usize {
        self.look(|books| books.acks.len())
    }

    /// Sends nothing more, waits for what is under way, and closes the books.
    ///
    /// # Errors
    /// When its task has panicked.
    pub async fn finish(mut self) -> Result<Books> {
        self.stop.send_replace(true);
        (&mut self.running).await.context("the load's task")??;
        Ok(std::mem::take(
            &mut *self.books.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

async fn open(
    client: &Client,
    plan: &Plan,
    rate: f64,
    books: &Arc<Mutex<Books>>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    ensure!(rate > 0.0 && plan.customers > 0, "nothing is to be sent");
    let begun = Instant::now();
    let mut waiting = JoinSet::new();
    let mut count = 0_u64;
    while !*stopped.borrow() {
        let due = begun + Duration::from_secs_f64(count as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        let number = usize::try_from(count)? % plan.customers;
        let round = plan.rounds_before + count / plan.customers as u64;
        // handed over in order; the answers come in any
        let pending = client.enqueue(signal(plan, number, round)).await;
        let (books, keep) = (books.clone(), plan.keep);
        waiting.spawn(async move {
            let answer = match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            books.enter(number, due, keep, answer);
        });
        while let Some(done) = waiting.try_join_next() {
            done?;
        }
        count += 1;
    }
    while let Some(done) = waiting.join_next().await {
        done?;
    }
    Ok(())
}

async fn closed(
    client: &Client,
    plan: &Plan,
    in_flight: usize,
    books: &Arc<Mutex<Books>>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    ensure!(
        in_flight > 0 && plan.customers >= in_flight,
        "{} customers are too few for {in_flight} signals in flight",
        plan.customers
    );
    let mut senders = JoinSet::new();
    for sender in 0..in_flight {
        let (client, plan, books, stopped) =
            (client.clone(), plan.clone(), books.clone(), stopped.clone());
        // each has customers of its own, so that none waits behind another's
        senders.spawn(async move {
            for round in plan.rounds_before.. {
                for number in (sender..plan.customers).step_by(in_flight) {
                    if *stopped.borrow() {
                        return;
                    }
                    let due = Instant::now();
                    let answer = client.send(signal(&plan, number, round)).await;
                    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
                    books.enter(number, due, plan.keep, answer);
                }
            }
        });
    }
    while let Some(done) = senders.join_next().await {
        done?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_that_of_the_shard_that_waited_longest() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let ack = |(shard, ms): (u32, u64)| Ack {
            shard,
            due: at(ms.saturating_sub(5)),
            at: at(ms),
        };
        let acks = [
            (0, 10),
            (1, 10),
            (0, 20),
            (1, 20),
            (0, 400),
            (1, 900),
            (0, 950),
        ];
        let books = Books {
            acks: acks.into_iter().map(ack).collect(),
            ..Books::default()
        };
        let gap = |from, until| {
            let longest = books.longest_gap(at(from), at(until));
            longest.map(|(gap, shard)| (gap.as_millis() as u64, shard))
        };
        assert_eq!(gap(30, 1_000), Some((880, 1)));
        assert_eq!(gap(30, 500), Some((480, 1)), "not over yet");
        assert_eq!(gap(0, 15), Some((5, 1)));
        assert_eq!(gap(901, 1_000), Some((550, 0)));
        let slowest = books.slowest(at(0), at(1_000));
        assert_eq!(slowest, Some(Duration::from_millis(5)));
    }
}
