//! The line before one endpoint: who may send next. First come, first served; whoever is first waits until the
//! endpoint's concurrency, rate and circuit breaker let it through. A place is taken without waiting, so that the order is
//! that in which places were asked for.
//!
//! It knows nothing of actions: what waits here is owed by the states, and a new owner lines it up again.

use super::breaker::{Breaker, Bucket, May, Seen, State};
use parking_lot::Mutex;
use sojourn_proto::v1;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What an endpoint has where it says nothing.
pub mod defaults {
    /// Attempts under way at once.
    pub const CONCURRENCY: u32 = 16;
    /// Failures in a row after which the breaker opens.
    pub const BREAKER_FAILURES: u32 = 10;
    /// How long it stays open before a trial, milliseconds.
    pub const BREAKER_PAUSE_MS: u32 = 30_000;
}

/// The value, or the default when it is 0.
pub fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

/// The line before one endpoint of this node.
#[derive(Default)]
pub struct Gate {
    inner: Mutex<Inner>,
    /// Attempts that wait to be let into the line.
    behind: AtomicU64,
}

#[derive(Default)]
struct Inner {
    line: VecDeque<(u64, Arc<Notify>)>,
    counter: u64,
    running: u32,
    breaker: Breaker,
    bucket: Bucket,
    /// The endpoint as it was last seen: when it is changed, what was learnt of the old one counts no more.
    known: Option<v1::Endpoint>,
    done: u64,
    failed: u64,
}

impl Inner {
    fn wake_first(&self) {
        if let Some((_, woken)) = self.line.front() {
            woken.notify_one();
        }
    }

    fn know(&mut self, endpoint: &v1::Endpoint) {
        if self.known.as_ref() != Some(endpoint) {
            self.breaker = Breaker::default();
            self.known = Some(endpoint.clone());
        }
    }

    fn may(&mut self, endpoint: &v1::Endpoint, now: Instant) -> May {
        self.know(endpoint);
        if self.running >= or(endpoint.concurrency, defaults::CONCURRENCY) {
            return May::Wait;
        }
        match self.breaker.may(now) {
            May::Now if endpoint.rate > 0.0 => self.bucket.may(endpoint.rate, now),
            other => other,
        }
    }
}

/// A place in the line; dropping it leaves the line.
pub struct Place {
    gate: Arc<Gate>,
    number: u64,
    woken: Arc<Notify>,
}

/// The right to make one attempt; dropping it without a word says that nothing was sent.
pub struct Turn {
    gate: Arc<Gate>,
    trial: bool,
    endpoint: v1::Endpoint,
    seen: Option<Seen>,
}

/// Somebody who waits to be let into the line, counted until dropped.
pub struct Behind(Arc<Gate>);

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.behind.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// Takes the last place in the line.
    pub fn line_up(self: &Arc<Self>) -> Place {
        let mut inner = self.inner.lock();
        inner.counter += 1;
        let (number, woken) = (inner.counter, Arc::<Notify>::default());
        inner.line.push_back((number, woken.clone()));
        Place {
            gate: self.clone(),
            number,
            woken,
        }
    }

    /// Counts one that waits to be let into the line.
    pub fn behind(self: &Arc<Self>) -> Behind {
        self.behind.fetch_add(1, Ordering::Relaxed);
        Behind(self.clone())
    }

    /// Whether somebody runs, waits, or is counted.
    pub fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.running == 0 && inner.line.is_empty() && self.behind.load(Ordering::Relaxed) == 0
    }

    /// How it stands; `wall`: the wall clock now.
    pub fn state(&self, name: &str, wall: sojourn_journey::time::Time) -> v1::EndpointState {
        let inner = self.inner.lock();
        let now = Instant::now();
        let (breaker, open_until) = match inner.breaker.state() {
            State::Closed => (v1::Breaker::Closed, None),
            State::HalfOpen => (v1::Breaker::HalfOpen, None),
            State::Open { until } => {
                let left = until.saturating_duration_since(now).as_micros();
                let left = i64::try_from(left).unwrap_or(i64::MAX);
                (v1::Breaker::Open, Some(wall.0.saturating_add(left)))
            }
        };
        v1::EndpointState {
            name: name.to_owned(),
            breaker: breaker.into(),
            failures: inner.breaker.failures(),
            running: inner.running.into(),
            waiting: inner.line.len() as u64 + self.behind.load(Ordering::Relaxed),
            open_until,
            error: inner.breaker.error().to_owned(),
            done: inner.done,
            failed: inner.failed,
        }
    }
}

impl Place {
    /// Waits for its turn; `None`: there is no such endpoint (any more).
    ///
    /// `read` gives the endpoint as it is now, and `changed` ends when it may have become another: it is looked at anew
    /// each time, so that whoever waits for a broken endpoint goes to the mended one.
    pub async fn turn<C>(
        self,
        read: impl Fn() -> Option<v1::Endpoint>,
        mut changed: impl FnMut() -> C,
    ) -> Option<Turn>
    where
        C: Future<Output = ()>,
    {
        loop {
            // before it is read: what changes in between is not missed
            let changed = changed();
            let endpoint = read()?;
            let may = self.begin(&endpoint);
            match may {
                Ok(turn) => return Some(turn),
                // not the first: nothing but the line moves it
                Err(None) => self.woken.notified().await,
                Err(Some(May::At(at))) => tokio::select! {
                    () = self.woken.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                    () = changed => {}
                },
                Err(Some(May::Now | May::Wait)) => tokio::select! {
                    () = self.woken.notified() => {}
                    () = changed => {}
                },
            }
        }
    }

    /// Begins, when it is the first and may; otherwise what the first waits for.
    fn begin(&self, endpoint: &v1::Endpoint) -> Result<Turn, Option<May>> {
        let now = Instant::now();
        let mut inner = self.gate.inner.lock();
        if inner.line.front().is_none_or(|(n, _)| *n != self.number) {
            return Err(None);
        }
        match inner.may(endpoint, now) {
            May::Now => {}
            other => return Err(Some(other)),
        }
        inner.line.pop_front();
        inner.running += 1;
        if endpoint.rate > 0.0 {
            inner.bucket.take(endpoint.rate, now);
        }
        let trial = inner.breaker.begin();
        inner.wake_first();
        Ok(Turn {
            gate: self.gate.clone(),
            trial,
            endpoint: endpoint.clone(),
            seen: None,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.gate.inner.lock();
        // whoever had its turn has left already
        inner.line.retain(|(n, _)| *n != self.number);
        inner.wake_first();
    }
}

impl Turn {
    /// The endpoint as it was when the turn came.
    pub fn endpoint(&self) -> &v1::Endpoint {
        &self.endpoint
    }

    /// The attempt has ended.
    pub fn ended(mut self, seen: Seen) {
        self.seen = Some(seen);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let seen = self.seen.take().unwrap_or(Seen::Unsent);
        let mut inner = self.gate.inner.lock();
        inner.running -= 1;
        match seen {
            Seen::Done => inner.done += 1,
            Seen::Declined | Seen::Failing { .. } => inner.failed += 1,
            Seen::Unsent => {}
        }
        let limit = or(self.endpoint.breaker_failures, defaults::BREAKER_FAILURES);
        let pause = or(self.endpoint.breaker_pause_ms, defaults::BREAKER_PAUSE_MS);
        let pause = Duration::from_millis(pause.into());
        // what is learnt of an endpoint that has been changed since says nothing of the new one
        if inner.known.as_ref() == Some(&self.endpoint) {
            inner
                .breaker
                .ended(self.trial, seen, limit, pause, Instant::now());
        }
        inner.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn endpoint(concurrency: u32) -> v1::Endpoint {
        v1::Endpoint {
            name: "hook".into(),
            url: "http://localhost/".into(),
            concurrency,
            breaker_failures: 2,
            breaker_pause_ms: 1_000,
            ..v1::Endpoint::default()
        }
    }

    fn failing() -> Seen {
        Seen::Failing {
            error: "refused".into(),
        }
    }

    /// Waits for the turn of a place.
    fn turn(place: Place, endpoint: &v1::Endpoint) -> impl Future<Output = Option<Turn>> + use<> {
        let endpoint = endpoint.clone();
        async move { place.turn(|| Some(endpoint.clone()), pending::<()>).await }
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_is_that_of_the_line_whoever_is_polled_first() {
        let gate: Arc<Gate> = Arc::default();
        let places: Vec<Place> = (0..20).map(|_| gate.line_up()).collect();
        let order: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        // the last is polled first
        for (n, place) in places.into_iter().enumerate().rev() {
            let order = order.clone();
            tasks.spawn(async move {
                let turn = turn(place, &endpoint(3)).await.expect("an endpoint");
                order.lock().push(n);
                tokio::time::sleep(Duration::from_millis(5)).await;
                turn.ended(Seen::Done);
            });
            tokio::task::yield_now().await;
        }
        tasks.join_all().await;
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
        assert!(gate.is_idle());
        assert_eq!(gate.state("hook", Default::default()).done, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_under_way_than_the_concurrency() {
        let gate: Arc<Gate> = Arc::default();
        let first = turn(gate.line_up(), &endpoint(1)).await.expect("a turn");
        let mut second = Box::pin(turn(gate.line_up(), &endpoint(1)));
        assert!(futures::poll!(&mut second).is_pending());
        let state = gate.state("hook", Default::default());
        assert_eq!((state.running, state.waiting), (1, 1));
        first.ended(Seen::Done);
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_breaker_is_open_everybody_waits_and_one_tries() {
        let gate: Arc<Gate> = Arc::default();
        let endpoint = endpoint(8);
        for _ in 0..2 {
            let turn = turn(gate.line_up(), &endpoint).await.expect("a turn");
            turn.ended(failing());
        }
        let start = Instant::now();
        let trial = turn(gate.line_up(), &endpoint).await.expect("a turn");
        assert_eq!(start.elapsed(), Duration::from_secs(1), "after the pause");
        let mut next = Box::pin(turn(gate.line_up(), &endpoint));
        assert!(futures::poll!(&mut next).is_pending(), "one at a time");
        let state = gate.state("hook", Default::default());
        assert_eq!(state.breaker(), v1::Breaker::HalfOpen);
        trial.ended(failing());
        let trial = next.await.expect("a turn");
        assert_eq!(start.elapsed(), Duration::from_secs(2), "after another");
        trial.ended(Seen::Done);
        let state = gate.state("hook", Default::default());
        assert_eq!(state.breaker(), v1::Breaker::Closed);
        turn(gate.line_up(), &endpoint).await.expect("a turn");
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_aborted_trial_leaves_the_trial_to_the_next() {
        let gate: Arc<Gate> = Arc::default();
        let endpoint = endpoint(8);
        for _ in 0..2 {
            let turn = turn(gate.line_up(), &endpoint).await.expect("a turn");
            turn.ended(failing());
        }
        drop(turn(gate.line_up(), &endpoint).await.expect("the trial"));
        let start = Instant::now();
        turn(gate.line_up(), &endpoint).await.expect("the trial");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_the_line_lets_the_next_go() {
        let gate: Arc<Gate> = Arc::default();
        let running = turn(gate.line_up(), &endpoint(1)).await.expect("a turn");
        let mut gone = Box::pin(turn(gate.line_up(), &endpoint(1)));
        let mut next = Box::pin(turn(gate.line_up(), &endpoint(1)));
        assert!(futures::poll!(&mut gone).is_pending());
        assert!(futures::poll!(&mut next).is_pending());
        running.ended(Seen::Done);
        drop(gone);
        assert!(next.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_endpoint_closes_its_breaker_and_is_gone_to_at_once() {
        let gate: Arc<Gate> = Arc::default();
        let old = endpoint(8);
        let under_way = turn(gate.line_up(), &old).await.expect("a turn");
        for _ in 0..2 {
            let turn = turn(gate.line_up(), &old).await.expect("a turn");
            turn.ended(failing());
        }
        let trial = turn(gate.line_up(), &old).await.expect("the trial");
        let (tx, rx) = tokio::sync::watch::channel(Some(old));
        let start = Instant::now();
        let waiting = gate.line_up().turn(
            || rx.borrow().clone(),
            || {
                let mut rx = rx.clone();
                async move { drop(rx.changed().await) }
            },
        );
        let mut waiting = Box::pin(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        let new = v1::Endpoint {
            url: "http://localhost/mended".into(),
            ..endpoint(8)
        };
        tx.send_replace(Some(new.clone()));
        let turn = waiting.await.expect("a turn");
        assert_eq!(turn.endpoint(), &new);
        assert_eq!(start.elapsed(), Duration::ZERO);
        // what ends late says nothing of the new one
        under_way.ended(failing());
        trial.ended(failing());
        assert_eq!(gate.state("hook", Default::default()).failures, 0);
        // and one that is deleted lets nobody wait
        tx.send_replace(None);
        let gone = gate.line_up().turn(|| rx.borrow().clone(), pending::<()>);
        assert!(gone.await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_whatever_the_concurrency() {
        let gate: Arc<Gate> = Arc::default();
        let endpoint = v1::Endpoint {
            rate: 4.0,
            ..endpoint(100)
        };
        let start = Instant::now();
        for _ in 0..12 {
            let turn = turn(gate.line_up(), &endpoint).await.expect("a turn");
            turn.ended(Seen::Done);
        }
        // four at once, eight more in two seconds
        let took = start.elapsed();
        let about = Duration::from_millis(1_990)..Duration::from_millis(2_100);
        assert!(about.contains(&took), "{took:?}");
    }
}
