//! What every process says of itself in its metrics while a run goes on.

use crate::cluster::Cluster;
use crate::http::ask;
use crate::invariants::history::one_owner::Sample;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// The pause between two looks.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Inner {
    /// Where each process is asked.
    doors: Mutex<BTreeMap<usize, (SocketAddr, u32)>>,
    samples: Mutex<Vec<Sample>>,
}

/// Looks until it is dropped.
pub struct Watch {
    inner: Arc<Inner>,
    begun: Instant,
    looking: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Watch {
    /// Begins, with nobody to look at. Times count from `begun`.
    pub fn start(begun: Instant) -> Watch {
        let inner = Arc::new(Inner::default());
        let looked = inner.clone();
        let looking = tokio::spawn(async move {
            loop {
                looked.look(begun).await;
                tokio::time::sleep(AGAIN).await;
            }
        });
        Watch {
            inner,
            begun,
            looking,
        }
    }

    /// Looks at the processes that run now, and no others.
    pub fn these(&self, cluster: &Cluster) {
        let running = cluster.running().into_iter().filter_map(|place| {
            let node = cluster.node(place);
            Some((place, (node.doors().http, node.process()?)))
        });
        let mut doors = self
            .inner
            .doors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *doors = running.collect();
    }

    /// Looks once, now.
    pub async fn look(&self) {
        self.inner.look(self.begun).await;
    }

    /// What was seen.
    pub fn seen(&self) -> Vec<Sample> {
        let samples = self
            .inner
            .samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        samples.clone()
    }
}

impl Inner {
    async fn look(&self, begun: Instant) {
        let doors = self
            .doors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let asked = doors
            .into_iter()
            .map(|(place, (door, process))| async move {
                // it may be stopped, or gone
                let (_, text) = tokio::time::timeout(AGAIN * 2, ask(door, "/metrics"))
                    .await
                    .ok()?
                    .ok()?;
                Some(Sample {
                    place,
                    process,
                    at: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
                    conflicts: value(&text, "owner_conflicts")?,
                    ignored: value(&text, "decisions_ignored")?,
                })
            });
        let seen = futures::future::join_all(asked).await;
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.extend(seen.into_iter().flatten());
    }
}

/// A figure of the node.
fn value(metrics: &str, what: &str) -> Option<u64> {
    let name = format!("sojourn_node{{what=\"{what}\"}} ");
    let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
    found?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_figure_is_read() {
        let text = "# HELP x\nsojourn_node{what=\"may_own\"} 1\nsojourn_node{what=\"owner_conflicts\"} 3\n";
        assert_eq!(value(text, "owner_conflicts"), Some(3));
        assert_eq!(value(text, "owner"), None);
    }
}
