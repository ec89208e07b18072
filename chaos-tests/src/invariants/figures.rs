//! The same figures after a restart: the report of a journey, and everybody's place, survive whatever happens.

use anyhow::Result;
use futures::StreamExt;
use sojourn_client::Client;
use sojourn_client::Filter;
use sojourn_client::wire::{ReportResponse, Status};

/// What can be counted of a journey.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The report, but for the positions that it was read at.
    pub report: ReportResponse,
    /// (execution, stage, visit, status, events) of everybody, in order of the executions' ids.
    pub executions: Vec<(String, String, u32, Status, u64)>,
}

/// Reads them.
///
/// # Errors
/// As the calls.
pub async fn figures(client: &Client, journey: &str) -> Result<Figures> {
    let mut report = client.report(journey, None).await?;
    report.positions.clear();
    let filter = Filter {
        journey: Some(journey.to_owned()),
        page_size: Some(1_000),
        ..Filter::default()
    };
    let mut executions = Vec::new();
    let mut list = std::pin::pin!(client.list(filter));
    while let Some(execution) = list.next().await {
        let e = execution?;
        let status = e.status();
        executions.push((e.id, e.stage, e.visit, status, e.events));
    }
    executions.sort();
    Ok(Figures { report, executions })
}
