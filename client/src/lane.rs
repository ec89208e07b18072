//! The way of signals from this client to a server: one bidirectional stream, a window, and a book of what is under way.
//! Knows nothing of journeys; what a receipt says is the caller's business.

pub(crate) mod book;

use crate::error::{Code, Error, root_cause};
use book::{Book, Submit, Trouble};
use sojourn_proto::v1::{self, signals_client::SignalsClient};
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

/// A message of answers may be large: the window's worth of receipts with many parts.
pub(crate) const DECODE_MAX: usize = 64 << 20;
/// How long opening a stream may take before it is tried again.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether anybody still waits, once all clients are gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An open stream.
struct Stream {
    requests: mpsc::UnboundedSender<v1::StreamRequest>,
    answers: tonic::Streaming<v1::StreamResponse>,
}

/// A stream on its way; kept over the rounds of the loop, so that arriving signals do not begin it anew.
type Opening = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

/// Runs until all clients are gone and all signals answered.
pub(crate) async fn run(channel: Channel, mut submits: mpsc::Receiver<Submit>, trouble: Trouble) {
    let mut book = Book::new(trouble);
    let mut stream: Option<Stream> = None;
    let mut opening: Option<Opening> = None;
    let mut open = true;
    let mut failures = 0_u32;
    let mut retry_at = Instant::now();
    let mut batch = Vec::new();
    while open || !book.is_idle() {
        book.tick(Instant::now());
        if let Some(live) = &stream {
            while let Some(request) = book.next() {
                // a closed channel means that the stream ended; `answers` says so next
                let _ = live.requests.send(request);
            }
        }
        let room = if open { book.room() } else { 0 };
        // once all clients are gone nobody tells of a caller that goes too: look now and then
        let look = (!open).then(|| Instant::now() + LOOK_EVERY);
        let wake = book.wake().into_iter().chain(look).min();
        if stream.is_none() && opening.is_none() && book.wants_connection() {
            opening = Some(Box::pin(open_stream(channel.clone(), retry_at)));
        }
        tokio::select! {
            biased;
            answers = next_answers(&mut stream), if stream.is_some() => match answers {
                Ok(Some(answers)) => {
                    failures = 0;
                    let now = Instant::now();
                    for ack in answers.acks {
                        book.answer(ack.number, ack.result.and_then(|r| r.result), now);
                    }
                }
                ended => {
                    stream = None;
                    book.broke();
                    if let Err(status) = ended {
                        let error = Error::of_status(&status);
                        if !worth_trying(&error) {
                            book.give_up(&error);
                        }
                        book.trouble.set(Some(error));
                    }
                    retry_at = Instant::now() + book::pause(failures, None);
                    failures = failures.saturating_add(1);
                }
            },
            count = submits.recv_many(&mut batch, room.max(1)), if room > 0 => {
                open = count > 0;
                for submit in batch.drain(..) {
                    book.add(submit);
                }
            }
            opened = opened(&mut opening), if opening.is_some() => {
                opening = None;
                match opened {
                    Ok(live) => {
                        stream = Some(live);
                        book.trouble.set(None);
                    }
                    Err(error) => {
                        if !worth_trying(&error) {
                            book.give_up(&error);
                        }
                        book.trouble.set(Some(error));
                        retry_at = Instant::now() + book::pause(failures, None);
                        failures = failures.saturating_add(1);
                    }
                }
            },
            () = sleep_until(wake), if wake.is_some() => {}
        }
    }
}

async fn next_answers(
    stream: &mut Option<Stream>,
) -> Result<Option<v1::StreamResponse>, tonic::Status> {
    match stream {
        Some(live) => live.answers.message().await,
        None => std::future::pending().await,
    }
}

async fn opened(opening: &mut Option<Opening>) -> Result<Stream, Error> {
    match opening {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Opens a stream and waits for its headers: as long as they have not come nothing has been sent, so that "unreachable"
/// is known and not "unknown".
async fn open_stream(channel: Channel, not_before: Instant) -> Result<Stream, Error> {
    tokio::time::sleep_until(not_before.into()).await;
    let (requests, receiver) = mpsc::unbounded_channel();
    let mut client = SignalsClient::new(channel).max_decoding_message_size(DECODE_MAX);
    let opening = client.stream(UnboundedReceiverStream::new(receiver));
    match tokio::time::timeout(OPEN_MAX, opening).await {
        Ok(Ok(response)) => Ok(Stream {
            requests,
            answers: response.into_inner(),
        }),
        Ok(Err(status)) => Err(unreachable(&status)),
        Err(_) => Err(Error::new(
            Code::Unreachable,
            "the server did not open a stream within 5 s",
        )),
    }
}

fn unreachable(status: &tonic::Status) -> Error {
    let error = Error::of_status(status);
    match error.code() {
        // nothing was sent on it, so whatever happened, no signal is in doubt
        Code::Internal | Code::Cancelled | Code::Deadline | Code::Unreachable => Error::new(
            Code::Unreachable,
            format!("no server answers: {}", root_cause(status)),
        ),
        _ => error,
    }
}

/// Whether another attempt at a stream can come out differently.
fn worth_trying(error: &Error) -> bool {
    !matches!(
        error.code(),
        Code::Denied | Code::Unsupported | Code::Invalid
    )
}
