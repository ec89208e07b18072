//! What may happen to a cluster of three nodes while the loan file is imported, and what must be true all the same.

use crate::cluster::Cluster;
use crate::loan::{self, Importing, Part, check_fates, check_places, check_receipts, check_report};
use anyhow::{Context, Result, ensure};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// Nothing.
    Calm,
    /// A node, any, is killed (-9) and comes back after this long.
    Kill(Duration),
    /// A node, any, is drained.
    Drain,
    /// A fourth node joins.
    Join,
    /// All three first nodes are replaced, one by one.
    Replace,
    /// The nodes, which began with another version, are stopped and started with this one, one by one.
    Upgrade,
}

/// How closely is looked afterwards: every so manyth application and row.
#[derive(Clone, Copy, Debug)]
pub struct Closeness {
    /// Of the timelines.
    pub timelines: usize,
    /// Of the receipts.
    pub receipts: usize,
}

impl Incident {
    /// The incident as words.
    pub fn words(self) -> &'static str {
        match self {
            Incident::Calm => "calm",
            Incident::Kill(_) => "a node killed at a random row, started again after a while",
            Incident::Drain => "a node drained in the middle",
            Incident::Join => "a fourth node joining in the middle",
            Incident::Replace => "all three first nodes replaced",
            Incident::Upgrade => "three nodes of another version upgraded, one by one",
        }
    }

    /// Makes it happen; gives how many nodes are active afterwards.
    async fn happen(self, cluster: &mut Cluster, chance: &mut StdRng) -> Result<usize> {
        let place = chance.random_range(0..cluster.places());
        match self {
            Incident::Calm => {}
            Incident::Kill(pause) => {
                cluster.kill(place)?;
                // part of the story: it is away for so long
                tokio::time::sleep(pause).await;
                cluster.again(place).await?;
            }
            Incident::Drain => {
                cluster.drain(place).await?;
                return Ok(cluster.places() - 1);
            }
            Incident::Join => {
                cluster.add().await?;
                return Ok(cluster.places());
            }
            Incident::Replace => {
                let first = cluster.places();
                for place in 0..first {
                    cluster.add().await?;
                    cluster.whole(first + 1).await?;
                    cluster.remove(place).await?;
                    cluster.gone(place).await?;
                    cluster.whole(first).await?;
                }
                return Ok(first);
            }
            Incident::Upgrade => {
                for place in 0..cluster.places() {
                    cluster.stop(place).await?;
                    cluster.upgrade(place);
                    cluster.again(place).await?;
                    cluster.whole(cluster.places()).await?;
                    // both versions, side by side
                    cluster.verify().await?;
                }
            }
        }
        Ok(cluster.places())
    }
}

/// Imports into a new cluster, has the incident happen at a random row, and checks: the figures are those of the table,
/// through every node; the replicas are equal; everybody has stood where the table says; every receipt is there. Gives the
/// row.
///
/// # Errors
/// Naming what differs.
pub async fn import_under(
    incident: Incident,
    cluster: &mut Cluster,
    part: &Part,
    chance: &mut StdRng,
    look: Closeness,
) -> Result<u64> {
    let cli = cluster.commands();
    loan::publish(&cli).await?;
    let mut row = part.somewhere(chance);
    if incident == Incident::Upgrade {
        // early: all of it is to be over before the import is
        row = (row / 8).max(50);
    }
    let mut importing = Importing::start(loan::import(&cli, &part.file, "60s")?)?;
    let active = if incident == Incident::Calm {
        cluster.places()
    } else {
        let given = importing.reached(row, || cluster.receipts()).await;
        given.with_context(|| cluster.said())?;
        let happened = incident.happen(cluster, chance).await;
        let active = happened.with_context(|| format!("{}, at receipt {row}", incident.words()))?;
        if incident == Incident::Upgrade {
            importing.goes_on()?;
        }
        active
    };
    let imported = importing.output().await?;
    let summary = crate::cli::json(&imported)?;
    // what was acknowledged and not heard of is answered as a duplicate: its first answer counts
    check_fates(&summary, "first_fates", &part.expected)
        .with_context(|| String::from_utf8_lossy(&imported.stderr).into_owned())?;
    cluster.whole(active).await?;
    cluster.verify().await?;
    for place in cluster.running() {
        let report = loan::report(&cluster.node(place).commands()).await?;
        check_report(&report, &part.expected)
            .with_context(|| format!("the report of node {}", cluster.id(place)))?;
    }
    let client = cluster.client()?;
    check_places(&client, &part.expected, look.timelines).await?;
    check_receipts(&client, part, look.receipts).await?;
    Ok(row)
}

/// Imports the same again: all are duplicates, with their first answers, and nothing changes.
///
/// # Errors
/// Naming what differs.
pub async fn import_again(cluster: &Cluster, part: &Part) -> Result<()> {
    let cli = cluster.commands();
    let again = loan::import_whole(&cli, &part.file).await?;
    let fresh = part.expected.fate("no_match");
    ensure!(
        again["fates"]["duplicate"] == part.rows.len() as u64 - fresh,
        "not all are duplicates: {}",
        again["fates"]
    );
    check_fates(&again, "first_fates", &part.expected)?;
    check_report(&loan::report(&cli).await?, &part.expected)
}
