//! Following a cluster by asking for its status again and again: until a change has ended, or until Ctrl-C.

use super::{json, text};
use crate::cli::Say;
use crate::cli::exit::{Exit, Trouble};
use crate::client::Client;
use sojourn_proto::v1;
use std::time::{Duration, Instant};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long no node may answer before following is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for the status in turns, and bears that nobody answers for a while.
struct Follower<'a> {
    client: &'a Client,
    ticks: tokio::time::Interval,
    silent_since: Option<Instant>,
}

impl Follower<'_> {
    fn new(client: &Client) -> Follower<'_> {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Follower {
            client,
            ticks,
            silent_since: None,
        }
    }

    async fn next(&mut self, say: &mut Say) -> Result<v1::ClusterStatus, Trouble> {
        loop {
            self.ticks.tick().await;
            let error = match self.client.cluster_status().await {
                Ok(status) => {
                    self.silent_since = None;
                    return Ok(status);
                }
                Err(error) => error,
            };
            let first = self.silent_since.is_none();
            let since = *self.silent_since.get_or_insert_with(Instant::now);
            if !error.is_retryable() || since.elapsed() >= PATIENCE {
                return Err(Trouble::reading(error));
            }
            if first {
                say.talk(format_args!("no status: {error}; asking again"));
            }
        }
    }
}

/// Shows what changes, for ever: Ctrl-C ends it.
pub(super) async fn watch(client: &Client, say: &mut Say) -> Result<Exit, Trouble> {
    let mut follower = Follower::new(client);
    let mut last: Option<v1::ClusterStatus> = None;
    loop {
        let now = follower.next(say).await?;
        match &last {
            None if say.json() => say.line(&json::status(&now)),
            None => say.data(text::status(&now)),
            Some(last) => {
                if last.node != now.node && !say.json() {
                    say.talk(text::whose(&now));
                }
                let lines = text::differences(last, &now);
                if say.json() {
                    if !lines.is_empty() {
                        say.line(&json::status(&now));
                    }
                } else {
                    let at = crate::cli::show::time(Some(now.at));
                    for line in lines {
                        say.data(format_args!("{at}  {line}"));
                    }
                }
            }
        }
        last = Some(now);
    }
}

/// Follows a change until it has ended.
pub(super) async fn change(
    client: &Client,
    begun: v1::Change,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let id = begun.id.clone();
    if !say.json() {
        say.data(&id);
        say.talk(text::change(&begun));
    }
    let mut follower = Follower::new(client);
    let mut change = begun;
    let mut told = text::progress(&change);
    let ended = |c: &v1::Change| {
        matches!(
            v1::ChangeState::try_from(c.state),
            Ok(v1::ChangeState::Done | v1::ChangeState::Cancelled)
        )
    };
    while !ended(&change) {
        let status = follower.next(say).await?;
        change = match status.change {
            Some(now) if now.id == id => now,
            // the node that answered has not heard of ours, or has heard of a later one: which, only time can tell
            Some(later) if later.begun_at > change.begun_at => {
                return Err(Trouble::new(
                    Exit::Unknown,
                    format!(
                        "the change {id} has ended, and how was not seen: {} was begun after it; look with `sojourn \
                         cluster status`",
                        later.id
                    ),
                ));
            }
            _ => continue,
        };
        let progress = text::progress(&change);
        if progress != told && !say.json() {
            say.talk(&progress);
        }
        told = progress;
    }
    if say.json() {
        say.value(&serde_json::json!({ "change": json::change(&change) }));
    }
    Ok(if change.state == i32::from(v1::ChangeState::Done) {
        Exit::Done
    } else {
        Exit::No
    })
}
