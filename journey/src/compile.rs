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
