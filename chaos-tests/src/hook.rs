//! Somebody who listens to webhooks: keeps what it got, checks every signature with code of its own, and answers as it
//! is told.

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Got {
    /// `webhook-id`: the idempotency key.
    pub key: String,
    /// `webhook-timestamp`, in seconds.
    pub timestamp: i64,
    /// Its path.
    pub path: String,
    /// The body as JSON; null when it is none.
    pub body: serde_json::Value,
    /// Whether the signature is right; `None`: there was none.
    pub signed: Option<bool>,
    /// When it arrived, microseconds since 1970.
    pub at: i64,
    /// What was answered.
    pub answered: u16,
}

#[derive(Default)]
struct Inner {
    got: Vec<Got>,
    /// Answers for the next requests; then `always`.
    next: VecDeque<u16>,
    always: Option<u16>,
    secret: Vec<u8>,
}

/// The listener; it ends when it is dropped.
pub struct Hook {
    url: String,
    inner: Arc<Mutex<Inner>>,
    task: JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// Listens on a free port. `secret`: the bytes of the shared secret, whatever its written form.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn listen(secret: &[u8]) -> Result<Hook> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let inner = Arc::new(Mutex::new(Inner {
            secret: secret.to_vec(),
            ..Inner::default()
        }));
        let routes = Router::new().fallback(take).with_state(inner.clone());
        let task = tokio::spawn(async move {
            // ends with the test
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Hook { url, inner, task })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers the next requests with these codes.
    pub fn answer_next(&self, codes: &[u16]) {
        self.inner().next.extend(codes);
    }

    /// Answers all others with this code; 200 unless told.
    pub fn answer_always(&self, code: u16) {
        self.inner().always = Some(code);
    }

    /// What has arrived, in order.
    pub fn got(&self) -> Vec<Got> {
        self.inner().got.clone()
    }
}

async fn take(
    State(inner): State<Arc<Mutex<Inner>>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
    let (key, timestamp) = (text("webhook-id"), text("webhook-timestamp"));
    let signature = text("webhook-signature");
    let signed = (!signature.is_empty()).then(|| {
        let message = [key.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat();
        let right = hmac_sha256(&inner.secret, &message);
        let right = base64::engine::general_purpose::STANDARD.encode(right);
        signature.split(' ').any(|s| s == format!("v1,{right}"))
    });
    let answered = inner.next.pop_front().or(inner.always).unwrap_or(200);
    let got = Got {
        key,
        timestamp: timestamp.parse().unwrap_or_default(),
        path: uri.path().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        signed,
        at: jiff::Timestamp::now().as_microsecond(),
        answered,
    };
    inner.got.push(got);
    StatusCode::from_u16(answered).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// HMAC (RFC 2104) over SHA-256, written out: the server uses a library, and two of the same would agree in an error.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|b| b ^ pad);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::hmac_sha256;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_mac_is_that_of_the_standard() {
        // RFC 4231, test cases 2 and 6
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac_sha256(
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            )),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
