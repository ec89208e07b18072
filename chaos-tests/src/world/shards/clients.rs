//! What clients do in a world of shards: they send signals, send the same ones again, and look.

use super::books::{Asked, Call, Told};
use super::journey::{KINDS, SOURCE};
use super::replica::{key_of, last_of};
use crate::world::{PATIENCE, World};
use sojourn_cluster::{Group, GroupId, NodeId};
use sojourn_node::actors::{Answer, Ask, Reply};
use sojourn_node::convert::signal::signal_from;
use sojourn_node::shard::owner::Shard;
use sojourn_proto::v1;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

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
        let known = if repeats && books.signals() > 0 {
            let back = match self.dice.below(3) {
                0 => self.dice.below(8),
                1 => self.dice.below(60),
                _ => self.dice.below(books.signals()),
            };
            books.signal(books.signals().saturating_sub(1 + back))
        } else {
            None
        };
        let known = known.filter(|known| !calm || known.customer % 2 == 0);
        let group = known.map_or(group, |known| known.group);
        let node = match known {
            Some(_) if self.dice.once_in(4) => node,
            Some(_) => self.owner(group).unwrap_or(node),
            None => node,
        };
        let node = self.nodes.get(&node)?;
        let replica = node.replica(group)?;
        let shard = replica.office()?.shard.clone();
        let begin = |customer, asked| {
            books.begin(Call {
                group,
                node: node.id,
                customer,
                asked,
                begun: self.now,
                told: None,
            })
        };
        let (clock, told) = (node.clock(), books.clone());
        if looks && known.is_none() {
            let call = begin(customer, Asked::Look);
            node.spawn(async move {
                let seen = look(&replica.group, &shard, group, customer).await;
                told.end(call, clock(), seen);
            });
            return Some(call);
        }
        let known = known.unwrap_or_else(|| books.new_signal(group, customer));
        let call = begin(known.customer, Asked::Signal { id: known.id });
        let sent = signal(group, known.customer, known.id);
        node.spawn(async move {
            let answer = send(&shard, group, known.customer, sent).await;
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

async fn send(shard: &Shard, group: GroupId, customer: u64, sent: v1::Signal) -> Told {
    let checked = match signal_from(sent) {
        Ok(checked) => checked,
        Err(_) => return Told::Refused,
    };
    let ask = Ask::Signal {
        signal: Box::new(checked.signal),
        sent: Box::new(checked.sent),
        content: checked.content,
    };
    let (tx, rx) = oneshot::channel();
    let who = key_of(group, customer);
    if shard.history_full() {
        return Told::Refused;
    }
    if let Err(refusal) = shard.live.submit(who, Arc::new(ask), Reply::once(tx)) {
        refusal.reply.withdraw();
        return Told::Refused;
    }
    match tokio::time::timeout(PATIENCE, rx).await {
        Ok(Ok(Answer::Receipt(receipt))) if receipt.decision.is_empty() => Told::Nobody,
        Ok(Ok(Answer::Receipt(receipt))) => Told::Receipt {
            decision: receipt.decision,
            index: receipt.position.map_or(0, |p| p.index),
            again: receipt.duplicate,
        },
        Ok(Ok(Answer::NotOwner | Answer::Overloaded { .. })) => Told::Refused,
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
