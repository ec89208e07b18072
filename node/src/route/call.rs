//! What a door knows of the call that it serves: until when, and whether another node handed it over.

use crate::core::deadline;
use crate::limits;
use crate::rpc::errors;
use sojourn_cluster::NodeId;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

/// The metadata key of a call that a node hands over: the id of that node. Whoever gets it does not hand it on.
pub const FORWARDED: &str = "sojourn-forwarded";
/// The metadata key of a call that concerns one shard only.
pub const SHARD: &str = "sojourn-shard";
/// What is waited for is given up this much before the caller gives up, so that the answer still arrives.
const MARGIN: Duration = Duration::from_millis(50);

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// How long it may take, from when it came.
    pub within: Duration,
    /// When the caller gives up.
    pub last: Instant,
    /// Until when something is waited for that would cure it: a little before that.
    pub until: Instant,
    /// Another node handed it over.
    pub forwarded: bool,
    /// It concerns this shard only.
    pub shard: Option<u16>,
}

impl Call {
    /// What its metadata says, read when it has just come.
    ///
    /// # Errors
    /// A shard that is no number.
    pub fn of(metadata: &MetadataMap) -> Result<Call, Status> {
        let within = deadline(metadata);
        let shard = match metadata.get(SHARD) {
            None => None,
            Some(text) => {
                let number = text.to_str().ok().and_then(|t| t.parse().ok());
                let wrong = || errors::invalid_field(SHARD, "expected the number of a shard");
                Some(number.ok_or_else(wrong)?)
            }
        };
        let call = Call {
            within,
            last: Instant::now(),
            until: Instant::now(),
            forwarded: metadata.get(FORWARDED).is_some(),
            shard,
        };
        Ok(call.begun(Instant::now()))
    }

    fn begun(self, now: Instant) -> Call {
        Call {
            last: now + self.within,
            until: now + self.within - MARGIN.min(self.within / 10),
            ..self
        }
    }

    /// When the answer leaves, whatever it says: a little after what was waited for has been given up, so that this is said,
    /// and before the caller gives up, or nothing would be.
    pub fn answer_by(&self) -> Instant {
        self.until + self.last.saturating_duration_since(self.until) / 4
    }

    /// The same for one signal of a stream, which comes later and has the usual time.
    pub fn renewed(self, now: Instant) -> Call {
        let within = limits::DEADLINE;
        Call { within, ..self }.begun(now)
    }

    /// How long it may still take.
    pub fn left(&self) -> Duration {
        self.last.saturating_duration_since(Instant::now())
    }

    /// The shards that it concerns, from one on, of so many.
    pub fn shards(&self, first: u16, count: u16) -> std::ops::Range<u16> {
        match self.shard {
            Some(only) if only < count => only..only + 1,
            Some(_) => 0..0,
            None => first..count,
        }
    }

    /// The same, concerning one shard only.
    pub fn of_shard(self, shard: u16) -> Call {
        Call {
            shard: Some(shard),
            ..self
        }
    }

    /// A request for another node, with what is left of the time.
    pub fn onward<T>(&self, me: NodeId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.until.saturating_duration_since(Instant::now()));
        let metadata = request.metadata_mut();
        metadata.insert(FORWARDED, MetadataValue::from(me));
        if let Some(shard) = self.shard {
            metadata.insert(SHARD, MetadataValue::from(shard));
        }
        request
    }
}
