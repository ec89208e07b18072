//! The cluster as people read it: tables, and what is wrong in words. Knows no connection.

use crate::cli::show;
use crate::cli::table::{Align, Table};
use jiff::Timestamp;
use sojourn_proto::v1;
use std::collections::BTreeSet;

/// A time in UTC to the second; `-` for none.
fn second(us: i64) -> String {
    match Timestamp::from_microsecond(us) {
        Ok(time) if us != 0 => format!("{time:.0}"),
        _ => "-".to_owned(),
    }
}

fn list(nodes: &[u64]) -> String {
    if nodes.is_empty() {
        return "-".to_owned();
    }
    let texts: Vec<String> = nodes.iter().map(u64::to_string).collect();
    texts.join(", ")
}

/// A node's id; `none` for 0.
pub(super) fn node_or(node: u64, none: &str) -> String {
    if node == 0 {
        none.to_owned()
    } else {
        format!("node {node}")
    }
}

pub(super) fn node_state(state: i32) -> &'static str {
    use v1::NodeState as S;
    match S::try_from(state) {
        Ok(S::Joining) => "joining",
        Ok(S::Active) => "active",
        Ok(S::Draining) => "draining",
        Ok(S::Removed) => "removed",
        Ok(S::Unspecified) | Err(_) => "other",
    }
}

pub(super) fn change_state(state: i32) -> &'static str {
    use v1::ChangeState as S;
    match S::try_from(state) {
        Ok(S::Running) => "running",
        Ok(S::Paused) => "paused",
        Ok(S::Done) => "done",
        Ok(S::Cancelled) => "cancelled",
        Ok(S::Unspecified) | Err(_) => "other",
    }
}

/// Whose view it is: `as node 2 sees it, 2026-11-22T12:00:03Z`.
pub(super) fn whose(status: &v1::ClusterStatus) -> String {
    format!("as node {} sees it, {}", status.node, second(status.at))
}

/// What is wrong with a shard, each in words; none when all is well.
pub(super) fn troubles(status: &v1::ClusterStatus, shard: &v1::ShardStatus) -> Vec<String> {
    let mut troubles = Vec::new();
    if shard.owner == 0 {
        troubles.push("without owner".to_owned());
    }
    let set = |nodes: &[u64]| -> BTreeSet<u64> { nodes.iter().copied().collect() };
    let (layout, voters) = (set(&shard.layout), set(&shard.voters));
    if !voters.is_empty() && voters != layout {
        troubles.push(format!(
            "voters are {}, the layout says {}",
            list(&shard.voters),
            list(&shard.layout)
        ));
    }
    // those that the group stands on now; while they are not known, those that it should stand on
    let counted = if voters.is_empty() { &layout } else { &voters };
    let mut missing = Vec::new();
    for node in counted {
        let reachable = status
            .nodes
            .iter()
            .find(|n| n.info.as_ref().is_some_and(|i| i.id == *node));
        match shard.replicas.iter().find(|r| r.node == *node) {
            Some(replica) if replica.role == "closed" && replica.why.is_empty() => {
                missing.push(format!("closed on node {node}"));
            }
            Some(replica) if replica.role == "closed" => {
                missing.push(format!("closed on node {node}: {}", replica.why));
            }
            Some(_) => {}
            None if reachable.is_some_and(|n| !n.reachable) => {
                missing.push(format!("node {node} is not reachable"));
            }
            None => missing.push(format!("node {node} does not say that it has one")),
        }
    }
    if !missing.is_empty() {
        troubles.push(format!(
            "under-replicated, {} of {} ({})",
            counted.len() - missing.len(),
            counted.len(),
            missing.join("; ")
        ));
    }
    troubles
}

/// The whole, and of the shards only those in trouble.
pub(super) fn status(status: &v1::ClusterStatus) -> String {
    let mut text = format!(
        "cluster {} {}\nlayout {}; the catalog is owned by {}, at {}, voters {}\n\n{}\n\n",
        status.cluster,
        whose(status),
        status.layout,
        node_or(status.catalog_owner, "nobody that is known"),
        show::count(status.catalog_position),
        list(&status.catalog_voters),
        nodes(status, false)
    );
    let mut table = Table::new(&[("shard", Align::Right), ("trouble", Align::Left)]);
    let mut troubled = 0;
    for shard in &status.shards {
        let troubles = troubles(status, shard);
        if !troubles.is_empty() {
            troubled += 1;
            table.row([shard.shard.to_string(), troubles.join("; ")]);
        }
    }
    if troubled == 0 {
        text.push_str(&format!("{} shards, all well", status.shards.len()));
    } else {
        text.push_str(&format!(
            "{} shards, {troubled} in trouble\n{table}",
            status.shards.len()
        ));
    }
    if let Some(under_way) = status.change.as_ref().filter(|c| !c.id.is_empty()) {
        text.push_str(&format!("\n\n{}", change(under_way)));
    }
    text
}

/// The nodes; `full`: with their addresses.
pub(super) fn nodes(status: &v1::ClusterStatus, full: bool) -> Table {
    let mut columns = vec![
        ("node", Align::Right),
        ("name", Align::Left),
        ("zone", Align::Left),
        ("state", Align::Left),
        ("owns", Align::Right),
        ("replicas", Align::Right),
        ("clock ms", Align::Right),
    ];
    if full {
        columns.extend([
            ("grpc", Align::Left),
            ("http", Align::Left),
            ("peer", Align::Left),
            ("joined", Align::Left),
        ]);
    }
    columns.push(("reachable", Align::Left));
    let mut table = Table::new(&columns);
    let dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    for node in &status.nodes {
        let info = node.info.clone().unwrap_or_default();
        let clock = if node.reachable {
            show::decimal(node.clock_offset_us as f64 / 1e3, 1)
        } else {
            "-".to_owned()
        };
        let mut row = vec![
            info.id.to_string(),
            dash(&info.name),
            dash(&info.zone),
            node_state(info.state).to_owned(),
            node.owns.to_string(),
            node.replicas.to_string(),
            clock,
        ];
        if full {
            row.extend([
                dash(&info.grpc),
                dash(&info.http),
                dash(&info.peer),
                second(info.joined_at),
            ]);
        }
        row.push(reach(node));
        table.row(row);
    }
    table
}

/// `yes`, or since when not and why.
fn reach(node: &v1::NodeStatus) -> String {
    if node.reachable {
        return "yes".to_owned();
    }
    let mut text = String::from("no");
    if node.unreachable_since != 0 {
        text.push_str(&format!(", since {}", second(node.unreachable_since)));
    }
    if !node.why.is_empty() {
        text.push_str(&format!(": {}", node.why));
    }
    text
}

/// Every shard, a row for each replica of it.
pub(super) fn shards(status: &v1::ClusterStatus) -> Table {
    let mut table = Table::new(&[
        ("shard", Align::Right),
        ("owner", Align::Right),
        ("term", Align::Right),
        ("layout", Align::Left),
        ("voters", Align::Left),
        ("learners", Align::Left),
        ("replica", Align::Right),
        ("role", Align::Left),
        ("applied", Align::Right),
        ("last", Align::Right),
        ("catalog", Align::Right),
        ("history", Align::Left),
        ("trouble", Align::Left),
    ]);
    for shard in &status.shards {
        let head = vec![
            shard.shard.to_string(),
            if shard.owner == 0 {
                "-".to_owned()
            } else {
                shard.owner.to_string()
            },
            shard.term.to_string(),
            list(&shard.layout),
            list(&shard.voters),
            list(&shard.learners),
        ];
        let trouble = troubles(status, shard).join("; ");
        if shard.replicas.is_empty() {
            let mut row = head;
            row.extend(["-", "-", "-", "-", "-", "-", &trouble].map(str::to_owned));
            table.row(row);
            continue;
        }
        for (place, replica) in shard.replicas.iter().enumerate() {
            let mut row = if place == 0 {
                head.clone()
            } else {
                vec![String::new(); head.len()]
            };
            let whole = if replica.history_whole {
                "whole"
            } else {
                "behind"
            };
            row.extend([
                replica.node.to_string(),
                replica.role.clone(),
                replica.applied.to_string(),
                replica.last.to_string(),
                replica.catalog.to_string(),
                whole.to_owned(),
                if place == 0 {
                    trouble.clone()
                } else {
                    String::new()
                },
            ]);
            table.row(row);
        }
    }
    table
}

/// `drain 2, remove 3`, or what no wish means.
fn wishes(wishes: &[v1::Wish]) -> String {
    use v1::wish::Wish as W;
    if wishes.is_empty() {
        return "the best layout".to_owned();
    }
    let texts: Vec<String> = wishes
        .iter()
        .map(|w| match w.wish {
            Some(W::Drain(node)) => format!("drain {node}"),
            Some(W::Remove(node)) => format!("remove {node}"),
            Some(W::Activate(node)) => format!("activate {node}"),
            None => "another wish".to_owned(),
        })
        .collect();
    texts.join(", ")
}

/// A change in a few lines.
pub(super) fn change(change: &v1::Change) -> String {
    let mut text = format!(
        "change {} ({}) is {}, {} of {} moves done",
        change.id,
        wishes(&change.wishes),
        change_state(change.state),
        change.moved,
        change.moves
    );
    if !change.actor.is_empty() {
        text.push_str(&format!("; by {}", change.actor));
    }
    if !change.reason.is_empty() {
        text.push_str(&format!(": {}", change.reason));
    }
    let times = if change.ended_at == 0 {
        format!("begun {}", second(change.begun_at))
    } else {
        format!(
            "begun {}, ended {}",
            second(change.begun_at),
            second(change.ended_at)
        )
    };
    text.push_str(&format!("\n  {times}"));
    if !change.note.is_empty() {
        text.push_str(&format!("\n  {}", change.note));
    }
    for step in &change.steps {
        text.push_str(&format!("\n  {}", self::step(step)));
        if step.since != 0 {
            text.push_str(&format!(", since {}", second(step.since)));
        }
    }
    text
}

/// `shard 4: catch up (2,000 entries behind)`.
fn step(step: &v1::StepStatus) -> String {
    if step.why.is_empty() {
        format!("shard {}: {}", step.shard, step.step)
    } else {
        format!("shard {}: {} ({})", step.shard, step.step, step.why)
    }
}

/// How far a change is, in one line.
pub(super) fn progress(change: &v1::Change) -> String {
    let mut text = format!(
        "{}: {} of {} moves done",
        change_state(change.state),
        change.moved,
        change.moves
    );
    if !change.note.is_empty() {
        text.push_str(&format!("; {}", change.note));
    }
    for step in &change.steps {
        text.push_str(&format!("; {}", self::step(step)));
    }
    text
}

/// What a change would do.
pub(super) fn plan(plan: &v1::PlanResponse) -> String {
    if plan.layout == 0 && plan.moves.is_empty() {
        return format!("nothing to do, as node {} sees it", plan.node);
    }
    let mut moves = Table::new(&[
        ("shard", Align::Right),
        ("gets", Align::Left),
        ("gives up", Align::Left),
        ("voters afterwards", Align::Left),
    ]);
    for m in &plan.moves {
        moves.row([
            m.shard.to_string(),
            list(&m.add),
            list(&m.remove),
            list(&m.voters),
        ]);
    }
    let mut loads = Table::new(&[
        ("node", Align::Right),
        ("owns", Align::Right),
        ("afterwards", Align::Right),
        ("replicas", Align::Right),
        ("afterwards", Align::Right),
    ]);
    let ids: BTreeSet<u64> = plan
        .before
        .iter()
        .chain(&plan.after)
        .map(|l| l.node)
        .collect();
    let of = |loads: &[v1::NodeLoad], id: u64| {
        loads
            .iter()
            .find(|l| l.node == id)
            .copied()
            .unwrap_or_default()
    };
    for id in ids {
        let (before, after) = (of(&plan.before, id), of(&plan.after, id));
        loads.row([
            id.to_string(),
            before.owns.to_string(),
            after.owns.to_string(),
            before.replicas.to_string(),
            after.replicas.to_string(),
        ]);
    }
    let mut text = format!(
        "moves to layout {}, in this order, as node {} sees it: {}",
        plan.layout,
        plan.node,
        plan.moves.len()
    );
    if !moves.is_empty() {
        text.push_str(&format!("\n{moves}"));
    }
    if !loads.is_empty() {
        text.push_str(&format!("\n\n{loads}"));
    }
    for note in &plan.notes {
        text.push_str(&format!("\n\nNote: {note}"));
    }
    text
}

/// Every replica's hash.
pub(super) fn verify(answer: &v1::VerifyResponse) -> Table {
    let mut table = Table::new(&[
        ("shard", Align::Right),
        ("position", Align::Right),
        ("verdict", Align::Left),
        ("node", Align::Right),
        ("hash", Align::Left),
    ]);
    for shard in &answer.shards {
        let head = [
            shard.shard.to_string(),
            shard
                .at
                .map_or_else(|| "-".to_owned(), |at| at.index.to_string()),
            word(shard).to_owned(),
        ];
        if shard.replicas.is_empty() {
            table.row(head.into_iter().chain(["-".to_owned(), "-".to_owned()]));
            continue;
        }
        for (place, replica) in shard.replicas.iter().enumerate() {
            let first = if place == 0 {
                head.clone()
            } else {
                Default::default()
            };
            let hash = if replica.hash.is_empty() {
                format!("none: {}", replica.why)
            } else {
                replica.hash.clone()
            };
            table.row(first.into_iter().chain([replica.node.to_string(), hash]));
        }
    }
    table
}

/// Whether the replicas of a shard agree. One that was not heard is not the same as one that differs.
fn word(shard: &v1::ShardVerdict) -> &'static str {
    let hashes: BTreeSet<&str> = shard
        .replicas
        .iter()
        .map(|r| r.hash.as_str())
        .filter(|h| !h.is_empty())
        .collect();
    if shard.equal {
        "equal"
    } else if hashes.len() > 1 {
        "DIFFERENT"
    } else {
        "NOT KNOWN"
    }
}

/// The whole verdict in a line.
pub(super) fn verdict(answer: &v1::VerifyResponse) -> String {
    let total = answer.shards.len();
    if answer.equal {
        return format!("equal: every replica of {total} shards");
    }
    let differ = answer
        .shards
        .iter()
        .filter(|s| word(s) == "DIFFERENT")
        .count();
    let silent = answer.shards.iter().filter(|s| !s.equal).count() - differ;
    format!(
        "NOT equal: of {total} shards {differ} differ, and of {silent} not every replica was heard"
    )
}

/// What is otherwise than it was, a line each.
pub(super) fn differences(old: &v1::ClusterStatus, new: &v1::ClusterStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if old.catalog_owner != new.catalog_owner {
        lines.push(format!(
            "the catalog is owned by {}",
            node_or(new.catalog_owner, "nobody that is known")
        ));
    }
    if old.catalog_voters != new.catalog_voters {
        lines.push(format!(
            "the catalog's voters are {}",
            list(&new.catalog_voters)
        ));
    }
    if old.layout != new.layout {
        lines.push(format!("layout {}", new.layout));
    }
    let id = |n: &v1::NodeStatus| n.info.as_ref().map_or(0, |i| i.id);
    let state = |n: &v1::NodeStatus| n.info.as_ref().map_or(0, |i| i.state);
    for node in &new.nodes {
        let before = old.nodes.iter().find(|n| id(n) == id(node));
        if before.map(state) != Some(state(node)) {
            lines.push(format!("node {} is {}", id(node), node_state(state(node))));
        }
        if before.is_some_and(|n| n.reachable != node.reachable)
            || before.is_none() && !node.reachable
        {
            lines.push(format!("node {} reachable: {}", id(node), reach(node)));
        }
    }
    for node in &old.nodes {
        if !new.nodes.iter().any(|n| id(n) == id(node)) {
            lines.push(format!("node {} is not in the catalog any more", id(node)));
        }
    }
    for shard in &new.shards {
        let before = old.shards.iter().find(|s| s.shard == shard.shard);
        let number = shard.shard;
        if let Some(before) = before.filter(|s| s.owner != shard.owner) {
            lines.push(format!(
                "shard {number} is owned by {}, was by {} (term {})",
                node_or(shard.owner, "nobody"),
                node_or(before.owner, "nobody"),
                shard.term
            ));
        }
        let now = troubles(new, shard);
        let was = before.map_or_else(Vec::new, |s| troubles(old, s));
        // that it has no owner is said above
        let told = |troubles: &[String]| -> Vec<String> {
            let others = troubles.iter().filter(|t| *t != "without owner");
            others.cloned().collect()
        };
        if told(&now) != told(&was) {
            if told(&now).is_empty() {
                lines.push(format!("shard {number} is well"));
            } else {
                lines.push(format!("shard {number}: {}", told(&now).join("; ")));
            }
        }
    }
    if let Some(change) = new.change.as_ref().filter(|c| !c.id.is_empty()) {
        let line = format!("change {} {}", change.id, progress(change));
        let before = old.change.as_ref();
        if before.map(|c| format!("change {} {}", c.id, progress(c))) != Some(line.clone()) {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests;
