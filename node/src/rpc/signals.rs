//! The Signals service: one, several, or a stream.

use super::errors::{self, invalid, item_error, item_of, status_of};
use crate::actors::{Answer, Ask, CustomerKey, Gauge, Refusal, Reply};
use crate::convert::signal::{Checked, Violation, signal_from};
use crate::core::{Core, workspace};
use crate::limits;
use crate::route::call::Call;
use prost::Message;
use sojourn_proto::v1;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub struct SignalsService {
    /// What it talks to.
    pub core: Arc<Core>,
}

/// A checked signal and whose it is.
fn prepare(space: &str, signal: Option<v1::Signal>) -> Result<(CustomerKey, Ask), Status> {
    let space = workspace(space)?;
    let Some(signal) = signal else {
        return Err(errors::invalid_field("signal", "it is missing"));
    };
    let Checked {
        signal,
        sent,
        content,
    } = signal_from(signal).map_err(|v| invalid(&v))?;
    let Some(key) = signal.identifiers.first().cloned() else {
        let description = "expected 1 to 16, the customer key first".into();
        return Err(invalid(&[Violation {
            field: "signal.identifiers".into(),
            description,
        }]));
    };
    let ask = Ask::Signal {
        signal: Box::new(signal),
        sent: Box::new(sent),
        content,
    };
    Ok((CustomerKey::new(space, key), ask))
}

type AckStream = Pin<Box<dyn Stream<Item = Result<v1::StreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::signals_server::Signals for SignalsService {
    type StreamStream = AckStream;

    async fn send(
        &self,
        request: Request<v1::SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let v1::SendRequest { workspace, signal } = request.into_inner();
        let (customer, ask) =
            prepare(&workspace, signal).inspect_err(|_| self.core.metrics.invalid())?;
        let shard = self.core.shards.of(customer.hash);
        let answer = self.core.send(customer, ask, &call).await;
        count(&self.core, &call, &answer);
        match answer {
            Answer::Receipt(receipt) => Ok(Response::new(v1::SendResponse {
                receipt: Some(receipt),
            })),
            // who the owner is stands in the details of a status, and in the text only of one of several
            Answer::NotOwner => Err(self.core.not_owner(shard)),
            Answer::Told(error) if error.cause == errors::NOT_OWNER => {
                Err(self.core.not_owner(shard))
            }
            other => Err(status_of(other)),
        }
    }

    async fn list_unmatched(
        &self,
        request: Request<v1::ListUnmatchedRequest>,
    ) -> Result<Response<v1::ListUnmatchedResponse>, Status> {
        let call = Call::of(request.metadata())?;
        super::unmatched::list(&self.core, request.into_inner(), &call)
            .await
            .map(Response::new)
    }

    async fn send_batch(
        &self,
        request: Request<v1::SendBatchRequest>,
    ) -> Result<Response<v1::SendBatchResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let (count, bytes) = (request.signals.len(), request.encoded_len());
        if count > limits::BATCH_SIGNALS || bytes > limits::BATCH_BYTES {
            return Err(errors::invalid_field(
                "signals",
                format!(
                    "{count} signals of {bytes} bytes: expected at most {} and {}; send several batches, or use the stream",
                    limits::BATCH_SIGNALS,
                    limits::BATCH_BYTES
                ),
            ));
        }
        let (tx, mut rx) = mpsc::unbounded_channel();
        let mut results: Vec<Option<v1::ItemResult>> = vec![None; count];
        for (number, signal) in request.signals.into_iter().enumerate() {
            match prepare(&request.workspace, Some(signal)) {
                Ok((customer, ask)) => {
                    // a batch may hold more of one customer than may be under way: then its items wait their turn
                    let reply = Reply::stream(number as u64, tx.clone(), None);
                    submit_in_turn(&self.core, customer, ask, reply, &call).await;
                }
                Err(status) => {
                    self.core.metrics.invalid();
                    results[number] = Some(refused(&status));
                }
            }
        }
        drop(tx);
        let by = call.answer_by();
        while let Ok(Some((number, answer))) = tokio::time::timeout_at(by, rx.recv()).await {
            self::count(&self.core, &call, &answer);
            if let Some(slot) = results.get_mut(number as usize) {
                *slot = Some(item_of(answer));
            }
        }
        let late = || {
            item_of(Answer::Unknown(format!(
                "no answer within {:?}",
                call.within
            )))
        };
        let results = results
            .into_iter()
            .map(|r| r.unwrap_or_else(late))
            .collect();
        Ok(Response::new(v1::SendBatchResponse { results }))
    }

    async fn stream(
        &self,
        request: Request<Streaming<v1::StreamRequest>>,
    ) -> Result<Response<AckStream>, Status> {
        // each signal of the stream has its own time
        let opened = Call::of(request.metadata())?;
        let mut incoming = request.into_inner();
        let (answers_tx, mut answers) = mpsc::unbounded_channel::<(u64, Answer)>();
        let (acks_tx, acks) = mpsc::channel::<Result<v1::StreamResponse, Status>>(16);
        let core = self.core.clone();
        // another node has one stream for all shards: one shard in trouble must not fill it
        let (places, most_bytes) = if opened.forwarded {
            (limits::IN_FLIGHT_HOP, limits::HOP_BYTES)
        } else {
            (limits::STREAM_WINDOW, limits::STREAM_BYTES)
        };
        let window = Arc::new(tokio::sync::Semaphore::new(places));
        let bytes = Arc::new(tokio::sync::Semaphore::new(most_bytes));
        let (reader_window, reader_acks) = (window.clone(), acks_tx.clone());
        tokio::spawn(async move {
            let closing = &core.closing;
            while let Some(Some(next)) = closing.run_until_cancelled(incoming.next()).await {
                let request = match next {
                    Ok(request) => request,
                    Err(status) => {
                        // the stream itself is broken; what was taken is still answered
                        let _ = reader_acks.send(Err(status)).await;
                        return;
                    }
                };
                // the window: a client that has more unanswered waits here
                let place = closing.run_until_cancelled(reader_window.acquire()).await;
                let Some(Ok(place)) = place else {
                    return;
                };
                place.forget();
                // one that is larger than the window waits until it is alone
                let room = request.signal.len().min(most_bytes) as u32;
                let room = bytes.clone().acquire_many_owned(room);
                let Some(Ok(room)) = closing.run_until_cancelled(room).await else {
                    return;
                };
                let number = request.number;
                let decoded = v1::Signal::decode(request.signal)
                    .map_err(|e| sojourn_proto::codec::refuse(&e));
                match decoded.and_then(|signal| prepare(&request.workspace, Some(signal))) {
                    Ok((customer, ask)) => {
                        let call = opened.renewed(Instant::now());
                        let reply = Reply::stream(number, answers_tx.clone(), Some(room));
                        submit_in_turn(&core, customer, ask, reply, &call).await;
                    }
                    Err(status) => {
                        core.metrics.invalid();
                        let result = Some(refused(&status));
                        let ack = v1::Ack { number, result };
                        let response = v1::StreamResponse { acks: vec![ack] };
                        reader_window.add_permits(1);
                        if reader_acks.send(Ok(response)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        let core = self.core.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while answers.recv_many(&mut batch, 256).await > 0 {
                window.add_permits(batch.len());
                let acks = batch
                    .drain(..)
                    .map(|(number, answer)| {
                        count(&core, &opened, &answer);
                        let result = Some(item_of(answer));
                        v1::Ack { number, result }
                    })
                    .collect();
                if acks_tx.send(Ok(v1::StreamResponse { acks })).await.is_err() {
                    break;
                }
            }
            // the client has gone: a reader that waits for room ends too
            window.close();
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(acks);
        Ok(Response::new(Box::pin(stream)))
    }
}

fn refused(status: &Status) -> v1::ItemResult {
    v1::ItemResult {
        result: Some(v1::item_result::Result::Error(item_error(status))),
    }
}

/// Counts an answer, at the door where its signal came in.
fn count(core: &Core, call: &Call, answer: &Answer) {
    if !call.forwarded {
        core.metrics.answered(answer);
    }
}

/// Hands over one of several; waits while its customer or shard has too much under way, so that order is kept. One that
/// another node handed over does not wait: behind it are those of other customers.
async fn submit_in_turn(core: &Core, customer: CustomerKey, ask: Ask, reply: Reply, call: &Call) {
    let mut submitted = core.submit(customer, Arc::new(ask), reply, call);
    // the first try is mostly the last; only then is it worth to register for what ends
    while let Err(refusal) = submitted {
        let of_turns = matches!(
            refusal.answer,
            Answer::Overloaded {
                cause: "overloaded_customer"
                    | "overloaded_shard"
                    | "overloaded_node"
                    | "overloaded_hop",
                ..
            }
        );
        if call.forwarded || !of_turns {
            return refusal.reply.give(refusal.answer);
        }
        let gauges: Vec<Arc<Gauge>> = match core.local(refusal.customer.hash) {
            Some(shard) => shard.live.gauges(&refusal.customer),
            None => Vec::new(),
        };
        // registered before the try, so that nothing that ends in between is missed
        let mut freed: Vec<_> = gauges.iter().map(|g| Box::pin(g.freed())).collect();
        freed.push(Box::pin(core.lines.freed()));
        for waiting in &mut freed {
            waiting.as_mut().enable();
        }
        let Refusal {
            customer,
            ask,
            reply,
            ..
        } = refusal;
        submitted = core.submit(customer, ask, reply, call);
        let Err(still) = submitted else { return };
        let any = futures::future::select_all(freed);
        if tokio::time::timeout_at(call.until, any).await.is_err() {
            return still.reply.give(still.answer);
        }
        let Refusal {
            customer,
            ask,
            reply,
            ..
        } = still;
        submitted = core.submit(customer, ask, reply, call);
    }
}
