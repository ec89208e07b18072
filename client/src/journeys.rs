//! Definitions, endpoints and figures: the `Journeys` service. Answers are the wire's own messages ([`crate::wire`]).

use crate::client::Client;
use crate::error::{Code, Error};
use sojourn_proto::v1::{self, journeys_client::JourneysClient};

/// What becomes of those inside when a journey is deactivated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deactivation {
    /// Nothing moves, signals wait, timers fire when it is activated again.
    Hold,
    /// They are stopped.
    Drop,
    /// Closed to entry; those inside finish.
    Drain,
}

impl Client {
    /// Checks the text of a journey as publishing it would.
    ///
    /// # Errors
    /// Only when the check could not be made: problems of the text are the answer.
    pub async fn validate(&self, text: &str) -> Result<v1::ValidateResponse, Error> {
        let request = v1::ValidateRequest {
            workspace: self.workspace.to_string(),
            text: text.to_owned(),
        };
        self.call(request, async |channel, request| {
            JourneysClient::new(channel).validate(request).await
        })
        .await
    }

    /// Makes a text an immutable version, live for new executions. The same text again is the same version.
    ///
    /// # Errors
    /// [`Code::Invalid`] with the problems as violations.
    pub async fn publish(&self, text: &str, actor: &str) -> Result<v1::PublishResponse, Error> {
        let request = v1::PublishRequest {
            workspace: self.workspace.to_string(),
            text: text.to_owned(),
            actor: actor.to_owned(),
        };
        self.call_patiently(request, async |channel, request| {
            JourneysClient::new(channel).publish(request).await
        })
        .await
    }

    /// All journeys of the workspace.
    ///
    /// # Errors
    /// As every call.
    pub async fn journeys(&self) -> Result<Vec<v1::JourneyInfo>, Error> {
        let request = v1::ListJourneysRequest {
            workspace: self.workspace.to_string(),
        };
        let answer = self.call(request, async |channel, request| {
            JourneysClient::new(channel).list(request).await
        });
        Ok(answer.await?.journeys)
    }

    /// One journey with the text of a version; `None`: the live one.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none.
    pub async fn journey(
        &self,
        name: &str,
        version: Option<u32>,
    ) -> Result<v1::GetJourneyResponse, Error> {
        let request = v1::GetJourneyRequest {
            workspace: self.workspace.to_string(),
            journey: name.to_owned(),
            version: version.unwrap_or_default(),
        };
        self.call(request, async |channel, request| {
            JourneysClient::new(channel).get(request).await
        })
        .await
    }

    /// Lets a deactivated journey go on.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none.
    pub async fn activate(&self, name: &str, actor: &str) -> Result<v1::JourneyInfo, Error> {
        let request = v1::ActivateRequest {
            workspace: self.workspace.to_string(),
            journey: name.to_owned(),
            actor: actor.to_owned(),
        };
        let answer = self.call_patiently(request, async |channel, request| {
            JourneysClient::new(channel).activate(request).await
        });
        answer.await?.journey.ok_or_else(|| without("a journey"))
    }

    /// Takes a journey out of use, in one of three ways.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none.
    pub async fn deactivate(
        &self,
        name: &str,
        mode: Deactivation,
        actor: &str,
    ) -> Result<v1::JourneyInfo, Error> {
        let mode = match mode {
            Deactivation::Hold => v1::JourneyState::Held,
            Deactivation::Drop => v1::JourneyState::Dropped,
            Deactivation::Drain => v1::JourneyState::Draining,
        };
        let request = v1::DeactivateRequest {
            workspace: self.workspace.to_string(),
            journey: name.to_owned(),
            mode: mode.into(),
            actor: actor.to_owned(),
        };
        let answer = self.call_patiently(request, async |channel, request| {
            JourneysClient::new(channel).deactivate(request).await
        });
        answer.await?.journey.ok_or_else(|| without("a journey"))
    }

    /// The figures of a journey; `None`: of all its versions together.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none.
    pub async fn report(
        &self,
        name: &str,
        version: Option<u32>,
    ) -> Result<v1::ReportResponse, Error> {
        let request = v1::ReportRequest {
            workspace: self.workspace.to_string(),
            journey: name.to_owned(),
            version: version.unwrap_or_default(),
        };
        self.call(request, async |channel, request| {
            JourneysClient::new(channel).report(request).await
        })
        .await
    }

    /// Makes or changes an endpoint.
    ///
    /// # Errors
    /// [`Code::Invalid`] with the fields that are not valid.
    pub async fn put_endpoint(
        &self,
        endpoint: v1::Endpoint,
        actor: &str,
    ) -> Result<v1::Endpoint, Error> {
        let request = v1::PutEndpointRequest {
            workspace: self.workspace.to_string(),
            endpoint: Some(endpoint),
            actor: actor.to_owned(),
        };
        let answer = self.call(request, async |channel, request| {
            JourneysClient::new(channel).put_endpoint(request).await
        });
        answer.await?.endpoint.ok_or_else(|| without("an endpoint"))
    }

    /// All endpoints of the workspace.
    ///
    /// # Errors
    /// As every call.
    pub async fn endpoints(&self) -> Result<Vec<v1::Endpoint>, Error> {
        Ok(self.endpoint_states().await?.endpoints)
    }

    /// All endpoints of the workspace, and how each stands on the node that answers: its circuit breaker, what is under
    /// way and what waits.
    ///
    /// # Errors
    /// As every call.
    pub async fn endpoint_states(&self) -> Result<v1::ListEndpointsResponse, Error> {
        let request = v1::ListEndpointsRequest {
            workspace: self.workspace.to_string(),
        };
        self.call(request, async |channel, request| {
            JourneysClient::new(channel).list_endpoints(request).await
        })
        .await
    }

    /// Deletes an endpoint.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none, [`Code::Conflict`] while a live journey names it.
    pub async fn delete_endpoint(&self, name: &str, actor: &str) -> Result<(), Error> {
        let request = v1::DeleteEndpointRequest {
            workspace: self.workspace.to_string(),
            name: name.to_owned(),
            actor: actor.to_owned(),
        };
        let answer = self.call(request, async |channel, request| {
            JourneysClient::new(channel).delete_endpoint(request).await
        });
        answer.await.map(drop)
    }
}

fn without(what: &str) -> Error {
    Error::new(
        Code::Internal,
        format!("the server answered without {what}; is it newer than this client?"),
    )
}
