//! The catalog at one position, compiled: what decisions are made with. Immutable, shared.

use super::machine::CatalogState;
use prost::Message;
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::plan::{Catalog, JourneyState};
use sojourn_proto::{stored, v1};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All workspaces at one position.
#[derive(Debug, Default)]
pub struct View {
    /// The position.
    pub position: u64,
    /// Workspaces by name.
    pub workspaces: BTreeMap<String, WorkspaceView>,
}

/// One workspace.
#[derive(Debug, Default)]
pub struct WorkspaceView {
    /// Journeys by name.
    pub journeys: BTreeMap<String, Arc<JourneyView>>,
    /// Endpoints by name.
    pub endpoints: BTreeMap<String, v1::Endpoint>,
    entries: HashMap<String, Vec<String>>,
}

/// One journey.
#[derive(Debug)]
pub struct JourneyView {
    /// Its name.
    pub name: String,
    /// Whether it takes signals and entries.
    pub state: JourneyState,
    /// The live version.
    pub live: u32,
    /// All versions.
    pub versions: BTreeMap<u32, Arc<VersionView>>,
}

/// One version.
#[derive(Debug)]
pub struct VersionView {
    /// Its number.
    pub version: u32,
    /// The author's text.
    pub text: String,
    /// Its SHA-256.
    pub sha256: Vec<u8>,
    /// When it was published, microseconds.
    pub at: i64,
    /// By whom.
    pub actor: String,
    /// Compiled; or why this build of Sojourn cannot compile it.
    pub compiled: Result<Arc<Compiled>, String>,
}

impl JourneyView {
    /// The live version.
    pub fn live(&self) -> Option<&Arc<VersionView>> {
        self.versions.get(&self.live)
    }
}

impl View {
    /// The view of a state; versions that the old view has compiled are taken from it.
    pub fn build(state: &CatalogState, old: &View) -> View {
        let mut view = View {
            position: state.position,
            ..View::default()
        };
        for ((workspace, name), journey) in &state.journeys {
            let before = old
                .workspaces
                .get(workspace)
                .and_then(|w| w.journeys.get(name));
            let built = Arc::new(journey_view(name, journey, before));
            let to = view.workspaces.entry(workspace.clone()).or_default();
            if let Some(Ok(compiled)) = built.live().map(|v| &v.compiled) {
                let kinds = compiled.entry.iter().flat_map(|e| &e.on);
                for kind in kinds {
                    let names = to.entries.entry(kind.clone()).or_default();
                    if !names.contains(name) {
                        names.push(name.clone());
                    }
                }
            }
            to.journeys.insert(name.clone(), built);
        }
        for ((workspace, name), endpoint) in &state.endpoints {
            match v1::Endpoint::decode(endpoint.endpoint.clone()) {
                Ok(endpoint) => {
                    let to = view.workspaces.entry(workspace.clone()).or_default();
                    to.endpoints.insert(name.clone(), endpoint);
                }
                Err(error) => {
                    tracing::error!(workspace, name, %error, "an endpoint of the catalog cannot be read");
                }
            }
        }
        view
    }

    /// A workspace; an empty one when nothing was ever published there.
    pub fn workspace(&self, name: &str) -> Option<&WorkspaceView> {
        self.workspaces.get(name)
    }
}

fn journey_view(
    name: &str,
    journey: &stored::CatalogJourney,
    before: Option<&Arc<JourneyView>>,
) -> JourneyView {
    let mut versions = BTreeMap::new();
    for v in &journey.versions {
        let known = before.and_then(|b| b.versions.get(&v.version)).cloned();
        let version = known.unwrap_or_else(|| {
            // endpoints were checked when it was published
            let compiled = Journey::compile(&v.text, &Known { endpoints: None })
                .map(|checked| Arc::new(checked.compiled))
                .map_err(|problems| {
                    let first = problems.first().map(ToString::to_string);
                    first.unwrap_or_else(|| "it cannot be compiled".into())
                });
            Arc::new(VersionView {
                version: v.version,
                text: v.text.clone(),
                sha256: v.sha256.to_vec(),
                at: v.at,
                actor: v.actor.clone(),
                compiled,
            })
        });
        versions.insert(v.version, version);
    }
    JourneyView {
        name: name.to_owned(),
        state: state_from(journey.state),
        live: journey.live,
        versions,
    }
}

/// From the wire's number; what is not known is active.
pub fn state_from(state: u32) -> JourneyState {
    match v1::JourneyState::try_from(state as i32) {
        Ok(v1::JourneyState::Held) => JourneyState::Held,
        Ok(v1::JourneyState::Dropped) => JourneyState::Dropped,
        Ok(v1::JourneyState::Draining) => JourneyState::Draining,
        Ok(v1::JourneyState::Active | v1::JourneyState::Unspecified) | Err(_) => {
            JourneyState::Active
        }
    }
}

/// To the wire.
pub fn state_to(state: JourneyState) -> v1::JourneyState {
    match state {
        JourneyState::Active => v1::JourneyState::Active,
        JourneyState::Held => v1::JourneyState::Held,
        JourneyState::Dropped => v1::JourneyState::Dropped,
        JourneyState::Draining => v1::JourneyState::Draining,
    }
}

impl Catalog for WorkspaceView {
    fn live(&self, journey: &str) -> Option<(u32, Arc<Compiled>)> {
        let live = self.journeys.get(journey)?.live()?;
        let compiled = live.compiled.as_ref().ok()?;
        Some((live.version, compiled.clone()))
    }

    fn version(&self, journey: &str, version: u32) -> Option<Arc<Compiled>> {
        let version = self.journeys.get(journey)?.versions.get(&version)?;
        version.compiled.as_ref().ok().cloned()
    }

    fn listening(&self, kind: &str) -> Vec<String> {
        self.entries.get(kind).cloned().unwrap_or_default()
    }

    fn state(&self, journey: &str) -> JourneyState {
        self.journeys
            .get(journey)
            .map_or(JourneyState::Active, |j| j.state)
    }
}
