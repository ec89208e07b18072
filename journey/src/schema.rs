//! The JSON Schema of a journey, for editors. It comes from the types that the reader comes from, so the two say the
//! same; a copy is committed beside this crate, and a test holds it up to date.

/// The schema as JSON, with a line feed at its end.
pub fn text() -> String {
    let mut schema = schemars::schema_for!(crate::definition::Journey);
    schema.insert("title".to_owned(), "A journey of Sojourn".into());
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default(); // a schema has text keys only, so it is JSON
    text.push('\n');
    text
}
