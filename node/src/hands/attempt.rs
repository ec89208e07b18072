//! One attempt at one action: a webhook is sent, a log line is written. The result goes back as an input; what it
//! means is decided there.

use super::breaker::Seen;
use super::endpoints::{Endpoints, Sender};
use super::gate::{Gate, Place};
use crate::actors::{CustomerKey, ExecutionKey};
use crate::clock;
use base64::Engine;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use sojourn_journey::decide::AttemptResult;
use sojourn_journey::event::Action;
use sojourn_journey::identifier::ExecutionId;
use sojourn_journey::time::{Span, Time};
use std::sync::Arc;
use std::time::Duration;

/// An attempt to be made.
pub struct Attempt {
    /// The customer.
    pub customer: CustomerKey,
    /// The execution.
    pub key: ExecutionKey,
    /// The action's number.
    pub number: u64,
    /// The number that its idempotency key bears.
    pub id: u64,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Which attempt since it was owed, or retried by hand, from 1: what limits and back-off count.
    pub in_row: u32,
    /// The action.
    pub action: Action,
}

impl Attempt {
    /// The idempotency key: the same for every automatic attempt. The number names the event that owed it, or the retry
    /// by hand that asked for a new key, and an event owes one action; the place in its list follows for people.
    pub fn idempotency_key(&self) -> String {
        let id = ExecutionId::new(
            &self.customer.workspace,
            &self.customer.key,
            &self.key.journey,
            self.key.instance.as_deref(),
            self.key.run,
        );
        let place = self.action.place.rsplit_once('/').map_or("0", |(_, n)| n);
        format!("{id}.{}.{place}", self.id)
    }
}

/// What lies outside of the node: where actions go.
pub trait Outside: Send + Sync {
    /// The line before an endpoint, if there is such a one now.
    fn gate(&self, workspace: &str, name: &str) -> Option<Arc<Gate>>;

    /// Makes an attempt. `place`: in the line before its endpoint; none where there is no such endpoint.
    fn make<'a>(
        &'a self,
        attempt: &'a Attempt,
        place: Option<Place>,
    ) -> BoxFuture<'a, AttemptResult>;
}

impl Outside for Endpoints {
    fn gate(&self, workspace: &str, name: &str) -> Option<Arc<Gate>> {
        Endpoints::gate(self, workspace, name)
    }

    fn make<'a>(
        &'a self,
        attempt: &'a Attempt,
        place: Option<Place>,
    ) -> BoxFuture<'a, AttemptResult> {
        Box::pin(make(self, attempt, place))
    }
}

/// Makes it. `place`: in the line before its endpoint; none where there is no such endpoint.
async fn make(endpoints: &Endpoints, attempt: &Attempt, place: Option<Place>) -> AttemptResult {
    match attempt.action.kind.as_str() {
        "log" => {
            tracing::info!(
                target: "sojourn::action",
                customer = %attempt.customer.key,
                journey = attempt.key.journey,
                place = attempt.action.place,
                key = attempt.idempotency_key(),
                body = %String::from_utf8_lossy(&attempt.action.body),
                "log action"
            );
            AttemptResult::Done {
                detail: "logged".into(),
            }
        }
        "webhook" => webhook(endpoints, attempt, place).await,
        _ => AttemptResult::Skipped {
            reason: "not connected".into(),
        },
    }
}

/// Why an attempt failed, and whether another makes sense.
struct Failed {
    error: String,
    final_: bool,
    /// What it says of the endpoint.
    seen: Seen,
}

/// Nothing was sent.
fn unsent(error: impl Into<String>) -> Failed {
    Failed {
        error: error.into(),
        final_: false,
        seen: Seen::Unsent,
    }
}

async fn webhook(endpoints: &Endpoints, attempt: &Attempt, place: Option<Place>) -> AttemptResult {
    let name = &attempt.action.to;
    let workspace = &attempt.customer.workspace;
    let turn = match place {
        Some(place) => endpoints.turn(place, workspace, name).await,
        None => None,
    };
    let Some(turn) = turn else {
        let error =
            format!("endpoint `{name}` does not exist: `sojourn endpoint put {name}` makes it");
        return retry(attempt, error, 8, (1_000, 600_000));
    };
    let endpoint = turn.endpoint().clone();
    let sender = endpoints.sender(&endpoint);
    match send(&sender, attempt).await {
        Ok(detail) => {
            turn.ended(Seen::Done);
            AttemptResult::Done { detail }
        }
        Err(Failed {
            error,
            final_,
            seen,
        }) => {
            turn.ended(seen);
            if final_ {
                return AttemptResult::Failed { error };
            }
            let backoff = (sender.backoff_first_ms(), sender.backoff_max_ms());
            retry(attempt, error, sender.attempts(), backoff)
        }
    }
}

/// Back-off with full jitter: a random time up to first × 2^(attempt−1), at most the maximum.
fn retry(
    attempt: &Attempt,
    error: String,
    attempts: u32,
    (first, max): (u64, u64),
) -> AttemptResult {
    if attempt.in_row >= attempts {
        return AttemptResult::Failed { error };
    }
    let factor = 1u64.checked_shl(attempt.in_row - 1).unwrap_or(u64::MAX);
    let ceiling = first.saturating_mul(factor).min(max).max(1);
    // the time chosen is recorded with the attempt: nobody has to draw it again
    #[allow(clippy::disallowed_methods)]
    let millis = rand::rng().random_range(0..=ceiling);
    let next = clock::wall().plus(Span(millis as i64 * 1_000));
    AttemptResult::Retry { error, next }
}

async fn send(sender: &Sender<'_>, attempt: &Attempt) -> Result<String, Failed> {
    let id = attempt.idempotency_key();
    let now = clock::wall();
    let mut request = sender
        .client()
        .post(sender.url())
        .timeout(sender.timeout())
        .header("content-type", "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", seconds(now).to_string())
        .header("user-agent", concat!("sojourn/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = sender.secret().map_err(unsent)? {
        let signature = sign(&secret, &id, seconds(now), &attempt.action.body).map_err(unsent)?;
        request = request.header("webhook-signature", signature);
    }
    let sent = request.body(attempt.action.body.clone()).send().await;
    let response = sent.map_err(|e| {
        let error = chain(&e);
        Failed {
            final_: false,
            seen: Seen::Failing {
                error: error.clone(),
            },
            error,
        }
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(status.as_u16().to_string());
    }
    let text = answer_text(response).await;
    let error = format!("{} answered {status}{text}", sender.url());
    Err(Failed {
        // 410: whoever listened there asks for no more (Standard Webhooks)
        final_: status == http::StatusCode::GONE,
        seen: seen(status, &error),
        error,
    })
}

/// What an answer other than success says of the endpoint: that it cannot now, or that it lives and does not want this.
fn seen(status: http::StatusCode, error: &str) -> Seen {
    use http::StatusCode as S;
    let busy = matches!(status, S::REQUEST_TIMEOUT | S::TOO_MANY_REQUESTS);
    if status.is_server_error() || busy {
        Seen::Failing {
            error: error.to_owned(),
        }
    } else {
        Seen::Declined
    }
}

/// The beginning of the answer's text, for people.
async fn answer_text(mut response: reqwest::Response) -> String {
    let mut text = Vec::new();
    while let Ok(Ok(Some(chunk))) =
        tokio::time::timeout(Duration::from_secs(2), response.chunk()).await
    {
        text.extend_from_slice(&chunk);
        if text.len() >= crate::limits::WEBHOOK_ANSWER_BYTES {
            break;
        }
    }
    let text: String = String::from_utf8_lossy(&text).chars().take(200).collect();
    if text.trim().is_empty() {
        String::new()
    } else {
        format!(": {}", text.trim())
    }
}

fn seconds(t: Time) -> i64 {
    t.0.div_euclid(1_000_000)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The signature of Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`.
///
/// # Errors
/// When a secret that begins with `whsec_` is no base64.
pub fn sign(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Result<String, String> {
    let engine = base64::engine::general_purpose::STANDARD;
    let key = match secret.trim().strip_prefix("whsec_") {
        Some(encoded) => engine
            .decode(encoded)
            .map_err(|e| format!("the secret begins with whsec_ and is no base64: {e}"))?,
        None => secret.trim().as_bytes().to_vec(),
    };
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).map_err(|e| e.to_string())?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Ok(format!("v1,{}", engine.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::sign;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // the example of the Standard Webhooks specification
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature.as_deref(), Ok(expected));
    }

    #[test]
    fn a_broken_secret_is_named() {
        let error = sign("whsec_***", "a", 1, b"").unwrap_err();
        assert!(error.contains("whsec_"), "{error}");
    }
}
