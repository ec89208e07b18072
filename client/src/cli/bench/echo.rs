//! The yardstick: a tonic server that takes the same messages as a real one and answers at once with a receipt of the
//! usual size. It runs in a process of its own, as a server does, so that CPU is shared out alike.

use crate::cli::Say;
use crate::cli::exit::{Exit, Trouble};
use sojourn_proto::v1::{self, echo_server};
use std::pin::Pin;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// Answers without doing anything.
struct Echo {
    receipt: v1::Receipt,
}

impl Echo {
    fn new() -> Echo {
        let hash = "0123456789abcdef";
        Echo {
            receipt: v1::Receipt {
                signal_id: "00000000-0000-7000-8000-000000000000".into(),
                source: "bench".into(),
                customer: Some(v1::Identifier {
                    name: "bench_id".into(),
                    value: "000000000000-00000".into(),
                }),
                decision: "1-1-123456".into(),
                position: Some(v1::Position {
                    shard: 7,
                    index: 123_456,
                }),
                at: 1_800_000_000_000_000,
                occurred: 1_800_000_000_000_000,
                parts: vec![v1::ReceiptPart {
                    execution: format!("{hash}-{hash}-1"),
                    journey: "bench".into(),
                    instance: String::new(),
                    run: 1,
                    fate: Some(v1::Fate {
                        fate: Some(v1::fate::Fate::Moved(v1::fate::Moved {
                            from: "here".into(),
                            to: "there".into(),
                            via: Vec::new(),
                        })),
                    }),
                }],
                ..Default::default()
            },
        }
    }
}

#[tonic::async_trait]
impl echo_server::Echo for Echo {
    async fn send(
        &self,
        _: Request<v1::SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        Ok(Response::new(v1::SendResponse {
            receipt: Some(self.receipt.clone()),
        }))
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::StreamResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let receipt = self.receipt.clone();
        let answers = request.into_inner().map(move |request| {
            let number = request?.number;
            let result = Some(v1::item_result::Result::Receipt(receipt.clone()));
            Ok(v1::StreamResponse {
                acks: vec![v1::Ack {
                    number,
                    result: Some(v1::ItemResult { result }),
                }],
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Serves until the standard input ends, which it does when the process that started this one is gone.
pub(super) async fn serve(say: &mut Say) -> Result<Exit, Trouble> {
    let (address, server) = start().await?;
    say.data(format_args!("http://{address}"));
    let parent = async {
        let mut nothing = [0_u8; 64];
        let mut input = tokio::io::stdin();
        while input.read(&mut nothing).await.is_ok_and(|n| n > 0) {}
    };
    tokio::select! {
        () = parent => Ok(Exit::Done),
        ended = server => ended.map(|()| Exit::Done),
    }
}

/// Binds a free port and gives the future that serves it.
pub(super) async fn start() -> Result<
    (
        std::net::SocketAddr,
        impl Future<Output = Result<(), Trouble>> + Send + use<>,
    ),
    Trouble,
> {
    let failed = |e: &dyn std::fmt::Display| Trouble::no(format!("the echo cannot be served: {e}"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|e| failed(&e))?;
    let address = listener.local_addr().map_err(|e| failed(&e))?;
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(echo_server::EchoServer::new(Echo::new()))
        .serve_with_incoming(incoming);
    Ok((address, async move {
        server
            .await
            .map_err(|e| Trouble::no(format!("the echo cannot be served: {e}")))
    }))
}

/// An echo in a child process; it ends with this value.
pub(super) struct Child {
    pub url: String,
    pub pid: Option<u32>,
    /// Its standard input must stay open, and the process is killed when this is dropped.
    _process: Option<tokio::process::Child>,
}

impl Child {
    /// One that runs already.
    pub fn elsewhere(url: &str) -> Child {
        Child {
            url: url.to_owned(),
            pid: None,
            _process: None,
        }
    }

    /// Starts this same program as an echo.
    pub async fn start() -> Result<Child, Trouble> {
        let failed = |e: &dyn std::fmt::Display| {
            Trouble::no(format!(
                "the echo could not be started: {e}; leave it out with --no-echo"
            ))
        };
        let program = std::env::current_exe().map_err(|e| failed(&e))?;
        let mut process = tokio::process::Command::new(program)
            .args(["bench", "echo-server"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(&e))?;
        let output = process
            .stdout
            .take()
            .ok_or_else(|| failed(&"it has no standard output"))?;
        let mut url = String::new();
        BufReader::new(output)
            .read_line(&mut url)
            .await
            .map_err(|e| failed(&e))?;
        let url = url.trim().to_owned();
        if url.is_empty() {
            return Err(failed(&"it did not say where it listens"));
        }
        Ok(Child {
            url,
            pid: process.id(),
            _process: Some(process),
        })
    }
}
