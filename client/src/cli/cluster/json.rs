//! The cluster as JSON for programs. Added to, never edited: scripts depend on it.

use super::text;
use crate::cli::json::time;
use serde_json::{Value, json};
use sojourn_proto::v1;

/// A time that 0 stands for the absence of.
fn since(us: i64) -> Value {
    time(Some(us).filter(|us| *us != 0))
}

/// A word that the empty text stands for the absence of.
fn word(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        text.into()
    }
}

/// A node or version that 0 stands for the absence of.
fn number(number: u64) -> Value {
    if number == 0 {
        Value::Null
    } else {
        number.into()
    }
}

pub(super) fn status(status: &v1::ClusterStatus) -> Value {
    json!({
        "cluster": status.cluster, "node": status.node, "at": time(Some(status.at)),
        "catalog": {
            "owner": number(status.catalog_owner), "voters": status.catalog_voters,
            "position": status.catalog_position,
        },
        "layout": status.layout,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "shards": status.shards.iter().map(|s| shard(status, s)).collect::<Vec<_>>(),
        "change": status.change.as_ref().filter(|c| !c.id.is_empty()).map(change),
    })
}

pub(super) fn node(node: &v1::NodeStatus) -> Value {
    let info = node.info.clone().unwrap_or_default();
    json!({
        "node": info.id, "name": info.name, "state": text::node_state(info.state), "zone": word(&info.zone),
        "grpc": word(&info.grpc), "http": word(&info.http), "peer": word(&info.peer),
        "joined_at": since(info.joined_at), "reachable": node.reachable, "why": word(&node.why),
        "unreachable_since": since(node.unreachable_since), "owns": node.owns, "replicas": node.replicas,
        "clock_offset_us": node.clock_offset_us,
    })
}

pub(super) fn shard(status: &v1::ClusterStatus, shard: &v1::ShardStatus) -> Value {
    let replicas: Vec<Value> = shard
        .replicas
        .iter()
        .map(|r| {
            json!({
                "node": r.node, "role": r.role, "why": word(&r.why), "applied": r.applied, "last": r.last,
                "catalog": r.catalog, "history_whole": r.history_whole,
            })
        })
        .collect();
    json!({
        "shard": shard.shard, "owner": number(shard.owner), "term": shard.term, "layout": shard.layout,
        "voters": shard.voters, "learners": shard.learners, "replicas": replicas,
        "troubles": text::troubles(status, shard),
    })
}

fn wish(wish: &v1::Wish) -> Value {
    use v1::wish::Wish as W;
    match wish.wish {
        Some(W::Drain(node)) => json!({ "drain": node }),
        Some(W::Remove(node)) => json!({ "remove": node }),
        Some(W::Activate(node)) => json!({ "activate": node }),
        None => json!({ "other": null }),
    }
}

pub(super) fn change(change: &v1::Change) -> Value {
    let steps: Vec<Value> = change
        .steps
        .iter()
        .map(|s| {
            json!({ "shard": s.shard, "step": s.step, "since": since(s.since), "why": word(&s.why) })
        })
        .collect();
    json!({
        "id": change.id, "state": text::change_state(change.state),
        "wishes": change.wishes.iter().map(wish).collect::<Vec<_>>(), "actor": change.actor,
        "reason": word(&change.reason), "begun_at": since(change.begun_at), "ended_at": since(change.ended_at),
        "layout": number(change.layout), "moves": change.moves, "moved": change.moved, "steps": steps,
        "note": word(&change.note),
    })
}

pub(super) fn plan(plan: &v1::PlanResponse) -> Value {
    let loads = |loads: &[v1::NodeLoad]| -> Vec<Value> {
        let one =
            |l: &v1::NodeLoad| json!({ "node": l.node, "owns": l.owns, "replicas": l.replicas });
        loads.iter().map(one).collect()
    };
    let moves: Vec<Value> = plan
        .moves
        .iter()
        .map(|m| json!({ "shard": m.shard, "add": m.add, "remove": m.remove, "voters": m.voters }))
        .collect();
    json!({
        "node": plan.node, "layout": number(plan.layout), "moves": moves, "before": loads(&plan.before),
        "after": loads(&plan.after), "notes": plan.notes,
    })
}

pub(super) fn verify(answer: &v1::VerifyResponse) -> Value {
    let shards: Vec<Value> = answer
        .shards
        .iter()
        .map(|s| {
            let replicas: Vec<Value> = s
                .replicas
                .iter()
                .map(|r| json!({ "node": r.node, "hash": word(&r.hash), "why": word(&r.why) }))
                .collect();
            json!({
                "shard": s.shard, "position": s.at.map(|at| at.index), "equal": s.equal, "replicas": replicas,
            })
        })
        .collect();
    json!({ "equal": answer.equal, "shards": shards })
}
