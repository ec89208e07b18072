//! One active execution, on the owner: decides its part of an input on its own pending state.
//!
//! It knows its customer only as a value and talks to nobody. When deciding panics it stops; its customer records the
//! incident and wakes a new one from the state before.

use super::Ask;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use sojourn_journey::compiled::Compiled;
use sojourn_journey::customer::Customer;
use sojourn_journey::decide::{Input, Moment, Refusal, decide};
use sojourn_journey::enter::enter;
use sojourn_journey::event::Event;
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The actor.
pub struct ExecutionActor;

/// What an execution is asked.
pub struct Decide {
    /// The input.
    pub ask: Arc<Ask>,
    /// The customer as it is now.
    pub customer: Arc<Customer>,
    /// The version that the execution is on.
    pub compiled: Arc<Compiled>,
    /// When, and whether anything may move.
    pub moment: Moment,
    /// For an entry: what to start.
    pub start: Option<Start>,
    /// The signal is for others: only the customer record became another.
    pub touched: bool,
    /// Where the part goes.
    pub reply: oneshot::Sender<Result<Decided, Refusal>>,
}

/// What an entry starts.
pub struct Start {
    /// The live version.
    pub version: u32,
    /// The instance key.
    pub instance: Option<String>,
    /// The run.
    pub run: u32,
}

/// A decided part.
pub struct Decided {
    /// Its events.
    pub events: Vec<Event>,
    /// The state as it becomes.
    pub after: Option<Arc<Execution>>,
}

impl Actor for ExecutionActor {
    type Msg = Decide;
    type State = Option<Arc<Execution>>;
    type Arguments = Option<Arc<Execution>>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Decide>,
        state: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Decide>,
        message: Decide,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Decide {
            ask,
            customer,
            compiled,
            moment,
            start,
            touched,
            reply,
        } = message;
        let decided = match (touched, state.as_deref()) {
            (true, None) => Ok(Vec::new()),
            (true, Some(state)) => decide(&compiled, state, &customer, Input::Customer, moment),
            (false, state) => decide_part(state, &ask, &customer, &compiled, moment, start),
        };
        let answer = decided.map(|events| {
            let mut after = state.take();
            for event in &events {
                match &mut after {
                    Some(execution) => evolve(Arc::make_mut(execution), event),
                    None => after = Execution::begin(event).map(Arc::new),
                }
            }
            state.clone_from(&after);
            Decided { events, after }
        });
        // the customer may have stopped meanwhile: then nobody wants it
        let _ = reply.send(answer);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Decide>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // it has no children; the default would stop it
        Ok(())
    }
}

fn decide_part(
    state: Option<&Execution>,
    ask: &Ask,
    customer: &Customer,
    compiled: &Compiled,
    moment: Moment,
    start: Option<Start>,
) -> Result<Vec<Event>, Refusal> {
    if let (Some(start), Ask::Signal { signal, .. }) = (&start, ask) {
        let Start {
            version,
            instance,
            run,
        } = start;
        return Ok(enter(
            compiled,
            *version,
            customer,
            signal,
            instance.as_deref(),
            *run,
            moment,
        ));
    }
    let Some(state) = state else {
        return Ok(Vec::new());
    };
    let input = match ask {
        Ask::Signal { signal, .. } => Input::Signal(signal),
        Ask::Command { command, .. } => Input::Command(command),
        Ask::Timer {
            visit,
            place,
            round,
            ..
        } => Input::Timer {
            visit: *visit,
            place,
            round: *round,
        },
        Ask::ActionResult {
            action,
            attempt,
            result,
            ..
        } => Input::ActionResult {
            action: *action,
            attempt: *attempt,
            result: result.clone(),
        },
        Ask::Release { .. } => Input::Release,
        // asked of the customer as a whole: no execution is there then
        Ask::Leave => return Ok(Vec::new()),
    };
    decide(compiled, state, customer, input, moment)
}
