//! Who says that it owns what, asked of every node again and again while a story runs: within one term a shard has one
//! owner, and whoever has followed it is never followed by it.
//!
//! Openraft 0.9 may elect a second leader in a term, of a higher node id, once the first has none of the majority left; so
//! two owners in one term are wrong when the lower one says so after the higher one did.

use crate::cluster::{service, status};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The pause between two questions to one node.
const AGAIN: Duration = Duration::from_millis(15);

/// When a node first said that it owns a shard in a term.
type Claims = BTreeMap<(u32, u64), BTreeMap<u64, Instant>>;

#[derive(Default)]
struct Seen {
    claims: Claims,
    answers: u64,
    wrong: Vec<String>,
}

/// What an auditor saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Answers of nodes.
    pub answers: u64,
    /// Different (shard, term) that somebody owned.
    pub terms: usize,
}

/// Asks until it is dropped or finished.
pub struct Auditor {
    seen: Arc<Mutex<Seen>>,
    asking: JoinSet<()>,
    pause: Duration,
}

impl Auditor {
    /// Begins to ask the nodes at these addresses; those that do not answer are asked again.
    ///
    /// # Errors
    /// When one is no address.
    pub fn of(urls: impl IntoIterator<Item = String>) -> Result<Auditor> {
        let mut auditor = Auditor::every(AGAIN);
        for url in urls {
            auditor.also(&url)?;
        }
        Ok(auditor)
    }

    /// One that asks nobody yet, and then every so often.
    pub fn every(pause: Duration) -> Auditor {
        Auditor {
            seen: Arc::new(Mutex::new(Seen::default())),
            asking: JoinSet::new(),
            pause,
        }
    }

    /// Asks the node at this address, too.
    ///
    /// # Errors
    /// When it is none.
    pub fn also(&mut self, url: &str) -> Result<()> {
        let mut node = service(url)?;
        let (seen, pause) = (self.seen.clone(), self.pause);
        self.asking.spawn(async move {
            loop {
                let asked = Instant::now();
                if let Ok(answer) = status(&mut node).await {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.answers += 1;
                    for shard in &answer.shards {
                        // only of itself a node knows it for sure
                        let itself = shard.replicas.iter().find(|r| r.node == answer.node);
                        if itself.is_some_and(|r| r.role == "owner") {
                            seen.claims((shard.shard, shard.term), answer.node, asked);
                        }
                    }
                }
                tokio::time::sleep(pause).await;
            }
        });
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Naming the shard and the term that two nodes owned; when nobody ever owned anything.
    pub fn finish(self) -> Result<Audit> {
        drop(self.asking);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wrong) = seen.wrong.first() {
            bail!("{wrong} ({} such)", seen.wrong.len());
        }
        if seen.claims.is_empty() {
            bail!(
                "nobody was seen to own anything in {} answers",
                seen.answers
            );
        }
        Ok(Audit {
            answers: seen.answers,
            terms: seen.claims.len(),
        })
    }
}

impl Seen {
    /// A node said, asked at `asked`, that it owns a shard in a term.
    fn claims(&mut self, of: (u32, u64), node: u64, asked: Instant) {
        let claims = self.claims.entry(of).or_default();
        let higher = claims
            .iter()
            .find(|(other, first)| **other > node && **first < asked);
        if let Some((other, _)) = higher {
            self.wrong.push(format!(
                "node {node} said that it owns shard {} in term {} after node {other} had said so",
                of.0, of.1
            ));
        }
        claims.entry(node).or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_of_a_term_are_wrong_unless_the_higher_one_follows() {
        let mut seen = Seen::default();
        seen.claims((0, 1), 1, Instant::now());
        seen.claims((0, 1), 2, Instant::now());
        seen.claims((0, 2), 1, Instant::now());
        seen.claims((1, 1), 1, Instant::now());
        assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        seen.claims((0, 1), 1, Instant::now());
        assert_eq!(seen.wrong.len(), 1, "{:?}", seen.wrong);
    }
}
