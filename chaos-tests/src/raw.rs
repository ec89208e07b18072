//! Calls with bytes that no honest client would send: gRPC frames around whatever the test has made by hand.

use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// Takes bytes as they are and gives them as they come.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs;

impl Codec for AsIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AsIs;
    type Decoder = AsIs;

    fn encoder(&mut self) -> AsIs {
        AsIs
    }

    fn decoder(&mut self) -> AsIs {
        AsIs
    }
}

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

/// One call: `method` as `/sojourn.v1.Signals/Send`.
///
/// # Errors
/// What the server answered, or why it could not be reached.
pub async fn unary(
    channel: Channel,
    method: &'static str,
    message: Bytes,
) -> Result<Response<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
    let ready = grpc.ready().await;
    ready.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static(method);
    grpc.unary(Request::new(message), path, AsIs).await
}

/// A call that streams in both directions.
///
/// # Errors
/// As [`unary`].
pub async fn stream(
    channel: Channel,
    method: &'static str,
    messages: impl tonic::codegen::tokio_stream::Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static(method);
    let answer = grpc.streaming(Request::new(messages), path, AsIs).await?;
    Ok(answer.into_inner())
}
