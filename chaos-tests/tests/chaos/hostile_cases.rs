//! What may be wrong with a signal, one thing at a time.

use bytes::Bytes;
use sojourn_client::wire as v1;

/// A signal that would move `good`, were it not for what is done to it.
pub fn honest() -> v1::Signal {
    v1::Signal {
        id: "hostile".into(),
        source: "story".into(),
        r#type: "h.up".into(),
        identifiers: vec![identifier("id", "good")],
        ..v1::Signal::default()
    }
}

/// An identifier as it goes over the wire.
pub fn identifier(name: &str, value: &str) -> v1::Identifier {
    v1::Identifier {
        name: name.into(),
        value: value.into(),
    }
}

/// What is wrong with a signal: made of an honest one; the field that must be named, and a part of what is said.
pub type Case = (
    &'static str,
    Box<dyn Fn(&mut v1::Signal)>,
    &'static str,
    &'static str,
);

fn data(name: &'static str, json: impl Into<Bytes>, says: &'static str) -> Case {
    let json = json.into();
    let change = move |s: &mut v1::Signal| s.data = json.clone();
    (name, Box::new(change), "signal.data", says)
}

fn value(name: &'static str, value: String, says: &'static str) -> Case {
    let change = move |s: &mut v1::Signal| s.identifiers[0].value.clone_from(&value);
    (name, Box::new(change), "signal.identifiers", says)
}

fn kind(kind: &'static str, says: &'static str) -> Case {
    let change = move |s: &mut v1::Signal| s.r#type = kind.into();
    (kind, Box::new(change), "signal.type", says)
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = vec![
        (
            "no id",
            Box::new(|s| s.id.clear()),
            "signal.id",
            "expected 1 to 128",
        ),
        (
            "long id",
            Box::new(|s| s.id = "i".repeat(129)),
            "signal.id",
            "129 bytes",
        ),
        (
            "no source",
            Box::new(|s| s.source.clear()),
            "signal.source",
            "expected 1 to 128",
        ),
        (
            "odd source",
            Box::new(|s| s.source = "a b".into()),
            "signal.source",
            "characters",
        ),
        (
            "no identifiers",
            Box::new(|s| s.identifiers.clear()),
            "signal.identifiers",
            "expected 1 to 16",
        ),
        (
            "17 identifiers",
            Box::new(|s| s.identifiers = vec![identifier("id", "good"); 17]),
            "signal.identifiers",
            "17 identifiers",
        ),
        (
            "10,000 identifiers",
            Box::new(|s| s.identifiers = vec![identifier("id", "good"); 10_000]),
            "signal.identifiers",
            "10000 identifiers",
        ),
        (
            "a name that is no slug",
            Box::new(|s| s.identifiers[0].name = "E mail".into()),
            "signal.identifiers[0]",
            "no slug",
        ),
        (
            "a wrong one in third place",
            Box::new(|s| {
                s.identifiers.push(identifier("email", "a@example.com"));
                s.identifiers.push(identifier("phone", ""));
            }),
            "signal.identifiers[2]",
            "empty value",
        ),
        (
            "before all time",
            Box::new(|s| s.time = Some(i64::MIN)),
            "signal.time",
            "years 1 to 9999",
        ),
        (
            "after all time",
            Box::new(|s| s.time = Some(i64::MAX)),
            "signal.time",
            "years 1 to 9999",
        ),
        (
            "long traceparent",
            Box::new(|s| s.traceparent = "t".repeat(129)),
            "signal.traceparent",
            "at most 128",
        ),
        (
            "long schema version",
            Box::new(|s| s.schema_version = "v".repeat(4_000)),
            "signal.schema_version",
            "at most 128",
        ),
        (
            "attributes in a list",
            Box::new(|s| s.attributes = "[1]".into()),
            "signal.attributes",
            "no object",
        ),
        (
            "attributes without end",
            Box::new(|s| s.attributes = format!("{{\"a\":\"{}\"}}", "x".repeat(9_000)).into()),
            "signal.attributes",
            "expected at most 8192",
        ),
        (
            "65 attributes",
            Box::new(|s| {
                let keys: Vec<String> = (0..65).map(|n| format!("\"k{n}\":1")).collect();
                s.attributes = format!("{{{}}}", keys.join(",")).into();
            }),
            "signal.attributes",
            "65 keys",
        ),
    ];
    cases.extend([
        kind("", "expected 1 to 128"),
        kind("h up", "characters"),
        kind("h.úp", "characters"),
        kind("h.up\u{0}", "characters"),
        kind("signal.up", "meaning of its own"),
        kind("customer.up", "meaning of its own"),
        kind("vars.up", "meaning of its own"),
        kind("execution", "meaning of its own"),
        kind("now", "meaning of its own"),
        kind("action.failed", "meaning of its own"),
    ]);
    cases.extend([
        value("empty value", String::new(), "empty value"),
        value("blank value", " \t\u{2003} ".into(), "empty value"),
        value("long value", "v".repeat(257), "257 bytes"),
        value(
            "a value of a megabyte",
            "v".repeat(1 << 20),
            "bytes: expected at most 256",
        ),
        value("nul", "go\u{0}od".into(), "U+0000"),
        value("bell", "go\u{7}od".into(), "U+0007"),
        value("next line", "go\u{85}od".into(), "U+0085"),
    ]);
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    cases.extend([
        data("5 MB", long(5_000_000), "expected at most 262144"),
        data("300 KiB", long(300 << 10), "expected at most 262144"),
        data("one byte too many", long((256 << 10) - 7), "262145 bytes"),
        data("no JSON", "{\"a\":", "cannot be read"),
        data("two values", "{} {}", "cannot be read"),
        data("a list", "[1]", "no object"),
        data("null", "null", "no object"),
        data("not a number", "{\"a\":NaN}", "cannot be read"),
        data("infinity", "{\"a\":-Infinity}", "cannot be read"),
        data("beyond a double", "{\"a\":1e999}", "out of range"),
        data(
            "beyond 64 bits",
            "{\"a\":9223372036854775808}",
            "beyond 64 bits",
        ),
        data(
            "below 64 bits",
            "{\"a\":[-9223372036854775809]}",
            "beyond 64 bits",
        ),
        data("deep lists", deep, "deeper than 64"),
        data("deep objects", objects, "deeper than 64"),
        data("half a character", &b"{\"a\":\"\xff\"}"[..], "not UTF-8"),
        data("half a pair", "{\"a\":\"\\ud800\"}", "cannot be read"),
        data(
            "a bare control character",
            "{\"a\":\"\u{1}\"}",
            "cannot be read",
        ),
        data("a byte order mark", "\u{feff}{}", "cannot be read"),
    ]);
    cases
}
