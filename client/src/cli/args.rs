//! How words of a command line are read. Each reader says what it found and what it expected.

use jiff::Timestamp;
use std::time::Duration;

/// Reads `500ms`, `5s`, `2m`, `1h` or `5` (seconds).
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("{text:?} is no length of time, expected one such as 500ms, 5s, 2m or 1h");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let count: u64 = text[..digits].parse().map_err(|_| expected())?;
    let unit = match &text[digits..] {
        "ms" => return Ok(Duration::from_millis(count)),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(expected()),
    };
    count
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(expected)
}

/// Reads an RFC 3339 time with an offset.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no time, expected one such as 2026-11-21T10:00:00Z"))
}

/// Reads a JSON object.
pub(super) fn object(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(other) => Err(format!(
            "it is {}, expected a json object such as {{\"amount\": 5}}",
            crate::signal::kind_of(&other)
        )),
        Err(e) => Err(format!(
            "it is not json: {e}; expected an object such as {{\"amount\": 5}}"
        )),
    }
}

/// Reads a list of numbers, `1,64,256`.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{text:?} is not a whole number above 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("500ms", Some(Duration::from_millis(500))),
            ("5s", Some(Duration::from_secs(5))),
            ("5", Some(Duration::from_secs(5))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3_600))),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }
}
