//! Connections from other nodes, at most so many at a time, each after its TLS handshake if there is TLS.
//!
//! Knows sockets only; who is at the other end is asked later.

use super::peers::Shared;
use super::tls::Keys;
use super::wire::Wire;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

/// What a client without TLS begins with: the preface of HTTP/2.
const PREFACE: &[u8] = b"PRI";
/// Settings that say nothing, then a going away with error 12, which is too little security, and why, in HTTP/2.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const GO_AWAY: &[u8] = b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0c";
const WANTS_TLS: &[u8] = b"this peer port wants TLS, and certificates of both sides";
/// Of what a client without TLS says, this much is read before it is hung up on.
const HEARD_OUT_BYTES: u64 = 64 << 10;

/// Accepts; what comes beyond the limit is closed at once.
pub(super) struct Incoming {
    listener: TcpListener,
    shared: Arc<Shared>,
    keys: Option<Arc<Keys>>,
    /// Connections that are not yet through with TLS; they count.
    greeted: FuturesUnordered<BoxFuture<'static, Option<Counted>>>,
}

impl Incoming {
    pub(super) fn new(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let keys = shared.dialer.keys().cloned();
        Incoming {
            listener,
            shared,
            keys,
            greeted: FuturesUnordered::new(),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Counted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let (stream, from) = match this.listener.poll_accept(cx) {
                Poll::Pending => break,
                // tonic waits a moment and goes on.
                Poll::Ready(Err(e)) => return Poll::Ready(Some(Err(e))),
                Poll::Ready(Ok(accepted)) => accepted,
            };
            let Some(place) = Place::take(&this.shared) else {
                continue;
            };
            // Frames are small and somebody waits for each; without it they would only be slower.
            drop(stream.set_nodelay(true));
            match &this.keys {
                None => {
                    return Poll::Ready(Some(Ok(Counted {
                        wire: Wire::Plain(stream),
                        _place: place,
                    })));
                }
                Some(keys) => {
                    let greeting = greet(keys.clone(), stream, from, place);
                    this.greeted.push(Box::pin(greeting));
                }
            }
        }
        loop {
            match this.greeted.poll_next_unpin(cx) {
                Poll::Ready(Some(Some(counted))) => return Poll::Ready(Some(Ok(counted))),
                Poll::Ready(Some(None)) => {}
                // With none to wait for, the listener wakes this.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The TLS handshake; `None` when it fails.
async fn greet(
    keys: Arc<Keys>,
    stream: TcpStream,
    from: SocketAddr,
    place: Place,
) -> Option<Counted> {
    let shared = place.shared.clone();
    let within = shared.cfg.connect_within;
    let handshake = async {
        let mut first = [0; PREFACE.len()];
        let seen = stream.peek(&mut first).await.map_err(|e| e.to_string())?;
        if seen > 0 && first.get(..seen) == PREFACE.get(..seen) {
            say_why(stream).await;
            return Err("it does not speak TLS, this node does".to_owned());
        }
        keys.accept(stream).await
    };
    let why = match tokio::time::timeout(within, handshake).await {
        Ok(Ok(stream)) => {
            return Some(Counted {
                wire: Wire::Tls(Box::new(stream)),
                _place: place,
            });
        }
        Ok(Err(why)) => why,
        Err(_) => format!("no TLS handshake within {} ms", within.as_millis()),
    };
    shared.counts.lock().strangers += 1;
    tracing::warn!(%from, %why, "a connection to the peer port was refused");
    None
}

/// Tells a client without TLS why it is sent away, in words that it reads.
async fn say_why(mut stream: TcpStream) {
    let length = u32::try_from(8 + WANTS_TLS.len()).unwrap_or(u32::MAX);
    let length = length.to_be_bytes();
    let said = [SETTINGS, &length[1..], GO_AWAY, WANTS_TLS].concat();
    // It may be gone. Else it is heard out: what is unread when a socket is closed takes with it what was said.
    if stream.write_all(&said).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut rest = stream.take(HEARD_OUT_BYTES);
        drop(tokio::io::copy(&mut rest, &mut tokio::io::sink()).await);
    }
}

/// A place among the connections that there may be.
struct Place {
    shared: Arc<Shared>,
}

impl Place {
    /// `None` when all are taken.
    fn take(shared: &Arc<Shared>) -> Option<Place> {
        let mut counts = shared.counts.lock();
        if counts.incoming >= shared.cfg.connections {
            counts.strangers += 1;
            return None;
        }
        counts.incoming += 1;
        Some(Place {
            shared: shared.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.counts.lock().incoming -= 1;
    }
}

/// A connection that is counted while it lasts.
pub(super) struct Counted {
    wire: Wire,
    _place: Place,
}

impl Connected for Counted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
