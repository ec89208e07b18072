//! Where webhooks go: the endpoints of the catalog, with what sending to them needs.

use super::gate::{Gate, Place, Turn, or};
use crate::catalog::Catalog;
use crate::clock;
use parking_lot::Mutex;
use sojourn_proto::v1;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The first pause before another attempt, in milliseconds, of an endpoint that names none.
pub const BACKOFF_FIRST_MS: u32 = 1_000;

/// All endpoints of this node.
pub struct Endpoints {
    catalog: Arc<Catalog>,
    client: reqwest::Client,
    /// The lines before them, by (workspace, name).
    gates: Mutex<BTreeMap<(String, String), Arc<Gate>>>,
}

/// Sends to one endpoint.
pub struct Sender<'a> {
    endpoint: &'a v1::Endpoint,
    client: &'a reqwest::Client,
}

impl Endpoints {
    /// For the endpoints of a catalog.
    ///
    /// # Errors
    /// When no HTTP client can be made on this machine.
    pub fn new(catalog: Arc<Catalog>) -> Result<Arc<Endpoints>, reqwest::Error> {
        let client = reqwest::Client::builder()
            // a redirect would send a signed body to somebody else
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(32)
            .build()?;
        Ok(Arc::new(Endpoints {
            catalog,
            client,
            gates: Mutex::default(),
        }))
    }

    fn endpoint(&self, workspace: &str, name: &str) -> Option<v1::Endpoint> {
        let view = self.catalog.newest();
        view.workspace(workspace)?.endpoints.get(name).cloned()
    }

    /// The line before an endpoint, if there is such a one now.
    pub fn gate(&self, workspace: &str, name: &str) -> Option<Arc<Gate>> {
        let view = self.catalog.newest();
        view.workspace(workspace)?.endpoints.get(name)?;
        let key = (workspace.to_owned(), name.to_owned());
        Some(self.gates.lock().entry(key).or_default().clone())
    }

    /// Waits for the turn of a place in the line before an endpoint; `None`: there is no such endpoint any more.
    pub async fn turn(&self, place: Place, workspace: &str, name: &str) -> Option<Turn> {
        let changes = self.catalog.watch();
        let read = || self.endpoint(workspace, name);
        let changed = || {
            let mut changes = changes.clone();
            // what is there already is read after this
            changes.mark_unchanged();
            // it fails when the node stops, which ends the attempt too
            async move { drop(changes.changed().await) }
        };
        place.turn(read, changed).await
    }

    /// What sends to an endpoint.
    pub fn sender<'a>(&'a self, endpoint: &'a v1::Endpoint) -> Sender<'a> {
        Sender {
            endpoint,
            client: &self.client,
        }
    }

    /// How the endpoints of a workspace stand on this node, in the order of their names.
    pub fn states(&self, workspace: &str) -> Vec<v1::EndpointState> {
        let view = self.catalog.newest();
        let Some(space) = view.workspace(workspace) else {
            return Vec::new();
        };
        let gates = self.gates.lock();
        let now = clock::wall();
        let state = |name: &String| {
            let gate = gates.get(&(workspace.to_owned(), name.clone()));
            gate.map_or_else(|| Gate::default().state(name, now), |g| g.state(name, now))
        };
        space.endpoints.keys().map(state).collect()
    }

    /// How all endpoints that were ever sent to stand, by workspace; those that are gone are forgotten.
    pub fn all_states(&self) -> Vec<(String, v1::EndpointState)> {
        let view = self.catalog.newest();
        let mut gates = self.gates.lock();
        gates.retain(|(workspace, name), gate| {
            let space = view.workspace(workspace);
            space.is_some_and(|w| w.endpoints.contains_key(name)) || !gate.is_idle()
        });
        let now = clock::wall();
        gates
            .iter()
            .map(|((workspace, name), gate)| (workspace.clone(), gate.state(name, now)))
            .collect()
    }
}

impl Sender<'_> {
    /// The HTTP client.
    pub fn client(&self) -> &reqwest::Client {
        self.client
    }

    /// Where to.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(or(self.endpoint.timeout_ms, 10_000).into())
    }

    /// How many attempts are made.
    pub fn attempts(&self) -> u32 {
        or(self.endpoint.attempts, 8)
    }

    /// The first back-off.
    pub fn backoff_first_ms(&self) -> u64 {
        or(self.endpoint.backoff_first_ms, BACKOFF_FIRST_MS).into()
    }

    /// The longest back-off.
    pub fn backoff_max_ms(&self) -> u64 {
        or(self.endpoint.backoff_max_ms, 600_000).into()
    }

    /// The signing secret, read anew every time so that it can be changed.
    ///
    /// # Errors
    /// When it is named and cannot be read.
    pub fn secret(&self) -> Result<Option<String>, String> {
        let e = self.endpoint;
        if !e.secret_env.is_empty() {
            return std::env::var(&e.secret_env).map(Some).map_err(|_| {
                format!(
                    "the secret's environment variable {} is not set",
                    e.secret_env
                )
            });
        }
        if !e.secret_file.is_empty() {
            return std::fs::read_to_string(&e.secret_file)
                .map(Some)
                .map_err(|error| format!("the secret's file {}: {error}", e.secret_file));
        }
        Ok(None)
    }
}
