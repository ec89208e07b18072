//! How other nodes are connected to: what every connection to a peer port has in common.
//!
//! Needs no id of this node, so that one which is only about to join can ask. It does not know what is said over a
//! connection, nor which node an address belongs to.

use super::peers::PeerConfig;
use super::probe::{Probed, probe};
use super::tls::Keys;
use super::wire::Wire;
use crate::error::OpenError;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

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
    keys: Option<Arc<Keys>>,
}

impl Dialer {
    /// Connects as `cfg` says; which node and which cluster it is for does not matter. With TLS, must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn new(cfg: &PeerConfig) -> Result<Dialer, OpenError> {
        let keys = cfg.tls.as_ref().map(Keys::open).transpose()?;
        Ok(Dialer {
            keys,
            connect_within: cfg.connect_within,
            keep_alive: cfg.keep_alive,
        })
    }

    pub(super) fn keys(&self) -> Option<&Arc<Keys>> {
        self.keys.as_ref()
    }

    /// A connection to `address`, host:port, made when it is first used and again when it breaks. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// No address.
    pub fn channel_to(&self, address: &str) -> Result<Channel, AddressError> {
        let endpoint = self.endpoint(address)?;
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(self.opening())))
    }

    /// The same, connected; an error says with its causes why not.
    pub(super) async fn connect(&self, address: &str) -> Result<Channel, String> {
        let endpoint = self.endpoint(address).map_err(|e| e.to_string())?;
        let opening = tower::service_fn(self.opening());
        let connected = endpoint.connect_with_connector(opening).await;
        connected.map_err(|e| format!("connecting to {address} failed: {}", chain(&e)))
    }

    /// Opens connections. With the keys that count when it is done, for a channel connects more than once.
    fn opening(&self) -> impl Fn(Uri) -> Opening + Clone + Send + 'static {
        let (keys, within) = (self.keys.clone(), self.connect_within);
        move |uri| {
            let opened = tokio::time::timeout(within, open(keys.clone(), uri));
            Box::pin(async move {
                opened.await.unwrap_or_else(|_| {
                    let late = format!("it has not greeted within {} ms", within.as_millis());
                    Err(io::Error::new(io::ErrorKind::TimedOut, late))
                })
            })
        }
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
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20))
    }
}

type Opening = BoxFuture<'static, io::Result<TokioIo<Probed>>>;

async fn open(keys: Option<Arc<Keys>>, uri: Uri) -> io::Result<TokioIo<Probed>> {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(0));
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    let probed = match keys {
        None => probe(Wire::Plain(stream)).await?,
        Some(keys) => {
            let stream = keys.connect(host, stream).await?;
            let probed = probe(Wire::Tls(Box::new(stream))).await;
            // With TLS 1.3, what the other side has against this node's certificate comes only now.
            probed.map_err(|e| keys.explain(&e))?
        }
    };
    Ok(TokioIo::new(probed))
}

/// What a call was answered with, or why it broke.
pub(super) fn said(status: &Status) -> String {
    match std::error::Error::source(status) {
        None => status.message().to_owned(),
        Some(cause) => format!("{}: {}", status.message(), chain(cause)),
    }
}

/// An error with its causes: tonic's own words are only "transport error".
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        // Some say no more than their cause does.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}
