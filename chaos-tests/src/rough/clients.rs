//! Clients that record what they do: several, on several nodes, with deadlines of several lengths. Each customer belongs to
//! one lane of one client, which sends their signals one after the other or several at once in order; others look at them,
//! and send what was acknowledged once more.
//!
//! Knows nothing of what goes wrong meanwhile.

use crate::history::{Attempt, History, JOURNEY, Look, Place, SOURCE, Told};
use crate::hook::Hook;
use crate::invariants::latest;
use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use sojourn_client::{Client, Identifier, Read, Signal};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Acknowledged signals that may be sent once more.
const REMEMBERED: usize = 2_000;
/// The deadlines in rough times: some run out.
const DEADLINES: [Duration; 3] = [
    Duration::from_millis(1_500),
    Duration::from_secs(4),
    Duration::from_secs(10),
];
/// The deadline when all is whole.
pub const PATIENT: Duration = Duration::from_secs(30);

/// The journey; versions differ in their title. Every signal of every stage moves its customer; one is called about by
/// webhook, one waits for a timer, and what that leads to is called about, too.
pub fn journey(version: u32) -> String {
    let ways = |own: &str| {
        [
            ("there", "c.there"),
            ("called", "c.call"),
            ("waiting", "c.wait"),
            ("done", "c.end"),
            ("here", "c.here"),
        ]
        .iter()
        .map(|(to, on)| {
            // a way to where one is is a new visit
            let to = if *to == own { "again" } else { to };
            format!("      - {{ to: {to}, on: {on} }}\n")
        })
        .collect::<String>()
    };
    let entries: String = KINDS
        .iter()
        .map(|(kind, _)| format!("  - on: {kind}\n"))
        .collect();
    let mut text =
        format!("journey: {JOURNEY}\ntitle: Version {version}\nentry:\n{entries}stages:\n");
    for stage in ["here", "there", "again", "called", "waiting"] {
        text.push_str(&format!("  - stage: {stage}\n"));
        if stage == "called" {
            text.push_str(
                "    enter:\n      - webhook: { to: hook, body: { who: \"{{ customer.id }}\" } }\n",
            );
        }
        text.push_str(&format!("    transitions:\n{}", ways(stage)));
        if stage == "waiting" {
            text.push_str("      - { to: called, after: 2s }\n");
        }
    }
    text.push_str("  - { stage: done, end: converted }\n");
    text
}

/// The kinds of signals, and how often each comes.
const KINDS: [(&str, u32); 5] = [
    ("c.here", 35),
    ("c.there", 35),
    ("c.call", 12),
    ("c.wait", 13),
    ("c.end", 5),
];

/// A customer by their number: names that are written in several ways.
fn name(number: usize) -> Identifier {
    let value = match number % 6 {
        0 => format!("plain-{number}"),
        1 => format!("Zoë {number}"),
        2 => format!("李雷/{number}"),
        3 => format!("Ωμέγα.{number}"),
        // written as two letters, kept as one
        4 => format!("noe\u{308}l-{number}"),
        _ => format!("😀{number}"),
    };
    Identifier::new("id", value)
}

/// What all lanes share.
struct Shared {
    begun: Instant,
    history: Mutex<History>,
    /// Acknowledged signals, with their customers.
    given: Mutex<VecDeque<(usize, Signal)>>,
    customers: AtomicUsize,
    numbers: Vec<AtomicU64>,
    clients: Vec<Client>,
    calm: AtomicBool,
    stop: watch::Sender<bool>,
    hook: Arc<Hook>,
}

fn locked<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A customer that nobody has heard of.
    fn newcomer(&self) -> usize {
        let mut history = locked(&self.history);
        let number = history.customers.len();
        history.customers.push(name(number));
        self.customers.store(number + 1, Ordering::Relaxed);
        number
    }

    /// A client with a deadline for one call.
    fn client(&self, which: usize, chance: &mut StdRng) -> Client {
        let deadline = if self.calm.load(Ordering::Relaxed) {
            PATIENT
        } else {
            DEADLINES[chance.random_range(0..DEADLINES.len())]
        };
        self.clients[which].with_deadline(deadline)
    }

    /// Sends a signal through a client and records what came of it; the answer is awaited apart, so that several can be
    /// handed over in order.
    async fn send(
        self: &Arc<Self>,
        which: usize,
        client: Client,
        customer: usize,
        signal: Signal,
        wrong: bool,
    ) -> impl Future<Output = Told> + use<> {
        let number = self.numbers[which].fetch_add(1, Ordering::Relaxed);
        let (id, begun) = (signal.signal_id().to_owned(), self.now());
        let pending = client.enqueue(signal.clone()).await;
        let shared = self.clone();
        async move {
            let answer = match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            let told = Told::of(answer);
            let attempt = Attempt {
                customer,
                id,
                client: which,
                number,
                begun,
                ended: shared.now(),
                told: told.clone(),
                wrong,
            };
            locked(&shared.history).attempts.push(attempt);
            if told.recorded().is_some() {
                let mut given = locked(&shared.given);
                if given.len() == REMEMBERED {
                    given.pop_front();
                }
                given.push_back((customer, signal));
            }
            told
        }
    }

    async fn look(&self, which: usize, client: Client, customer: usize) {
        let begun = self.now();
        let who = latest(&name(customer), JOURNEY);
        let read = client.get(&who, Read::default());
        let saw = match read.await {
            Ok(answer) => {
                let index = answer.position.map_or(0, |p| p.index);
                let place = answer.execution.map(|e| Place {
                    run: e.run,
                    events: e.events,
                });
                Ok((place.unwrap_or_default(), index))
            }
            Err(error) if error.is_not_found() => Ok((Place::default(), 0)),
            Err(error) => Err(error.to_string()),
        };
        let look = Look {
            customer,
            client: which,
            begun,
            ended: self.now(),
            saw,
        };
        locked(&self.history).looks.push(look);
    }
}

/// Clients that go on until they are stopped.
pub struct Clients {
    shared: Arc<Shared>,
    lanes: JoinSet<()>,
}

/// How much they do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Calls a second at most, of all together.
    pub rate: f64,
    /// That many calls at once at most.
    pub lanes: usize,
    /// Customers that each lane has at the beginning; others come.
    pub customers: usize,
}

impl Clients {
    /// Begins: one client for each list of addresses, which begins with the first of it.
    ///
    /// # Errors
    /// When one is no address.
    pub fn start(servers: &[String], load: Load, seed: u64, hook: Arc<Hook>) -> Result<Clients> {
        let clients = servers
            .iter()
            .map(|s| Ok(Client::builder(s).connect_lazy()?))
            .collect::<Result<Vec<Client>>>()
            .context("clients of the cluster")?;
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            history: Mutex::default(),
            given: Mutex::default(),
            customers: AtomicUsize::new(0),
            numbers: clients.iter().map(|_| AtomicU64::new(0)).collect(),
            clients,
            calm: AtomicBool::new(false),
            stop: watch::channel(false).0,
            hook,
        });
        let mut lanes = JoinSet::new();
        let pause = Duration::from_secs_f64(load.lanes as f64 / load.rate.max(0.1));
        for number in 0..load.lanes {
            let own = (0..load.customers.max(1))
                .map(|_| (shared.newcomer(), 0))
                .collect();
            let lane = Lane {
                shared: shared.clone(),
                which: number % servers.len().max(1),
                chance: crate::chance::of(seed ^ (number as u64 + 1) << 32),
                own,
            };
            lanes.spawn(lane.run(pause));
        }
        Ok(Clients { shared, lanes })
    }

    /// Microseconds since they began.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// When they began.
    pub fn begun(&self) -> Instant {
        self.shared.begun
    }

    /// How many signals got a receipt and how many reads an answer, up to now.
    pub fn answered(&self) -> usize {
        let history = locked(&self.shared.history);
        let looks = history.looks.iter().filter(|l| l.saw.is_ok()).count();
        let told = history
            .attempts
            .iter()
            .filter(|a| a.told.recorded().is_some());
        told.count() + looks
    }

    /// All is whole: from now on everything must be answered.
    pub fn calm(&self) {
        self.shared.calm.store(true, Ordering::Relaxed);
    }

    /// Ends them when what is under way has been answered.
    ///
    /// # Errors
    /// When a lane has panicked, or does not end in time.
    pub async fn finish(mut self) -> Result<History> {
        self.shared.stop.send_replace(true);
        let ending = async {
            while let Some(done) = self.lanes.join_next().await {
                done?;
            }
            anyhow::Ok(())
        };
        let ended = tokio::time::timeout(PATIENT * 3, ending).await;
        ended.context("a call was not answered long after its deadline")??;
        Ok(std::mem::take(&mut *locked(&self.shared.history)))
    }
}

/// One after the other.
struct Lane {
    shared: Arc<Shared>,
    which: usize,
    chance: StdRng,
    /// Its customers, and how many signals each was sent.
    own: Vec<(usize, u64)>,
}

impl Lane {
    async fn run(mut self, pause: Duration) {
        let mut stop = self.shared.stop.subscribe();
        let mut due = Instant::now();
        loop {
            // the load's pace; what is late is not made up for
            due = (due + pause.mul_f64(self.chance.random_range(0.5..1.5))).max(Instant::now());
            let paced = tokio::time::timeout_at(due.into(), stop.wait_for(|stop| *stop));
            if paced.await.is_ok() {
                return;
            }
            match self.chance.random_range(0..100) {
                0..25 => self.look().await,
                25..35 => self.once_more().await,
                35..45 => self.several().await,
                45..50 => self.twice().await,
                50..52 => self.wrong().await,
                52 => self.own.push((self.shared.newcomer(), 0)),
                _ => self.next().await,
            }
        }
    }

    /// The next signal of a customer of its own.
    fn signal(&mut self, of: usize) -> (usize, Signal) {
        let all: u32 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.random_range(0..all);
        let found = KINDS.iter().find(|(_, weight)| {
            let this = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            this
        });
        let kind = found.map_or("c.here", |(kind, _)| kind);
        let (customer, count) = &mut self.own[of];
        *count += 1;
        let who = name(*customer);
        let mut signal = Signal::with_id(kind, format!("{customer}-{count}"))
            .source(SOURCE)
            .customer(who.name, who.value)
            .data_bytes(format!("{{\"n\":{count},\"text\":\"größer\"}}"));
        // many at the same time, by their own clock
        if self.chance.random_ratio(1, 3)
            && let Ok(time) = jiff::Timestamp::from_second(1_700_000_000)
        {
            signal = signal.time(time);
        }
        if kind == "c.call" && self.chance.random_ratio(1, 6) {
            self.shared.hook.answer_next(&[503]);
        }
        (*customer, signal)
    }

    fn somebody(&mut self) -> usize {
        self.chance.random_range(0..self.own.len())
    }

    fn any_client(&mut self) -> (usize, Client) {
        let which = self.chance.random_range(0..self.shared.clients.len());
        (which, self.shared.client(which, &mut self.chance))
    }

    async fn next(&mut self) {
        let of = self.somebody();
        let (customer, signal) = self.signal(of);
        let client = self.shared.client(self.which, &mut self.chance);
        let sent = self
            .shared
            .send(self.which, client, customer, signal.clone(), false);
        let told = sent.await.await;
        // what came of it nobody knows: half of them are asked again, elsewhere
        if matches!(told, Told::Unknown(_)) && self.chance.random_ratio(1, 2) {
            let (which, client) = self.any_client();
            let sent = self.shared.send(which, client, customer, signal, false);
            sent.await.await;
        }
    }

    /// Several of one customer, without waiting for the answers.
    async fn several(&mut self) {
        let of = self.somebody();
        let client = self.shared.client(self.which, &mut self.chance);
        let mut answers = Vec::new();
        for _ in 0..self.chance.random_range(2..5) {
            let (customer, signal) = self.signal(of);
            let sent = self
                .shared
                .send(self.which, client.clone(), customer, signal, false);
            answers.push(sent.await);
        }
        futures::future::join_all(answers).await;
    }

    /// One through two clients at once.
    async fn twice(&mut self) {
        let of = self.somebody();
        let (customer, signal) = self.signal(of);
        let client = self.shared.client(self.which, &mut self.chance);
        let one = self
            .shared
            .send(self.which, client, customer, signal.clone(), false);
        let one = one.await;
        let (which, client) = self.any_client();
        let other = self.shared.send(which, client, customer, signal, false);
        let other = other.await;
        tokio::join!(one, other);
    }

    /// Something that was acknowledged, by anybody, through any client.
    async fn once_more(&mut self) {
        let drawn = self.chance.random_range(0..REMEMBERED);
        let given = {
            let given = locked(&self.shared.given);
            let place = drawn.checked_rem(given.len());
            place.and_then(|place| given.get(place).cloned())
        };
        if let Some((customer, signal)) = given {
            let (which, client) = self.any_client();
            let sent = self.shared.send(which, client, customer, signal, false);
            sent.await.await;
        }
    }

    /// One that is no valid signal.
    async fn wrong(&mut self) {
        let of = self.somebody();
        let (customer, signal) = self.signal(of);
        let wrong = if self.chance.random_ratio(1, 2) {
            signal.data_bytes("{ no json")
        } else {
            signal.data_bytes(format!("{{\"much\":\"{}\"}}", "x".repeat(300 << 10)))
        };
        let client = self.shared.client(self.which, &mut self.chance);
        let sent = self.shared.send(self.which, client, customer, wrong, true);
        sent.await.await;
    }

    async fn look(&mut self) {
        let all = self.shared.customers.load(Ordering::Relaxed);
        let customer = if self.chance.random_ratio(1, 2) {
            self.own[self.chance.random_range(0..self.own.len())].0
        } else {
            self.chance.random_range(0..all.max(1))
        };
        let (which, client) = self.any_client();
        self.shared.look(which, client, customer).await;
    }
}
