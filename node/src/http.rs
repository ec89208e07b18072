//! The HTTP door: health (the process lives), readiness (it decides for its shards), metrics.

use crate::core::Core;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use sojourn_cluster::Host;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Clone)]
struct Http {
    core: Arc<Core>,
    host: Arc<Host>,
}

/// The routes.
pub fn routes(core: Arc<Core>, host: Arc<Host>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Http { core, host })
}

async fn ready(State(http): State<Http>) -> impl IntoResponse {
    let closed: Vec<String> = http
        .core
        .shards
        .all()
        .iter()
        .filter(|s| !*s.open().borrow())
        .map(|s| s.number.to_string())
        .collect();
    if !closed.is_empty() {
        let text = format!("shards without an owner here: {}\n", closed.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if http.core.disk_full.load(Ordering::Relaxed) {
        let text = "the disk is nearly full: no signal is admitted\n".to_owned();
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    (StatusCode::OK, "ready\n".to_owned())
}

async fn metrics(State(http): State<Http>) -> impl IntoResponse {
    let text = http.core.metrics.render(&http.core, &http.host);
    ([("content-type", "text/plain; version=0.0.4")], text)
}
