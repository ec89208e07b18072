//! What an endpoint may be: every field is checked before the catalog takes it.

use super::errors;
use crate::catalog::WorkspaceView;
use crate::hands::endpoints::BACKOFF_FIRST_MS;
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::signal::Identifier;
use sojourn_proto::v1;
use tonic::Status;

/// The lowest rate of an endpoint, attempts a second: one in 1,000 s.
const RATE_LEAST: f64 = 0.001;
/// The highest.
const RATE_MOST: f64 = 100_000.0;
/// The most attempts to one endpoint at once.
const CONCURRENCY_MOST: u32 = 10_000;
/// The most failures in a row that a breaker waits for.
const BREAKER_FAILURES_MOST: u32 = 1_000_000;
/// The longest pause of a breaker: an hour.
const BREAKER_PAUSE_MS_MOST: u32 = 3_600_000;

/// The journeys of a workspace whose live version sends to an endpoint.
pub(super) fn users(workspace: &WorkspaceView, endpoint: &str) -> Vec<String> {
    let others = workspace.endpoints.keys().filter(|name| *name != endpoint);
    let without = Known {
        endpoints: Some(others.cloned().collect()),
    };
    let users = workspace.journeys.values().filter(|journey| {
        // what compiles with all endpoints and not without this one
        let live = journey.live().filter(|live| live.compiled.is_ok());
        live.is_some_and(|live| Journey::compile(&live.text, &without).is_err())
    });
    users.map(|journey| journey.name.clone()).collect()
}

/// The endpoint of a request, if it can be one.
pub(super) fn checked(endpoint: Option<v1::Endpoint>) -> Result<v1::Endpoint, Status> {
    let Some(endpoint) = endpoint else {
        return Err(errors::invalid_field("endpoint", "it is missing"));
    };
    if let Err(why) = Identifier::new(&endpoint.name, "x") {
        return Err(errors::invalid_field("endpoint.name", why));
    }
    let url = reqwest::Url::parse(&endpoint.url);
    match url {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            return Err(errors::invalid_field(
                "endpoint.url",
                "it has a name or a password in it: the catalog stores no secrets; name one with secret_env or \
                 secret_file",
            ));
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
        Ok(_) => {
            return Err(errors::invalid_field(
                "endpoint.url",
                "expected http:// or https://",
            ));
        }
        Err(why) => return Err(errors::invalid_field("endpoint.url", why.to_string())),
    }
    if !endpoint.secret_env.is_empty() && !endpoint.secret_file.is_empty() {
        return Err(errors::invalid_field(
            "endpoint.secret_file",
            "expected either secret_env or secret_file, not both",
        ));
    }
    if endpoint.timeout_ms > 120_000 {
        return Err(errors::invalid_field(
            "endpoint.timeout_ms",
            "expected at most 120000",
        ));
    }
    if endpoint.attempts > 100 {
        return Err(errors::invalid_field(
            "endpoint.attempts",
            "expected at most 100",
        ));
    }
    let first = match endpoint.backoff_first_ms {
        0 => BACKOFF_FIRST_MS,
        first => first,
    };
    if endpoint.backoff_max_ms != 0 && first > endpoint.backoff_max_ms {
        return Err(errors::invalid_field(
            "endpoint.backoff_first_ms",
            format!(
                "it is {first}, more than endpoint.backoff_max_ms, which is {}",
                endpoint.backoff_max_ms
            ),
        ));
    }
    let rate = endpoint.rate;
    if rate != 0.0 && !(RATE_LEAST..=RATE_MOST).contains(&rate) {
        return Err(errors::invalid_field(
            "endpoint.rate",
            format!(
                "it is {rate} a second: expected {RATE_LEAST} to {RATE_MOST}, or 0 for no limit"
            ),
        ));
    }
    if endpoint.concurrency > CONCURRENCY_MOST {
        return Err(errors::invalid_field(
            "endpoint.concurrency",
            format!("expected at most {CONCURRENCY_MOST}"),
        ));
    }
    if endpoint.breaker_failures > BREAKER_FAILURES_MOST {
        return Err(errors::invalid_field(
            "endpoint.breaker_failures",
            format!("expected at most {BREAKER_FAILURES_MOST}"),
        ));
    }
    if endpoint.breaker_pause_ms > BREAKER_PAUSE_MS_MOST {
        return Err(errors::invalid_field(
            "endpoint.breaker_pause_ms",
            format!("expected at most {BREAKER_PAUSE_MS_MOST}"),
        ));
    }
    Ok(endpoint)
}
