//! Protobuf over gRPC as tonic-prost does it, except that a message that cannot be decoded is the sender's error, with
//! the field named, where the original says `INTERNAL`.

use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_types::{ErrorDetails, StatusExt};

/// The codec of all our services.
#[derive(Debug, Clone)]
pub struct NamingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for NamingCodec<T, U> {
    fn default() -> Self {
        NamingCodec(PhantomData)
    }
}

/// Decodes, and names the field where that fails.
#[derive(Debug, Clone)]
pub struct NamingDecoder<U>(PhantomData<U>);

impl<T, U> Codec for NamingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = tonic_prost::ProstEncoder<T>;
    type Decoder = NamingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        NamingDecoder(PhantomData)
    }
}

impl<U: Message + Default> Decoder for NamingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf).map(Some).map_err(|e| refuse(&e))
    }
}

/// The status of a message that cannot be decoded: `INVALID_ARGUMENT` with the field.
pub fn refuse(error: &prost::DecodeError) -> Status {
    let (field, description) = name(&error.to_string());
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field.clone(), description.clone());
    let text = format!("{field}: {description}");
    Status::with_error_details(tonic::Code::InvalidArgument, text, details)
}

/// The path of the field and what is wrong with it, from prost's words: `…: Signal.id: SendRequest.signal: invalid …`.
pub fn name(text: &str) -> (String, String) {
    let text = text
        .strip_prefix("failed to decode Protobuf message: ")
        .unwrap_or(text);
    let mut path = Vec::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once(": ") {
        let Some((message, field)) = head.split_once('.') else {
            break;
        };
        if message.contains(' ') || field.contains(' ') {
            break;
        }
        path.push(field.to_owned());
        rest = tail;
    }
    // prost names the innermost first
    path.reverse();
    let field = if path.is_empty() {
        "message".to_owned()
    } else {
        path.join(".")
    };
    (field, format!("{rest}; expected a well-formed message"))
}

#[cfg(test)]
mod tests {
    use crate::v1;
    use prost::Message;

    #[test]
    fn the_field_of_broken_bytes_is_named() {
        // SendRequest { signal: Signal { identifiers: [Identifier { value: 0xff }] } }, by hand
        let bytes = [0x12, 0x05, 0x2a, 0x03, 0x12, 0x01, 0xff];
        let error = v1::SendRequest::decode(&bytes[..]).unwrap_err();
        let (field, description) = super::name(&error.to_string());
        assert_eq!(field, "signal.identifiers.value");
        assert!(description.contains("UTF-8"), "{description}");
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_too() {
        let error = v1::SendRequest::decode(&[0xff, 0xff][..]).unwrap_err();
        let status = super::refuse(&error);
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(
            status.message().starts_with("message: "),
            "{}",
            status.message()
        );
    }
}
