//! Rough times for real processes: a cluster under load, somebody who treats it badly ([`nemesis`]) by a schedule drawn from
//! a seed ([`plan`]), clients that record what they do ([`clients`]); then everything is mended and must work again, and what
//! was recorded is held against the promises ([`crate::invariants::history`]). What came of it is a [`report`].

pub mod clients;
mod finals;
mod heavy;
pub mod nemesis;
pub mod plan;
pub mod report;
mod watch;

use crate::cluster::Cluster;
use crate::faults::Library;
use crate::history::History;
use crate::hook::Hook;
use crate::invariants::history::{self, Checked, one_owner, works_again};
use crate::process::Setup;
use crate::wait::until;
use anyhow::{Context, Result};
use clients::{Clients, Load, PATIENT};
use nemesis::{About, CLOCK_STEP, Finding, Injected, Nemesis, brief};
use plan::{Kind, Schedule};
use sojourn_client::Client;
use sojourn_client::wire::Endpoint;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use watch::Watch;

/// How long the clients go on after everything was mended.
const CALM: Duration = Duration::from_secs(8);
/// How long what is owed may take to be settled, and timers to fire, when all is whole; clocks may have been ahead.
const SETTLED: Duration = Duration::from_secs(120);

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides the steps.
    pub seed: u64,
    /// How long the rough times last.
    pub rough: Duration,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many shards: a power of two.
    pub shards: u16,
    /// How many clients.
    pub clients: usize,
    /// What they do.
    pub load: Load,
    /// What may be done to the nodes; what this machine cannot do is left out.
    pub kinds: Vec<Kind>,
    /// Whether decisions that are ignored in calm times are a finding: a debug build on a loaded machine loses owners by
    /// itself.
    pub strict: bool,
    /// Whether it says on stderr what is done.
    pub tell: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub injected: Vec<Injected>,
    /// What this machine cannot do, and why.
    pub left_out: Vec<(Kind, String)>,
    /// What was seen besides the promises.
    pub findings: Vec<Finding>,
    /// The promises about safety.
    pub safety: Vec<Checked>,
    /// The promises about liveness.
    pub liveness: Vec<Checked>,
    /// What the clients did.
    pub history: History,
    /// Decisions that owners were too late for, in rough times, over all processes.
    pub ignored: u64,
    /// How long it took until all was whole after the last step.
    pub healed: Option<Duration>,
    /// Where the nodes' folders were left, if something was broken.
    pub evidence: Vec<PathBuf>,
}

impl Outcome {
    /// What is worst in it; `None`: nothing is broken.
    pub fn worst(&self) -> Option<About> {
        let broken = |checked: &[Checked]| checked.iter().any(|c| !c.broken.is_empty());
        let safety = broken(&self.safety).then_some(About::Safety);
        let liveness = broken(&self.liveness).then_some(About::Liveness);
        let found = self.findings.iter().map(|f| f.about).max();
        safety.max(liveness).max(found)
    }
}

/// Lives through it.
///
/// # Errors
/// When it cannot be begun, or its own doing fails: nothing is known about the promises then.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let mut left_out = Vec::new();
    let mut kinds = plan.kinds.clone();
    let library = match Library::build() {
        Ok(library) => Some(library),
        Err(error) => {
            let lacks = kinds.iter().filter(|k| k.needs_library());
            left_out.extend(lacks.map(|k| (*k, format!("{error:#}"))));
            kinds.retain(|k| !k.needs_library());
            None
        }
    };
    let mut setup = Setup {
        shards: plan.shards,
        faults: library.as_ref().map(Library::path),
        ..Setup::default()
    };
    // short runs have checkpoints and purged logs, too
    setup = setup.env("SOJOURN_CHECKPOINT__EVERY_SECONDS", "5");
    // why a change of members goes on or waits is told there; the last word counts
    let log = "warn,openraft=error,sojourn_node::place=debug,sojourn_node::catalog=debug";
    setup = setup.env("SOJOURN_LOG", log);
    let cluster = Cluster::with_links(plan.nodes, setup).await?;
    let hook = Arc::new(Hook::listen(b"none").await?);
    prepare(&cluster.client()?.with_deadline(PATIENT), &hook).await?;
    let urls: Vec<String> = cluster
        .running()
        .iter()
        .map(|p| cluster.node(*p).url())
        .collect();
    let servers: Vec<String> = (0..plan.clients.max(1))
        .map(|first| {
            let mut urls = urls.clone();
            urls.rotate_left(first % plan.nodes.max(1));
            urls.join(",")
        })
        .collect();
    let clients = Clients::start(&servers, plan.load, plan.seed, hook.clone())?;
    let watch = Watch::start(clients.begun());
    let mut nemesis = Nemesis::of(cluster, watch, clients.begun(), plan.tell)?;
    let until = Instant::now() + plan.rough;
    for step in Schedule::of(plan.seed, &kinds) {
        if Instant::now() + step.pause >= until {
            break;
        }
        if let Err(error) = nemesis.step(&step).await {
            let text = brief(&error);
            nemesis.finds(about(&text), text);
            // what comes after would only be more of the same
            break;
        }
    }
    if kinds.is_empty() {
        tokio::time::sleep_until(until.into()).await;
    }
    mended(plan, nemesis, clients, &hook, left_out).await
}

/// What a failed step is about: that replicas differ, or that something is not there in time.
fn about(error: &str) -> About {
    if error.contains(" differ: ") {
        About::Safety
    } else {
        About::Liveness
    }
}

async fn prepare(client: &Client, hook: &Hook) -> Result<()> {
    let endpoint = Endpoint {
        name: "hook".into(),
        url: hook.url().into(),
        timeout_ms: 2_000,
        // whatever happens, it is tried until it is done
        attempts: 100,
        backoff_first_ms: 100,
        backoff_max_ms: 2_000,
        breaker_failures: 1_000,
        breaker_pause_ms: 1_000,
        ..Endpoint::default()
    };
    client.put_endpoint(endpoint, "nemesis").await?;
    let published = client.publish(&clients::journey(1), "nemesis").await?;
    anyhow::ensure!(
        published.live,
        "the journey is not live: {:?}",
        published.lagging
    );
    Ok(())
}

/// The second half: everything is mended and must work, and then it is seen what is there.
async fn mended(
    plan: &Plan,
    mut nemesis: Nemesis,
    clients: Clients,
    hook: &Hook,
    left_out: Vec<(Kind, String)>,
) -> Result<Outcome> {
    let healing = Instant::now();
    let whole = nemesis.whole().await;
    let healed = whole.is_ok().then(|| healing.elapsed());
    if let Err(error) = whole {
        nemesis.finds(
            About::Liveness,
            format!("after all was mended: {}", brief(&error)),
        );
    }
    at_home(&nemesis).await;
    nemesis.watch.look().await;
    let calm = clients.now();
    clients.calm();
    if let Err(error) = nemesis.publish_for_sure().await {
        nemesis.finds(
            About::Liveness,
            format!("after all was mended: {}", brief(&error)),
        );
    }
    let before = clients.answered();
    // so long they go on, in any case
    tokio::time::sleep(CALM).await;
    let answered = until("the clients are answered", PATIENT, async || {
        Ok((clients.answered() >= before + 20).then_some(()))
    });
    if let Err(error) = answered.await {
        nemesis.finds(
            About::Liveness,
            format!("after all was mended: {}", brief(&error)),
        );
    }
    let history = clients.finish().await?;
    let Nemesis {
        mut cluster,
        mut findings,
        injected,
        watch,
        auditor,
        ..
    } = nemesis;
    let mut find = |about, text: String| findings.push(Finding { about, text });
    let readers = cluster.running().into_iter().map(|p| {
        let client = cluster.node(p).client()?;
        anyhow::Ok(client.with_deadline(PATIENT))
    });
    let readers: Vec<Client> = readers.collect::<Result<_>>()?;
    if let Err(error) = cluster.verify().await {
        let text = brief(&error);
        find(about(&text), format!("after all was mended: {text}"));
    }
    watch.look().await;
    let samples = watch.seen();
    drop(watch);
    let mut safety = match finals::read(&readers, &history, hook, CLOCK_STEP, SETTLED).await {
        Ok(finals) => history::all(&history, &finals),
        Err(error) => {
            find(
                About::Liveness,
                format!("what is there in the end cannot be read: {error:#}"),
            );
            Vec::new()
        }
    };
    let audit = auditor.finish();
    if let Err(error) = &audit {
        find(About::Safety, format!("{error:#}"));
    }
    let strictly = if plan.strict { calm } else { u64::MAX };
    safety.push(Checked {
        promise: "a shard has one owner",
        looked_at: match audit {
            Ok(audit) => format!(
                "{} samples, {} answers, {} terms",
                samples.len(),
                audit.answers,
                audit.terms
            ),
            Err(_) => format!("{} samples", samples.len()),
        },
        broken: one_owner::check(&samples, strictly),
    });
    let calls = history.attempts.iter().filter(|a| a.begun >= calm).count();
    let liveness = vec![Checked {
        promise: "what was mended works",
        looked_at: format!("{calls} signals"),
        broken: works_again::check(&history, calm),
    }];
    let mut ignored = std::collections::BTreeMap::new();
    for sample in &samples {
        ignored.insert((sample.place, sample.process), sample.ignored);
    }
    let mut outcome = Outcome {
        injected,
        left_out,
        findings,
        safety,
        liveness,
        history,
        ignored: ignored.values().sum(),
        healed,
        evidence: Vec::new(),
    };
    if outcome.worst().is_some() {
        outcome.evidence = cluster.keep();
        if let Some(first) = outcome.evidence.first() {
            let file = first.join("history.txt");
            report::write_history(&file, &outcome.history).context("writing the history")?;
        }
    }
    Ok(outcome)
}

/// Waits until every shard is owned by the node that should, which takes its time after much has moved; if it does not
/// come to that, no promise is broken.
async fn at_home(nemesis: &Nemesis) {
    let wait = until("all shards are at home", PATIENT * 2, async || {
        let Ok(status) = nemesis.cluster.view().await else {
            return Ok(None);
        };
        let at_home = status
            .shards
            .iter()
            .all(|s| s.layout.first() == Some(&s.owner));
        Ok(at_home.then_some(()))
    });
    // see above
    let _ = wait.await;
}
