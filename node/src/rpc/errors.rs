//! Errors of the doors: gRPC codes with rich details, written for whoever must act.

use crate::actors::Answer;
use crate::convert::signal::Violation;
use sojourn_proto::v1;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our error reasons.
const DOMAIN: &str = "sojourn";

/// Fields that are wrong.
pub fn invalid(violations: &[Violation]) -> Status {
    let mut details = ErrorDetails::new();
    for v in violations {
        details.add_bad_request_violation(&v.field, &v.description);
    }
    let text = violations
        .iter()
        .map(|v| format!("{}: {}", v.field, v.description))
        .collect::<Vec<_>>()
        .join("; ");
    Status::with_error_details(Code::InvalidArgument, text, details)
}

/// One field that is wrong.
pub fn invalid_field(field: &str, description: impl Into<String>) -> Status {
    invalid(&[Violation {
        field: field.into(),
        description: description.into(),
    }])
}

/// An error with a word for programs.
pub fn with_reason(code: Code, reason: &str, text: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, text, details)
}

/// Too much is under way, or something is short.
pub fn overloaded(cause: &str, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(cause, DOMAIN, HashMap::new());
    details.set_retry_info(Some(retry_after));
    let text = match cause {
        "overloaded_disk" => "overloaded: disk: less space is free than limits.disk_free_min; free some, or enlarge the disk".to_owned(),
        "overloaded_history" => "overloaded: history: it waits for its checkpoint; try again".to_owned(),
        other => format!("{}: too many inputs are under way; try again", other.replace('_', ": ")),
    };
    Status::with_error_details(Code::ResourceExhausted, text, details)
}

/// The status of an answer that is no receipt.
pub fn status_of(answer: Answer) -> Status {
    match answer {
        Answer::Receipt(_) => Status::internal("a receipt is no error"),
        Answer::Refused(why) => with_reason(Code::FailedPrecondition, "refused", why),
        Answer::NotFound(what) => with_reason(Code::NotFound, "not_found", what),
        Answer::NotOwner => {
            let mut details = ErrorDetails::with_error_info("not_owner", DOMAIN, HashMap::new());
            details.set_retry_info(Some(Duration::from_millis(100)));
            let text = "the shard has no owner here now; nothing was done; try again";
            Status::with_error_details(Code::Unavailable, text, details)
        }
        Answer::Unknown(why) => with_reason(
            Code::DeadlineExceeded,
            "unknown_outcome",
            format!("outcome unknown: {why}; sending the same id again is safe"),
        ),
        Answer::Overloaded { cause, retry_after } => overloaded(cause, retry_after),
        Answer::Internal(why) => with_reason(Code::Internal, "internal", why),
    }
}

/// The same for one of several.
pub fn item_of(answer: Answer) -> v1::ItemResult {
    use v1::item_result::Result as Item;
    let result = match answer {
        Answer::Receipt(receipt) => Item::Receipt(receipt),
        other => Item::Error(item_error(&status_of(other))),
    };
    v1::ItemResult {
        result: Some(result),
    }
}

/// A status as the error of one of several.
pub fn item_error(status: &Status) -> v1::ItemError {
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|r| r.retry_delay);
    v1::ItemError {
        code: status.code() as i32,
        message: status.message().to_owned(),
        cause: details
            .error_info()
            .map_or_else(|| "field".into(), |i| i.reason.clone()),
        retry_after_ms: retry.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
        violations: details
            .bad_request()
            .map(|b| {
                b.field_violations
                    .iter()
                    .map(|v| v1::FieldViolation {
                        field: v.field.clone(),
                        description: v.description.clone(),
                    })
                    .collect()
            })
            .unwrap_or_default(),
    }
}
