//! What an expression can still be when something is never there: told before it is evaluated, from its tree alone.

use super::tree::{Node, Root};

/// Whether the value is unknown whatever else is known, when nothing under `root` ever is.
pub(super) fn never_known(node: &Node, root: Root) -> bool {
    let unknown = |node: &Node| never_known(node, root);
    match node {
        Node::Literal(_) | Node::Local | Node::Has(_) => false,
        Node::Path(path) => path.root == root,
        Node::Select(operand, _)
        | Node::Not(operand)
        | Node::Negate(operand)
        | Node::Matches(operand, _) => unknown(operand),
        Node::Index(operand, index) => unknown(operand) || unknown(index),
        // one that is known may decide
        Node::And(operands) | Node::Or(operands) => operands.iter().all(unknown),
        Node::If(parts) => {
            let [condition, then, otherwise] = parts.as_ref();
            unknown(condition) || unknown(then) && unknown(otherwise)
        }
        Node::Binary(_, operands) => operands.iter().any(unknown),
        Node::List(elements) | Node::Call(_, elements) => elements.iter().any(unknown),
        Node::Map(entries) => entries.iter().any(|(k, v)| unknown(k) || unknown(v)),
        Node::Macro(call) => unknown(&call.range),
    }
}

/// Whether the condition can never hold when nothing under `root` is ever known.
pub(super) fn never_holds(node: &Node, root: Root) -> bool {
    match node {
        Node::And(operands) => operands.iter().any(|o| never_holds(o, root)),
        Node::Or(operands) => operands.iter().all(|o| never_holds(o, root)),
        node => never_known(node, root),
    }
}
