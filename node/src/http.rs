//! The HTTP door: health (the process lives), readiness (every shard can be decided on from here), metrics.

use crate::core::Core;
use crate::place::topology::Owner;
use crate::shard::owner::Shard;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use sojourn_cluster::{Host, Role};
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
    let core = &http.core;
    let (mut closed, mut unowned): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for number in 0..core.shards.count() {
        let replica = core.shards.local(number);
        let shut = |s: &Shard| matches!(&*s.group.role().borrow(), Role::Closed { .. });
        if replica.as_deref().is_some_and(shut) {
            closed.push(number.to_string());
        }
        match core.topology.owner(number) {
            Owner::There(_) => {}
            Owner::Here(shard) if *shard.open().borrow() => {}
            Owner::Here(_) | Owner::Unknown => unowned.push(number.to_string()),
        }
    }
    if !unowned.is_empty() {
        let text = format!("shards without an owner here: {}\n", unowned.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if !closed.is_empty() {
        let text = format!("replicas that are closed here: {}\n", closed.join(", "));
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
