//! How other nodes are connected to: what every connection to a peer port has in common.
//!
//! Needs no id of this node, so that one which is only about to join can ask. It does not know what is said over a
//! connection, nor which node an address belongs to.

use super::peers::PeerConfig;
use crate::error::OpenError;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// What was given as an address is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is no address, expected host:port: {why}")]
pub struct AddressError {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub why: String,
}

/// Connects to peer ports. Clones share what they have loaded.
#[derive(Debug, Clone)]
pub struct Dialer {
    connect_within: Duration,
    keep_alive: Duration,
}

impl Dialer {
    /// Connects as `cfg` says; which node and which cluster it is for does not matter.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn new(cfg: &PeerConfig) -> Result<Dialer, OpenError> {
        Ok(Dialer {
            connect_within: cfg.connect_within,
            keep_alive: cfg.keep_alive,
        })
    }

    /// A connection to `address`, host:port, made when it is first used and again when it breaks. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// No address.
    pub fn channel_to(&self, address: &str) -> Result<Channel, AddressError> {
        Ok(self.endpoint(address)?.connect_lazy())
    }

    /// The same, connected; an error says with its causes why not.
    pub(super) async fn connect(&self, address: &str) -> Result<Channel, String> {
        let endpoint = self.endpoint(address).map_err(|e| e.to_string())?;
        let connected = endpoint.connect().await;
        connected.map_err(|e| format!("connecting to {address} failed: {}", chain(&e)))
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, AddressError> {
        let none = |why: String| AddressError {
            address: address.to_owned(),
            why,
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|e| none(e.to_string()))?;
        let uri = endpoint.uri();
        if uri.port_u16().is_none() {
            return Err(none("it has no port".to_owned()));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(none("there is something behind the port".to_owned()));
        }
        Ok(endpoint
            .connect_timeout(self.connect_within)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20))
    }
}

/// An error with its causes: tonic's own words are only "transport error".
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
