//! Errors of the doors: gRPC codes with rich details, written for whoever must act.

use crate::actors::Answer;
use crate::convert::signal::Violation;
use sojourn_cluster::NodeId;
use sojourn_proto::v1;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our error reasons.
const DOMAIN: &str = "sojourn";

/// The reason of what was not done because another node owns the shard, or nobody.
pub const NOT_OWNER: &str = "not_owner";
/// When that is worth another try.
const NOT_OWNER_RETRY: Duration = Duration::from_millis(100);

/// Bytes of all violations that one status carries. They travel twice in the trailers (as text and as details, in
/// base64), and a client takes no more than 16 KiB of those.
const VIOLATION_BYTES: usize = 4 << 10;
/// Bytes of the text of a status: the details have the rest.
const TEXT_BYTES: usize = 1 << 10;

/// Fields that are wrong: as many as there is room for, and how many more there are.
pub fn invalid(violations: &[Violation]) -> Status {
    let mut details = ErrorDetails::new();
    let mut text = String::new();
    let mut bytes = 0;
    for (i, v) in violations.iter().enumerate() {
        let field = short(&v.field, TEXT_BYTES);
        let description = short(&v.description, TEXT_BYTES);
        bytes += field.len() + description.len();
        if i > 0 && bytes > VIOLATION_BYTES {
            let more = format!("and {} more", violations.len() - i);
            details.add_bad_request_violation("", &more);
            text.push_str("; ");
            text.push_str(&more);
            break;
        }
        if i == 0 || text.len() + field.len() + description.len() < TEXT_BYTES {
            let separator = if i == 0 { "" } else { "; " };
            text.push_str(&format!("{separator}{field}: {description}"));
        }
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, text, details)
}

fn short(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|i| text.is_char_boundary(*i));
    format!("{}…", &text[..end.unwrap_or(0)])
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
        "overloaded_watches" => "overloaded: watches: as many are open on this node as may be; close some, or watch less".to_owned(),
        "overloaded_history" => "overloaded: history: it waits for its checkpoint; try again".to_owned(),
        other => format!("{}: too many inputs are under way; try again", other.replace('_', ": ")),
    };
    Status::with_error_details(Code::ResourceExhausted, text, details)
}

/// Where a shard, or the catalog, is decided, as far as this node knows.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// The shard; `None`: the catalog.
    pub shard: Option<u16>,
    /// Its owner.
    pub owner: Option<NodeId>,
    /// Where clients reach that one.
    pub address: Option<String>,
}

/// Nothing was done: this node is not the owner. Says who is, when that is known.
pub fn not_owner(moved: &Moved) -> Status {
    let what = moved
        .shard
        .map_or_else(|| "the catalog".to_owned(), |n| format!("shard {n}"));
    let mut said = HashMap::new();
    if let Some(shard) = moved.shard {
        said.insert("shard".to_owned(), shard.to_string());
    }
    let text = match (moved.owner, &moved.address) {
        (Some(owner), address) => {
            said.insert("owner".to_owned(), owner.to_string());
            let at = address
                .as_ref()
                .map_or_else(String::new, |a| format!(", {a}"));
            said.extend(address.clone().map(|a| ("address".to_owned(), a)));
            format!("{what} is owned by node {owner}{at}; nothing was done; try again there")
        }
        (None, _) => format!("{what} has no owner here now; nothing was done; try again"),
    };
    let mut details = ErrorDetails::with_error_info(NOT_OWNER, DOMAIN, said);
    details.set_retry_info(Some(NOT_OWNER_RETRY));
    Status::with_error_details(Code::Unavailable, text, details)
}

/// Whether an error says that nothing was done because the owner is elsewhere.
pub fn is_not_owner(status: &Status) -> bool {
    status.code() == Code::Unavailable && reason(status).as_deref() == Some(NOT_OWNER)
}

/// The word for programs in an error of ours.
pub fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info();
    info.filter(|i| i.domain == DOMAIN).map(|i| i.reason)
}

/// It may or may not have been done.
pub fn unknown(why: &str) -> Status {
    with_reason(
        Code::DeadlineExceeded,
        "unknown_outcome",
        format!("outcome unknown: {why}; sending the same id again is safe"),
    )
}

/// The error of one of several, as the error of one.
fn told(error: v1::ItemError) -> Status {
    let mut details = ErrorDetails::new();
    if error.violations.is_empty() {
        details.set_error_info(error.cause, DOMAIN, HashMap::new());
    }
    for violation in error.violations {
        details.add_bad_request_violation(violation.field, violation.description);
    }
    if let Ok(millis @ 1..) = u64::try_from(error.retry_after_ms) {
        details.set_retry_info(Some(Duration::from_millis(millis)));
    }
    Status::with_error_details(Code::from_i32(error.code), error.message, details)
}

/// The status of an answer that is no receipt.
pub fn status_of(answer: Answer) -> Status {
    match answer {
        Answer::Receipt(_) => Status::internal("a receipt is no error"),
        Answer::Refused(why) => with_reason(Code::FailedPrecondition, "refused", why),
        Answer::NotFound(what) => with_reason(Code::NotFound, "not_found", what),
        Answer::NotOwner => {
            let mut details = ErrorDetails::with_error_info(NOT_OWNER, DOMAIN, HashMap::new());
            details.set_retry_info(Some(NOT_OWNER_RETRY));
            let text = "the shard has no owner here now; nothing was done; try again";
            Status::with_error_details(Code::Unavailable, text, details)
        }
        Answer::Unknown(why) => unknown(&why),
        Answer::Told(error) => told(error),
        Answer::Overloaded { cause, retry_after } => overloaded(cause, retry_after),
        Answer::Internal(why) => with_reason(Code::Internal, "internal", why),
    }
}

/// The same for one of several.
pub fn item_of(answer: Answer) -> v1::ItemResult {
    use v1::item_result::Result as Item;
    let result = match answer {
        Answer::Receipt(receipt) => Item::Receipt(receipt),
        Answer::Told(error) => Item::Error(error),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_owner_said_passes_a_door_unchanged() {
        let answers = [
            Answer::Overloaded {
                cause: "overloaded_history",
                retry_after: Duration::from_millis(200),
            },
            Answer::Refused("it is held".into()),
            Answer::Unknown("no answer".into()),
            Answer::NotOwner,
            Answer::Internal("a bug".into()),
        ];
        for answer in answers {
            let said = status_of(answer.clone());
            let passed = status_of(Answer::Told(item_error(&said)));
            assert_eq!(
                (said.code(), said.message()),
                (passed.code(), passed.message())
            );
            let (said, passed) = (said.get_error_details(), passed.get_error_details());
            let shown = |d: &ErrorDetails| format!("{:?} {:?}", d.error_info(), d.retry_info());
            assert_eq!(shown(&said), shown(&passed), "{answer:?}");
        }
        let wrong = invalid_field("signal.type", "expected a slug");
        let passed = status_of(Answer::Told(item_error(&wrong)));
        let (wrong, passed) = (wrong.get_error_details(), passed.get_error_details());
        let shown = |d: &ErrorDetails| format!("{:?}", d.bad_request());
        assert_eq!(shown(&wrong), shown(&passed));
    }

    #[test]
    fn however_much_is_wrong_the_answer_fits_into_the_trailers() {
        let violations: Vec<_> = (0..500)
            .map(|n| Violation {
                field: format!("text:{n}:1: stages[{n}]"),
                description: "é".repeat(if n == 7 { 9_000 } else { 40 }),
            })
            .collect();
        let status = invalid(&violations);
        // percent-encoding makes three bytes of each that is not ASCII, base64 four of three
        let text: usize = status
            .message()
            .bytes()
            .map(|b| if b.is_ascii() { 1 } else { 3 })
            .sum();
        let trailers = text + status.details().len() * 4 / 3;
        assert!(trailers < 14 << 10, "{trailers} bytes");
        let told = status.get_error_details();
        let told = &told.bad_request().unwrap().field_violations;
        let (last, shown) = told.split_last().unwrap();
        assert_eq!(shown[0].field, "text:0:1: stages[0]");
        assert_eq!(last.description, format!("and {} more", 500 - shown.len()));
        assert!(status.message().ends_with(&last.description));
    }
}
