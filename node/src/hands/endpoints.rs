//! Where webhooks go: the endpoints of the catalog, with what sending to them needs.

use crate::catalog::Catalog;
use parking_lot::Mutex;
use sojourn_proto::v1;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All endpoints of this node.
pub struct Endpoints {
    catalog: Arc<Catalog>,
    client: reqwest::Client,
    /// How many may be sent at once, by (workspace, name, concurrency).
    turns: Mutex<HashMap<(String, String, u32), Arc<Semaphore>>>,
}

/// Sends to one endpoint.
pub struct Sender {
    endpoint: v1::Endpoint,
    client: reqwest::Client,
    turns: Arc<Semaphore>,
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
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
            turns: Mutex::default(),
        }))
    }

    /// What sends to an endpoint, if there is such a one now.
    pub fn sender(&self, workspace: &str, name: &str) -> Option<Sender> {
        let view = self.catalog.newest();
        let endpoint = view.workspace(workspace)?.endpoints.get(name)?.clone();
        let concurrency = or(endpoint.concurrency, 16);
        let key = (workspace.to_owned(), name.to_owned(), concurrency);
        let turns = self
            .turns
            .lock()
            .entry(key)
            .or_insert_with(|| Arc::new(Semaphore::new(concurrency as usize)))
            .clone();
        Some(Sender {
            endpoint,
            client: self.client.clone(),
            turns,
        })
    }
}

impl Sender {
    /// Waits for a place among those sent at once; `None` never happens while the node runs.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok()
    }

    /// The HTTP client.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
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
        or(self.endpoint.backoff_first_ms, 1_000).into()
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
        let e = &self.endpoint;
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
