//! Whoever does it: carries the steps of a [`Schedule`](super::plan::Schedule) out, one after the other, mends after each
//! what it broke, and writes down what came of it.

use super::clients::journey;
use super::plan::{Draw, Kind, Step};
use super::watch::Watch;
use crate::cluster::Cluster;
use crate::links::{Links, Way};
use crate::owners::Auditor;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The largest step of a clock.
pub const CLOCK_STEP: Duration = Duration::from_secs(30);
/// How long a command to the cluster is waited for in rough times.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which promise something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Something did not work, or did not say clearly why not.
    Liveness,
    /// Something wrong was said or kept.
    Safety,
}

/// Something that must not be, seen while the cluster was treated badly.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad it is.
    pub about: About,
    /// What was seen.
    pub text: String,
}

/// An error without what the processes said: that stands in their folders.
pub fn brief(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    let lines = whole
        .lines()
        .filter(|l| !l.starts_with("  | ") && !l.starts_with("place "));
    lines
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Something that was done.
#[derive(Clone, Debug)]
pub struct Injected {
    /// When it began, since the run began.
    pub at: Duration,
    /// How long it took, mending included.
    pub took: Duration,
    /// What.
    pub kind: Kind,
    /// To whom and how.
    pub what: String,
    /// What came of it.
    pub came: String,
}

/// What must be undone at the end of a step.
enum Undo {
    Start(usize),
    Resume(usize),
    Links,
    Clock(usize),
}

/// It, with the cluster and all that knows where its nodes are.
pub struct Nemesis {
    /// Its victim.
    pub cluster: Cluster,
    /// The places of the members.
    pub members: BTreeSet<usize>,
    /// What was done.
    pub injected: Vec<Injected>,
    /// What was seen meanwhile.
    pub findings: Vec<Finding>,
    pub(super) watch: Watch,
    pub(super) auditor: Auditor,
    begun: Instant,
    version: u32,
    /// Whom this step has hit already.
    hit: BTreeSet<usize>,
    /// Whether it says on stderr what it does.
    tell: bool,
}

impl Nemesis {
    /// Before the first step. All nodes of the cluster are members; version 1 of the journey is live.
    ///
    /// # Errors
    /// When a node has no address.
    pub fn of(cluster: Cluster, watch: Watch, begun: Instant, tell: bool) -> Result<Nemesis> {
        let mut auditor = Auditor::every(Duration::from_millis(200));
        for place in cluster.running() {
            auditor.also(&cluster.node(place).url())?;
        }
        watch.these(&cluster);
        Ok(Nemesis {
            members: cluster.running().into_iter().collect(),
            cluster,
            injected: Vec::new(),
            findings: Vec::new(),
            watch,
            auditor,
            begun,
            version: 1,
            hit: BTreeSet::new(),
            tell,
        })
    }

    /// Does one step and mends it. Every node that should runs afterwards, and is ready.
    ///
    /// # Errors
    /// When something does not come back.
    pub async fn step(&mut self, step: &Step) -> Result<()> {
        // the schedule's
        tokio::time::sleep(step.pause).await;
        self.hit.clear();
        let at = self.begun.elapsed();
        let mut undo = Vec::new();
        let mut things = vec![(step.kind, step.draw)];
        things.extend(step.beside);
        let mut told = Vec::new();
        let mut failed = None;
        for (kind, draw) in &things {
            let before = undo.len();
            let what = if kind.is_light() {
                self.light(*kind, draw, &mut undo).await
            } else {
                Box::pin(self.heavy(*kind, draw)).await
            };
            match what {
                Ok((what, came)) => told.push((*kind, what, came)),
                Err(error) => {
                    told.push((
                        *kind,
                        "see what came of it".into(),
                        format!("failed: {}", brief(&error)),
                    ));
                    failed = Some(error);
                    break;
                }
            }
            if undo.len() > before {
                tokio::time::sleep(draw.lasts).await;
            }
        }
        let mended = self.mend(undo).await;
        let took = self.begun.elapsed().saturating_sub(at);
        for (kind, what, came) in told {
            if self.tell {
                let came: String = came.chars().take(300).collect();
                eprintln!(
                    "{:>7.1} s  {}: {what}: {came}",
                    at.as_secs_f64(),
                    kind.words()
                );
            }
            self.injected.push(Injected {
                at,
                took,
                kind,
                what,
                came,
            });
        }
        if let Some(error) = failed {
            return Err(error.context(step.kind.words()));
        }
        mended.with_context(|| format!("after {}", step.kind.words()))
    }

    /// Undoes everything, and waits until every member is ready.
    async fn mend(&mut self, undo: Vec<Undo>) -> Result<()> {
        // whatever does not work, the rest is mended all the same
        let mut first = Ok(());
        for one in undo.into_iter().rev() {
            let mended = match one {
                Undo::Start(place) => self.cluster.begin_again(place),
                Undo::Resume(place) => self.cluster.node(place).resume(),
                Undo::Links => self.cluster.links().map(Links::heal),
                Undo::Clock(place) => self.cluster.faults(place).and_then(|f| f.clock(0)),
            };
            first = first.and(mended);
        }
        for place in self.members.clone() {
            first = first.and(self.back(place).await);
        }
        self.watch.these(&self.cluster);
        first
    }

    /// Waits until a member is ready; it should run.
    async fn back(&mut self, place: usize) -> Result<()> {
        if self.cluster.node(place).runs() && !self.cluster.lives(place) {
            let status = self.cluster.ended(place).await?;
            let words = self.cluster.last_words(place, 0).await?;
            let text = format!(
                "{} ended by itself with {status}: {words}",
                self.name(place)
            );
            self.finds(About::Liveness, text);
        }
        // so ended, or left where a step failed
        if !self.cluster.node(place).runs() {
            self.cluster.begin_again(place)?;
        }
        self.cluster.there(place).await
    }

    /// Notes something that must not be.
    pub fn finds(&mut self, about: About, text: String) {
        if self.tell {
            eprintln!("FOUND: {text}");
        }
        self.findings.push(Finding { about, text });
    }

    fn name(&self, place: usize) -> String {
        format!("node {}", self.cluster.id(place))
    }

    /// Somebody of the members that this step has not hit.
    fn somebody(&mut self, draw: u32) -> Option<usize> {
        let free: Vec<usize> = self.members.difference(&self.hit).copied().collect();
        let place = *free.get((draw as usize).checked_rem(free.len())?)?;
        self.hit.insert(place);
        Some(place)
    }

    async fn light(
        &mut self,
        kind: Kind,
        draw: &Draw,
        undo: &mut Vec<Undo>,
    ) -> Result<(String, String)> {
        let nobody = || Ok(("nobody is left to hit".to_owned(), "nothing".to_owned()));
        let lasts = format!("{:.1} s", draw.lasts.as_secs_f64());
        let mended = "mended".to_owned();
        Ok(match kind {
            Kind::Kill => {
                let Some(place) = self.somebody(draw.who) else {
                    return nobody();
                };
                self.cluster.kill(place)?;
                undo.push(Undo::Start(place));
                (
                    format!("{}, started again after {lasts}", self.name(place)),
                    "came back".into(),
                )
            }
            Kind::Standstill => {
                let Some(place) = self.somebody(draw.who) else {
                    return nobody();
                };
                self.cluster.node(place).pause()?;
                undo.push(Undo::Resume(place));
                (
                    format!("{} for {lasts}", self.name(place)),
                    "went on".into(),
                )
            }
            Kind::Apart | Kind::OneWay | Kind::Bridge => {
                let (words, ways) = self.ways(kind, draw);
                self.cluster.links()?.cut(ways);
                undo.push(Undo::Links);
                (format!("{words} for {lasts}"), mended)
            }
            Kind::ClockStep => {
                let Some(place) = self.somebody(draw.who) else {
                    return nobody();
                };
                let most = CLOCK_STEP.as_millis() as u32 - 3_000;
                let millis = 3_000 + i64::from(draw.other % most);
                let millis = if draw.how.is_multiple_of(2) {
                    millis
                } else {
                    -millis
                };
                self.cluster.faults(place)?.clock(millis * 1_000)?;
                undo.push(Undo::Clock(place));
                let step = millis as f64 / 1e3;
                (
                    format!("{} by {step:+.1} s, for {lasts}", self.name(place)),
                    "stepped back".into(),
                )
            }
            Kind::Transfer => self.transfer(draw).await,
            Kind::Publish => self.publish(draw).await?,
            other => bail!("{} is nothing that happens beside others", other.words()),
        })
    }

    /// The directions to cut.
    fn ways(&self, kind: Kind, draw: &Draw) -> (String, Vec<Way>) {
        let mut all: Vec<usize> = self.members.iter().copied().collect();
        let count = all.len().max(1);
        all.rotate_left(draw.who as usize % count);
        let ids = |places: &[usize]| {
            let ids: Vec<String> = places
                .iter()
                .map(|p| self.cluster.id(*p).to_string())
                .collect();
            ids.join(", ")
        };
        let across = |one: &[usize], other: &[usize]| -> Vec<Way> {
            one.iter()
                .flat_map(|a| other.iter().map(|b| (*a, *b)))
                .collect()
        };
        let both =
            |one: &[usize], other: &[usize]| [across(one, other), across(other, one)].concat();
        match kind {
            Kind::Bridge => {
                let (bridge, rest) = all.split_at(1);
                let (one, other) = rest.split_at(rest.len() / 2);
                let words = format!(
                    "nodes {} | {}, both see {}",
                    ids(one),
                    ids(other),
                    ids(bridge)
                );
                (words, both(one, other))
            }
            Kind::OneWay => {
                let (one, rest) = all.split_at(1);
                if draw.how.is_multiple_of(2) {
                    (format!("nobody hears node {}", ids(one)), across(one, rest))
                } else {
                    (format!("node {} hears nobody", ids(one)), across(rest, one))
                }
            }
            _ => {
                // half of them at most on one side
                let (one, rest) = all.split_at(1 + draw.how as usize % (count / 2).max(1));
                (
                    format!("nodes {} | {}", ids(one), ids(rest)),
                    both(one, rest),
                )
            }
        }
    }

    async fn transfer(&mut self, draw: &Draw) -> (String, String) {
        let asked = async {
            let status = self.cluster.view().await?;
            let shard = status
                .shards
                .get(draw.other as usize % status.shards.len().max(1))
                .context("there are no shards")?;
            let others: Vec<u64> = shard
                .voters
                .iter()
                .copied()
                .filter(|n| *n != shard.owner)
                .collect();
            let to = *others
                .get(draw.who as usize % others.len().max(1))
                .context("it has no other voter")?;
            let client = self.cluster.client()?.with_deadline(PATIENCE);
            let given = client.cluster_transfer(shard.shard, to, "nemesis").await;
            let came = match given {
                Ok(given) => format!("node {} owns it", given.owner),
                // in rough times that may be so
                Err(error) => format!("refused: {error}"),
            };
            anyhow::Ok((format!("shard {} to node {to}", shard.shard), came))
        };
        match asked.await {
            Ok(told) => told,
            Err(error) => ("a shard".into(), format!("not asked: {error:#}")),
        }
    }

    async fn publish(&mut self, _draw: &Draw) -> Result<(String, String)> {
        self.version += 1;
        let client = self.cluster.client()?.with_deadline(PATIENCE);
        let published = client.publish(&journey(self.version), "nemesis").await;
        let came = match published {
            Ok(answer) if answer.live => format!("version {} is live", answer.version),
            Ok(answer) => format!(
                "version {} is not live yet: {:?}",
                answer.version, answer.lagging
            ),
            Err(error) => format!("no answer: {error}"),
        };
        Ok((format!("text {}", self.version), came))
    }

    /// Publishes when all is whole: it must be live.
    ///
    /// # Errors
    /// When it is not.
    pub async fn publish_for_sure(&mut self) -> Result<()> {
        self.version += 1;
        let client = self.cluster.client()?;
        let answer = client.publish(&journey(self.version), "nemesis").await?;
        if !answer.live {
            bail!(
                "version {} is not live: {:?}",
                answer.version,
                answer.lagging
            );
        }
        Ok(())
    }

    /// Waits until the cluster of all members is whole.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn whole(&self) -> Result<()> {
        self.cluster.whole(self.members.len()).await.map(drop)
    }

    /// Somebody whom nothing else is to hit in this step.
    pub(super) fn hit_too(&mut self, place: usize) {
        self.hit.insert(place);
    }

    pub(super) fn pick(&mut self, draw: u32) -> Result<usize> {
        self.somebody(draw).context("there is no member")
    }

    pub(super) fn named(&self, place: usize) -> String {
        self.name(place)
    }
}
