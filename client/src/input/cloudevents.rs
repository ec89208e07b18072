//! Lines of JSON, each a CloudEvent 1.0 in structured form.

use super::mapping::Mapping;
use super::{Row, RowError};
use crate::signal::{Signal, kind_of};
use serde_json::{Map, Value};
use std::io::{BufRead, Read as _};

/// The longest line: far above what a server takes, so that its answer comes first.
const LINE_MAX: u64 = 16 << 20;

pub(super) struct EventRows {
    reader: Box<dyn BufRead + Send>,
    mapping: Mapping,
    line: u64,
    number: u64,
    buffer: Vec<u8>,
}

impl EventRows {
    pub fn new(reader: Box<dyn BufRead + Send>, mapping: &Mapping) -> Result<EventRows, String> {
        for (key, set) in [
            ("type", mapping.kind.is_some()),
            ("type-const", mapping.constant.is_some()),
            ("id", mapping.id.is_some()),
            ("time", mapping.time.is_some()),
            ("data", mapping.data.is_some()),
            ("data-json", !mapping.data_json.is_empty()),
            ("attributes", !mapping.attributes.is_empty()),
        ] {
            if set {
                return Err(format!("--{key} is for csv; a cloudevent carries its own"));
            }
        }
        Ok(EventRows {
            reader,
            mapping: mapping.clone(),
            line: 0,
            number: 0,
            buffer: Vec::new(),
        })
    }

    pub fn skip_row(&mut self) -> Result<bool, String> {
        loop {
            self.buffer.clear();
            let read = (&mut self.reader)
                .take(LINE_MAX)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|e| format!("after line {}: cannot read on: {e}", self.line))?;
            if read == 0 {
                return Ok(false);
            }
            self.line += 1;
            if read as u64 == LINE_MAX && !self.buffer.ends_with(b"\n") {
                return Err(format!("line {}: it is longer than 16 MiB", self.line));
            }
            if !self.buffer.trim_ascii().is_empty() {
                self.number += 1;
                return Ok(true);
            }
        }
    }

    pub fn next_row(&mut self) -> Result<Option<Row>, String> {
        if !self.skip_row()? {
            return Ok(None);
        }
        Ok(Some(Row {
            number: self.number,
            line: self.line,
            signal: self.signal(),
        }))
    }

    fn signal(&self) -> Result<Signal, RowError> {
        let event: Value = serde_json::from_slice(self.buffer.trim_ascii())
            .map_err(|e| RowError::new("", format!("the line is not json: {e}")))?;
        let Value::Object(event) = event else {
            return Err(RowError::new(
                "",
                format!("the line is {}, expected an object", kind_of(&event)),
            ));
        };
        let version = text(&event, "specversion")?;
        if version != "1.0" {
            return Err(RowError::new(
                "specversion",
                format!("{version:?} is not known, expected \"1.0\""),
            ));
        }
        let kind = format!("{}{}", self.mapping.prefix, text(&event, "type")?);
        let source = match &self.mapping.source {
            Some(source) => source.as_str(),
            None => named(text(&event, "source")?)?,
        };
        let mut signal = Signal::with_id(kind, text(&event, "id")?).source(source);
        if event.contains_key("time") {
            signal = signal.time(self.mapping.time("time", text(&event, "time")?)?);
        }
        if self.mapping.customer.is_empty() {
            signal = signal.customer("subject", text(&event, "subject")?);
        }
        for identifier in &self.mapping.customer {
            signal = signal.customer(
                identifier.name.as_str(),
                at_path(&event, &identifier.value)?,
            );
        }
        if event.contains_key("data_base64") {
            return Err(RowError::new(
                "data_base64",
                "binary data is not taken, expected a json object in data",
            ));
        }
        if let Some(media) = event.get("datacontenttype").and_then(Value::as_str) {
            let base = media
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase();
            if base != "application/json" && !base.ends_with("+json") {
                return Err(RowError::new(
                    "datacontenttype",
                    format!("{media:?} is not taken, expected application/json"),
                ));
            }
        }
        match event.get("data") {
            None | Some(Value::Null) => {}
            Some(data @ Value::Object(_)) => signal = signal.data_bytes(data.to_string()),
            Some(other) => {
                return Err(RowError::new(
                    "data",
                    format!("it is {}, expected an object", kind_of(other)),
                ));
            }
        }
        if let Some(trace) = event.get("traceparent").and_then(Value::as_str) {
            signal = signal.traceparent(trace);
        }
        Ok(signal)
    }
}

/// The source as it is, where it is a name of ours. CloudEvents say a URI: to make a name of it would make one source of
/// two that differ in a sign alone, and signals of one lost as duplicates of the other.
fn named(source: &str) -> Result<&str, RowError> {
    if sojourn_journey::identifier::is_name(source) {
        return Ok(source);
    }
    Err(RowError::new(
        "source",
        format!(
            "{source:?} is no name of a source (1 to 128 of A-Z a-z 0-9 _ . -); name it with --source NAME, and import the \
             events of several sources as several files"
        ),
    ))
}

fn text<'a>(event: &'a Map<String, Value>, key: &str) -> Result<&'a str, RowError> {
    match event.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) => Err(RowError::new(key, "it is empty, expected a text")),
        Some(other) => Err(RowError::new(
            key,
            format!("it is {}, expected a text", kind_of(other)),
        )),
        None => Err(RowError::new(key, "it is missing")),
    }
}

/// The text or number at a path such as `data.application.id`.
fn at_path(event: &Map<String, Value>, path: &str) -> Result<String, RowError> {
    let mut parts = path.split('.');
    let first = parts.next().and_then(|part| event.get(part));
    let found = parts.try_fold(first, |at, part| at.map(|value| value.get(part)));
    match found.flatten() {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(other) => Err(RowError::new(
            path,
            format!("it is {}, expected a text", describe(other)),
        )),
        None => Err(RowError::new(path, "it is missing")),
    }
}

fn describe(value: &Value) -> &'static str {
    if value == "" { "empty" } else { kind_of(value) }
}
