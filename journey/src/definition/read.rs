//! Reading a tree into types, noting every problem and going on. Knows no type of its own.

use crate::document::{Key, Kind, Node};
use crate::problem::{Problem, Severity, nearest, short};

/// The most errors, and the most warnings, that are reported of one text.
const MOST: usize = 500;

/// Where something stands in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// `stages[2].transitions[0]`.
    pub(crate) path: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// Where the characters of a text begin, when they stand in the document as they are.
    pub(crate) inner: Option<u32>,
}

impl Place {
    pub(crate) fn of(node: &Node, path: &str) -> Place {
        Place {
            path: path.to_owned(),
            line: node.line,
            column: node.column,
            inner: node.inner,
        }
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    left_out: usize,
    errors: usize,
}

impl Problems {
    pub(crate) fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.note(place, Severity::Error, message.into(), None);
    }

    pub(crate) fn error_with_help(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.note(place, Severity::Error, message.into(), Some(help.into()));
    }

    pub(crate) fn warning(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.note(place, Severity::Warning, message.into(), Some(help.into()));
    }

    fn note(&mut self, place: &Place, severity: Severity, message: String, help: Option<String>) {
        self.errors += usize::from(severity == Severity::Error);
        if self.list.iter().filter(|p| p.severity == severity).count() >= MOST {
            self.left_out += 1;
            return;
        }
        let problem = Problem {
            path: place.path.clone(),
            line: place.line.max(1),
            column: place.column.max(1),
            message,
            help,
            severity,
        };
        if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// Whether something has been told of what stands below a path.
    pub(crate) fn told_below(&self, path: &str) -> bool {
        self.list.iter().any(|problem| {
            problem
                .path
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// All of them in the order of the text.
    pub(crate) fn finish(self) -> Vec<Problem> {
        let mut list = self.list;
        list.sort_by_key(|problem| (problem.line, problem.column));
        if self.left_out > 0 {
            list.push(Problem {
                path: String::new(),
                line: 1,
                column: 1,
                message: format!("{} more problems are not shown", self.left_out),
                help: None,
                severity: Severity::Warning,
            });
        }
        list
    }
}

/// What can be read from a node.
pub(crate) trait Read: Sized {
    /// The value, or `None` after noting why there is none.
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self>;

    /// The value of a key that is not there; `None` where the key is needed.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Read> Read for Option<T> {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        if matches!(node.kind, Kind::Null) {
            return Some(None);
        }
        // what is wrong has been noted, so the text is refused; the key is then as good as absent, and reading goes on
        Some(T::read(node, path, problems))
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let Kind::List(list) = &node.kind else {
            problems.error_with_help(
                &Place::of(node, path),
                format!("a list is expected, found {}", node.describe()),
                "write `- ` before each element, or `[…]`",
            );
            return None;
        };
        let read: Vec<Option<T>> = list
            .iter()
            .enumerate()
            .map(|(i, node)| T::read(node, &format!("{path}[{i}]"), problems))
            .collect();
        read.into_iter().collect()
    }
}

/// A map whose keys are known.
pub(crate) struct Map<'n> {
    entries: &'n [(Key, Node)],
    node: &'n Node,
    path: &'n str,
    what: &'static str,
}

impl<'n> Map<'n> {
    /// Notes unknown and repeated keys.
    pub(crate) fn of(
        node: &'n Node,
        path: &'n str,
        what: &'static str,
        keys: &'static [&'static str],
        problems: &mut Problems,
    ) -> Option<Map<'n>> {
        let Kind::Map(entries) = &node.kind else {
            problems.error_with_help(
                &Place::of(node, path),
                format!("{what} is expected, found {}", node.describe()),
                format!("{what} is a map with the keys {}", keys.join(", ")),
            );
            return None;
        };
        repeated(entries, path, problems);
        for (key, _) in entries
            .iter()
            .filter(|(key, _)| !keys.contains(&key.name.as_str()))
        {
            let place = key_place(key, path);
            let message = format!("`{}` is no key of {what}", short(&key.name));
            match nearest(&key.name, keys.iter().copied()) {
                Some(near) => {
                    problems.error_with_help(&place, message, format!("did you mean `{near}`?"))
                }
                None => problems.error_with_help(
                    &place,
                    message,
                    format!("its keys are {}", keys.join(", ")),
                ),
            }
        }
        Some(Map {
            entries,
            node,
            path,
            what,
        })
    }

    /// The value of a key.
    pub(crate) fn field<T: Read>(&self, key: &str, problems: &mut Problems) -> Option<T> {
        match self.entries.iter().find(|(k, _)| k.name == key) {
            Some((_, node)) => T::read(node, &below(self.path, key), problems),
            None => {
                let absent = T::absent();
                if absent.is_none() {
                    problems.error(
                        &Place::of(self.node, self.path),
                        format!("{} needs `{key}`", self.what),
                    );
                }
                absent
            }
        }
    }
}

/// Notes keys that stand more than once.
pub(crate) fn repeated(entries: &[(Key, Node)], path: &str, problems: &mut Problems) {
    let mut seen = std::collections::BTreeSet::new();
    for (key, _) in entries {
        if !seen.insert(&key.name) {
            problems.error(
                &key_place(key, path),
                format!("the key `{}` stands here a second time", short(&key.name)),
            );
        }
    }
}

pub(crate) fn key_place(key: &Key, path: &str) -> Place {
    Place {
        path: below(path, &short(&key.name)),
        line: key.line,
        column: key.column,
        inner: None,
    }
}

pub(crate) fn below(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
