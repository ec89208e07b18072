//! What is done to a cluster that is whole, and leaves it whole: restarts of all nodes, changes of members, and damage to one
//! node's disk. At any time one node at most is damaged, so that nothing may be lost.

use super::nemesis::{About, Nemesis, brief};
use super::plan::{Draw, Kind};
use crate::cluster::remove;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The exit code of a node whose data is damaged or unsafe.
const UNSAFE: i32 = 5;

impl Nemesis {
    /// Does it, and waits until the cluster is whole.
    pub(super) async fn heavy(&mut self, kind: Kind, draw: &Draw) -> Result<(String, String)> {
        self.whole().await.context("before it")?;
        let told = match kind {
            Kind::Rolling => self.rolling().await?,
            Kind::Drain => self.drain(draw).await?,
            Kind::Exchange => self.exchange(draw).await?,
            Kind::DiskFull | Kind::SyncFails => self.disk(kind, draw).await?,
            Kind::Damage => self.damage(draw).await?,
            other => bail!("{} needs no whole cluster", other.words()),
        };
        self.watch.these(&self.cluster);
        self.whole().await.context("after it")?;
        Ok(told)
    }

    async fn rolling(&mut self) -> Result<(String, String)> {
        let members = self.members.clone();
        for place in &members {
            self.cluster.stop(*place).await?;
            self.cluster.again(*place).await?;
            self.watch.these(&self.cluster);
            self.whole().await?;
        }
        Ok((
            format!("all {} nodes", members.len()),
            "each ended well and came back".into(),
        ))
    }

    async fn drain(&mut self, draw: &Draw) -> Result<(String, String)> {
        let place = self.pick(draw.who)?;
        self.cluster.drain(place).await?;
        self.cluster.whole(self.members.len() - 1).await?;
        self.cluster.activate(place).await?;
        self.whole().await?;
        Ok((
            self.named(place),
            "gave all away, and took its part again".into(),
        ))
    }

    async fn joins(&mut self) -> Result<usize> {
        let place = self.cluster.add().await?;
        self.members.insert(place);
        self.auditor.also(&self.cluster.node(place).url())?;
        self.watch.these(&self.cluster);
        self.whole().await?;
        Ok(place)
    }

    /// One leaves; with another one killed in the middle, if that was drawn.
    async fn leaves(&mut self, draw: &Draw) -> Result<(usize, String)> {
        let old = self.pick(draw.who)?;
        let change = self
            .cluster
            .apply(vec![remove(self.cluster.id(old))])
            .await?;
        let mut meanwhile = String::new();
        if draw.how.is_multiple_of(3) {
            let other = self.pick(draw.other)?;
            self.cluster.kill(other)?;
            meanwhile = format!("; {} killed in the middle", self.named(other));
            // drawn
            tokio::time::sleep(draw.lasts / 3).await;
            self.cluster.begin_again(other)?;
            self.cluster.there(other).await?;
        }
        self.cluster.done(&change).await?;
        self.cluster.gone(old).await?;
        self.members.remove(&old);
        self.watch.these(&self.cluster);
        self.whole().await?;
        Ok((old, meanwhile))
    }

    async fn exchange(&mut self, draw: &Draw) -> Result<(String, String)> {
        let (new, old, meanwhile, order) = if draw.how.is_multiple_of(2) {
            let new = self.joins().await?;
            // so that it is not the one that leaves
            self.hit_too(new);
            let (old, meanwhile) = self.leaves(draw).await?;
            (new, old, meanwhile, "then")
        } else {
            let (old, meanwhile) = self.leaves(draw).await?;
            (self.joins().await?, old, meanwhile, "after")
        };
        Ok((
            format!(
                "{} joins, {order} {} leaves{meanwhile}",
                self.named(new),
                self.named(old)
            ),
            "whole".into(),
        ))
    }

    /// A disk that takes no more, or an fsync that fails: the node must end and say why.
    async fn disk(&mut self, kind: Kind, draw: &Draw) -> Result<(String, String)> {
        let place = self.pick(draw.who)?;
        let since = self.cluster.said_until_now(place);
        let faults = self.cluster.faults(place)?;
        let (what, says): (String, &[&str]) = if kind == Kind::DiskFull {
            let room = draw.how % (64 << 10);
            faults.room(Some(room))?;
            (
                format!("{}, {room} bytes left", self.named(place)),
                &["the disk is full"],
            )
        } else {
            faults.sync_fails(true)?;
            // the log says what it was doing; history says what the system answered
            (self.named(place), &["sync", "Input/output error"])
        };
        let ended = self.cluster.ended(place).await;
        let faults = self.cluster.faults(place)?;
        faults.room(None)?;
        faults.sync_fails(false)?;
        let came = match ended {
            Ok(status) => {
                let words = self.cluster.last_words(place, since).await?;
                if status.code() != Some(UNSAFE) || !says.iter().any(|w| words.contains(w)) {
                    let node = self.named(place);
                    let text = format!(
                        "{}: {node} ended with {status} and does not say any of {says:?}: {words}",
                        kind.words()
                    );
                    self.finds(About::Liveness, text);
                }
                format!("ended with {status}: {words}")
            }
            Err(error) => {
                let text = format!(
                    "{}: {} goes on: {}",
                    kind.words(),
                    self.named(place),
                    brief(&error)
                );
                self.finds(About::Liveness, text);
                self.cluster.kill(place)?;
                "went on, and was killed".into()
            }
        };
        let since = self.cluster.said_until_now(place);
        self.cluster.begin_again(place)?;
        if let Some(status) = self.cluster.serves_or_ended(place).await? {
            let words = self.cluster.last_words(place, since).await?;
            let text = format!(
                "{}: {what}, {came}; started again, it ended with {status}: {words}",
                kind.words()
            );
            self.finds(About::Liveness, text);
            return self
                .replace(place, what, "did not come back, and was replaced")
                .await;
        }
        self.cluster.there(place).await?;
        Ok((what, came))
    }

    /// A damaged file: the node refuses to start and says why, or comes up right.
    async fn damage(&mut self, draw: &Draw) -> Result<(String, String)> {
        let place = self.pick(draw.who)?;
        if draw.how.is_multiple_of(2) {
            self.cluster.stop(place).await?;
        } else {
            self.cluster.kill(place)?;
        }
        let data = self.cluster.node(place).data();
        let damaged = damage(&data, draw)?;
        let what = format!("{}: {damaged}", self.named(place));
        let since = self.cluster.said_until_now(place);
        self.cluster.begin_again(place)?;
        let ended = match self.cluster.serves_or_ended(place).await? {
            Some(status) => Some(status),
            None => {
                self.cluster.there(place).await?;
                self.watch.these(&self.cluster);
                let whole = self.whole().await;
                if self.cluster.lives(place) {
                    if let Err(error) = whole {
                        // it neither refused nor came up right
                        let error = brief(&error);
                        self.finds(
                            About::Liveness,
                            format!("damaged file: {what}: it serves, and: {error}"),
                        );
                        self.cluster.kill(place)?;
                        return self
                            .replace(place, what, "was not whole, and was replaced")
                            .await;
                    }
                    self.cluster.verify().await?;
                    return Ok((what, "came up right".into()));
                }
                Some(self.cluster.ended(place).await?)
            }
        };
        let words = self.cluster.last_words(place, since).await?;
        let code = ended.and_then(|status| status.code());
        let names = words.contains(&data.display().to_string());
        if !words.starts_with("error: ") || code.is_none_or(|code| code == 0) || !names {
            let text =
                format!("damaged file: {what}: it ended with {code:?} and no clear words: {words}");
            self.finds(About::Liveness, text);
        }
        let came = format!("refused, and was replaced: {words}");
        self.replace(place, what, &came).await
    }

    /// A fresh node in the place of one that is gone for good.
    async fn replace(
        &mut self,
        place: usize,
        what: String,
        came: &str,
    ) -> Result<(String, String)> {
        let old = self.cluster.id(place);
        self.cluster.lose_disk(place)?;
        self.cluster.begin_again(place)?;
        self.cluster.there(place).await?;
        self.watch.these(&self.cluster);
        let change = self.cluster.apply(vec![remove(old)]).await?;
        self.cluster.done(&change).await?;
        self.whole().await?;
        Ok((what, format!("{came}; now {}", self.named(place))))
    }
}

/// Every file below a folder, but the lock, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && !entry.file_name().to_string_lossy().contains("lock") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Damages one file; says which, and how.
fn damage(data: &Path, draw: &Draw) -> Result<String> {
    let files = files(data)?;
    // first of what kind, so that the many small files of one store do not hide the others
    let kind = |path: &PathBuf| {
        let below = path.strip_prefix(data).ok();
        below
            .and_then(|p| p.components().next())
            .map(|c| c.as_os_str().to_owned())
    };
    let mut kinds: Vec<_> = files.iter().map(kind).collect();
    kinds.dedup();
    let chosen = kinds.get(draw.other as usize % kinds.len().max(1)).cloned();
    let of_kind: Vec<&PathBuf> = files.iter().filter(|p| Some(kind(p)) == chosen).collect();
    let spread = draw.how / 8;
    let path = *of_kind
        .get(spread as usize % of_kind.len().max(1))
        .context("there is no file to damage")?;
    let mut bytes = std::fs::read(path)?;
    let place = (spread as usize)
        .checked_rem(bytes.len())
        .unwrap_or_default();
    let how = match (draw.how / 2) % 4 {
        _ if bytes.is_empty() => None,
        // of the few bytes of an id a part may be another id
        0 if bytes.len() > 64 => {
            bytes.truncate(place);
            Some(format!("cut to {place} bytes"))
        }
        1 => None,
        2 if bytes.len() > 8_192 => {
            let end = (place + 4_096).min(bytes.len());
            bytes[place..end].fill(0);
            Some(format!("zeros from byte {place} to {end}"))
        }
        _ => {
            bytes[place] ^= 0xff;
            Some(format!("byte {place} turned over"))
        }
    };
    let shown = path
        .strip_prefix(data)
        .unwrap_or(path)
        .display()
        .to_string();
    let Some(how) = how else {
        std::fs::remove_file(path)?;
        return Ok(format!("{shown} is gone"));
    };
    std::fs::write(path, bytes)?;
    Ok(format!("{shown}: {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_file_is_damaged_and_the_lock_is_not() -> Result<()> {
        let whole = [
            ("node-id", 2),
            ("lock", 1),
            ("log/1.raftlog", 10_000),
            ("history/x/2", 100),
        ];
        for draw in 0..200_u32 {
            let folder = tempfile::tempdir()?;
            for (name, size) in whole {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().context("a folder")?)?;
                std::fs::write(path, vec![7; size])?;
            }
            let draw = Draw {
                who: 0,
                other: draw % 3,
                how: draw.wrapping_mul(2_654_435_761),
                lasts: Duration::ZERO,
            };
            let told = damage(folder.path(), &draw)?;
            let differ = whole.iter().filter(|(name, size)| {
                std::fs::read(folder.path().join(name)).ok() != Some(vec![7; *size])
            });
            let differ: Vec<&str> = differ.map(|(name, _)| *name).collect();
            assert!(
                differ.len() == 1 && told.starts_with(differ[0]),
                "{told}: {differ:?}"
            );
            assert_ne!(differ[0], "lock");
        }
        Ok(())
    }
}
