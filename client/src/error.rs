//! What can go wrong between this program and a server, as one type. Knows nothing of how it is shown.

use crate::nodes::{self, Address};
use sojourn_proto::v1;
use std::fmt;
use std::time::Duration;
use tonic_types::StatusExt as _;

/// What kind of thing went wrong. A closed list: programs decide by it, people read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// What was sent is not valid; the same thing again gives the same answer.
    Invalid,
    /// What was asked for does not exist.
    NotFound,
    /// It exists, but not in a state in which this can be done.
    Conflict,
    /// The caller may not.
    Denied,
    /// The server does not know how.
    Unsupported,
    /// The server has too much to do; nothing was changed.
    Overloaded,
    /// No server was reached, or none that could answer; nothing was changed.
    Unreachable,
    /// The time ran out before an answer came.
    Deadline,
    /// The caller ended it.
    Cancelled,
    /// A defect: of the server, or of this library.
    Internal,
}

impl Code {
    /// The code as a word: `invalid`, `not_found` …
    pub fn word(self) -> &'static str {
        match self {
            Code::Invalid => "invalid",
            Code::NotFound => "not_found",
            Code::Conflict => "conflict",
            Code::Denied => "denied",
            Code::Unsupported => "unsupported",
            Code::Overloaded => "overloaded",
            Code::Unreachable => "unreachable",
            Code::Deadline => "deadline",
            Code::Cancelled => "cancelled",
            Code::Internal => "internal",
        }
    }

    pub(crate) fn of(code: tonic::Code) -> Code {
        use tonic::Code as C;
        match code {
            C::InvalidArgument | C::OutOfRange => Code::Invalid,
            C::NotFound => Code::NotFound,
            C::AlreadyExists | C::FailedPrecondition | C::Aborted => Code::Conflict,
            C::PermissionDenied | C::Unauthenticated => Code::Denied,
            C::Unimplemented => Code::Unsupported,
            C::ResourceExhausted => Code::Overloaded,
            C::Unavailable => Code::Unreachable,
            C::DeadlineExceeded => Code::Deadline,
            C::Cancelled => Code::Cancelled,
            C::Ok | C::Unknown | C::Internal | C::DataLoss => Code::Internal,
        }
    }
}

/// One field of what was sent, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field: `signal.identifiers[0].value`.
    pub field: String,
    /// What was found and what is expected.
    pub description: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// Why there is no answer.
///
/// ```
/// use sojourn_client::{Code, Error};
/// let error = Error::new(Code::Unreachable, "no server answers at http://127.0.0.1:7410");
/// assert!(error.is_retryable() && !error.is_unknown());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
    cause: String,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    unknown: bool,
    /// Who owns what this was about, where it said so.
    moved: Option<Address>,
}

impl Error {
    /// An error of this kind, with a text for the person who must act.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            cause: String::new(),
            violations: Vec::new(),
            retry_after: None,
            unknown: false,
            moved: None,
        }
    }

    /// What kind of thing went wrong.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What failed, on what, and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The server's word for programs (`overloaded_shard`, `unknown_outcome` …); empty when it gave none.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// The fields that are not valid; empty unless [`Error::is_invalid`].
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// It may have been done all the same: ask again with the same id, or look.
    pub fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// The same request may succeed later, as it is.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.code,
            Code::Overloaded | Code::Unreachable | Code::Deadline
        )
    }

    /// What was sent is not valid; [`Error::violations`] says which fields.
    pub fn is_invalid(&self) -> bool {
        self.code == Code::Invalid
    }

    /// What was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    pub(crate) fn unknown(mut self) -> Error {
        self.unknown = true;
        self
    }

    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Error {
        self.message = message.into();
        self
    }

    /// The answer to one of several signals, as an error.
    pub(crate) fn of_item(item: &v1::ItemError) -> Error {
        let code = tonic::Code::from_i32(item.code);
        Error {
            code: Code::of(code),
            message: item.message.clone(),
            cause: item.cause.clone(),
            violations: item
                .violations
                .iter()
                .map(|v| Violation {
                    field: v.field.clone(),
                    description: v.description.clone(),
                })
                .collect(),
            retry_after: u64::try_from(item.retry_after_ms)
                .ok()
                .filter(|ms| *ms > 0)
                .map(Duration::from_millis),
            unknown: leaves_unknown(code),
            moved: None,
        }
    }

    /// Where to ask instead, when the one who answered knew.
    pub(crate) fn moved(&self) -> Option<Address> {
        self.moved.clone()
    }

    /// The answer to a call. `sent`: whether the server may have seen the request at all.
    pub(crate) fn of_status(status: &tonic::Status) -> Error {
        let mut error = Error::new(Code::of(status.code()), status.message());
        if let Some(bad) = status.get_details_bad_request() {
            error.violations = bad
                .field_violations
                .into_iter()
                .map(|v| Violation {
                    field: v.field,
                    description: v.description,
                })
                .collect();
        }
        if let Some(info) = status.get_details_error_info() {
            error.cause = info.reason;
            let address = info.metadata.get("address").filter(|a| !a.is_empty());
            error.moved = address
                .map(|a| nodes::address(a))
                .filter(|a| nodes::endpoint(a, Duration::ZERO).is_ok());
        }
        error.retry_after = status.get_details_retry_info().and_then(|r| r.retry_delay);
        error.unknown = leaves_unknown(status.code());
        if error.code == Code::Unreachable && is_connect_error(status) {
            error.message = format!("no server answers: {}", root_cause(status));
            error.unknown = false;
        } else if std::error::Error::source(status).is_some()
            && matches!(
                status.code(),
                tonic::Code::Unavailable | tonic::Code::Unknown
            )
        {
            // a connection that broke after the request was given to it: nobody can say. tonic calls much of that unknown, as if
            // the server had answered so
            error.code = Code::Unreachable;
            error.message = format!("the connection broke: {}", root_cause(status));
            error.unknown = true;
        }
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for violation in &self.violations {
            if !self.message.contains(&violation.description) {
                write!(f, "; {violation}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Codes after which the request may have been carried out.
fn leaves_unknown(code: tonic::Code) -> bool {
    use tonic::Code as C;
    matches!(
        code,
        C::DeadlineExceeded | C::Cancelled | C::Unknown | C::Internal | C::DataLoss
    )
}

/// Whether the connection itself could not be made, so that nothing was sent.
fn is_connect_error(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost reason of an error chain, which is the one that a person can act on.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_error_keeps_its_violations_and_its_pause() {
        let error = Error::of_item(&v1::ItemError {
            code: tonic::Code::InvalidArgument as i32,
            message: "signal.id is empty".into(),
            cause: "field".into(),
            retry_after_ms: 250,
            violations: vec![v1::FieldViolation {
                field: "signal.id".into(),
                description: "empty".into(),
            }],
        });
        assert!(error.is_invalid() && !error.is_unknown() && !error.is_retryable());
        assert_eq!(error.violations()[0].to_string(), "signal.id: empty");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_connection_that_broke_is_no_answer_of_the_server() {
        let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "Reset by peer");
        let ours = tonic::Status::from_error(Box::new(broken));
        assert_eq!(ours.code(), tonic::Code::Unknown, "as tonic says it");
        let error = Error::of_status(&ours);
        assert_eq!(error.code(), Code::Unreachable);
        assert!(error.is_unknown() && error.is_retryable(), "{error:?}");
        assert_eq!(error.to_string(), "the connection broke: reset by peer");
        let theirs = Error::of_status(&tonic::Status::unknown("no idea"));
        assert!(theirs.code() != Code::Unreachable && !theirs.is_retryable());
    }

    #[test]
    fn only_some_codes_leave_the_outcome_unknown() {
        let cases = [
            (tonic::Code::DeadlineExceeded, true),
            (tonic::Code::Internal, true),
            (tonic::Code::ResourceExhausted, false),
            (tonic::Code::Unavailable, false),
            (tonic::Code::InvalidArgument, false),
        ];
        for (code, unknown) in cases {
            let item = v1::ItemError {
                code: code as i32,
                ..Default::default()
            };
            assert_eq!(Error::of_item(&item).is_unknown(), unknown, "{code:?}");
        }
    }
}
