//! A client of a cluster, and what all calls share: deadline, workspace, safe repetition at another node.
//! Knows nothing of what the calls mean.

mod builder;

pub use builder::Builder;

use crate::error::{Code, Error};
use crate::lane::{
    self,
    book::{QUEUE_BYTES, Submit, Trouble},
};
use crate::nodes::{Address, Nodes};
use crate::receipt::{Outcome, Receipt};
use crate::signal::{Identifier, Signal};
use crate::topology;
use prost::Message as _;
use sojourn_proto::v1;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::transport::Channel;

/// How long a call may take unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The longest deadline.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// A client of a cluster. Cheap to clone; all clones share one connection and one stream of signals to each node.
///
/// It learns from the nodes where customers are, and sends what concerns a customer straight to the owner of its shard.
/// What it knows may be old: then the node that is asked hands over, or says who owns the shard. A node that is lost or
/// does not answer is passed over for another, as long as the deadline lasts. A node whose advertised address cannot be
/// reached from here is served through the others.
#[derive(Clone)]
pub struct Client {
    nodes: Arc<Nodes>,
    pub(crate) workspace: Arc<str>,
    pub(crate) deadline: Duration,
    server: Arc<str>,
    lane: mpsc::Sender<Submit>,
    /// Bytes of signals without a final answer.
    room: Arc<Semaphore>,
    trouble: Trouble,
}

impl Client {
    /// Connects to a cluster with the default workspace and deadline. Any node will do; several are separated by commas,
    /// and the first that answers tells of the others.
    ///
    /// # Errors
    /// [`Code::Invalid`] for an address that is none, [`Code::Unreachable`] when nobody answers there.
    pub async fn connect(server: impl Into<String>) -> Result<Client, Error> {
        Client::builder(server).connect().await
    }

    /// Begins a client with other settings. One node, or several separated by commas.
    pub fn builder(server: impl Into<String>) -> Builder {
        Builder::new(server.into())
    }

    /// The same connection with another deadline; what is out of range is taken to the nearest that is not.
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        let deadline = deadline.clamp(Duration::from_millis(1), DEADLINE_MAX);
        Client {
            deadline,
            ..self.clone()
        }
    }

    /// The same connection, another workspace.
    pub fn with_workspace(&self, workspace: impl Into<String>) -> Client {
        Client {
            workspace: workspace.into().into(),
            ..self.clone()
        }
    }

    /// The address that it was made with; several are separated by commas.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The workspace.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// Sends a signal and waits for its receipt, which is durable.
    ///
    /// While the deadline lasts it is sent again, with the same id, when the server is overloaded, the connection breaks,
    /// its shard gets another owner or a node does not answer; that is safe, for a signal that had arrived is answered
    /// with its first receipt, marked `duplicate` even where the first attempt was this client's own: who sent the first
    /// is not known. Signals of one customer sent by one client, one call after the other, are decided in that order,
    /// whichever nodes they go through.
    ///
    /// # Errors
    /// When no server took it: [`Code::Unreachable`], [`Code::Overloaded`], [`Code::Denied`]. It has then not happened.
    pub async fn send(&self, signal: Signal) -> Result<Outcome, Error> {
        self.enqueue(signal).await?.await
    }

    /// Hands a signal over without waiting for its receipt: for many at once, in order. Waits only while more than
    /// 16,384 signals or 64 MiB are without an answer. The deadline runs from here. When a signal ends in an error (it was
    /// not taken), those of the same customer that wait behind it do so too.
    ///
    /// ```no_run
    /// # async fn example(client: sojourn_client::Client) -> Result<(), sojourn_client::Error> {
    /// use sojourn_client::Signal;
    /// let first = client.enqueue(Signal::new("a").customer("id", "1")).await?;
    /// let second = client.enqueue(Signal::new("b").customer("id", "1")).await?;
    /// println!("{:?} {:?}", first.await?, second.await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Code::Overloaded`] when there was no room within the deadline.
    pub async fn enqueue(&self, signal: Signal) -> Result<Pending, Error> {
        self.enqueue_until(signal, Instant::now() + self.deadline)
            .await
    }

    /// The same with a deadline of any length, for those who have a patience of their own.
    pub(crate) async fn enqueue_until(
        &self,
        signal: Signal,
        deadline: Instant,
    ) -> Result<Pending, Error> {
        let (reply, answer) = oneshot::channel();
        // one that is larger than all of it waits until it is alone
        let bytes = signal.wire.encoded_len().clamp(1, QUEUE_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let handing_over = async {
            let room = self.room.clone().acquire_many_owned(bytes).await;
            let submit = Submit {
                workspace: self.workspace.clone(),
                signal: signal.wire,
                deadline,
                reply,
                // never closed
                room: room.ok(),
            };
            self.lane.send(submit).await
        };
        match tokio::time::timeout_at(deadline.into(), handing_over).await {
            Ok(Ok(())) => Ok(Pending(answer)),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Error::new(
                Code::Overloaded,
                "the signal was not handed over in time: too many wait for an answer; send fewer at once",
            )),
        }
    }

    /// Why signals wait, when they do.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.trouble.get().map(|e| explain(e, &self.server))
    }

    /// The receipt of a signal sent before, within the dedup window.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none, and as every call.
    pub async fn receipt(
        &self,
        customer: &Identifier,
        source: &str,
        signal_id: &str,
    ) -> Result<Receipt, Error> {
        let request = v1::GetReceiptRequest {
            workspace: self.workspace.to_string(),
            customer: Some(customer.wire()),
            source: source.to_owned(),
            signal_id: signal_id.to_owned(),
        };
        let answer = self.call_at(self.place(customer), request, async |channel, request| {
            v1::executions_client::ExecutionsClient::new(channel)
                .get_receipt(request)
                .await
        });
        answer.await?.receipt.map(Receipt::of_wire).ok_or_else(|| {
            Error::new(
                Code::Internal,
                "the server answered without a receipt; is it newer than this client?",
            )
        })
    }

    /// Where a customer is decided.
    pub(crate) fn place(&self, customer: &Identifier) -> Option<u64> {
        topology::place(&self.workspace, &customer.name, &customer.value)
    }

    /// One call to any node, again while the deadline lasts when the server is overloaded or cannot be reached. For what
    /// may be done twice: queries change nothing, commands carry an id.
    pub(crate) async fn call<Q, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        self.attempts(None, request, Manner::Quick, call).await
    }

    /// The same for what waits for something: it may take all of the deadline.
    pub(crate) async fn call_patiently<Q, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        self.attempts(None, request, Manner::Patient, call).await
    }

    /// The same as [`Client::call`], to the owner of the customer with this hash.
    pub(crate) async fn call_at<Q, A>(
        &self,
        place: Option<u64>,
        request: Q,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        self.attempts(place, request, Manner::Quick, call).await
    }

    /// One call to any node of what must not be done twice: again only after an answer that says that nothing was done.
    pub(crate) async fn call_once<Q, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        self.attempts(None, request, Manner::Once, call).await
    }

    async fn attempts<Q, A>(
        &self,
        place: Option<u64>,
        request: Q,
        manner: Manner,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        let until = Instant::now() + self.deadline;
        let twice = manner != Manner::Once;
        let mut attempts = 0;
        let mut unknown = false;
        let mut avoid: Vec<Address> = Vec::new();
        let mut told = None;
        loop {
            let node = told
                .take()
                .unwrap_or_else(|| self.nodes.pick(place, &avoid));
            let left = until.saturating_duration_since(Instant::now());
            // what takes little time leaves half of it for another node, should this one be mute
            let halved =
                manner == Manner::Quick && self.nodes.has_others(std::slice::from_ref(&node));
            let within = if halved { left / 2 } else { left };
            let mut once = tonic::Request::new(request.clone());
            once.set_timeout(within);
            let channel = self.nodes.channel(&node);
            let error = match tokio::time::timeout(within, call(channel, once)).await {
                Ok(Ok(answer)) => {
                    self.nodes.worked(&node);
                    return Ok(answer.into_inner());
                }
                // nobody here cancels a call: that is how the transport words the time-out that went along with it
                Ok(Err(status)) if status.code() != tonic::Code::Cancelled => {
                    explain(Error::of_status(&status), &node)
                }
                Ok(Err(_)) | Err(_) => {
                    // others are asked first for a while, by other calls too
                    self.nodes.failed(&node);
                    let text =
                        format!("{node} did not answer within {:.1} s", within.as_secs_f64());
                    Error::new(Code::Deadline, text).unknown()
                }
            };
            unknown |= error.is_unknown();
            let error = if unknown { error.unknown() } else { error };
            match error.code() {
                Code::Unreachable if error.cause().is_empty() => self.nodes.failed(&node),
                // it answered, so it can be asked
                Code::Unreachable => told = error.moved().filter(|a| self.nodes.knows(a)),
                Code::Deadline => {}
                _ => self.nodes.worked(&node),
            }
            // who has too much to do is asked again; of the others each once, before one is asked twice
            if error.code() != Code::Overloaded {
                avoid.push(node);
                if !self.nodes.has_others(&avoid) {
                    avoid.drain(..avoid.len() - 1);
                }
            }
            let pause = lane::book::pause(attempts, error.retry_after());
            let again = error.is_retryable() && (twice || !unknown);
            if !again || Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            attempts += 1;
        }
    }

    /// The nodes that it may talk to, and what it knows of where customers are.
    pub(crate) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// A node for a call that is no [`Client::call`], and its connection.
    pub(crate) fn ask(&self, place: Option<u64>) -> (Address, Channel) {
        self.nodes.ask(place, &[])
    }

    /// A call that was made without [`Client::call`] failed there.
    pub(crate) fn failed(&self, node: &Address, status: &tonic::Status) -> Error {
        let error = explain(Error::of_status(status), node);
        if error.code() == Code::Unreachable && error.cause().is_empty() {
            self.nodes.failed(node);
        }
        error
    }
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It may be done twice, and takes little time.
    Quick,
    /// It may be done twice, and waits for something.
    Patient,
    /// It must not be done twice.
    Once,
}

/// Names the server in errors that are about reaching it.
fn explain(error: Error, node: &str) -> Error {
    if error.code() == Code::Unreachable && error.message().starts_with("no server answers:") {
        let text = error.message().replacen(
            "no server answers",
            &format!("no server answers at {node}"),
            1,
        );
        return error.with_message(text);
    }
    error
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server)
            .field("workspace", &self.workspace)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A signal that was handed over; await it for its outcome. Dropped, the signal is
/// sent all the same: what was handed over keeps its place before those handed over later.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Outcome, Error>>);

impl Future for Pending {
    type Output = Result<Outcome, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(gone())))
    }
}

/// The lane ended with its runtime.
fn gone() -> Error {
    Error::new(
        Code::Cancelled,
        "the client's runtime has ended; make a new client in the runtime that uses it",
    )
    .unknown()
}
