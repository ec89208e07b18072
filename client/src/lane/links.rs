//! The links of a lane: one bidirectional stream to each node that is wanted, opened again with a growing pause after it
//! broke. Knows nothing of what travels on them.

use super::DECODE_MAX;
use super::book::pause;
use super::routes::LinkId;
use crate::error::{Code, Error, root_cause};
use crate::nodes::{Address, Nodes};
use futures::{FutureExt as _, StreamExt as _};
use sojourn_proto::v1::{self, signals_client::SignalsClient};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

/// How long opening a stream may take before it is tried again.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// An open stream.
struct Stream {
    requests: mpsc::UnboundedSender<v1::StreamRequest>,
    answers: tonic::Streaming<v1::StreamResponse>,
}

/// A stream on its way; kept over the rounds of the loop, so that what happens meanwhile does not begin it anew.
type Opening = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

enum State {
    /// Not to be opened before then.
    Down(Instant),
    Opening(Opening),
    Open(Box<Stream>),
}

struct Link {
    address: Address,
    state: State,
    failures: u32,
    /// The last attempt met what another cannot mend.
    hopeless: bool,
}

/// What a link has to say.
pub(super) enum Event {
    /// It can be used.
    Opened,
    /// Answers came.
    Answers(v1::StreamResponse),
    /// It could not be opened, so that nothing was sent.
    Failed(Error),
    /// It ended, with or without a reason.
    Broke(Option<Error>),
}

/// All links of a lane.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
    /// Whose turn it is to be looked at first, so that a busy link does not silence the others.
    turn: LinkId,
}

impl Links {
    /// Those that can be used.
    pub fn open(&self) -> BTreeMap<LinkId, Address> {
        let open = self
            .links
            .iter()
            .filter(|(_, l)| matches!(l.state, State::Open(_)));
        open.map(|(id, l)| (*id, l.address.clone())).collect()
    }

    pub fn any_open(&self) -> bool {
        self.links
            .values()
            .any(|l| matches!(l.state, State::Open(_)))
    }

    /// Whether none is open and every attempt met what another cannot mend.
    pub fn all_hopeless(&self) -> bool {
        self.links.values().all(|l| l.hopeless)
    }

    /// Opens what is wanted and may be opened now.
    pub fn want(&mut self, nodes: &Nodes, addresses: &BTreeSet<Address>, now: Instant) {
        for address in addresses {
            let known = self.links.iter().find(|(_, l)| l.address == *address);
            let id = known.map_or(self.next, |(id, _)| *id);
            if id == self.next {
                self.next = self.next.wrapping_add(1);
            }
            let link = self.links.entry(id).or_insert_with(|| Link {
                address: address.clone(),
                state: State::Down(now),
                failures: 0,
                hopeless: false,
            });
            if matches!(link.state, State::Down(until) if until <= now) {
                let channel = nodes.channel(&link.address);
                link.state = State::Opening(Box::pin(open_stream(channel)));
            }
        }
    }

    /// When the first of these that is down may be opened again.
    pub fn wake(&self, addresses: &BTreeSet<Address>) -> Option<Instant> {
        let down = self.links.values().filter_map(|l| match l.state {
            State::Down(until) if addresses.contains(&l.address) => Some(until),
            _ => None,
        });
        down.min()
    }

    /// Lets go of links for which there is no need.
    pub fn keep(&mut self, needed: impl Fn(LinkId, &Address) -> bool) {
        self.links.retain(|id, link| needed(*id, &link.address));
    }

    /// Sends on an open link.
    pub fn send(&self, id: LinkId, request: v1::StreamRequest) {
        if let Some(Link {
            state: State::Open(stream),
            ..
        }) = self.links.get(&id)
        {
            // a closed channel means that the stream ended; `answers` says so next
            let _ = stream.requests.send(request);
        }
    }

    /// What happens next on any of them.
    pub async fn next(&mut self) -> (LinkId, Event) {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(LinkId, Event)> {
        // those from the turn on, then those before it
        for later in [true, false] {
            for (id, link) in &mut self.links {
                if (*id >= self.turn) == later
                    && let Poll::Ready(event) = link.poll(context)
                {
                    self.turn = id.wrapping_add(1);
                    return Poll::Ready((*id, event));
                }
            }
        }
        Poll::Pending
    }
}

impl Link {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let event = match &mut self.state {
            State::Down(_) => return Poll::Pending,
            State::Opening(opening) => match std::task::ready!(opening.poll_unpin(context)) {
                Ok(stream) => {
                    self.state = State::Open(Box::new(stream));
                    self.hopeless = false;
                    return Poll::Ready(Event::Opened);
                }
                Err(error) => Event::Failed(error),
            },
            State::Open(stream) => match std::task::ready!(stream.answers.poll_next_unpin(context))
            {
                Some(Ok(answers)) => {
                    self.failures = 0;
                    return Poll::Ready(Event::Answers(answers));
                }
                Some(Err(status)) => Event::Broke(Some(Error::of_status(&status))),
                None => Event::Broke(None),
            },
        };
        self.hopeless = match &event {
            Event::Failed(error) | Event::Broke(Some(error)) => !worth_trying(error),
            _ => false,
        };
        self.state = State::Down(Instant::now() + pause(self.failures, None));
        self.failures = self.failures.saturating_add(1);
        Poll::Ready(event)
    }
}

/// Opens a stream and waits for its headers: as long as they have not come nothing has been sent, so that "unreachable"
/// is known and not "unknown".
async fn open_stream(channel: Channel) -> Result<Stream, Error> {
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
            format!(
                "the server did not open a stream within {} s",
                OPEN_MAX.as_secs()
            ),
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
