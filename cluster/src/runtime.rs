//! The runtime that Raft runs on: tokio, with randomness that a world can seed.
//!
//! Time comes from tokio's clock, so a paused clock pauses elections too. This module does not know what is scheduled.

use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
use rand_core::{Error, RngCore};
use std::cell::Cell;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

thread_local! {
    // A thread draws from its own row of numbers; a simulated world runs on one thread and seeds it.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Seeds the randomness of this thread: everything that Raft draws on it afterwards follows from `seed`.
///
/// For simulated worlds, which run on one thread. Threads that were not seeded draw from the operating system's seed.
pub fn seed_thread(seed: u64) {
    STATE.with(|state| state.set(Some(seed)));
}

/// Random numbers of this thread (SplitMix64: not for secrets).
#[derive(Debug, Default, Clone, Copy)]
pub struct Rng;

impl Rng {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        STATE.with(|state| {
            let before = state
                .get()
                .unwrap_or_else(|| RandomState::new().build_hasher().finish());
            let next = before.wrapping_add(0x9e37_79b9_7f4a_7c15);
            state.set(Some(next));
            mix(next)
        })
    }
}

/// SplitMix64's finaliser: spreads every bit of `z` over all 64.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        (self.draw() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.draw()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_le_bytes()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

/// openraft's runtime: tokio for tasks and time, [`Rng`] for randomness.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Rng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Rng
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        seed_thread(7);
        let first: Vec<u64> = (0..4).map(|_| Rng.draw()).collect();
        seed_thread(7);
        let again: Vec<u64> = (0..4).map(|_| Rng.draw()).collect();
        seed_thread(8);
        assert_eq!(first, again);
        assert_ne!(first[0], Rng.draw());
    }
}
