//! The endpoint of these worlds: it takes what it is sent, or does not, or takes it and nobody learns of it.

use super::books::{Books, Sent};
use super::replica::customer_of;
use futures::future::BoxFuture;
use sojourn_cluster::GroupId;
use sojourn_cluster::runtime::Rng;
use sojourn_journey::decide::AttemptResult;
use sojourn_journey::time::Span;
use sojourn_node::clock::Clock;
use sojourn_node::hands::attempt::{Attempt, Outside};
use sojourn_node::hands::gate::{Gate, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// The way to the endpoint from one replica.
pub struct Endpoint {
    /// The replica's group.
    pub group: GroupId,
    /// The books.
    pub books: Arc<Books>,
    /// Nothing goes wrong any more.
    pub calm: Arc<AtomicBool>,
    /// The node's clock.
    pub clock: Clock,
    /// The world's time.
    pub now: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Outside for Endpoint {
    fn gate(&self, _workspace: &str, _name: &str) -> Option<Arc<Gate>> {
        None
    }

    fn make<'a>(
        &'a self,
        attempt: &'a Attempt,
        _place: Option<Place>,
    ) -> BoxFuture<'a, AttemptResult> {
        Box::pin(async move {
            let calm = self.calm.load(Ordering::Relaxed);
            let draw = Rng.draw();
            let (kind, there, back) = (draw % 8, draw >> 8 & 0xff, draw >> 16 & 0xff);
            let micros = |n: u64| Duration::from_micros(n * if calm { 20 } else { 400 });
            tokio::time::sleep(micros(there)).await;
            let taken = calm || kind > 1;
            self.books.sent(Sent {
                group: self.group,
                customer: customer_of(&attempt.customer.key.value),
                action: (attempt.key.run, attempt.number),
                at: (self.now)(),
                taken,
                body: xxh3_64(&attempt.action.body),
            });
            tokio::time::sleep(micros(back)).await;
            if taken && (calm || kind > 2) {
                return AttemptResult::Done {
                    detail: "200".to_owned(),
                };
            }
            let later = Span(i64::try_from(draw >> 24 & 0xf_ffff).unwrap_or(0));
            AttemptResult::Retry {
                error: "nobody knows".to_owned(),
                next: self.clock.now().plus(later),
            }
        })
    }
}
