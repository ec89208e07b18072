//! The readers of Sojourn, each as one function of bytes that may be anything: texts of people, stored forms, frames of
//! other nodes. Each must answer, and what it has read must be the same after writing it and reading it again.
//!
//! A function panics when it does not; who feeds it (`libfuzzer/`, `tests/short.rs`) is not known here.

use bytes::Bytes;
use prost::Message;
use sojourn_client::input::{Format, Mapping, MappingFile, Reader};
use sojourn_cluster::format;
use sojourn_journey::compile::{Journey, Known};
use sojourn_journey::customer::Customer;
use sojourn_journey::expr::{Base, Expression, Holds, Scope};
use sojourn_journey::signal::{Identifier, Signal};
use sojourn_journey::simulate::Simulation;
use sojourn_journey::template::Template;
use sojourn_journey::time::Time;
use sojourn_journey::value::Value;
use sojourn_node::convert::signal::signal_from;
use sojourn_node::shard::customer::{pack, unpack};
use sojourn_node::shard::decision::Decision;
use sojourn_proto::{cluster as wire, v1};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One function of bytes.
pub type Target = fn(&[u8]);

/// The targets, by the names of their files.
pub const TARGETS: [(&str, Target); 6] = [
    ("language", language),
    ("expression", expression),
    ("template", template),
    ("mapping", mapping),
    ("stored", stored),
    ("frames", frames),
];

/// Longer texts are cut: what is looked for is found in short ones, and faster.
const TEXT: usize = 16 << 10;

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data.get(..TEXT).unwrap_or(data)).ok()
}

fn customer() -> Customer {
    Customer::new(Identifier {
        name: "id".to_owned(),
        value: "1".to_owned(),
    })
}

/// A journey: compiled with every problem located, or run for a while on a few signals of the types that it names.
pub fn language(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Journey::compile(text, &Known::default()) {
        Ok(checked) => {
            let journey = Arc::new(checked.compiled);
            let listens: Vec<String> = journey.listens.iter().take(8).cloned().collect();
            let mut simulation = Simulation::new([journey], "fuzz");
            for (n, kind) in listens.iter().cycle().take(3 * listens.len()).enumerate() {
                let at = Time(n as i64 * 3_600_000_000);
                simulation.advance(at);
                simulation.signal(&Signal {
                    id: n.to_string(),
                    source: "fuzz".to_owned(),
                    kind: kind.clone(),
                    time: Some(at),
                    identifiers: customer().identifiers,
                    data: BTreeMap::from([("n".to_owned(), Value::Int(n as i64))]),
                    attributes: BTreeMap::new(),
                });
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            for problem in problems {
                assert!(!problem.message.contains("please report"), "{problem}");
                assert!(problem.line >= 1 && problem.column >= 1, "{problem}");
            }
        }
    }
}

/// An expression: refused, or with an answer, and its parts agree with the whole.
pub fn expression(data: &[u8]) {
    let Some(source) = text(data) else { return };
    match Expression::parse(source) {
        Ok(expression) => {
            let customer = customer();
            let scope = Scope {
                signal: None,
                customer: &customer,
                execution: None,
                now: Time(0),
            };
            let whole = expression.holds(&Base::default(), &scope);
            let parts = expression.parts(&Base::default(), &scope);
            if whole == Ok(true) && !expression.any_part_is_enough() {
                assert!(parts.iter().all(|p| p.state == Holds::Yes), "{parts:?}");
            }
        }
        Err(refused) => assert!(
            !refused.message.contains("please report"),
            "{}",
            refused.message
        ),
    }
}

/// A template: refused, or rendered, or with the name of what is missing.
pub fn template(data: &[u8]) {
    let Some(source) = text(data) else { return };
    if let Ok(template) = Template::parse(source) {
        let customer = customer();
        let scope = Scope {
            signal: None,
            customer: &customer,
            execution: None,
            now: Time(0),
        };
        let rendered = template.render(&Base::default(), &scope);
        if template.is_plain() {
            assert_eq!(rendered.as_deref(), Ok(source));
        }
    }
}

/// An import: the mapping, a line of dashes, and the file that it maps, read to its end.
pub fn mapping(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (mapping, rows) = text.split_once("\n---\n").unwrap_or((text, ""));
    let Ok(file) = toml::from_str::<MappingFile>(mapping) else {
        return;
    };
    let Ok(mapping) = Mapping::from_file(file) else {
        return;
    };
    for format in [Format::Csv, Format::Cloudevents] {
        let bytes = rows.as_bytes().to_vec();
        let Ok(mut reader) = Reader::from_bytes(bytes, format, &mapping) else {
            continue;
        };
        let mut number = 0;
        while let Ok(Some(row)) = reader.next_row() {
            assert!(row.number > number, "rows are numbered upwards");
            number = row.number;
        }
    }
}

/// Something stored; the first byte says what.
pub fn stored(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(rest);
    match which % 7 {
        0 => {
            if let Ok(entry) = format::decode_entry(&bytes) {
                let again = format::encode_entry(&entry);
                assert_eq!(format::decode_entry(&again), Ok(entry));
            }
        }
        1 => {
            if let Ok(manifest) = format::decode_manifest(&bytes) {
                let again = format::encode_manifest(&manifest);
                assert_eq!(format::decode_manifest(&again), Ok(manifest));
            }
        }
        2 => {
            if let Ok(cover) = format::decode_cover(&bytes) {
                let again = format::encode_cover(&cover);
                assert_eq!(format::decode_cover(&again), Ok(cover));
            }
        }
        3 => {
            if let Ok(decision) = Decision::decode(&bytes) {
                let once = decision.encode();
                let again = Decision::decode(&once).expect("what was written is read");
                assert_eq!(again.encode(), once);
            }
        }
        4 => {
            if let Ok(bucket) = unpack(&bytes) {
                let once = pack(&bucket);
                let again = unpack(&once).expect("what was written is read");
                assert_eq!(pack(&again), once);
            }
        }
        5 => {
            if let Ok(value) = Value::from_json(&bytes) {
                let json = value.to_json();
                let again = Value::from_json(json.as_bytes()).expect("what was written is read");
                assert!(again.same(&value), "{json}");
            }
        }
        _ => {
            if let Ok(signal) = v1::Signal::decode(bytes)
                && let Ok(checked) = signal_from(signal)
            {
                assert!(!checked.signal.identifiers.is_empty());
            }
        }
    }
}

/// A frame of another node.
pub fn frames(data: &[u8]) {
    if let Ok(frame) = wire::Frame::decode(data) {
        // refused with a reason, or understood
        drop(sojourn_cluster::understand(2, &frame));
    }
}
