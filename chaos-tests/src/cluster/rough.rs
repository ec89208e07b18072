//! What only whoever treats a cluster badly needs: starts that nobody waits for, and what has ended by itself.

use super::{Cluster, LEAVE};
use crate::faults::Faults;
use crate::wait::until;
use anyhow::{Context, Result};
use sojourn_client::wire;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

impl Cluster {
    /// Starts a node again and waits for nothing: see [`Cluster::there`].
    ///
    /// # Errors
    /// When it runs already.
    pub fn begin_again(&mut self, place: usize) -> Result<()> {
        self.nodes[place].launch()?;
        self.linked(place);
        Ok(())
    }

    /// Waits until a node that was started is ready.
    ///
    /// # Errors
    /// When it ends before, or is not in time.
    pub async fn there(&mut self, place: usize) -> Result<()> {
        self.started(place).await
    }

    /// Whether a node's process, which was started, goes on.
    pub fn lives(&mut self, place: usize) -> bool {
        self.nodes[place].lives()
    }

    /// Waits until a node has ended by itself.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended(&mut self, place: usize) -> Result<ExitStatus> {
        self.nodes[place].ended(LEAVE).await
    }

    /// Whether a node that was just started serves (`None`), or has ended by itself (how).
    ///
    /// # Errors
    /// When it does neither in time.
    pub async fn serves_or_ended(&mut self, place: usize) -> Result<Option<ExitStatus>> {
        let node = &mut self.nodes[place];
        until("it serves or ends", LEAVE * 2, async || {
            if !node.lives() {
                return Ok(Some(Some(node.ended(Duration::ZERO).await?)));
            }
            let ready = matches!(node.http("/ready").await, Ok((200, _)));
            Ok(ready.then_some(None))
        })
        .await
        .with_context(|| format!("it said:\n{}", self.nodes[place].said()))
    }

    /// How much a node has said up to now, in bytes.
    pub fn said_until_now(&self, place: usize) -> u64 {
        let file = std::fs::metadata(self.nodes[place].said_file());
        file.map_or(0, |file| file.len())
    }

    /// What a node that has ended said since then: its line for the operator, or all of it when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn last_words(&self, place: usize, since: u64) -> Result<String> {
        let file = self.nodes[place].said_file();
        let mut all = String::new();
        // its words are read by another thread, which may not have come to the end
        let error = until("its last words", Duration::from_secs(3), async || {
            let bytes = std::fs::read(&file)?;
            let from = usize::try_from(since)?.min(bytes.len());
            all = String::from_utf8_lossy(&bytes[from..]).into_owned();
            let error = all.lines().rfind(|line| line.starts_with("error: "));
            Ok(error.map(str::to_owned))
        });
        Ok(error.await.unwrap_or(all))
    }

    /// What may be made to fail in a node.
    ///
    /// # Errors
    /// When the cluster was set up without.
    pub fn faults(&self, place: usize) -> Result<&Faults> {
        self.nodes[place].faults()
    }

    /// Has a node that gave everything away take its part again, and waits until it has.
    ///
    /// # Errors
    /// As [`Cluster::apply`] and [`Cluster::done`].
    pub async fn activate(&self, place: usize) -> Result<()> {
        let wish = wire::Wish {
            wish: Some(wire::wish::Wish::Activate(self.id(place))),
        };
        let change = self.apply(vec![wish]).await?;
        self.done(&change).await
    }

    /// Leaves all folders where they are when this is dropped: evidence. Tells where.
    pub fn keep(&mut self) -> Vec<PathBuf> {
        self.nodes.iter_mut().map(|node| node.keep()).collect()
    }
}
