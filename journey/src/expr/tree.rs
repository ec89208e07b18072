//! The tree that is evaluated: names resolved, functions found, constants made. Knows no text.

use super::functions::Function;
use crate::value::Value;
use regex::Regex;

/// One node of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Literal(Value),
    /// A name with constant fields: `signal.data.amount`, `Books.Invoice.Status`.
    Path(Path),
    /// The variable of the macro around it.
    Local,
    Select(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    Has(Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    If(Box<[Node; 3]>),
    Binary(Op, Box<[Node; 2]>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Regex),
    Macro(Box<Macro>),
}

impl Node {
    /// What the author wrote for a value that was looked for, as far as it is a name.
    pub(super) fn written(&self) -> String {
        match self {
            Node::Path(path) => path.text.clone(),
            Node::Local => "…".to_owned(),
            Node::Select(operand, field) => format!("{}.{field}", operand.written()),
            Node::Index(operand, index) => match index.as_ref() {
                Node::Literal(Value::Int(i)) => format!("{}[{i}]", operand.written()),
                Node::Literal(Value::String(s)) => format!("{}[{s:?}]", operand.written()),
                other => format!("{}[{}]", operand.written(), other.written()),
            },
            _ => "(…)".to_owned(),
        }
    }
}

/// What begins a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Signal,
    Customer,
    Vars,
    Execution,
    Now,
    Action,
    /// A fact, by its application.
    Fact,
}

impl Root {
    pub(super) fn of(name: &str) -> Root {
        match name {
            "signal" => Root::Signal,
            "customer" => Root::Customer,
            "vars" => Root::Vars,
            "execution" => Root::Execution,
            "now" => Root::Now,
            "action" => Root::Action,
            _ => Root::Fact,
        }
    }
}

#[derive(Debug)]
pub(super) struct Path {
    pub(super) root: Root,
    /// The segments after the root.
    pub(super) fields: Vec<String>,
    /// The whole path as a fact path writes it: the key of a fact, and what `why` says is missing.
    pub(super) text: String,
}

/// Operators of two values that need both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    In,
}

/// `range.kind(x, filter, body)`.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) kind: MacroKind,
    pub(super) range: Node,
    pub(super) filter: Option<Node>,
    pub(super) body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MacroKind {
    All,
    /// Also written `any`.
    Exists,
    ExistsOne,
    Map,
    Filter,
}

impl MacroKind {
    pub(super) fn of(name: &str) -> Option<MacroKind> {
        Some(match name {
            "all" => MacroKind::All,
            "exists" | "any" => MacroKind::Exists,
            "exists_one" => MacroKind::ExistsOne,
            "map" => MacroKind::Map,
            "filter" => MacroKind::Filter,
            _ => return None,
        })
    }
}
