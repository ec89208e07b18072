//! Whether what another node gives as history is history of this shard: it is kept for ever, so all of it is looked at.
//!
//! It does not know where it is put.

use super::customer::unpack;
use super::decision::Decision;
use crate::history::RunKey;
use crate::history::take::Check;
use prost::Message;
use sojourn_cluster::format::decode_cover;
use sojourn_cluster::{GroupId, Position, ShardId};
use sojourn_journey::identifier::{customer_hash, slot_hash};
use sojourn_proto::stored;

/// Looks at what is given for one shard.
pub(super) struct Checked {
    pub(super) shard: u16,
}

impl Check for Checked {
    fn customer(&self, customer: &stored::HistoryCustomer) -> Result<(), String> {
        let hash = customer.hash;
        for record in &customer.records {
            let decision = Decision::decode(&record.decision)
                .map_err(|e| format!("entry {} in history: {e}", record.index))?;
            if decision.hash != hash {
                return Err(format!(
                    "entry {} in history is of customers {:016x}, expected {hash:016x}",
                    record.index, decision.hash
                ));
            }
        }
        for ended in &customer.ended {
            let found = ended_key(&ended.ended)?;
            let key = (hash, ended.slot, ended.run);
            if found != key {
                return Err(format!(
                    "found the execution {found:x?} in history, expected {key:x?}"
                ));
            }
        }
        if let Some(away) = customer.away.as_ref().filter(|away| !away.is_empty()) {
            let bucket = unpack(away).map_err(|e| format!("customers {hash:016x}: {e}"))?;
            let stranger = bucket
                .iter()
                .find(|c| customer_hash(&c.workspace, &c.customer.key) != hash);
            if stranger.is_some() || bucket.is_empty() {
                return Err(format!(
                    "what is packed for customers {hash:016x} is not of them"
                ));
            }
        }
        Ok(())
    }

    fn mark(&self, mark: &stored::HistoryMark) -> Result<(), String> {
        position_of(self.shard, mark)?;
        let meta = mark.meta.clone();
        let meta = meta.ok_or("the mark of history does not say what the shard counts")?;
        super::checkpoint::read_meta(&mut super::state::ShardState::default(), meta)
            .map_err(|e| e.to_string())
    }
}

fn ended_key(bytes: &bytes::Bytes) -> Result<RunKey, String> {
    let missing = |what: &str| format!("an ended execution in history has no {what}");
    let ended = stored::EndedExecution::decode(bytes.clone())
        .map_err(|e| format!("an ended execution in history cannot be decoded: {e}"))?;
    let customer = ended.customer.ok_or_else(|| missing("customer"))?;
    let execution = ended.execution.ok_or_else(|| missing("execution"))?;
    let customer = crate::convert::value::identifier_from(customer);
    let slot = slot_hash(&execution.journey, execution.instance.as_deref());
    let run = execution.run;
    crate::convert::state::execution_from(execution, &customer).map_err(|e| e.to_string())?;
    Ok((customer_hash(&ended.workspace, &customer), slot, run))
}

/// The place in the log of a mark, with the leader by whom it came.
///
/// # Errors
/// A text: it does not say so, or it is of another shard.
pub(super) fn position_of(shard: u16, mark: &stored::HistoryMark) -> Result<Position, String> {
    let cover = decode_cover(&mark.manifest).map_err(|e| e.to_string())?;
    let group = GroupId::of_shard(ShardId(shard));
    if cover.group != group.0 {
        return Err(format!(
            "the mark of history is of {}, expected {group}",
            GroupId(cover.group)
        ));
    }
    let at = cover.at.map(|at| Position {
        term: at.term,
        node: at.node,
        index: at.index,
    });
    at.filter(|at| at.index == mark.up_to).ok_or_else(|| {
        format!(
            "the mark of history is at entry {}, what it covers ends at {at:?}",
            mark.up_to
        )
    })
}
