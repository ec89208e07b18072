//! What clients do in a world of shards: they send signals and commands, send the same ones again, and look.

use super::books::{Asked, Books, Call, Hand, Known, Told};
use super::journey::{JOURNEY, KINDS, SOURCE};
use super::replica::{key_of, last_of};
use crate::world::{PATIENCE, World};
use sojourn_cluster::{Group, GroupId, NodeId};
use sojourn_journey::decide::{ByHand, Command};
use sojourn_node::actors::{Answer, Ask, ExecutionKey, Reply};
use sojourn_node::convert::signal::signal_from;
use sojourn_node::shard::owner::Shard;
use sojourn_proto::v1;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// A signal or command as it is asked of the shard.
fn ask(known: Known) -> Option<Ask> {
    let Some(hand) = known.hand else {
        let checked = signal_from(signal(known.group, known.customer, known.id)).ok()?;
        return Some(Ask::Signal {
            signal: Box::new(checked.signal),
            sent: Box::new(checked.sent),
            content: checked.content,
        });
    };
    let what = match hand {
        Hand::Hold => ByHand::Hold,
        Hand::Resume => ByHand::Resume,
        Hand::Stop => ByHand::Stop {
            outcome: Some("stopped".to_owned()),
        },
        Hand::Override(to) => ByHand::Override {
            to: to.to_owned(),
            run_actions: false,
        },
    };
    Some(Ask::Command {
        execution: ExecutionKey {
            journey: JOURNEY.to_owned(),
            instance: None,
            // the latest
            run: 0,
        },
        content: xxh3_64(format!("{what:?}").as_bytes()),
        command: Box::new(Command {
            id: known.id.to_string(),
            actor: "operator".to_owned(),
            reason: "why not".to_owned(),
            expected_visit: None,
            what,
        }),
    })
}

/// A signal as it is sent: the same for the same id, each time.
fn signal(group: GroupId, customer: u64, id: u64) -> v1::Signal {
    let kind = KINDS[(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % KINDS.len()];
    let key = key_of(group, customer).key;
    v1::Signal {
        id: id.to_string(),
        source: SOURCE.to_owned(),
        r#type: kind.to_owned(),
        identifiers: vec![v1::Identifier {
            name: key.name,
            value: key.value,
        }],
        data: format!("{{\"n\": {}}}", id % 11).into(),
        ..v1::Signal::default()
    }
}

impl World {
    /// What an operator does, if it is an operator's turn. Once everything is mended they hold nobody.
    fn hand(&mut self, calm: bool) -> Option<Hand> {
        let one_in = self.plan.commands;
        if one_in == 0 || !self.hands.once_in(one_in) {
            return None;
        }
        if calm {
            return Some(Hand::Resume);
        }
        Some(match self.hands.below(8) {
            0..=2 => Hand::Hold,
            3..=5 => Hand::Resume,
            6 => Hand::Override(["open", "called", "late", "done"][self.hands.below(4) as usize]),
            _ => Hand::Stop,
        })
    }

    /// The next resume of those that everybody gets once everything is mended, also whom nobody calls then.
    fn resumed(&mut self, books: &Books, all: u64) -> Option<Known> {
        if self.resumes == 0 || !self.hands.once_in(2) {
            return None;
        }
        self.resumes -= 1;
        let group = GroupId(1 + self.resumes % self.plan.shards);
        let customer = self.resumes / self.plan.shards % all;
        Some(books.new_input(group, customer, Some(Hand::Resume)))
    }

    /// A call of a shard, if the node has a replica of it.
    pub(in crate::world) fn call_shard(&mut self, group: GroupId, node: NodeId) -> Option<usize> {
        let common = self.common.clone()?;
        let books = common.books;
        let (looks, repeats) = (self.dice.once_in(6), self.dice.once_in(4));
        // half of the calls are of those who came last, and some of two who are always there; once everything is mended, half
        // of all are left in peace
        let calm = self.now >= self.plan.rough * 1_000;
        let all = self.customers(self.now);
        let mut customer = match self.dice.below(4) {
            0 | 1 => all - 1 - self.dice.below(4),
            2 => self.dice.below(2),
            _ => self.dice.below(all),
        };
        if calm {
            customer -= customer % 2;
        }
        let known = if repeats && books.inputs() > 0 {
            let back = match self.dice.below(3) {
                0 => self.dice.below(8),
                1 => self.dice.below(60),
                _ => self.dice.below(books.inputs()),
            };
            books.input(books.inputs().saturating_sub(1 + back))
        } else {
            None
        };
        let goes_on = |hand| matches!(hand, None | Some(Hand::Resume));
        let known = known.filter(|k| !calm || (k.customer % 2 == 0 && goes_on(k.hand)));
        let resumed = if calm {
            self.resumed(books.as_ref(), all)
        } else {
            None
        };
        let known = resumed.or(known);
        let group = known.map_or(group, |known| known.group);
        let node = match known {
            Some(_) if self.dice.once_in(4) => node,
            Some(_) => self.owner(group).unwrap_or(node),
            None => node,
        };
        let hand = self.hand(calm);
        let node = self.nodes.get(&node)?;
        let replica = node.replica(group)?;
        let shard = replica.office()?.shard.clone();
        let begin = |customer, asked, by_hand| {
            books.begin(Call {
                group,
                node: node.id,
                customer,
                asked,
                by_hand,
                begun: self.now,
                told: None,
            })
        };
        let (clock, told) = (node.clock(), books.clone());
        if looks && known.is_none() {
            let call = begin(customer, Asked::Look, false);
            node.spawn(async move {
                let seen = look(&replica.group, &shard, group, customer).await;
                told.end(call, clock(), seen);
            });
            return Some(call);
        }
        let known = known.unwrap_or_else(|| books.new_input(group, customer, hand));
        let asked = Asked::Input { id: known.id };
        let call = begin(known.customer, asked, known.hand.is_some());
        node.spawn(async move {
            let answer = match ask(known) {
                Some(ask) => send(&shard, known, ask).await,
                None => Told::Refused,
            };
            told.end(call, clock(), answer);
        });
        Some(call)
    }
}

async fn look(group: &Group, shard: &Shard, id: GroupId, customer: u64) -> Told {
    let until = Instant::now() + PATIENCE;
    if group.read_index(until).await.is_err() {
        return Told::Refused;
    }
    match last_of(shard, id, customer) {
        Ok(last) => Told::Seen(last),
        // it comes and goes between memory and history: nothing was shown
        Err(_) => Told::Refused,
    }
}

async fn send(shard: &Shard, known: Known, ask: Ask) -> Told {
    let (tx, rx) = oneshot::channel();
    let who = key_of(known.group, known.customer);
    if shard.history_full() {
        return Told::Refused;
    }
    if let Err(refusal) = shard.live.submit(who, Arc::new(ask), Reply::once(tx)) {
        refusal.reply.withdraw();
        return Told::Refused;
    }
    match tokio::time::timeout(PATIENCE, rx).await {
        Ok(Ok(Answer::Receipt(r))) if r.decision.is_empty() && known.hand.is_none() => Told::Nobody,
        Ok(Ok(Answer::Receipt(receipt))) => Told::Receipt {
            decision: receipt.decision,
            index: receipt.position.map_or(0, |p| p.index),
            again: receipt.duplicate,
        },
        Ok(Ok(Answer::NotOwner | Answer::Overloaded { .. })) => Told::Refused,
        // the first thing decided of a customer here is that a run begins: who has none is nobody
        Ok(Ok(Answer::NotFound(_))) if known.hand.is_some() => Told::Nobody,
        Ok(Ok(Answer::Refused(_))) if known.hand.is_some() => Told::Refused,
        // an internal error may have left something behind it
        Ok(Ok(
            Answer::Unknown(_)
            | Answer::Internal(_)
            | Answer::Refused(_)
            | Answer::NotFound(_)
            | Answer::Told(_),
        ))
        | Ok(Err(_))
        | Err(_) => Told::Unknown,
    }
}
