//! When an endpoint may be sent to: a circuit breaker and a token bucket. Both are values: the time comes in, and they
//! know neither who waits nor what is sent.

use std::time::Duration;
use tokio::time::Instant;

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Now.
    Now,
    /// Not before this.
    At(Instant),
    /// Not before something that is under way has ended.
    Wait,
}

/// What an attempt says of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It took it.
    Done,
    /// It answered that it does not want this one: it lives.
    Declined,
    /// It did not answer, or said that it cannot now.
    Failing {
        /// What went wrong.
        error: String,
    },
    /// Nothing was sent: nothing was learnt.
    Unsent,
}

/// Opens after so many failures in a row; after a pause it lets one attempt through for trial.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    failures: u32,
    error: String,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Attempts are made.
    #[default]
    Closed,
    /// Attempts wait.
    Open {
        /// Until then; after it one is made for trial.
        until: Instant,
    },
    /// One is made for trial, the others wait.
    HalfOpen,
}

impl Breaker {
    /// How it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What went wrong last; empty when nothing did since the last success.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// Whether an attempt may begin.
    pub fn may(&self, now: Instant) -> May {
        match self.state {
            State::Closed => May::Now,
            State::Open { until } if until > now => May::At(until),
            State::Open { .. } => May::Now,
            State::HalfOpen => May::Wait,
        }
    }

    /// An attempt begins, which it may; gives whether it is the trial.
    pub fn begin(&mut self) -> bool {
        let trial = matches!(self.state, State::Open { .. });
        if trial {
            self.state = State::HalfOpen;
        }
        trial
    }

    /// An attempt has ended. One that began before the breaker opened says nothing against the endpoint that is not
    /// known by then, but its success counts.
    pub fn ended(&mut self, trial: bool, seen: Seen, limit: u32, pause: Duration, now: Instant) {
        match seen {
            Seen::Done | Seen::Declined => *self = Breaker::default(),
            Seen::Failing { error } => {
                self.failures = self.failures.saturating_add(1);
                self.error = error;
                let closed = self.state == State::Closed;
                if trial || (closed && self.failures >= limit) {
                    self.state = State::Open { until: now + pause };
                }
            }
            Seen::Unsent if trial => self.state = State::Open { until: now },
            Seen::Unsent => {}
        }
    }
}

/// Lets so many a second through, and at most a second's worth (at least one) at once.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// How many were there at that time; `None`: it is full.
    level: Option<(f64, Instant)>,
}

impl Bucket {
    fn tokens(&self, rate: f64, now: Instant) -> f64 {
        let room = rate.max(1.0);
        match self.level {
            None => room,
            Some((tokens, at)) => {
                let grown = now.saturating_duration_since(at).as_secs_f64() * rate;
                (tokens + grown).min(room)
            }
        }
    }

    /// Whether one may pass; `rate`: so many a second, more than 0.
    pub fn may(&self, rate: f64, now: Instant) -> May {
        let tokens = self.tokens(rate, now);
        // what is missing by rounding alone is not waited for
        if tokens >= 1.0 - 1e-6 {
            return May::Now;
        }
        // an hour is longer than anybody needs to look again
        let seconds = ((1.0 - tokens) / rate).min(3_600.0);
        May::At(now + Duration::from_secs_f64(seconds))
    }

    /// One passes.
    pub fn take(&mut self, rate: f64, now: Instant) {
        self.level = Some(((self.tokens(rate, now) - 1.0).max(0.0), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn failing() -> Seen {
        Seen::Failing {
            error: "refused".into(),
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_a_trial_decides() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.ended(false, failing(), 3, PAUSE, start);
        }
        assert_eq!(breaker.may(start), May::Now, "two are not three");
        breaker.ended(false, Seen::Declined, 3, PAUSE, start);
        assert_eq!(breaker.failures(), 0, "one that answers lives");
        for _ in 0..3 {
            breaker.ended(false, failing(), 3, PAUSE, start);
        }
        let until = start + PAUSE;
        assert_eq!(breaker.may(start), May::At(until));
        assert_eq!(breaker.error(), "refused");
        // what was under way when it opened moves nothing
        breaker.ended(false, failing(), 3, PAUSE, start + PAUSE / 2);
        assert_eq!(breaker.state(), State::Open { until });

        assert_eq!(breaker.may(until), May::Now);
        assert!(breaker.begin(), "the first is the trial");
        assert_eq!(breaker.may(until), May::Wait, "and it is the only one");
        breaker.ended(false, failing(), 3, PAUSE, until);
        assert_eq!(breaker.state(), State::HalfOpen, "only the trial decides");
        breaker.ended(true, failing(), 3, PAUSE, until);
        assert_eq!(breaker.may(until), May::At(until + PAUSE));

        let later = until + PAUSE;
        assert!(breaker.begin());
        breaker.ended(true, Seen::Done, 3, PAUSE, later);
        assert_eq!((breaker.may(later), breaker.failures()), (May::Now, 0));
        assert!(!breaker.begin());
    }

    #[test]
    fn a_trial_that_sent_nothing_is_made_again_at_once() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        breaker.ended(false, failing(), 1, PAUSE, start);
        let then = start + PAUSE;
        assert!(breaker.begin());
        breaker.ended(true, Seen::Unsent, 1, PAUSE, then);
        assert_eq!(breaker.may(then), May::Now);
        assert!(breaker.begin());
    }

    /// How many pass in so long when as many as may do.
    fn passed(rate: f64, span: Duration) -> usize {
        let start = Instant::now();
        let (mut bucket, mut now, mut count) = (Bucket::default(), start, 0);
        loop {
            match bucket.may(rate, now) {
                May::Now => {
                    bucket.take(rate, now);
                    count += 1;
                }
                May::At(at) => now = at,
                May::Wait => panic!("a bucket waits for time alone"),
            }
            if now > start + span {
                return count;
            }
        }
    }

    #[test]
    fn a_bucket_lets_a_seconds_worth_through_and_then_its_rate() {
        // a second's worth at once, then 5 a second; one more may stand on the very end
        let many = passed(5.0, Duration::from_secs(10));
        assert!((55..=56).contains(&many), "{many}");
        let slow = passed(0.1, Duration::from_secs(100));
        assert!((11..=12).contains(&slow), "{slow}");
    }

    #[test]
    fn a_bucket_that_rested_has_a_seconds_worth_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::default();
        for _ in 0..2 {
            assert_eq!(bucket.may(2.0, start), May::Now);
            bucket.take(2.0, start);
        }
        assert_eq!(
            bucket.may(2.0, start),
            May::At(start + Duration::from_millis(500))
        );
        let later = start + Duration::from_secs(3_600);
        for _ in 0..2 {
            assert_eq!(bucket.may(2.0, later), May::Now);
            bucket.take(2.0, later);
        }
        assert!(matches!(bucket.may(2.0, later), May::At(_)));
        // a rate that was lowered meanwhile
        assert!(matches!(bucket.may(0.5, later), May::At(_)));
    }
}
