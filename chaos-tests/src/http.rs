//! The HTTP door of a server, asked without a library.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A GET at the HTTP door of a server: status and body.
///
/// # Errors
/// When it does not answer within ten seconds.
pub async fn ask(door: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(door).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
    let code = answer.split(' ').nth(1).and_then(|c| c.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code.context("no status line")?, body.to_owned()))
}
