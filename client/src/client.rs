//! A connection to a cluster, and what all calls share: deadline, workspace, safe repetition.
//! Knows nothing of what the calls mean.

use crate::error::{Code, Error, root_cause};
use crate::lane::{
    self,
    book::{Submit, Trouble},
};
use crate::receipt::{Outcome, Receipt};
use crate::signal::{Identifier, Signal};
use sojourn_proto::v1;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::{Channel, Endpoint};

/// How long a call may take unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The longest deadline.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// Signals handed over and not yet looked at by the lane.
const HANDOVER: usize = 1_024;

/// A client of a cluster. Cheap to clone; all clones share one connection and one stream of signals.
#[derive(Clone)]
pub struct Client {
    pub(crate) channel: Channel,
    pub(crate) workspace: Arc<str>,
    pub(crate) deadline: Duration,
    server: Arc<str>,
    lane: mpsc::Sender<Submit>,
    trouble: Trouble,
}

/// What a client is made of, for those who need something else than the defaults.
///
/// ```no_run
/// # async fn example() -> Result<(), sojourn_client::Error> {
/// use sojourn_client::Client;
/// use std::time::Duration;
/// let client = Client::builder("http://127.0.0.1:7410")
///     .workspace("acme")
///     .deadline(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    server: String,
    workspace: String,
    deadline: Duration,
}

impl Builder {
    /// In this workspace; `default` unless told.
    pub fn workspace(mut self, workspace: impl Into<String>) -> Builder {
        self.workspace = workspace.into();
        self
    }

    /// With this deadline for every call: [`DEADLINE`] unless told, at most [`DEADLINE_MAX`].
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// Connects now.
    ///
    /// # Errors
    /// [`Code::Invalid`] for an address that is none or a deadline out of range, [`Code::Unreachable`] when nobody
    /// answers there.
    pub async fn connect(self) -> Result<Client, Error> {
        let endpoint = self.endpoint()?;
        let wait = self.deadline;
        let connecting = tokio::time::timeout(wait, endpoint.connect()).await;
        let channel = match connecting {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(self.nobody(&root_cause(&error))),
            Err(_) => {
                return Err(self.nobody(&format!("no connection within {} s", wait.as_secs_f64())));
            }
        };
        Ok(self.with(channel))
    }

    /// Makes a client that connects with its first call, and waits for the server within the deadline of each call.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Code::Invalid`] for an address that is none or a deadline out of range.
    pub fn connect_lazy(self) -> Result<Client, Error> {
        let channel = self.endpoint()?.connect_lazy();
        Ok(self.with(channel))
    }

    fn nobody(&self, why: &str) -> Error {
        let text = format!(
            "no server answers at {}: {why}; start one with `sojourn dev`, or name another with --server or SOJOURN_SERVER",
            self.server
        );
        Error::new(Code::Unreachable, text)
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        if self.deadline.is_zero() || self.deadline > DEADLINE_MAX {
            let text = format!(
                "the deadline is {} s, expected more than 0 and at most {} s",
                self.deadline.as_secs_f64(),
                DEADLINE_MAX.as_secs()
            );
            return Err(Error::new(Code::Invalid, text));
        }
        let bad = |why: &str| {
            let text = format!(
                "the server is {:?}: {why}; expected an address such as http://127.0.0.1:7410",
                self.server
            );
            Error::new(Code::Invalid, text)
        };
        let endpoint =
            Endpoint::from_shared(self.server.clone()).map_err(|e| bad(&root_cause(&e)))?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("this build speaks no tls")),
            _ => return Err(bad("it has no scheme")),
        }
        Ok(endpoint
            .connect_timeout(self.deadline)
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true))
    }

    fn with(self, channel: Channel) -> Client {
        let (lane, submits) = mpsc::channel(HANDOVER);
        let trouble = Trouble::default();
        tokio::spawn(lane::run(channel.clone(), submits, trouble.clone()));
        Client {
            channel,
            workspace: self.workspace.into(),
            deadline: self.deadline,
            server: self.server.into(),
            lane,
            trouble,
        }
    }
}

impl Client {
    /// Connects to a node with the default workspace and deadline. Any node of a cluster will do.
    ///
    /// # Errors
    /// [`Code::Invalid`] for an address that is none, [`Code::Unreachable`] when nobody answers there.
    pub async fn connect(server: impl Into<String>) -> Result<Client, Error> {
        Client::builder(server).connect().await
    }

    /// Begins a client with other settings.
    pub fn builder(server: impl Into<String>) -> Builder {
        Builder {
            server: server.into(),
            workspace: "default".to_owned(),
            deadline: DEADLINE,
        }
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

    /// The address that it was made with.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The workspace.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// Sends a signal and waits for its receipt, which is durable.
    ///
    /// While the deadline lasts it is sent again, with the same id, when the server is overloaded or the connection
    /// breaks; that is safe, for a signal that had arrived is answered with its first receipt. Signals of one customer
    /// sent by one client, one call after the other, are decided in that order.
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
        let submit = Submit {
            workspace: self.workspace.clone(),
            signal: signal.wire,
            deadline,
            reply,
        };
        match tokio::time::timeout_at(deadline.into(), self.lane.send(submit)).await {
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
        self.trouble.get().map(|e| self.explain(e))
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
        let answer = self.call(request, async |channel, request| {
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

    /// One call, again while the deadline lasts when the server is overloaded or cannot be reached. For what may be done
    /// twice: queries change nothing, commands carry an id.
    pub(crate) async fn call<Q, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        self.attempts(request, true, call).await
    }

    /// The same for what must not be done twice: again only after an answer that says that nothing was done.
    pub(crate) async fn call_once<Q, A>(
        &self,
        request: Q,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        self.attempts(request, false, call).await
    }

    async fn attempts<Q, A>(
        &self,
        request: Q,
        twice: bool,
        call: impl AsyncFn(Channel, tonic::Request<Q>) -> Result<tonic::Response<A>, tonic::Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        let until = Instant::now() + self.deadline;
        let mut attempts = 0;
        let mut unknown = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut once = tonic::Request::new(request.clone());
            once.set_timeout(left);
            let error = match tokio::time::timeout(left, call(self.channel.clone(), once)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => self.explain(Error::of_status(&status)),
                Err(_) => {
                    let text = format!(
                        "{} did not answer within {} s",
                        self.server,
                        self.deadline.as_secs_f64()
                    );
                    Error::new(Code::Deadline, text).unknown()
                }
            };
            unknown |= error.is_unknown();
            let error = if unknown { error.unknown() } else { error };
            let pause = lane::book::pause(attempts, error.retry_after());
            let again = error.is_retryable() && (twice || !unknown);
            if !again || Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            attempts += 1;
        }
    }

    /// Names the server in errors that are about reaching it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if error.code() == Code::Unreachable && error.message().starts_with("no server answers:") {
            let text = error.message().replacen(
                "no server answers",
                &format!("no server answers at {}", self.server),
                1,
            );
            return error.with_message(text);
        }
        error
    }
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
