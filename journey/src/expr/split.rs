//! The parts of a condition in the author's own words: where `&&` (or `||`) stands outside of brackets and texts.
//! Knows nothing of what the parts mean.

/// How the parts belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    All,
    Any,
}

/// The parts of `source`; one part, the whole, where it cannot be split. Brackets that only group parts joined alike
/// are opened: `a && (b && c)` has three parts.
pub(super) fn parts(source: &str) -> (Joined, Vec<&str>) {
    let (joined, parts) = once(source);
    if parts.len() < 2 {
        return (joined, parts);
    }
    let mut flat = Vec::new();
    for part in parts {
        match self::parts(part) {
            (inner, more) if inner == joined && more.len() > 1 => flat.extend(more),
            _ => flat.push(part),
        }
    }
    (joined, flat)
}

/// Split once, at the outermost level.
fn once(source: &str) -> (Joined, Vec<&str>) {
    let source = unwrapped(source.trim());
    let marks = marks(source);
    let has = |wanted: &[u8]| marks.iter().any(|m| m.text == wanted && m.depth == 0);
    if has(b"?") {
        return (Joined::All, vec![source]);
    }
    let (joined, by): (Joined, &[u8]) = if has(b"||") {
        (Joined::Any, b"||")
    } else {
        (Joined::All, b"&&")
    };
    let mut parts = Vec::new();
    let mut from = 0;
    for mark in marks.iter().filter(|m| m.depth == 0 && m.text == by) {
        parts.push(source[from..mark.at].trim());
        from = mark.at + 2;
    }
    parts.push(source[from..].trim());
    (joined, parts)
}

struct Mark {
    at: usize,
    depth: usize,
    text: &'static [u8],
}

/// `&&`, `||`, `?`, and closing brackets, outside of texts and comments.
fn marks(source: &str) -> Vec<Mark> {
    let bytes = source.as_bytes();
    let mut marks = Vec::new();
    let (mut i, mut depth) = (0, 0usize);
    while i < bytes.len() {
        match bytes[i] {
            b'"' | b'\'' => {
                i = after_text(bytes, i);
                continue;
            }
            b'/' if bytes.get(i + 1) == Some(&b'/') => {
                while i < bytes.len() && bytes[i] != b'\n' {
                    i += 1;
                }
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                marks.push(Mark {
                    at: i,
                    depth,
                    text: b")",
                });
            }
            b'?' => marks.push(Mark {
                at: i,
                depth,
                text: b"?",
            }),
            b'&' if bytes.get(i + 1) == Some(&b'&') => {
                marks.push(Mark {
                    at: i,
                    depth,
                    text: b"&&",
                });
                i += 1;
            }
            b'|' if bytes.get(i + 1) == Some(&b'|') => {
                marks.push(Mark {
                    at: i,
                    depth,
                    text: b"||",
                });
                i += 1;
            }
            _ => {}
        }
        i += 1;
    }
    marks
}

/// The position after the text that begins at `start`: short or triple quotes, raw when an `r` stands before.
fn after_text(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let raw = bytes[..start]
        .iter()
        .rev()
        .take(2)
        .take_while(|b| b.is_ascii_alphabetic())
        .any(|b| b.eq_ignore_ascii_case(&b'r'));
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let mut i = start + if triple { 3 } else { 1 };
    while i < bytes.len() {
        if bytes[i] == b'\\' && !raw {
            i += 2;
        } else if triple && bytes[i..].starts_with(&[quote; 3]) {
            return i + 3;
        } else if !triple && bytes[i] == quote {
            return i + 1;
        } else {
            i += 1;
        }
    }
    bytes.len()
}

/// Without the brackets that surround all of it.
fn unwrapped(source: &str) -> &str {
    let mut source = source;
    while source.starts_with('(') {
        let closing = marks(source)
            .into_iter()
            .find(|m| m.depth == 0 && m.text == b")");
        match closing {
            Some(mark) if mark.at + 1 == source.len() => source = source[1..mark.at].trim(),
            _ => break,
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::{Joined, parts};

    #[test]
    fn a_condition_falls_into_its_parts() {
        let cases: &[(&str, Joined, &[&str])] = &[
            ("a == 1", Joined::All, &["a == 1"]),
            ("a == 1 && b", Joined::All, &["a == 1", "b"]),
            ("a || b && c", Joined::Any, &["a", "b && c"]),
            ("(a && b)", Joined::All, &["a", "b"]),
            ("((a || b))", Joined::Any, &["a", "b"]),
            ("(a) && (b)", Joined::All, &["(a)", "(b)"]),
            ("(a && b) && (c || d)", Joined::All, &["a", "b", "(c || d)"]),
            ("(a || b) && c", Joined::All, &["(a || b)", "c"]),
            (
                "a == \"x && y\" && b",
                Joined::All,
                &["a == \"x && y\"", "b"],
            ),
            ("a == 'x\\'&&' && b", Joined::All, &["a == 'x\\'&&'", "b"]),
            ("a == r'\\' && b", Joined::All, &["a == r'\\'", "b"]),
            (
                "a == '''x ' && y''' && b",
                Joined::All,
                &["a == '''x ' && y'''", "b"],
            ),
            ("a ? b && c : d", Joined::All, &["a ? b && c : d"]),
            (
                "l.any(x, x && y) && z",
                Joined::All,
                &["l.any(x, x && y)", "z"],
            ),
            ("a // && b\n && c", Joined::All, &["a // && b", "c"]),
        ];
        for (source, joined, expected) in cases {
            assert_eq!(parts(source), (*joined, expected.to_vec()), "{source}");
        }
    }
}
