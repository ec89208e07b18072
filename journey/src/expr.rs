//! Expressions: what a journey asks of a signal, a customer and what is known.
//!
//! The text is Common Expression Language, read by the `cel` crate's parser and lowered into a tree of our own, which is
//! evaluated here. Not by `cel`'s evaluator, for it has no budget of steps or memory, iterates hash maps, stops at the
//! first missing key without saying which path it was, and calls `has(a.b.c)` an error where `a` never arrived.
//! Knows no journey and no YAML: it is given a text and a [`Scope`].
//!
//! Where it differs from CEL, it is for data that comes as it comes:
//! - what is missing is unknown, and so is what lies below a null or beyond the end of a list;
//! - unknown wins over an error, except where `&&`, `||`, `all` or `any` absorb both;
//! - `has(x)` takes any expression, and is false where `x` is unknown; `any` is another name of `exists`;
//! - a whole number beside another number is taken as a number (`100 * 1.5`); there are no unsigned numbers;
//! - maps are walked in the order of their keys;
//! - macros are not nested, the pattern of `matches` is written out, and `type` is not there.
//!
//! Functions: `size contains startsWith endsWith matches int double string bool timestamp duration dyn`, the parts of
//! times (`getFullYear` … `getMilliseconds`, with a time zone if given), and `lowerAscii upperAscii trim replace split
//! join substring indexOf`.

use crate::compiled::FactPath;
use crate::customer::Customer;
use crate::execution::Execution;
use crate::signal::Signal;
use crate::time::Time;
use crate::value::Value;
use std::collections::BTreeSet;
use tree::Node;

mod eval;
mod functions;
mod lookup;
mod lower;
mod need;
mod operators;
mod split;
mod tree;
mod walk;

pub use lower::{MAX_DEPTH, MAX_NODES};
pub use walk::MAX_LIST;

/// The most bytes that the text of an expression may have.
pub const MAX_SOURCE: usize = 4 * 1024;

/// What bounds every evaluation. Made once per compiled journey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The cost that one evaluation may reach: steps, and one per 64 bytes made.
    pub cost: u64,
}

impl Default for Base {
    fn default() -> Self {
        Base { cost: 200_000 }
    }
}

/// What an expression can see. What is not given is unknown to it.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The signal being decided.
    pub signal: Option<&'a Signal>,
    /// The customer.
    pub customer: &'a Customer,
    /// The execution: its stage, variables, facts, and results of actions (facts `action.<name>.status`).
    pub execution: Option<&'a Execution>,
    /// The time of the decision (`at`).
    pub now: Time,
}

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Something has never arrived: the paths, as written.
    Unknown(Vec<String>),
    /// The expression cannot be computed: a wrong type, an overflow, too much work.
    Error(String),
}

/// One compiled expression.
#[derive(Debug)]
pub struct Expression {
    /// The text, as the author wrote it.
    pub source: String,
    node: Node,
    found: lower::Found,
    joined: split::Joined,
    /// The author's words for each operand of the outermost `&&` or `||`; empty where there is none.
    parts: Vec<String>,
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong.
    pub message: String,
    /// Line and column within the text, both from 1, where the reader of the text knows them.
    pub place: Option<(u32, u32)>,
}

/// One part of a condition, for `why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its own text.
    pub source: String,
    /// Whether it holds.
    pub state: Holds,
}

/// Whether a part holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It holds.
    Yes,
    /// It does not hold.
    No,
    /// Something that it needs has never arrived.
    Unknown {
        /// The paths, as written.
        missing: Vec<String>,
    },
    /// It cannot be computed.
    Error(String),
}

impl Expression {
    /// Reads the text. Works on a thread of its own, with a large stack: the parser is recursive.
    ///
    /// # Errors
    /// When the text is no expression, or beyond one of the limits of this module.
    pub fn parse(source: &str) -> Result<Expression, Refused> {
        crate::compile::on_large_stack(|| Expression::read(source)).unwrap_or_else(|| {
            Err(refused(
                "could not be read: the parser failed on it; please report it",
            ))
        })
    }

    /// As [`Expression::parse`], for a caller that is on a large stack already.
    pub(crate) fn read(source: &str) -> Result<Expression, Refused> {
        let (node, found) = lowered(source)?;
        let (joined, texts) = split::parts(source);
        let mut operands = Vec::new();
        outermost(&node, joined, &mut operands);
        // should the splitter and the parser ever disagree, the condition is one part, as a whole
        let parts = if texts.len() > 1 && texts.len() == operands.len() {
            texts.into_iter().map(str::to_owned).collect()
        } else {
            Vec::new()
        };
        Ok(Expression {
            source: source.to_owned(),
            node,
            found,
            joined,
            parts,
        })
    }

    /// The value of the expression.
    ///
    /// # Errors
    /// [`Miss::Unknown`] names what has never arrived; [`Miss::Error`] says what cannot be computed.
    pub fn eval(&self, base: &Base, scope: &Scope<'_>) -> Result<Value, Miss> {
        eval::Eval::new(base, scope)
            .eval(&self.node)
            .map(|value| value.into_owned())
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// As [`Expression::eval`]; a value that is not a truth value is an error too.
    pub fn holds(&self, base: &Base, scope: &Scope<'_>) -> Result<bool, Miss> {
        holds(&self.node, base, scope)
    }

    /// The parts of the condition, each with its own text and whether it holds: what stands between `&&`, or between
    /// `||` where the condition as a whole is one of those.
    pub fn parts(&self, base: &Base, scope: &Scope<'_>) -> Vec<Part> {
        let part = |source: &str, node: &Node| Part {
            source: source.to_owned(),
            state: match holds(node, base, scope) {
                Ok(true) => Holds::Yes,
                Ok(false) => Holds::No,
                Err(Miss::Unknown(missing)) => Holds::Unknown { missing },
                Err(Miss::Error(error)) => Holds::Error(error),
            },
        };
        if self.parts.is_empty() {
            return vec![part(&self.source, &self.node)];
        }
        let mut operands = Vec::new();
        outermost(&self.node, self.joined, &mut operands);
        self.parts
            .iter()
            .zip(operands)
            .map(|(source, node)| part(source, node))
            .collect()
    }

    /// Whether one of the [`parts`](Expression::parts) is enough (they stand between `||`); else all must hold.
    pub fn any_part_is_enough(&self) -> bool {
        self.joined == split::Joined::Any && !self.parts.is_empty()
    }

    /// The facts that the expression mentions.
    pub fn mentions(&self) -> &BTreeSet<FactPath> {
        &self.found.facts
    }

    /// The built-in names that it mentions: paths that begin with `signal`, `customer`, `vars`, `execution`, `now` or
    /// `action`.
    pub fn builtins(&self) -> &BTreeSet<FactPath> {
        &self.found.builtins
    }

    /// Whether it mentions the built-in name.
    pub fn uses(&self, root: &str) -> bool {
        self.found
            .builtins
            .iter()
            .any(|path| path.0.first().is_some_and(|first| first == root))
    }

    /// Whether its value is unknown whatever else is known, when there is nothing under the built-in name.
    pub(crate) fn never_known_without(&self, root: &str) -> bool {
        need::never_known(&self.node, tree::Root::of(root))
    }

    /// Whether the condition can never hold when there is nothing under the built-in name.
    pub(crate) fn never_holds_without(&self, root: &str) -> bool {
        need::never_holds(&self.node, tree::Root::of(root))
    }

    /// Names that stand alone and are no built-in name: never known, for a fact has at least two segments.
    pub fn names_alone(&self) -> &BTreeSet<String> {
        &self.found.roots_alone
    }

    /// The value, where the expression is a constant.
    pub fn constant(&self) -> Option<&Value> {
        match &self.node {
            Node::Literal(value) => Some(value),
            _ => None,
        }
    }
}

/// The operands of the outermost operators of one kind, in their order: the parser pairs them up as a tree.
fn outermost<'n>(node: &'n Node, joined: split::Joined, into: &mut Vec<&'n Node>) {
    match (node, joined) {
        (Node::And(operands), split::Joined::All) | (Node::Or(operands), split::Joined::Any) => {
            operands
                .iter()
                .for_each(|operand| outermost(operand, joined, into));
        }
        _ => into.push(node),
    }
}

fn refused(message: impl Into<String>) -> Refused {
    Refused {
        message: message.into(),
        place: None,
    }
}

fn lowered(source: &str) -> Result<(Node, lower::Found), Refused> {
    if source.len() > MAX_SOURCE {
        return Err(refused(format!(
            "has {} bytes; an expression may have {MAX_SOURCE}",
            source.len()
        )));
    }
    if source.trim().is_empty() {
        return Err(refused("is empty; an expression is expected"));
    }
    // no macros: they are lowered by us, so that unknown is treated alike in all of them
    let parser = cel::Env::default()
        .with_optional_support(false)
        .parser()
        .error_recovery_limit(4);
    let tree = parser
        .parse(source)
        .map_err(|errors| parse_error(source, &errors))?;
    let mut lowering = lower::Lowering::new();
    let node = lowering.lower(&tree, 1).map_err(refused)?;
    Ok((node, lowering.found))
}

/// The parser's first complaint, in our words where we have them.
fn parse_error(source: &str, errors: &cel::ParseErrors) -> Refused {
    let Some(first) = errors.errors.first() else {
        return refused("is no expression");
    };
    let message = first.msg.lines().next().unwrap_or_default();
    let message = match message {
        m if m.contains("Recursion limit") => {
            return refused(format!("nests deeper than {MAX_DEPTH} levels"));
        }
        m if m.starts_with("Syntax error: ") => m.replacen("Syntax error: ", "", 1),
        m => m.to_owned(),
    };
    let message = crate::problem::short(&message);
    let place = (first.pos != (0, 0)).then(|| {
        let bounded = |n: isize| {
            u32::try_from(n)
                .unwrap_or(1)
                .clamp(1, 1 + source.len() as u32)
        };
        (bounded(first.pos.0), bounded(first.pos.1))
    });
    Refused {
        message: format!("is no expression: {message}"),
        place,
    }
}

fn holds(node: &Node, base: &Base, scope: &Scope<'_>) -> Result<bool, Miss> {
    match eval::Eval::new(base, scope).eval(node)?.as_ref() {
        Value::Bool(held) => Ok(*held),
        other => Err(Miss::Error(format!(
            "a condition must be true or false, found {}",
            operators::kind(other)
        ))),
    }
}

#[cfg(test)]
mod tests;
