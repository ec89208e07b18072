//! The allocator, and giving memory back: what one worker allocated and another freed stays with the first until that
//! one looks. Actors are woken and passivated on different workers, so without this an idle node would keep the memory
//! of its busiest minute.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A worker looks at most this often.
const EVERY: Duration = Duration::from_secs(5);

thread_local! {
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Called by a worker that has nothing to do: gives back what others freed of its memory.
pub fn give_back() {
    let now = Instant::now();
    let due = |last: Option<Instant>| last.is_none_or(|last| now - last >= EVERY);
    if LOOKED.with(|looked| due(looked.get())) {
        LOOKED.with(|looked| looked.set(Some(now)));
        collect();
    }
}

#[allow(unsafe_code)]
fn collect() {
    // SAFETY: `mi_collect` takes no pointer and may be called by any thread at any time; it is `unsafe` only for being
    // foreign. The crate has no safe wrapper for it.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
