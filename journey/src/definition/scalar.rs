//! The values that stand behind keys: names, texts, expressions, signal types, spans, actions. Knows how each is
//! written and what its JSON Schema is.

use super::Calendar;
use super::read::{Place, Problems, Read, below, key_place, repeated};
use crate::document::{Kind, Node};
use crate::problem::short;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// A text for people.
#[derive(Clone, Debug)]
pub(crate) struct Prose {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// The name of a journey, stage, end, outcome, variable: `[a-z][a-z0-9_]{0,31}`.
#[derive(Clone, Debug)]
pub(crate) struct Slug {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// A key of a map that is a name.
pub(crate) type Name = Slug;

/// A signal type: `[A-Za-z0-9_.-]{1,128}`.
#[derive(Clone, Debug)]
pub(crate) struct SignalType {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// An expression.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// A whole number from 1.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    pub(crate) number: u32,
}

/// A wait.
#[derive(Debug)]
pub(crate) enum Span {
    /// `3d`.
    Exact(Prose),
    /// A map.
    Calendar(Box<Calendar>),
}

/// One value, or a list of them.
#[derive(Debug)]
pub(crate) struct Several<T>(pub(crate) Vec<T>);

/// A map from names to values, in the order of the text.
#[derive(Debug)]
pub(crate) struct Pairs<T>(pub(crate) Vec<(Name, T)>);

/// One action: a map with one key, its kind.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) kind: String,
    pub(crate) body: EndpointBody,
    pub(crate) place: Place,
}

/// What stands behind the kind of an action, as it is.
#[derive(Debug)]
pub(crate) struct EndpointBody {
    pub(crate) node: Node,
    pub(crate) place: Place,
}

/// The kinds of actions.
pub(crate) const ACTION_KINDS: [&str; 10] = [
    "webhook", "log", "email", "task", "update", "create", "convert", "tag", "signal", "call",
];

/// The text of a scalar; numbers and truth values as they are written.
fn text(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Bool(_) | Kind::Int(_) | Kind::Double(_) => node.plain.clone(),
        _ => None,
    }
}

fn wrong(node: &Node, path: &str, wanted: &str, problems: &mut Problems) {
    problems.error(
        &Place::of(node, path),
        format!("{wanted} is expected, found {}", node.describe()),
    );
}

pub(crate) fn is_slug(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

const SLUG: &str = "a name: a small letter, then at most 31 small letters, digits and `_`";

impl Read for Prose {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let place = Place::of(node, path);
        match text(node) {
            Some(text) => Some(Prose { text, place }),
            None => {
                wrong(node, path, "a text", problems);
                None
            }
        }
    }
}

impl Read for Slug {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let place = Place::of(node, path);
        match text(node) {
            Some(text) if is_slug(&text) => Some(Slug { text, place }),
            Some(text) => {
                problems.error(
                    &place,
                    format!("`{}` is no name; expected {SLUG}", short(&text)),
                );
                None
            }
            None => {
                wrong(node, path, "a name", problems);
                None
            }
        }
    }
}

impl Read for SignalType {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let place = Place::of(node, path);
        let Some(text) = text(node) else {
            wrong(node, path, "a signal type", problems);
            return None;
        };
        if !crate::identifier::is_name(&text) {
            problems.error(
                &place,
                format!("`{}` is no signal type; expected 1 to {} letters, digits, `_`, `.` and `-`, like `web.form.submitted`", short(&text), crate::limits::SIGNAL_TYPE_BYTES),
            );
            return None;
        }
        Some(SignalType { text, place })
    }
}

impl Read for Condition {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let place = Place::of(node, path);
        match text(node) {
            Some(text) => Some(Condition { text, place }),
            None => {
                wrong(node, path, "an expression", problems);
                None
            }
        }
    }
}

impl Read for Count {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        match node.kind {
            Kind::Int(n) if (1..=1_000_000).contains(&n) => {
                u32::try_from(n).ok().map(|number| Count { number })
            }
            Kind::Int(n) => {
                problems.error(
                    &Place::of(node, path),
                    format!("a whole number from 1 to 1000000 is expected, found {n}"),
                );
                None
            }
            _ => {
                wrong(node, path, "a whole number from 1 to 1000000", problems);
                None
            }
        }
    }
}

impl Read for Span {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        if matches!(node.kind, Kind::Map(_)) {
            return Calendar::read(node, path, problems).map(|c| Span::Calendar(Box::new(c)));
        }
        match text(node) {
            Some(text) => Some(Span::Exact(Prose {
                text,
                place: Place::of(node, path),
            })),
            None => {
                wrong(
                    node,
                    path,
                    "a duration like `90s` or `3d`, or a map,",
                    problems,
                );
                None
            }
        }
    }
}

impl Span {
    pub(crate) fn place(&self) -> &Place {
        match self {
            Span::Exact(text) => &text.place,
            Span::Calendar(calendar) => &calendar.place,
        }
    }
}

impl<T: Read> Read for Several<T> {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        if let Kind::List(list) = &node.kind {
            if list.is_empty() {
                problems.error(
                    &Place::of(node, path),
                    "the list is empty; at least one is expected",
                );
            }
            return Vec::<T>::read(node, path, problems).map(Several);
        }
        T::read(node, path, problems).map(|one| Several(vec![one]))
    }
}

impl<T: Read> Read for Pairs<T> {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            wrong(node, path, "a map of names", problems);
            return None;
        };
        repeated(entries, path, problems);
        let mut pairs = Vec::new();
        for (key, node) in entries {
            let place = key_place(key, path);
            if !is_slug(&key.name) {
                problems.error(
                    &place,
                    format!("`{}` is no name; expected {SLUG}", short(&key.name)),
                );
            }
            if let Some(value) = T::read(node, &below(path, &key.name), problems) {
                pairs.push((
                    Slug {
                        text: key.name.clone(),
                        place,
                    },
                    value,
                ));
            }
        }
        Some(Pairs(pairs))
    }
}

impl Read for Action {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let place = Place::of(node, path);
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        let [(key, body)] = entries else {
            if let Some((awaits, _)) = entries.iter().find(|(key, _)| key.name == "await") {
                let kind = entries.iter().find(|(key, _)| key.name != "await");
                let kind = kind.map_or("webhook", |(key, _)| key.name.as_str());
                problems.error_with_help(
                    &key_place(awaits, path),
                    "`await` stands beside the action, and belongs into its map",
                    format!("write `{}: {{ …, await: true }}`", short(kind)),
                );
                return None;
            }
            problems.error_with_help(
                &place,
                format!(
                    "an action is expected, a map with one key, found {}",
                    match entries.len() {
                        0 => node.describe().to_owned(),
                        n => format!("a map with {n} keys"),
                    }
                ),
                "an action looks like `webhook: { to: crm }`; write each as an element of its own",
            );
            return None;
        };
        if !ACTION_KINDS.contains(&key.name.as_str()) {
            let known = crate::problem::nearest(&key.name, ACTION_KINDS);
            let message = format!("`{}` is no kind of action", short(&key.name));
            let help = known.map_or_else(
                || format!("the kinds are {}", ACTION_KINDS.join(", ")),
                |k| format!("did you mean `{k}`?"),
            );
            problems.error_with_help(&key_place(key, path), message, help);
            return None;
        }
        let body = EndpointBody {
            node: body.clone(),
            place: Place::of(body, &below(path, &key.name)),
        };
        Some(Action {
            kind: key.name.clone(),
            body,
            place,
        })
    }
}

/// Gives a type a JSON Schema that stands where it is used.
macro_rules! schema {
    ($name:ident, $schema:tt) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(Prose, { "type": "string" });
schema!(Slug, { "type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$" });
schema!(SignalType, { "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$" });
schema!(Condition, { "type": ["string", "boolean", "number"], "description": "An expression (Common Expression Language)." });
schema!(Count, { "type": "integer", "minimum": 1, "maximum": 1_000_000 });

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<Calendar>();
        json_schema!({
            "description": "A wait: an exact span with s, m, h, d, w (`90s`, `1d12h`; a day is 24 hours), or a map.",
            "anyOf": [{ "type": "string" }, map]
        })
    }
}

impl<T: JsonSchema> JsonSchema for Several<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Several{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl<T: JsonSchema> JsonSchema for Pairs<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Pairs{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z][a-z0-9_]{0,31}$" },
            "additionalProperties": one
        })
    }
}

impl JsonSchema for Action {
    fn schema_name() -> Cow<'static, str> {
        "Action".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kinds: serde_json::Map<String, serde_json::Value> = ACTION_KINDS
            .iter()
            .map(|kind| {
                let schema = serde_json::json!({
                    "type": "object",
                    "properties": {
                        "to": { "type": "string", "description": "For whom or what." },
                        "await": {
                            "description": "Makes the result a fact, `action.<name>.status`; true takes the kind as the name.",
                            "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$" }]
                        }
                    }
                });
                ((*kind).to_owned(), schema)
            })
            .collect();
        json_schema!({
            "description": "One action: its kind, and what it needs. Texts may have `{{ expressions }}` in them.",
            "type": "object",
            "properties": kinds,
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1
        })
    }
}
