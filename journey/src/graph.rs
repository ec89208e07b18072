//! A journey as a picture: text for Mermaid and for Graphviz. Knows no counts and no customers.

use crate::compiled::{Compiled, Transition, Trigger};
use crate::expr::Expression;
use crate::problem::short;
use crate::wait::Wait;
use std::fmt::Write;

/// A flowchart for Mermaid.
pub fn mermaid(journey: &Compiled) -> String {
    let mut text = String::from("flowchart TD\n");
    for (number, stage) in journey.stages.iter().enumerate() {
        let label = mermaid_text(&label(&stage.title, stage.end.as_deref()));
        let (open, close) = if stage.end.is_some() {
            ("([", "])")
        } else {
            ("[", "]")
        };
        line(&mut text, &format!("    s{number}{open}\"{label}\"{close}"));
    }
    if !journey.stages.is_empty() {
        line(&mut text, "    start((\"entry\"))");
        for edge in edges(journey) {
            let arrow = if edge.dashed { "-.->" } else { "-->" };
            line(
                &mut text,
                &format!(
                    "    {} {arrow}|\"{}\"| {}",
                    edge.from,
                    mermaid_text(&edge.label),
                    edge.to
                ),
            );
        }
        for (name, label) in extras(journey) {
            line(
                &mut text,
                &format!("    {name}([\"{}\"])", mermaid_text(&label)),
            );
        }
    }
    text
}

/// A directed graph for Graphviz (`dot`).
pub fn graphviz(journey: &Compiled) -> String {
    let mut text = format!("digraph \"{}\" {{\n", dot_text(&journey.name));
    line(&mut text, "    node [shape=box, style=rounded];");
    for (number, stage) in journey.stages.iter().enumerate() {
        let label = dot_text(&label(&stage.title, stage.end.as_deref()));
        let ends = if stage.end.is_some() {
            ", peripheries=2"
        } else {
            ""
        };
        line(
            &mut text,
            &format!("    s{number} [label=\"{label}\"{ends}];"),
        );
    }
    if !journey.stages.is_empty() {
        line(&mut text, "    start [label=\"entry\", shape=circle];");
        for (name, label) in extras(journey) {
            line(
                &mut text,
                &format!(
                    "    {name} [label=\"{}\", shape=ellipse];",
                    dot_text(&label)
                ),
            );
        }
        for edge in edges(journey) {
            let style = if edge.dashed { ", style=dashed" } else { "" };
            line(
                &mut text,
                &format!(
                    "    {} -> {} [label=\"{}\"{style}];",
                    edge.from,
                    edge.to,
                    dot_text(&edge.label)
                ),
            );
        }
    }
    text.push_str("}\n");
    text
}

/// What opens a transition, in words: `docs.file.uploaded or desk.ticket.closed, where …`.
pub fn describe(way: &Transition) -> String {
    let within = |within: &Option<Wait>| {
        within
            .as_ref()
            .map(|w| format!(" within {}", w.source))
            .unwrap_or_default()
    };
    let mut text = match &way.trigger {
        Trigger::Any(kinds) => kinds.join(" or "),
        Trigger::All { kinds, within: w } => format!("all of {}{}", kinds.join(", "), within(w)),
        Trigger::Sequence { kinds, within: w } => format!("{}{}", kinds.join(" then "), within(w)),
        Trigger::Absent {
            kind,
            after: None,
            within,
        } => format!("no {kind} within {}", within.source),
        Trigger::Absent {
            kind,
            after: Some(after),
            within,
        } => format!("no {kind} within {} after {after}", within.source),
        Trigger::After(wait) => format!("after {}", wait.source),
        Trigger::At(expression) => format!("at {}", short(&expression.source)),
        Trigger::Condition => String::new(),
        Trigger::ByHand => "by hand".to_owned(),
    };
    for (word, test) in [("where", &way.where_), ("when", &way.when)] {
        if let Some(test) = test {
            let comma = if text.is_empty() { "" } else { ", " };
            text.push_str(&format!("{comma}{word} {}", short(&test.source)));
        }
    }
    text
}

struct Edge {
    from: String,
    to: String,
    label: String,
    dashed: bool,
}

fn edges(journey: &Compiled) -> Vec<Edge> {
    let mut edges = Vec::new();
    for entry in &journey.entry {
        let label = format!(
            "{}{}",
            entry.on.join(" or "),
            tests(entry.where_.as_ref(), entry.when.as_ref())
        );
        edges.push(Edge {
            from: "start".to_owned(),
            to: "s0".to_owned(),
            label,
            dashed: false,
        });
    }
    for (number, stage) in journey.stages.iter().enumerate() {
        for way in &stage.transitions {
            edges.push(Edge {
                from: format!("s{number}"),
                to: format!("s{}", way.to),
                label: describe(way),
                dashed: false,
            });
        }
        for deadline in &stage.deadlines {
            if let Some(to) = deadline.to {
                let label = format!("deadline {}", deadline.after.source);
                edges.push(Edge {
                    from: format!("s{number}"),
                    to: format!("s{to}"),
                    label,
                    dashed: true,
                });
            }
        }
    }
    for (number, exit) in journey.exit.iter().enumerate() {
        let label = format!(
            "{}{}",
            exit.on.join(" or "),
            tests(exit.where_.as_ref(), exit.when.as_ref())
        );
        edges.push(Edge {
            from: "any".to_owned(),
            to: format!("exit{number}"),
            label,
            dashed: true,
        });
    }
    for deadline in &journey.deadlines {
        let to = deadline
            .to
            .map_or_else(|| "expired".to_owned(), |to| format!("s{to}"));
        let label = format!("deadline {}", deadline.after.source);
        edges.push(Edge {
            from: "any".to_owned(),
            to,
            label,
            dashed: true,
        });
    }
    edges
}

/// Nodes that are no stages, where there is something to lead from or to them.
fn extras(journey: &Compiled) -> Vec<(String, String)> {
    let mut extras = Vec::new();
    if !journey.exit.is_empty() || !journey.deadlines.is_empty() {
        extras.push(("any".to_owned(), "any stage".to_owned()));
    }
    for (number, exit) in journey.exit.iter().enumerate() {
        extras.push((
            format!("exit{number}"),
            label("exited", exit.outcome.as_deref()),
        ));
    }
    if journey
        .deadlines
        .iter()
        .any(|deadline| deadline.to.is_none())
    {
        extras.push(("expired".to_owned(), "expired".to_owned()));
    }
    extras
}

fn tests(where_: Option<&Expression>, when: Option<&Expression>) -> String {
    let one = |word: &str, test: Option<&Expression>| {
        test.map(|t| format!(" {word} {}", short(&t.source)))
            .unwrap_or_default()
    };
    format!("{}{}", one("where", where_), one("when", when))
}

fn label(title: &str, outcome: Option<&str>) -> String {
    match outcome {
        Some(outcome) => format!("{title}: {outcome}"),
        None => title.to_owned(),
    }
}

fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}"); // writing to a String does not fail
}

/// Mermaid reads entity codes between `#` and `;`, and Markdown and HTML within texts.
fn mermaid_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '`' | '|' | '\\' => {
                let _ = write!(safe, "#{};", u32::from(c));
            }
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

fn dot_text(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    spaced.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use crate::compile::{Journey, Known};

    const TEXT: &str = r#"
journey: j
title: "A \"j\""
deadline: { after: 90d }
entry: [{ on: a.b, where: signal.data.form == "loan" }]
exit: [{ on: gone, outcome: lost }]
stages:
  - stage: x
    title: "First | \"x\" #1"
    deadline: { after: 3d, move: y }
    transitions:
      - { to: y, on: [c.d, e.f], where: 'signal.data.k == "v"', when: A.B.c > 1 }
      - { to: y, absent: g.h, within: 2d }
      - { to: y, all: [c.d, e.f], within: 1d }
      - { to: y }
  - { stage: y, end: done }
"#;

    #[test]
    fn a_journey_is_drawn() {
        let compiled = Journey::compile(TEXT, &Known::default()).unwrap().compiled;
        assert_eq!(
            super::mermaid(&compiled),
            "flowchart TD
    s0[\"First #124; #34;x#34; #35;1\"]
    s1([\"y: done\"])
    start((\"entry\"))
    start -->|\"a.b where signal.data.form == #34;loan#34;\"| s0
    s0 -->|\"c.d or e.f, where signal.data.k == #34;v#34;, when A.B.c #62; 1\"| s1
    s0 -->|\"no g.h within 2d\"| s1
    s0 -->|\"all of c.d, e.f within 1d\"| s1
    s0 -->|\"by hand\"| s1
    s0 -.->|\"deadline 3d\"| s1
    any -.->|\"gone\"| exit0
    any -.->|\"deadline 90d\"| expired
    any([\"any stage\"])
    exit0([\"exited: lost\"])
    expired([\"expired\"])
"
        );
        assert_eq!(
            super::graphviz(&compiled),
            "digraph \"j\" {
    node [shape=box, style=rounded];
    s0 [label=\"First | \\\"x\\\" #1\"];
    s1 [label=\"y: done\", peripheries=2];
    start [label=\"entry\", shape=circle];
    any [label=\"any stage\", shape=ellipse];
    exit0 [label=\"exited: lost\", shape=ellipse];
    expired [label=\"expired\", shape=ellipse];
    start -> s0 [label=\"a.b where signal.data.form == \\\"loan\\\"\"];
    s0 -> s1 [label=\"c.d or e.f, where signal.data.k == \\\"v\\\", when A.B.c > 1\"];
    s0 -> s1 [label=\"no g.h within 2d\"];
    s0 -> s1 [label=\"all of c.d, e.f within 1d\"];
    s0 -> s1 [label=\"by hand\"];
    s0 -> s1 [label=\"deadline 3d\", style=dashed];
    any -> exit0 [label=\"gone\", style=dashed];
    any -> expired [label=\"deadline 90d\", style=dashed];
}
"
        );
    }
}
