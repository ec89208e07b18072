//! The committed JSON Schema is up to date, and says the same as the compiler of journeys that are right and wrong.

#![allow(clippy::disallowed_methods)] // a test may read files: it reads the committed schema

use serde_json::Value;
use sojourn_journey::compile::{Journey, Known};

#[test]
fn the_committed_schema_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/journey.schema.json");
    let committed =
        std::fs::read_to_string(path).expect("journey/schema/journey.schema.json is there");
    assert_eq!(
        committed,
        sojourn_journey::schema::text(),
        "the schema is old: cargo run -p sojourn-journey --example schema > journey/schema/journey.schema.json"
    );
}

/// Whether `value` is what `schema` says; only the keywords that our schema uses, any other fails.
fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(schema) = schema else {
        return schema == &Value::Bool(true);
    };
    schema
        .iter()
        .all(|(keyword, wanted)| match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" => true,
            "$ref" => {
                let name = wanted
                    .as_str()
                    .and_then(|r| r.strip_prefix("#/$defs/"))
                    .expect("references lead to $defs");
                is_valid(root, &root["$defs"][name], value)
            }
            "anyOf" => wanted
                .as_array()
                .expect("anyOf is a list")
                .iter()
                .any(|s| is_valid(root, s, value)),
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|t| is_a(t, value)),
                one => is_a(one, value),
            },
            "required" => {
                let names = wanted.as_array().expect("required is a list");
                value.as_object().is_none_or(|o| {
                    names
                        .iter()
                        .all(|n| o.contains_key(n.as_str().unwrap_or_default()))
                })
            }
            "properties" => value.as_object().is_none_or(|o| {
                o.iter()
                    .all(|(k, v)| wanted.get(k).is_none_or(|s| is_valid(root, s, v)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|o| {
                let named =
                    |k: &String| schema.get("properties").is_some_and(|p| p.get(k).is_some());
                o.iter().all(|(k, v)| named(k) || is_valid(root, wanted, v))
            }),
            "propertyNames" => value.as_object().is_none_or(|o| {
                o.keys()
                    .all(|k| is_valid(root, wanted, &Value::from(k.as_str())))
            }),
            "items" => value
                .as_array()
                .is_none_or(|l| l.iter().all(|v| is_valid(root, wanted, v))),
            "minItems" => value
                .as_array()
                .is_none_or(|l| l.len() as u64 >= wanted.as_u64().unwrap_or(0)),
            "minProperties" => value
                .as_object()
                .is_none_or(|o| o.len() as u64 >= wanted.as_u64().unwrap_or(0)),
            "maxProperties" => value
                .as_object()
                .is_none_or(|o| o.len() as u64 <= wanted.as_u64().unwrap_or(0)),
            "minimum" => value
                .as_i64()
                .is_none_or(|n| n >= wanted.as_i64().unwrap_or(i64::MIN)),
            "maximum" => value
                .as_i64()
                .is_none_or(|n| n <= wanted.as_i64().unwrap_or(i64::MAX)),
            "pattern" => {
                let pattern = regex::Regex::new(wanted.as_str().unwrap_or_default())
                    .expect("patterns are regular expressions");
                value.as_str().is_none_or(|s| pattern.is_match(s))
            }
            other => panic!("the schema uses `{other}`, which this test does not know"),
        })
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    }
}

#[test]
fn the_schema_and_the_compiler_say_the_same() {
    let root: Value =
        serde_json::from_str(&sojourn_journey::schema::text()).expect("the schema is JSON");
    let stages =
        r#""stages": [{"stage": "x", "transitions": [WAY]}, {"stage": "y", "end": "done"}]"#;
    let right = [
        r#"{"to": "y"}"#,
        r#"{"to": "y", "on": "a.b"}"#,
        r#"{"to": "y", "on": ["a.b", "c.d"], "where": "signal.data.x == 1", "keep": {"k": "signal.data.x"}}"#,
        r#"{"to": "y", "absent": "a.b", "within": "3d"}"#,
        r#"{"to": "y", "after": {"months": 1, "at": "09:00", "zone": "Europe/Amsterdam"}}"#,
        r#"{"to": "y", "when": true}"#,
        r#"{"to": "y", "on": "a.b", "do": [{"webhook": {"to": "crm", "body": {"a": [1, null]}, "await": true}}, {"log": {"x": 1}}]}"#,
        r#"{"to": "y", "on": null}"#,
    ];
    let wrong = [
        r#"{"on": "a.b"}"#,
        r#"{"to": "Y"}"#,
        r#"{"to": "y", "onn": "a.b"}"#,
        r#"{"to": "y", "on": []}"#,
        r#"{"to": "y", "on": "a b"}"#,
        r#"{"to": "y", "after": {"day": 1}}"#,
        r#"{"to": "y", "after": {"days": 0}}"#,
        r#"{"to": "y", "on": "a.b", "do": [{"webhok": {}}]}"#,
        r#"{"to": "y", "on": "a.b", "do": [{"log": {}, "email": {}}]}"#,
        r#"{"to": "y", "on": "a.b", "keep": {"K": "x"}}"#,
        r#""y""#,
    ];
    for (ways, expected) in [(&right[..], true), (&wrong[..], false)] {
        for way in ways {
            let text = format!("{{\"journey\": \"j\", {}}}", stages.replace("WAY", way));
            let value: Value = serde_json::from_str(&text).expect("the case is JSON");
            let compiled = Journey::compile(&text, &Known::default());
            assert_eq!(
                compiled.is_ok(),
                expected,
                "compiler: {way}\n{:#?}",
                compiled.err()
            );
            assert_eq!(is_valid(&root, &root, &value), expected, "schema: {way}");
        }
    }
}
