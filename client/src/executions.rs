//! Where customers are, why, and by hand: queries and commands of the `Executions` service.
//! Answers are the wire's own messages ([`crate::wire`]): this library adds nothing to them.

use crate::client::Client;
use crate::error::Error;
use crate::receipt::Position;
use crate::signal::Identifier;
use futures::stream::{self, Stream, StreamExt as _};
use sojourn_journey::identifier::ExecutionId;
use sojourn_proto::v1::{self, executions_client::ExecutionsClient};

/// Which execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutionRef {
    /// This one.
    Id(String),
    /// The latest run of a customer in a journey.
    Latest {
        /// The customer key.
        customer: Identifier,
        /// The journey.
        journey: String,
        /// The instance key, where the journey has one.
        instance: Option<String>,
    },
    /// All that concerns a customer: only for [`Client::timeline`].
    Customer(Identifier),
}

impl ExecutionRef {
    fn wire(&self, workspace: &str) -> v1::ExecutionRef {
        let workspace = workspace.to_owned();
        match self {
            ExecutionRef::Id(id) => v1::ExecutionRef {
                workspace,
                id: id.clone(),
                ..Default::default()
            },
            ExecutionRef::Customer(customer) => v1::ExecutionRef {
                workspace,
                customer: Some(customer.wire()),
                ..Default::default()
            },
            ExecutionRef::Latest {
                customer,
                journey,
                instance,
            } => v1::ExecutionRef {
                workspace,
                id: String::new(),
                customer: Some(customer.wire()),
                journey: journey.clone(),
                instance: instance.clone(),
            },
        }
    }
}

/// How fresh a read must be. The default is linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// From a state at or after this position.
    pub at_least: Option<Position>,
    /// From any replica; the answer says how old it is.
    pub stale: bool,
}

impl Client {
    /// Where an execution is decided.
    fn place_of(&self, execution: &ExecutionRef) -> Option<u64> {
        match execution {
            ExecutionRef::Id(id) => id.parse::<ExecutionId>().ok().map(|id| id.customer),
            ExecutionRef::Latest { customer, .. } | ExecutionRef::Customer(customer) => {
                self.place(customer)
            }
        }
    }
}

impl Read {
    fn wire(self) -> v1::ReadOptions {
        v1::ReadOptions {
            at_least: self.at_least.map(Position::wire),
            stale: self.stale,
        }
    }
}

/// Which executions to list. The default lists all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// In this journey.
    pub journey: Option<String>,
    /// In this stage.
    pub stage: Option<String>,
    /// With one of these statuses.
    pub statuses: Vec<v1::Status>,
    /// Of this customer.
    pub customer: Option<Identifier>,
    /// On this version.
    pub version: Option<u32>,
    /// With, or without, an incident.
    pub incident: Option<bool>,
    /// Past, or not past, a stage deadline.
    pub overdue: Option<bool>,
    /// Stalled, or not.
    pub stalled: Option<bool>,
    /// How many a page holds: 100 unless told, at most 1,000.
    pub page_size: Option<u32>,
}

/// Who commands, why, and under which id: the same id again is the same command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Chosen once by the sender.
    pub id: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Refused when the execution is in another visit.
    pub expected_visit: Option<u32>,
}

impl Command {
    /// A command with a fresh id.
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Command {
        Command {
            id: uuid::Uuid::now_v7().to_string(),
            actor: actor.into(),
            reason: reason.into(),
            expected_visit: None,
        }
    }

    fn wire(&self, workspace: &str, execution: &ExecutionRef) -> v1::CommandRequest {
        v1::CommandRequest {
            execution: Some(execution.wire(workspace)),
            id: self.id.clone(),
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            expected_visit: self.expected_visit,
        }
    }
}

/// What a watch sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// The watch is in place: everything after this position is seen.
    Started(Option<Position>),
    /// Something happened.
    Entry(Box<v1::TimelineEntry>),
    /// This client was too slow; so many entries were dropped.
    Missed(u64),
}

impl Client {
    /// One execution, as it stands.
    ///
    /// # Errors
    /// [`crate::Code::NotFound`] when there is none.
    pub async fn get(
        &self,
        execution: &ExecutionRef,
        read: Read,
    ) -> Result<v1::GetExecutionResponse, Error> {
        let request = v1::GetExecutionRequest {
            execution: Some(execution.wire(&self.workspace)),
            options: Some(read.wire()),
        };
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).get(request).await,
        )
        .await
    }

    /// One page of executions; `token` is empty for the first.
    ///
    /// # Errors
    /// [`crate::Code::Invalid`] for a token of other filters.
    pub async fn list_page(
        &self,
        filter: &Filter,
        token: &str,
    ) -> Result<v1::ListExecutionsResponse, Error> {
        let request = v1::ListExecutionsRequest {
            workspace: self.workspace.to_string(),
            journey: filter.journey.clone().unwrap_or_default(),
            stage: filter.stage.clone().unwrap_or_default(),
            statuses: filter.statuses.iter().map(|s| i32::from(*s)).collect(),
            customer: filter.customer.as_ref().map(Identifier::wire),
            version: filter.version.unwrap_or_default(),
            incident: filter.incident,
            overdue: filter.overdue,
            stalled: filter.stalled,
            page_size: filter.page_size.unwrap_or_default(),
            page_token: token.to_owned(),
        };
        let place = filter.customer.as_ref().and_then(|c| self.place(c));
        self.call_at(place, request, async |channel, request| {
            ExecutionsClient::new(channel).list(request).await
        })
        .await
    }

    /// All executions that the filter lets through, page by page as they are asked for. Ends after the first error.
    ///
    /// ```no_run
    /// # async fn example(client: sojourn_client::Client) -> Result<(), sojourn_client::Error> {
    /// use futures::StreamExt as _;
    /// use sojourn_client::Filter;
    /// let filter = Filter { journey: Some("loan".into()), ..Filter::default() };
    /// let mut all = std::pin::pin!(client.list(filter));
    /// while let Some(execution) = all.next().await {
    ///     println!("{}", execution?.stage);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(
        &self,
        filter: Filter,
    ) -> impl Stream<Item = Result<v1::Execution, Error>> + Send + use<> {
        let client = self.clone();
        stream::unfold(Some(String::new()), move |token| {
            let (client, filter) = (client.clone(), filter.clone());
            async move {
                let page = client.list_page(&filter, &token?).await;
                let (items, next) = match page {
                    Ok(page) => {
                        let next = Some(page.next_page_token).filter(|t| !t.is_empty());
                        (
                            page.executions.into_iter().map(Ok).collect::<Vec<_>>(),
                            next,
                        )
                    }
                    Err(error) => (vec![Err(error)], None),
                };
                Some((stream::iter(items), next))
            }
        })
        .flatten()
    }

    /// Everything that happened in an execution, oldest first, page by page as asked for. Ends after the first error.
    pub fn timeline(
        &self,
        execution: ExecutionRef,
        read: Read,
    ) -> impl Stream<Item = Result<v1::TimelineEntry, Error>> + Send + use<> {
        let request = v1::TimelineRequest {
            execution: Some(execution.wire(&self.workspace)),
            page_size: 1_000,
            page_token: String::new(),
            options: Some(read.wire()),
        };
        let client = self.clone();
        let place = self.place_of(&execution);
        stream::unfold(Some(request), move |request| {
            let client = client.clone();
            async move {
                let mut request = request?;
                let page = client
                    .call_at(place, request.clone(), async |channel, request| {
                        ExecutionsClient::new(channel)
                            .max_decoding_message_size(crate::lane::DECODE_MAX)
                            .timeline(request)
                            .await
                    })
                    .await;
                Some(match page {
                    Ok(page) => {
                        let more = !page.next_page_token.is_empty();
                        request.page_token = page.next_page_token;
                        let items = page.entries.into_iter().map(Ok).collect::<Vec<_>>();
                        (stream::iter(items), more.then_some(request))
                    }
                    Err(error) => (stream::iter(vec![Err(error)]), None),
                })
            }
        })
        .flatten()
    }

    /// Why an execution rests where it is: every way out and what it waits for.
    ///
    /// # Errors
    /// [`crate::Code::NotFound`] when there is no such execution.
    pub async fn why(
        &self,
        execution: &ExecutionRef,
        read: Read,
    ) -> Result<v1::WhyResponse, Error> {
        let request = v1::WhyRequest {
            execution: Some(execution.wire(&self.workspace)),
            options: Some(read.wire()),
        };
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).why(request).await,
        )
        .await
    }

    /// What happens from now on, in a journey, an execution, or of a customer; empty and absent mean all. Ends when the
    /// connection does; begin again and read the timeline for what lies between.
    ///
    /// # Errors
    /// When no watch could be begun.
    pub async fn watch(
        &self,
        journey: &str,
        execution: &str,
        customer: Option<&Identifier>,
    ) -> Result<impl Stream<Item = Result<Watched, Error>> + Send + use<>, Error> {
        let request = v1::WatchRequest {
            workspace: self.workspace.to_string(),
            journey: journey.to_owned(),
            execution: execution.to_owned(),
            customer: customer.map(Identifier::wire),
        };
        // no deadline on the call itself: a watch lasts as long as its reader wants
        let place = match customer {
            Some(customer) => self.place(customer),
            None => self.place_of(&ExecutionRef::Id(execution.to_owned())),
        };
        let (node, channel) = self.ask(place);
        let begun = tokio::time::timeout(
            self.deadline,
            ExecutionsClient::new(channel)
                .max_decoding_message_size(crate::lane::DECODE_MAX)
                .watch(request),
        )
        .await;
        let answers = match begun {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Err(self.failed(&node, &status)),
            Err(_) => {
                return Err(Error::new(
                    crate::Code::Deadline,
                    "the watch was not begun in time",
                ));
            }
        };
        Ok(answers.filter_map(|answer| {
            std::future::ready(match answer {
                Ok(v1::WatchResponse { what: Some(what) }) => Some(Ok(match what {
                    v1::watch_response::What::Entry(entry) => Watched::Entry(Box::new(entry)),
                    v1::watch_response::What::Missed(count) => Watched::Missed(count),
                    v1::watch_response::What::Started(position) => {
                        Watched::Started(Position::of_wire(Some(position)))
                    }
                })),
                // something that this library does not know yet
                Ok(v1::WatchResponse { what: None }) => None,
                Err(status) => Some(Err(Error::of_status(&status))),
            })
        }))
    }

    /// Moves an execution to a stage by hand. `run_actions`: the transition's actions too, where one leads there.
    ///
    /// # Errors
    /// [`crate::Code::Conflict`] when it has ended or is in another visit, [`crate::Code::Invalid`] for a stage that
    /// does not exist.
    pub async fn override_(
        &self,
        execution: &ExecutionRef,
        to: &str,
        run_actions: bool,
        command: &Command,
    ) -> Result<v1::CommandResponse, Error> {
        let command = Some(command.wire(&self.workspace, execution));
        let request = v1::OverrideRequest {
            command,
            to: to.to_owned(),
            run_actions,
        };
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).r#override(request).await,
        )
        .await
    }

    /// Holds an execution: nothing moves, signals wait.
    ///
    /// # Errors
    /// As [`Client::override_`].
    pub async fn hold(
        &self,
        execution: &ExecutionRef,
        command: &Command,
    ) -> Result<v1::CommandResponse, Error> {
        let request = command.wire(&self.workspace, execution);
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).hold(request).await,
        )
        .await
    }

    /// Lets a held execution go on; what waited is decided in order.
    ///
    /// # Errors
    /// As [`Client::override_`].
    pub async fn resume(
        &self,
        execution: &ExecutionRef,
        command: &Command,
    ) -> Result<v1::CommandResponse, Error> {
        let request = command.wire(&self.workspace, execution);
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).resume(request).await,
        )
        .await
    }

    /// Ends an execution by hand.
    ///
    /// # Errors
    /// As [`Client::override_`].
    pub async fn stop(
        &self,
        execution: &ExecutionRef,
        outcome: Option<&str>,
        command: &Command,
    ) -> Result<v1::CommandResponse, Error> {
        let command = Some(command.wire(&self.workspace, execution));
        let request = v1::StopRequest {
            command,
            outcome: outcome.map(str::to_owned),
        };
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).stop(request).await,
        )
        .await
    }

    /// Has a failed action tried again, also after its execution has ended. `action`: its number, from
    /// [`v1::Execution::failed`]. `new_key`: under a new idempotency key, for a receiver that remembers the old one as
    /// done.
    ///
    /// # Errors
    /// As [`Client::override_`]; [`crate::Code::Conflict`] also when the action has not failed.
    pub async fn retry_action(
        &self,
        execution: &ExecutionRef,
        action: u64,
        new_key: bool,
        command: &Command,
    ) -> Result<v1::CommandResponse, Error> {
        let command = Some(command.wire(&self.workspace, execution));
        let request = v1::RetryActionRequest {
            command,
            action,
            new_key,
        };
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).retry_action(request).await,
        )
        .await
    }

    /// Settles a failed action that is not wanted any more.
    ///
    /// # Errors
    /// As [`Client::retry_action`].
    pub async fn skip_action(
        &self,
        execution: &ExecutionRef,
        action: u64,
        command: &Command,
    ) -> Result<v1::CommandResponse, Error> {
        let command = Some(command.wire(&self.workspace, execution));
        let request = v1::SkipActionRequest { command, action };
        self.call_at(
            self.place_of(execution),
            request,
            async |channel, request| ExecutionsClient::new(channel).skip_action(request).await,
        )
        .await
    }
}
