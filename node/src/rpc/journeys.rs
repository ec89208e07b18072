//! The Journeys service: validate, publish, list, switch on and off, report, endpoints.
//!
//! The catalog is read as this node has it, and changed where it is owned; breakers and the like are this node's own.

use super::endpoints::{checked, users};
use super::errors::{self, with_reason};
use super::figures;
use super::live::lagging;
use crate::catalog::view::{state_from, state_to};
use crate::catalog::{ChangeError, JourneyView};
use crate::convert::api::problem_to;
use crate::convert::event::status_to;
use crate::core::{Core, workspace};
use crate::limits;
use crate::route::call::Call;
use crate::route::seek;
use crate::shard::counters::JourneyCounters;
use prost::Message;
use sha2::Digest;
use sojourn_journey::compile::{Checked, Journey, Known};
use sojourn_journey::problem::Problem;
use sojourn_proto::stored::catalog_change::Change;
use sojourn_proto::{stored, v1};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// The service.
pub struct JourneysService {
    /// What it talks to.
    pub core: Arc<Core>,
}

fn changed(error: ChangeError) -> Status {
    match error {
        ChangeError::Refused(why) => with_reason(Code::FailedPrecondition, "refused", why),
        ChangeError::Busy => with_reason(Code::Unavailable, "busy", ChangeError::Busy.to_string()),
        ChangeError::NotOwner(why) => with_reason(Code::Unavailable, "not_owner", why),
        ChangeError::Unknown(why) => with_reason(Code::DeadlineExceeded, "unknown_outcome", why),
    }
}

fn actor(actor: &str) -> Result<&str, Status> {
    if actor.len() > 256 {
        return Err(errors::invalid_field("actor", "expected at most 256 bytes"));
    }
    Ok(actor)
}

impl JourneysService {
    fn known(&self, space: &str) -> Known {
        let view = self.core.catalog.newest();
        let endpoints = view
            .workspace(space)
            .map(|w| w.endpoints.keys().cloned().collect());
        Known {
            endpoints: Some(endpoints.unwrap_or_default()),
        }
    }

    async fn compile(
        &self,
        space: &str,
        text: String,
    ) -> Result<Result<Checked, Vec<Problem>>, Status> {
        let known = self.known(space);
        tokio::task::spawn_blocking(move || Journey::compile(&text, &known))
            .await
            .map_err(|e| with_reason(Code::Internal, "internal", e.to_string()))
    }

    fn journey(&self, space: &str, name: &str) -> Result<Arc<JourneyView>, Status> {
        let view = self.core.catalog.newest();
        let found = view.workspace(space).and_then(|w| w.journeys.get(name));
        found.cloned().ok_or_else(|| {
            with_reason(
                Code::NotFound,
                "not_found",
                format!("no journey {name} was published in workspace {space}"),
            )
        })
    }

    async fn info(&self, call: &Call, space: &str, journey: &JourneyView) -> v1::JourneyInfo {
        let counters = figures::loose(&self.core, call, space, &journey.name).await;
        info(journey, &counters.total(space, &journey.name, 0))
    }

    async fn publish_here(
        &self,
        call: &Call,
        request: &v1::PublishRequest,
    ) -> Result<v1::PublishResponse, Status> {
        let space = workspace(&request.workspace)?;
        let checked = match self.compile(space, request.text.clone()).await? {
            Ok(checked) => checked,
            Err(problems) => return Err(problems_status(&problems)),
        };
        let name = checked.compiled.name.clone();
        let sha = sha2::Sha256::digest(request.text.as_bytes()).to_vec();
        let key = (space.to_owned(), name.clone());
        let (mut version, mut unchanged) = (0, false);
        let position = self
            .core
            .catalog
            .change(actor(&request.actor)?, call.left(), |now| {
                let journey = now.journeys.get(&key);
                let same = journey.and_then(|j| j.versions.iter().find(|v| v.sha256 == sha));
                if let (Some(journey), Some(same)) = (journey, same) {
                    version = same.version;
                    unchanged = journey.live == same.version;
                    if unchanged {
                        return Ok(None);
                    }
                } else {
                    let journeys = now.journeys.keys().filter(|(w, _)| *w == key.0).count();
                    if journey.is_none() && journeys >= limits::JOURNEYS {
                        return Err(format!(
                            "workspace {} has {journeys} journeys, at most {} are allowed",
                            key.0,
                            limits::JOURNEYS
                        ));
                    }
                    let last = journey.and_then(|j| j.versions.iter().map(|v| v.version).max());
                    version = last.unwrap_or(0) + 1;
                }
                Ok(Some(Change::Publish(stored::PublishVersion {
                    workspace: key.0.clone(),
                    journey: key.1.clone(),
                    text: request.text.clone(),
                    sha256: sha.clone().into(),
                    version,
                })))
            })
            .await
            .map_err(changed)?;
        let lagging = lagging(&self.core, position, call.until).await;
        Ok(v1::PublishResponse {
            journey: name,
            version,
            unchanged,
            live: lagging.is_empty(),
            lagging,
            problems: checked.warnings.iter().map(problem_to).collect(),
        })
    }

    async fn set_state(
        &self,
        call: &Call,
        space: &str,
        name: &str,
        state: v1::JourneyState,
        actor_name: &str,
    ) -> Result<v1::JourneyInfo, Status> {
        let key = (space.to_owned(), name.to_owned());
        let position = self
            .core
            .catalog
            .change(actor(actor_name)?, call.left(), |now| {
                let Some(journey) = now.journeys.get(&key) else {
                    return Err(format!("no journey {} was published", key.1));
                };
                if state_to(state_from(journey.state)) == state {
                    return Ok(None);
                }
                Ok(Some(Change::State(stored::SetJourneyState {
                    workspace: key.0.clone(),
                    journey: key.1.clone(),
                    state: state as i32 as u32,
                })))
            })
            .await
            .map_err(changed)?;
        lagging(&self.core, position, call.until).await;
        let journey = self.journey(space, name)?;
        Ok(self.info(call, space, &journey).await)
    }

    async fn put_endpoint_here(
        &self,
        call: &Call,
        r: &v1::PutEndpointRequest,
    ) -> Result<v1::PutEndpointResponse, Status> {
        let space = workspace(&r.workspace)?;
        let endpoint = checked(r.endpoint.clone())?;
        let change = stored::PutEndpoint {
            workspace: space.to_owned(),
            endpoint: endpoint.encode_to_vec().into(),
            name: endpoint.name.clone(),
        };
        self.core
            .catalog
            .change(actor(&r.actor)?, call.left(), |_| {
                Ok(Some(Change::PutEndpoint(change)))
            })
            .await
            .map_err(changed)?;
        Ok(v1::PutEndpointResponse {
            endpoint: Some(endpoint),
        })
    }

    async fn delete_endpoint_here(
        &self,
        call: &Call,
        r: &v1::DeleteEndpointRequest,
    ) -> Result<v1::DeleteEndpointResponse, Status> {
        let space = workspace(&r.workspace)?;
        let key = (space.to_owned(), r.name.clone());
        let view = self.core.catalog.newest();
        let users = view.workspace(space).map(|w| users(w, &key.1));
        if let Some(users) = users.filter(|users| !users.is_empty()) {
            return Err(errors::with_reason(
                tonic::Code::FailedPrecondition,
                "endpoint_in_use",
                format!(
                    "endpoint {} is used by the live version of {}: publish one without it first, or give the endpoint \
                     another address with `sojourn endpoint put`",
                    key.1,
                    users.join(", ")
                ),
            ));
        }
        self.core
            .catalog
            .change(actor(&r.actor)?, call.left(), |now| {
                if !now.endpoints.contains_key(&key) {
                    return Err(format!(
                        "no endpoint {} exists in workspace {}",
                        key.1, key.0
                    ));
                }
                let (workspace, name) = key.clone();
                Ok(Some(Change::DeleteEndpoint(stored::DeleteEndpoint {
                    workspace,
                    name,
                })))
            })
            .await
            .map_err(changed)?;
        Ok(v1::DeleteEndpointResponse {})
    }
}

fn info(journey: &JourneyView, counters: &JourneyCounters) -> v1::JourneyInfo {
    let live = journey.live().and_then(|v| v.compiled.as_ref().ok());
    v1::JourneyInfo {
        name: journey.name.clone(),
        title: live.map_or_else(|| journey.name.clone(), |c| c.title.clone()),
        state: state_to(journey.state) as i32,
        live_version: journey.live,
        versions: journey
            .versions
            .values()
            .map(|v| v1::VersionInfo {
                version: v.version,
                sha256: hex::encode(&v.sha256),
                published_at: v.at,
                actor: v.actor.clone(),
            })
            .collect(),
        active: active(counters),
    }
}

fn active(counters: &JourneyCounters) -> u64 {
    let ended: u64 = counters.outcomes.values().sum();
    counters.started.saturating_sub(ended)
}

#[tonic::async_trait]
impl v1::journeys_server::Journeys for JourneysService {
    async fn validate(
        &self,
        request: Request<v1::ValidateRequest>,
    ) -> Result<Response<v1::ValidateResponse>, Status> {
        let request = request.into_inner();
        let space = workspace(&request.workspace)?;
        let response = match self.compile(space, request.text).await? {
            Ok(checked) => v1::ValidateResponse {
                problems: checked.warnings.iter().map(problem_to).collect(),
                journey: checked.compiled.name,
                valid: true,
            },
            Err(problems) => v1::ValidateResponse {
                problems: problems.iter().map(problem_to).collect(),
                journey: String::new(),
                valid: false,
            },
        };
        Ok(Response::new(response))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let here = || self.publish_here(&call, &request);
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { seek::journeys(channel).publish(onward).await }
        };
        self.core.at_catalog_owner(&call, here, there).await
    }

    async fn list(
        &self,
        request: Request<v1::ListJourneysRequest>,
    ) -> Result<Response<v1::ListJourneysResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let space = workspace(&request.workspace)?;
        let view = self.core.catalog.newest();
        let counters = figures::loose(&self.core, &call, space, "").await;
        let journeys = view.workspace(space).map(|w| {
            let journeys = w.journeys.values();
            let shown = journeys.map(|j| info(j, &counters.total(space, &j.name, 0)));
            shown.collect::<Vec<_>>()
        });
        Ok(Response::new(v1::ListJourneysResponse {
            journeys: journeys.unwrap_or_default(),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetJourneyRequest>,
    ) -> Result<Response<v1::GetJourneyResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let space = workspace(&request.workspace)?;
        let journey = self.journey(space, &request.journey)?;
        let version = if request.version == 0 {
            journey.live
        } else {
            request.version
        };
        let Some(found) = journey.versions.get(&version) else {
            return Err(with_reason(
                Code::NotFound,
                "not_found",
                format!("journey {} has no version {version}", request.journey),
            ));
        };
        Ok(Response::new(v1::GetJourneyResponse {
            journey: Some(self.info(&call, space, &journey).await),
            version,
            text: found.text.clone(),
        }))
    }

    async fn activate(
        &self,
        request: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let r = request.into_inner();
        let space = workspace(&r.workspace)?;
        let (call, r) = (&call, &r);
        let here = || async move {
            let state = v1::JourneyState::Active;
            let info = self.set_state(call, space, &r.journey, state, &r.actor);
            Ok(v1::ActivateResponse {
                journey: Some(info.await?),
            })
        };
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, r.clone());
            async move { seek::journeys(channel).activate(onward).await }
        };
        self.core.at_catalog_owner(call, here, there).await
    }

    async fn deactivate(
        &self,
        request: Request<v1::DeactivateRequest>,
    ) -> Result<Response<v1::DeactivateResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let r = request.into_inner();
        let space = workspace(&r.workspace)?;
        let mode = v1::JourneyState::try_from(r.mode).ok();
        let Some(mode) =
            mode.filter(|m| !matches!(m, v1::JourneyState::Unspecified | v1::JourneyState::Active))
        else {
            return Err(errors::invalid_field(
                "mode",
                "expected HELD, DROPPED or DRAINING",
            ));
        };
        let (call, r) = (&call, &r);
        let here = || async move {
            let info = self.set_state(call, space, &r.journey, mode, &r.actor);
            Ok(v1::DeactivateResponse {
                journey: Some(info.await?),
            })
        };
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, r.clone());
            async move { seek::journeys(channel).deactivate(onward).await }
        };
        self.core.at_catalog_owner(call, here, there).await
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let r = request.into_inner();
        let space = workspace(&r.workspace)?;
        let journey = self.journey(space, &r.journey)?;
        let (counters, positions) = figures::exact(&self.core, &call, space, &r.journey).await?;
        let counters = counters.total(space, &r.journey, r.version);
        Ok(Response::new(report(
            &journey, r.version, &counters, positions,
        )))
    }

    async fn put_endpoint(
        &self,
        request: Request<v1::PutEndpointRequest>,
    ) -> Result<Response<v1::PutEndpointResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let r = request.into_inner();
        let here = || self.put_endpoint_here(&call, &r);
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, r.clone());
            async move { seek::journeys(channel).put_endpoint(onward).await }
        };
        self.core.at_catalog_owner(&call, here, there).await
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let request = request.into_inner();
        let space = workspace(&request.workspace)?;
        let view = self.core.catalog.newest();
        let endpoints = view
            .workspace(space)
            .map(|w| w.endpoints.values().cloned().collect());
        Ok(Response::new(v1::ListEndpointsResponse {
            endpoints: endpoints.unwrap_or_default(),
            states: self.core.endpoints.states(space),
        }))
    }

    async fn delete_endpoint(
        &self,
        request: Request<v1::DeleteEndpointRequest>,
    ) -> Result<Response<v1::DeleteEndpointResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let r = request.into_inner();
        let here = || self.delete_endpoint_here(&call, &r);
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, r.clone());
            async move { seek::journeys(channel).delete_endpoint(onward).await }
        };
        self.core.at_catalog_owner(&call, here, there).await
    }
}

fn problems_status(problems: &[Problem]) -> Status {
    let violations: Vec<_> = problems
        .iter()
        .map(|p| crate::convert::signal::Violation {
            field: format!("text:{}:{}: {}", p.line, p.column, p.path),
            description: match &p.help {
                Some(help) => format!("{}; {help}", p.message),
                None => p.message.clone(),
            },
        })
        .collect();
    errors::invalid(&violations)
}

/// The report of a journey: its stages in the author's order, then those of other versions.
fn report(
    journey: &JourneyView,
    version: u32,
    counters: &JourneyCounters,
    positions: Vec<v1::Position>,
) -> v1::ReportResponse {
    let shown = journey
        .versions
        .get(&if version == 0 { journey.live } else { version })
        .and_then(|v| v.compiled.as_ref().ok());
    let mut names: Vec<(String, String, bool)> = shown
        .map(|c| {
            c.stages
                .iter()
                .map(|s| (s.name.clone(), s.title.clone(), s.end.is_some()))
                .collect()
        })
        .unwrap_or_default();
    for name in counters.stages.keys() {
        if !names.iter().any(|(n, _, _)| n == name) {
            names.push((name.clone(), name.clone(), false));
        }
    }
    let stages = names
        .into_iter()
        .map(|(stage, title, end)| {
            let c = counters.stages.get(&stage).cloned().unwrap_or_default();
            let mean = if c.completed == 0 {
                0.0
            } else {
                c.sum_micros as f64 / c.completed as f64 / 1e6
            };
            v1::StageReport {
                stage,
                title,
                here: c.here,
                entered: c.entered,
                completed: c.completed,
                mean_seconds: mean,
                median_seconds: c.sketch.quantile(0.5),
                p90_seconds: c.sketch.quantile(0.9),
                end,
            }
        })
        .collect();
    v1::ReportResponse {
        journey: journey.name.clone(),
        started: counters.started,
        active: active(counters),
        stages,
        outcomes: counters
            .outcomes
            .iter()
            .map(|((status, outcome, stage), count)| v1::OutcomeReport {
                status: status_to(*status) as i32,
                outcome: outcome.clone(),
                stage: stage.clone(),
                count: *count,
            })
            .collect(),
        flows: counters
            .flows
            .iter()
            .map(|((from, to), count)| v1::FlowReport {
                from: from.clone(),
                to: to.clone(),
                count: *count,
            })
            .collect(),
        positions,
        overrides: counters.overrides,
        incidents: counters.incidents,
    }
}
