//! Expressions and templates of a journey: compiled, counted, their mentions gathered, their problems put where they
//! stand in the document.

use super::{Builder, MAX_EXPRESSION_BYTES, MAX_EXPRESSIONS};
use crate::compiled::FactPath;
use crate::definition::{Condition, Place, Prose};
use crate::expr::{Expression, Refused};
use crate::template::Template;
use crate::value::Value;
use std::collections::BTreeSet;

/// What the expressions of a journey come to.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) facts: BTreeSet<FactPath>,
    count: usize,
    bytes: usize,
}

impl Builder<'_> {
    pub(super) fn expression(&mut self, condition: &Condition) -> Option<Expression> {
        if !self.room(condition.text.len(), &condition.place) {
            return None;
        }
        match Expression::read(&condition.text) {
            Ok(expression) => {
                self.mentioned(&expression);
                Some(expression)
            }
            Err(refused) => {
                self.refuse(&condition.place, "the expression", &refused);
                None
            }
        }
    }

    pub(super) fn optional(&mut self, condition: Option<&Condition>) -> Option<Option<Expression>> {
        match condition {
            Some(condition) => self.expression(condition).map(Some),
            None => Some(None),
        }
    }

    /// A condition: one that is a constant must be true or false.
    pub(super) fn test(&mut self, condition: Option<&Condition>) -> Option<Option<Expression>> {
        let test = self.optional(condition)?;
        if let (Some(condition), Some(test)) = (condition, &test)
            && let Some(value) = test.constant()
            && !matches!(value, Value::Bool(_))
        {
            self.problems.error(
                &condition.place,
                format!(
                    "a condition is true or false, found {} (`{}`)",
                    value.kind(),
                    crate::problem::short(&test.source)
                ),
            );
        }
        Some(test)
    }

    pub(super) fn template(&mut self, prose: &Prose) -> Option<Template> {
        // a text without expressions costs nothing to speak of
        if prose.text.contains("{{") && !self.room(prose.text.len(), &prose.place) {
            return None;
        }
        match Template::read(&prose.text) {
            Ok(template) => {
                template.expressions().for_each(|e| self.mentioned(e));
                Some(template)
            }
            Err(refused) => {
                self.refuse(&prose.place, "the text", &refused);
                None
            }
        }
    }

    fn mentioned(&mut self, expression: &Expression) {
        self.texts
            .facts
            .extend(expression.mentions().iter().cloned());
    }

    /// Whether one more expression may be compiled; told once when not.
    fn room(&mut self, bytes: usize, place: &Place) -> bool {
        let had = self.texts.count <= MAX_EXPRESSIONS && self.texts.bytes <= MAX_EXPRESSION_BYTES;
        self.texts.count += 1;
        self.texts.bytes += bytes;
        let has = self.texts.count <= MAX_EXPRESSIONS && self.texts.bytes <= MAX_EXPRESSION_BYTES;
        if had && !has {
            self.problems.error(
                place,
                format!("more than {MAX_EXPRESSIONS} expressions, or {MAX_EXPRESSION_BYTES} bytes of them, in one journey; those from here on were not read"),
            );
        }
        has
    }

    fn refuse(&mut self, place: &Place, what: &str, refused: &Refused) {
        let mut place = place.clone();
        if let (Some(inner), Some((line, column))) = (place.inner, refused.place) {
            // the characters of the text stand in the document as they are, so a place within it is one of the document
            place.column = if line == 1 {
                inner + column - 1
            } else {
                column
            };
            place.line += line - 1;
        }
        self.problems
            .error(&place, format!("{what} {}", refused.message));
    }
}
