//! A YAML or JSON text as a tree in which everything knows its place. Knows no journey: what the keys mean is
//! `definition`'s.
//!
//! The tree is made first and read afterwards, so that every problem of a text is found, not only the first, and a
//! misspelt key does not hide what stands below it.

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// The most bytes that a journey's text may have.
pub const MAX_BYTES: usize = 1024 * 1024;
/// How deep it may nest.
pub const MAX_DEPTH: usize = 64;
/// The most values and keys that it may have.
pub const MAX_VALUES: usize = 100_000;

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// The column at which the characters of a text begin, where they stand in the document as they are.
    pub inner: Option<u32>,
    /// What the document says here, where it is a plain word or number: `no`, `1.10`.
    pub plain: Option<String>,
    /// The value.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`; `yes`, `no`, `on` and `off` are texts.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// Another number.
    Double(f64),
    /// A whole number beyond 64 bits.
    TooLarge,
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the document, repeated keys included.
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
}

/// Why a text is no document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

impl Node {
    /// What the node is, as an error text names it.
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) => "a whole number",
            Kind::Double(_) | Kind::TooLarge => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Reads a text.
///
/// # Errors
/// When it is no YAML, is beyond a limit of this module, or uses aliases, anchors or several documents.
pub fn read(text: &str) -> Result<Node, Unreadable> {
    if text.len() > MAX_BYTES {
        return Err(Unreadable {
            line: 1,
            column: 1,
            message: format!(
                "the text has {} bytes; a journey may have {MAX_BYTES}",
                text.len()
            ),
        });
    }
    let tree: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|e| unreadable(&e))?;
    Ok(located(tree, text))
}

fn options() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_aliases = 0;
    budget.max_anchors = 0;
    budget.max_depth = MAX_DEPTH;
    budget.max_documents = 1;
    budget.max_nodes = MAX_VALUES;
    budget.max_events = 2 * MAX_VALUES;
    budget.max_total_scalar_bytes = MAX_BYTES;
    budget.max_reader_input_bytes = Some(MAX_BYTES);
    budget.flow_nesting_limit = MAX_DEPTH;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    // keys are compared here, so that every repeated one is named
    options.duplicate_keys = serde_saphyr::options::DuplicateKeyPolicy::PassThrough;
    options.merge_keys = serde_saphyr::options::MergeKeyPolicy::AsOrdinary;
    options.strict_booleans = true;
    options.reject_unsupported_tags = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    options.with_snippet = false;
    options
}

fn unreadable(error: &serde_saphyr::Error) -> Unreadable {
    use serde_saphyr::budget::BudgetBreach;
    const ALIASES: &str =
        "anchors (`&name`) and aliases (`*name`) are not used in journeys; write the value out";
    let message = match error.without_snippet() {
        serde_saphyr::Error::Budget { breach, .. } => match breach {
            BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => ALIASES.to_owned(),
            BudgetBreach::Depth { .. } => format!("the text nests deeper than {MAX_DEPTH} levels"),
            BudgetBreach::Documents { .. } => {
                "the text has several documents; a journey is one".to_owned()
            }
            BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
                format!("the text has more than {MAX_VALUES} values")
            }
            _ => "the text is larger than a journey may be".to_owned(),
        },
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "the text has several documents; a journey is one".to_owned()
        }
        serde_saphyr::Error::Eof { .. } => "the text is empty; a journey is expected".to_owned(),
        other => {
            let text = other.to_string();
            let text = text.lines().next().unwrap_or_default();
            let text = text.split(" at line ").next().unwrap_or(text);
            if text.contains("unknown anchor") {
                ALIASES.to_owned()
            } else if text.contains("recursion limit") {
                format!("the text nests deeper than {MAX_DEPTH} levels")
            } else {
                format!(
                    "the text cannot be read as YAML: {}",
                    crate::problem::short(text)
                )
            }
        }
    };
    let (line, column) = error.location().map_or((1, 1), |l| place(&l));
    Unreadable {
        line,
        column,
        message,
    }
}

fn place(location: &Location) -> (u32, u32) {
    let bounded = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    if *location == Location::UNKNOWN {
        (1, 1)
    } else {
        (bounded(location.line()), bounded(location.column()))
    }
}

fn located(raw: Spanned<Raw>, text: &str) -> Node {
    let (line, column) = place(&raw.referenced);
    let span = raw.referenced.span();
    let start = span.byte_offset().and_then(|o| usize::try_from(o).ok());
    let length = span.byte_len().and_then(|l| usize::try_from(l).ok());
    let slice = start
        .zip(length)
        .and_then(|(start, length)| text.get(start..start.saturating_add(length)));
    let word = || slice.map(|s| s.trim_end().to_owned());
    let mut node = Node {
        line,
        column,
        inner: None,
        plain: None,
        kind: Kind::Null,
    };
    node.kind = match raw.value {
        Raw::Null => Kind::Null,
        Raw::Bool(b) => {
            node.plain = word();
            Kind::Bool(b)
        }
        Raw::Int(i) => {
            node.plain = word();
            Kind::Int(i)
        }
        Raw::TooLarge => Kind::TooLarge,
        Raw::Double(d) => {
            node.plain = word();
            let whole = node.plain.as_deref().is_some_and(|w| {
                w.trim_start_matches(['-', '+'])
                    .chars()
                    .all(|c| c.is_ascii_digit())
            });
            if whole {
                Kind::TooLarge
            } else {
                Kind::Double(d)
            }
        }
        Raw::Text(value) => {
            let stands = |skip: usize| {
                start
                    .and_then(|s| text.get(s + skip..))
                    .is_some_and(|t| t.starts_with(&value))
            };
            node.inner = match () {
                () if stands(0) => Some(column),
                () if stands(1) => Some(column + 1),
                () => None,
            };
            Kind::Text(value)
        }
        Raw::List(list) => Kind::List(list.into_iter().map(|n| located(n, text)).collect()),
        Raw::Map(map) => Kind::Map(
            map.into_iter()
                .map(|(key, value)| {
                    let (line, column) = place(&key.referenced);
                    (
                        Key {
                            name: key.value,
                            line,
                            column,
                        },
                        located(value, text),
                    )
                })
                .collect(),
        ),
    };
    node
}

/// What the YAML reader hands over.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    TooLarge,
    Double(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Raw, D::Error> {
        from.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Raw, D::Error> {
        Raw::deserialize(from)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Int(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
        Ok(i64::try_from(v).map_or(Raw::TooLarge, Raw::Int))
    }

    fn visit_i128<E>(self, v: i128) -> Result<Raw, E> {
        Ok(i64::try_from(v).map_or(Raw::TooLarge, Raw::Int))
    }

    fn visit_u128<E>(self, v: u128) -> Result<Raw, E> {
        Ok(i64::try_from(v).map_or(Raw::TooLarge, Raw::Int))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Raw, E> {
        if v.is_finite() {
            Ok(Raw::Double(v))
        } else {
            Err(E::custom("a number must be finite"))
        }
    }

    fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Raw, E> {
        Ok(Raw::Text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = access.next_key()? {
            map.push((key, access.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &Node) -> String {
        let value = match &node.kind {
            Kind::Null => "null".to_owned(),
            Kind::Bool(b) => b.to_string(),
            Kind::Int(i) => i.to_string(),
            Kind::Double(d) => format!("{d:?}"),
            Kind::TooLarge => "too large".to_owned(),
            Kind::Text(t) => format!("{t:?}"),
            Kind::List(l) => format!("[{}]", l.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Kind::Map(m) => {
                let entries: Vec<String> = m
                    .iter()
                    .map(|(k, v)| format!("{}@{}:{} {}", k.name, k.line, k.column, shown(v)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        };
        format!("{value}@{}:{}", node.line, node.column)
    }

    #[test]
    fn everything_knows_its_place() {
        let cases = [
            ("a: no", "{a@1:1 \"no\"@1:4}@1:1"),
            (
                "a: [1, 2.5, true, ~, 'x']",
                "{a@1:1 [1@1:5 2.5@1:8 true@1:13 null@1:19 \"x\"@1:22]@1:4}@1:1",
            ),
            (
                "é: x\nb:\n  - c: 1",
                "{é@1:1 \"x\"@1:4 b@2:1 [{c@3:5 1@3:8}@3:5]@3:3}@1:1",
            ),
            (
                "{\"a\": {\"b\": \"c\"}}",
                "{a@1:2 {b@1:8 \"c\"@1:13}@1:7}@1:1",
            ),
            ("a: 99999999999999999999", "{a@1:1 too large@1:4}@1:1"),
            ("a: 1\na: 2", "{a@1:1 1@1:4 a@2:1 2@2:4}@1:1"),
            ("a: 007", "{a@1:1 \"007\"@1:4}@1:1"),
            ("<<: {a: 1}", "{<<@1:1 {a@1:6 1@1:9}@1:5}@1:1"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                read(text).map(|n| shown(&n)).map_err(|e| e.message),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_document_is_told_with_its_place() {
        let deep = "[".repeat(100);
        let large = "a".repeat(MAX_BYTES + 1);
        let cases = [
            ("a: *x", "anchors"),
            ("a: &x 1", "anchors"),
            ("a: 1\n---\nb: 2", "several documents"),
            ("a: [1", "cannot be read"),
            ("a: b: c", "cannot be read"),
            ("a:\n\tb: 1", "cannot be read"),
            ("a: \"open", "cannot be read"),
            ("a: !foo 1", "cannot be read"),
            ("? [a]\n: 1", "cannot be read"),
            ("a: .nan", "cannot be read"),
            (&deep, "deeper than 64"),
            (&large, "1048577 bytes"),
        ];
        for (text, expected) in cases {
            let error = read(text).map(|n| shown(&n)).expect_err(expected);
            assert!(
                error.message.contains(expected),
                "{}: {error:?}",
                crate::problem::short(text)
            );
            assert!(error.line >= 1 && error.column >= 1, "{error:?}");
        }
    }
}
