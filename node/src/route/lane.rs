//! The stream of signals to one other node: one for all customers, kept open, opened again when it breaks.
//!
//! When it breaks, what was given to the connection and not answered is unknown; what was not given to it yet is known
//! not to be sent. It does not know in what order signals may go.

use super::call::FORWARDED;
use super::lines::Event;
use super::ways::Way;
use crate::limits;
use parking_lot::Mutex;
use sojourn_cluster::NodeId;
use sojourn_proto::v1;
use sojourn_proto::v1::signals_client::SignalsClient;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};

/// Opening the stream may take this long.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// Why a stream ends that is given up.
const LOST: &str = "the node cannot be reached";
/// Signals that are given to the stream at once.
const AT_ONCE: usize = 256;

/// An open stream.
struct Open {
    /// Bounded by what may be under way at all: to wait here would keep acks from being read, and the other side from
    /// going on.
    requests: mpsc::UnboundedSender<v1::StreamRequest>,
    acks: Streaming<v1::StreamResponse>,
    given: Arc<Mutex<Given>>,
}

/// What the connection has got.
#[derive(Default)]
struct Given {
    /// The numbers of its signals that are not answered.
    numbers: HashSet<u64>,
    /// It gets nothing more: the rest is known not to be sent.
    closed: bool,
}

/// Carries signals to a node until nobody has any more and all are answered, or it is given up.
pub(super) async fn run(
    me: NodeId,
    way: Way,
    mut signals: mpsc::UnboundedReceiver<v1::StreamRequest>,
    events: mpsc::UnboundedSender<Event>,
    given_up: CancellationToken,
) {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while signals.recv_many(&mut batch, AT_ONCE).await > 0 {
        let waiting: HashSet<u64> = batch.iter().map(|s| s.number).collect();
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPEN_WITHIN, open(me, &way)) => opened
                .unwrap_or_else(|_| Err(format!("no stream within {} s", OPEN_WITHIN.as_secs()))),
            () = given_up.cancelled() => Err(LOST.into()),
        };
        let why = match opened {
            Ok(stream) => {
                let carried = carry(
                    stream,
                    &mut batch,
                    waiting,
                    &mut signals,
                    &events,
                    &given_up,
                );
                carried.await
            }
            Err(why) => Some((why, HashSet::new(), waiting)),
        };
        batch.clear();
        let Some((why, unknown, unsent)) = why else {
            return;
        };
        let broken = Event::Broken {
            why: format!("the stream to {} broke: {why}", way.address),
            unknown,
            unsent,
        };
        if events.send(broken).is_err() {
            return;
        }
    }
}

async fn open(me: NodeId, way: &Way) -> Result<Open, String> {
    let (requests, outgoing) = mpsc::unbounded_channel::<v1::StreamRequest>();
    let given: Arc<Mutex<Given>> = Arc::default();
    let notes = given.clone();
    let outgoing = UnboundedReceiverStream::new(outgoing).map_while(move |signal| {
        let mut given = notes.lock();
        (!given.closed).then(|| {
            given.numbers.insert(signal.number);
            signal
        })
    });
    let mut request = Request::new(outgoing);
    let metadata = request.metadata_mut();
    metadata.insert(FORWARDED, MetadataValue::from(me));
    let mut client = SignalsClient::new(way.channel.clone())
        .max_decoding_message_size(limits::ANSWER_BYTES)
        .max_encoding_message_size(limits::MESSAGE_BYTES);
    // nothing is given to it before it is open: what waits until then is known not to be sent
    let acks = client.stream(request).await;
    Ok(Open {
        requests,
        acks: acks
            .map_err(|status| status.message().to_owned())?
            .into_inner(),
        given,
    })
}

/// Why a stream broke, what is unknown by that, and what was not sent.
type Broken = (String, HashSet<u64>, HashSet<u64>);

/// Carries signals on one stream; `None` when nobody has any more and all are answered.
async fn carry(
    mut stream: Open,
    batch: &mut Vec<v1::StreamRequest>,
    mut waiting: HashSet<u64>,
    signals: &mut mpsc::UnboundedReceiver<v1::StreamRequest>,
    events: &mpsc::UnboundedSender<Event>,
    given_up: &CancellationToken,
) -> Option<Broken> {
    let mut more = true;
    let why = loop {
        for signal in batch.drain(..) {
            waiting.insert(signal.number);
            // one that has ended says so by its acks
            let _ = stream.requests.send(signal);
        }
        if !more && waiting.is_empty() {
            return None;
        }
        tokio::select! {
            answer = stream.acks.message() => match answer {
                Ok(Some(answer)) => {
                    let mut given = stream.given.lock();
                    for ack in &answer.acks {
                        waiting.remove(&ack.number);
                        given.numbers.remove(&ack.number);
                    }
                    drop(given);
                    if events.send(Event::Acks(answer.acks)).is_err() {
                        return None;
                    }
                }
                Ok(None) => break "the other side ended it".to_owned(),
                Err(status) => break status.message().to_owned(),
            },
            n = signals.recv_many(batch, AT_ONCE), if more => more = n > 0,
            () = given_up.cancelled() => break LOST.to_owned(),
        }
    };
    let given = {
        let mut given = stream.given.lock();
        given.closed = true;
        std::mem::take(&mut given.numbers)
    };
    let (unknown, unsent) = waiting.into_iter().partition(|n| given.contains(n));
    Some((why, unknown, unsent))
}
