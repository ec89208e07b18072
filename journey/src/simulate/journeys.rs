//! The catalog of a simulated run: each journey once, as version 1, live and active.

use crate::compiled::Compiled;
use crate::plan::{Catalog, JourneyState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The journeys of a run, by name and by the signal types that enter them.
pub(super) struct Journeys {
    by_name: BTreeMap<String, Arc<Compiled>>,
    listening: BTreeMap<String, Vec<String>>,
}

impl Catalog for Journeys {
    fn live(&self, journey: &str) -> Option<(u32, Arc<Compiled>)> {
        self.by_name.get(journey).map(|c| (1, Arc::clone(c)))
    }

    fn version(&self, journey: &str, version: u32) -> Option<Arc<Compiled>> {
        if version == 1 {
            self.by_name.get(journey).cloned()
        } else {
            None
        }
    }

    fn listening(&self, kind: &str) -> Vec<String> {
        self.listening.get(kind).cloned().unwrap_or_default()
    }

    fn state(&self, _journey: &str) -> JourneyState {
        JourneyState::Active
    }
}

impl Journeys {
    pub(super) fn new(journeys: impl IntoIterator<Item = Arc<Compiled>>) -> Journeys {
        let by_name: BTreeMap<String, Arc<Compiled>> =
            journeys.into_iter().map(|c| (c.name.clone(), c)).collect();
        let mut listening: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for compiled in by_name.values() {
            let kinds: BTreeSet<&String> = compiled.entry.iter().flat_map(|e| &e.on).collect();
            for kind in kinds {
                listening
                    .entry(kind.clone())
                    .or_default()
                    .push(compiled.name.clone());
            }
        }
        Journeys { by_name, listening }
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<Compiled>> {
        self.by_name.get(name)
    }
}
