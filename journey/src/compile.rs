//! From the author's text to a [`Compiled`] journey, with every problem located. Knows no catalog: what exists there is
//! handed in as [`Known`].

use crate::compiled::Compiled;
use crate::problem::Problem;
use std::collections::BTreeSet;

/// What exists outside the text.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The names of endpoints; `None`: offline, endpoints are not checked.
    pub endpoints: Option<BTreeSet<String>>,
}

/// A journey without errors.
#[derive(Debug)]
pub struct Checked {
    /// Ready to decide with.
    pub compiled: Compiled,
    /// What may still be wrong with it.
    pub warnings: Vec<Problem>,
}

/// The language's entry point.
#[derive(Debug)]
pub struct Journey;

/// Runs `work` on a thread with a stack that the recursive parsers cannot fill with what our limits let through;
/// `None` when it panics, or no thread can be had.
#[allow(clippy::disallowed_methods)] // the only thread of this crate: it ends before the function returns, so nothing outside sees it
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    const STACK: usize = 64 * 1024 * 1024;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("compile".to_owned()).stack_size(STACK).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}
