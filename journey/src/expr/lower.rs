//! From the parser's tree to ours, with the guards: how many nodes, how deep, no macro within a macro, no function that
//! does not exist. Knows no scope: what a name stands for when it is evaluated is `lookup`'s.

use super::functions::{self, Function};
use super::tree::{Macro, MacroKind, Node, Op, Path, Root};
use crate::compiled::FactPath;
use crate::value::Value;
use cel::IdedExpr;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use std::collections::BTreeSet;

/// The most nodes that an expression may have.
pub const MAX_NODES: usize = 500;
/// How deep an expression may nest.
pub const MAX_DEPTH: usize = 64;
/// The most bytes that a regular expression may take when compiled.
const MAX_REGEX: usize = 256 * 1024;

/// What lowering found beside the tree.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) facts: BTreeSet<FactPath>,
    pub(super) builtins: BTreeSet<FactPath>,
    pub(super) roots_alone: BTreeSet<String>,
}

pub(super) struct Lowering {
    pub(super) found: Found,
    nodes: usize,
    local: Option<String>,
}

type Lowered = Result<Node, String>;

impl Lowering {
    pub(super) fn new() -> Lowering {
        Lowering {
            found: Found::default(),
            nodes: 0,
            local: None,
        }
    }

    pub(super) fn lower(&mut self, expr: &IdedExpr, depth: usize) -> Lowered {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!(
                "has more than {MAX_NODES} parts; split it over variables or stages"
            ));
        }
        if depth > MAX_DEPTH {
            return Err(format!("nests deeper than {MAX_DEPTH} levels"));
        }
        if let Some(path) = self.path(expr)? {
            return Ok(path);
        }
        match &expr.expr {
            Expr::Literal(literal) => literal_value(literal).map(Node::Literal),
            Expr::Ident(_) => Ok(Node::Local),
            Expr::Select(select) => {
                let operand = self.lower(&select.operand, depth + 1)?;
                Ok(Node::Select(Box::new(operand), select.field.clone()))
            }
            Expr::List(list) => Ok(Node::List(self.all(&list.elements, depth)?)),
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("a map is written {\"key\": value}".to_owned());
                    };
                    entries.push((
                        self.lower(&entry.key, depth + 1)?,
                        self.lower(&entry.value, depth + 1)?,
                    ));
                }
                Ok(Node::Map(entries))
            }
            Expr::Call(call) => self.call(call, depth),
            Expr::Struct(made) => Err(format!(
                "`{}{{…}}` makes a message; only maps {{\"key\": value}} can be made",
                made.type_name
            )),
            // our parser has no macros of its own, so it makes no comprehension; `Unspecified` stands where it failed
            Expr::Comprehension(_) | Expr::Unspecified => Err("is not complete".to_owned()),
        }
    }

    fn all(&mut self, exprs: &[IdedExpr], depth: usize) -> Result<Vec<Node>, String> {
        exprs.iter().map(|e| self.lower(e, depth + 1)).collect()
    }

    fn boxed(&mut self, expr: &IdedExpr, depth: usize) -> Result<Box<Node>, String> {
        self.lower(expr, depth + 1).map(Box::new)
    }

    /// The name with constant fields that `expr` spells, unless it begins with the variable of a macro.
    fn path(&mut self, expr: &IdedExpr) -> Result<Option<Node>, String> {
        let mut segments = Vec::new();
        let mut at = expr;
        loop {
            match &at.expr {
                Expr::Ident(name) => {
                    segments.push(name.trim_start_matches('.').to_owned());
                    break;
                }
                Expr::Select(select) if !select.test => {
                    segments.push(select.field.clone());
                    at = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                    let Expr::Literal(LiteralValue::String(key)) = &call.args[1].expr else {
                        return Ok(None);
                    };
                    segments.push(key.inner().to_owned());
                    at = &call.args[0];
                }
                _ => return Ok(None),
            }
        }
        segments.reverse();
        if self.local.as_deref() == Some(segments[0].as_str()) {
            return Ok(None);
        }
        if segments.len() > MAX_DEPTH {
            return Err(format!("nests deeper than {MAX_DEPTH} levels"));
        }
        self.nodes += segments.len() - 1;
        let root = Root::of(&segments[0]);
        let whole = FactPath(segments.clone());
        let text = whole.to_string();
        match root {
            Root::Fact if segments.len() < 2 => {
                self.found.roots_alone.insert(segments[0].clone());
            }
            Root::Fact => {
                self.found.facts.insert(whole);
            }
            _ => {
                self.found.builtins.insert(whole);
            }
        }
        let fields = segments.split_off(1);
        Ok(Some(Node::Path(Path { root, fields, text })))
    }

    fn call(&mut self, call: &CallExpr, depth: usize) -> Lowered {
        let args = &call.args;
        if call.target.is_none() {
            match (call.func_name.as_str(), args.as_slice()) {
                (operators::CONDITIONAL, [c, a, b]) => {
                    return Ok(Node::If(Box::new([
                        self.lower(c, depth + 1)?,
                        self.lower(a, depth + 1)?,
                        self.lower(b, depth + 1)?,
                    ])));
                }
                (operators::LOGICAL_AND, _) => return Ok(Node::And(self.all(args, depth)?)),
                (operators::LOGICAL_OR, _) => return Ok(Node::Or(self.all(args, depth)?)),
                (operators::LOGICAL_NOT, [a]) => return Ok(Node::Not(self.boxed(a, depth)?)),
                (operators::NEGATE, [a]) => return Ok(Node::Negate(self.boxed(a, depth)?)),
                (operators::INDEX, [a, i]) => {
                    return Ok(Node::Index(self.boxed(a, depth)?, self.boxed(i, depth)?));
                }
                (operators::HAS, [a]) => return Ok(Node::Has(self.boxed(a, depth)?)),
                (name, [a, b]) => {
                    if let Some(op) = operator(name) {
                        return Ok(Node::Binary(
                            op,
                            Box::new([self.lower(a, depth + 1)?, self.lower(b, depth + 1)?]),
                        ));
                    }
                }
                _ => {}
            }
        }
        if let (Some(target), Some(kind)) = (&call.target, MacroKind::of(&call.func_name)) {
            return self.macro_call(kind, target, args, depth);
        }
        self.function(call, depth)
    }

    fn macro_call(
        &mut self,
        kind: MacroKind,
        target: &IdedExpr,
        args: &[IdedExpr],
        depth: usize,
    ) -> Lowered {
        let (var, filter, body) = match (kind, args) {
            (_, [var, body]) => (var, None, body),
            (MacroKind::Map, [var, filter, body]) => (var, Some(filter), body),
            _ => return Err("all, any, exists, exists_one, map and filter take a name and an expression: `list.any(x, x > 1)`".to_owned()),
        };
        let Expr::Ident(name) = &var.expr else {
            return Err("the first argument of all, any, exists, exists_one, map and filter is a plain name: `list.any(x, x > 1)`".to_owned());
        };
        if self.local.is_some() {
            return Err("has a macro within a macro (all, any, exists, exists_one, map, filter); use one at a time".to_owned());
        }
        let range = self.lower(target, depth + 1)?;
        self.local = Some(name.clone());
        let filter = filter.map(|f| self.lower(f, depth + 1)).transpose();
        let body = self.lower(body, depth + 1);
        self.local = None;
        Ok(Node::Macro(Box::new(Macro {
            kind,
            range,
            filter: filter?,
            body: body?,
        })))
    }

    fn function(&mut self, call: &CallExpr, depth: usize) -> Lowered {
        let name = call.func_name.as_str();
        let mut args: Vec<&IdedExpr> = call.target.as_deref().into_iter().collect();
        args.extend(&call.args);
        if name == "matches" {
            let [text, pattern] = args.as_slice() else {
                return Err("`matches` takes a text and a pattern: `x.matches(\"^a\")`".to_owned());
            };
            let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
                return Err("the pattern of `matches` must be written out, so that it can be checked before it is used".to_owned());
            };
            let regex = regex::RegexBuilder::new(pattern.inner())
                .size_limit(MAX_REGEX)
                .dfa_size_limit(MAX_REGEX)
                .nest_limit(32)
                .build()
                .map_err(|_| {
                    format!(
                        "`{}` is no regular expression, or too large a one",
                        pattern.inner()
                    )
                })?;
            return Ok(Node::Matches(self.boxed(text, depth)?, regex));
        }
        let Some((function, least, most)) = functions::find(name) else {
            let near = functions::nearest(name)
                .map(|n| format!("; did you mean `{n}`?"))
                .unwrap_or_default();
            return Err(format!("there is no function `{name}`{near}"));
        };
        if args.len() < least || args.len() > most {
            let wanted = if least == most {
                format!("{least}")
            } else {
                format!("{least} to {most}")
            };
            return Err(format!(
                "`{name}` takes {wanted} arguments (the value before the dot is the first), found {}",
                args.len()
            ));
        }
        let mut nodes = Vec::with_capacity(args.len());
        for arg in args {
            nodes.push(self.lower(arg, depth + 1)?);
        }
        Ok(match (function, nodes.len()) {
            (Function::Dyn, 1) => nodes.remove(0),
            _ => Node::Call(function, nodes),
        })
    }
}

fn operator(name: &str) -> Option<Op> {
    Some(match name {
        operators::EQUALS => Op::Equal,
        operators::NOT_EQUALS => Op::NotEqual,
        operators::LESS => Op::Less,
        operators::LESS_EQUALS => Op::LessOrEqual,
        operators::GREATER => Op::Greater,
        operators::GREATER_EQUALS => Op::GreaterOrEqual,
        operators::ADD => Op::Add,
        operators::SUBSTRACT => Op::Subtract,
        operators::MULTIPLY => Op::Multiply,
        operators::DIVIDE => Op::Divide,
        operators::MODULO => Op::Modulo,
        operators::IN => Op::In,
        _ => return None,
    })
}

fn literal_value(literal: &LiteralValue) -> Result<Value, String> {
    Ok(match literal {
        LiteralValue::Boolean(b) => Value::Bool(*b.inner()),
        LiteralValue::Bytes(b) => Value::Bytes(b.inner().to_vec()),
        LiteralValue::Double(d) if d.inner().is_finite() => Value::Double(*d.inner()),
        LiteralValue::Double(_) => return Err("has a number that is too large".to_owned()),
        LiteralValue::Int(i) => Value::Int(*i.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(s) => Value::String(s.inner().to_owned()),
        LiteralValue::UInt(u) => {
            return Err(format!(
                "`{}u`: there are no unsigned numbers here; write it without `u`",
                u.inner()
            ));
        }
    })
}
