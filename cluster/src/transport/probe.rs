//! The first words of HTTP/2, said before a connection is handed on.
//!
//! What the other side has against it (no TLS, no certificate, no HTTP/2 at all) comes as its first answer. Heard here,
//! it is why connecting failed; heard later, it would be a call that was cut off. It does not know what comes then.

use super::wire::Wire;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What a client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The head of a frame: three bytes of length, the type, flags, four bytes of stream.
const HEAD: usize = 9;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
/// In front of the words of a going away: the last stream, and the error.
const GO_AWAY_NUMBERS: usize = 8;
/// Words beyond this are not listened to.
const MAX_WORDS: usize = 1024;

/// A connection on which the first words have been said: whoever says them again is not heard, and reads the answer as
/// if it came then.
pub(super) struct Probed {
    wire: Wire,
    unsaid: usize,
    heard: Vec<u8>,
    read: usize,
}

fn strange(found: &[u8]) -> io::Error {
    let what = match found {
        [0x15 | 0x16, 3, ..] => "the other side speaks TLS, this node does not".to_owned(),
        _ => format!("the other side does not speak HTTP/2, it begins with {found:02x?}"),
    };
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Says the first words and waits for the answer.
pub(super) async fn probe(mut wire: Wire) -> io::Result<Probed> {
    wire.write_all(PREFACE).await?;
    wire.flush().await?;
    let mut heard = vec![0; HEAD];
    wire.read_exact(&mut heard).await?;
    if heard.get(3) != Some(&SETTINGS) {
        return Err(strange(&heard));
    }
    // A server of ours that sends somebody away does so with settings that say nothing; others say something.
    if heard.starts_with(&[0, 0, 0]) {
        let mut head = [0; HEAD];
        wire.read_exact(&mut head).await?;
        heard.extend_from_slice(&head);
        let [a, b, c, kind, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == GO_AWAY && (GO_AWAY_NUMBERS..=MAX_WORDS).contains(&length) {
            let mut words = vec![0; length];
            wire.read_exact(&mut words).await?;
            let words = words.get(GO_AWAY_NUMBERS..).unwrap_or_default();
            let words = format!(
                "the other side has hung up: {}",
                String::from_utf8_lossy(words)
            );
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, words));
        }
    }
    Ok(Probed {
        wire,
        unsaid: PREFACE.len(),
        heard,
        read: 0,
    })
}

impl AsyncRead for Probed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(heard) = this
            .heard
            .get(this.read..)
            .filter(|heard| !heard.is_empty())
        {
            let some = heard.len().min(buf.remaining());
            buf.put_slice(&heard[..some]);
            this.read += some;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Probed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unsaid > 0 && !buf.is_empty() {
            let some = self.unsaid.min(buf.len());
            self.unsaid -= some;
            return Poll::Ready(Ok(some));
        }
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
        if self.unsaid > 0 {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
