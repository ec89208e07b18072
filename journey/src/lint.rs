//! What is allowed and most likely wrong. Knows a compiled journey and where its parts stand in the text.

use crate::compiled::Compiled;
use crate::definition::{self, Problems};

/// Notes what looks wrong; most of it as warnings.
pub(crate) fn lint(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    let _ = (definition, compiled, problems);
}
