//! The documents name only what is there: paths, identifiers, links, commands and flags.

use crate::examples::blocks;
use crate::{files, read, root};
use clap::{CommandFactory, Parser};
use sojourn_client::cli::{Command, GlobalOpts};
use sojourn_node::cli::ServerCommand;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The command line of the binary, put together as it does.
#[derive(Debug, Parser)]
#[command(name = "sojourn", disable_help_subcommand = true)]
struct Sojourn {
    #[command(flatten)]
    global: GlobalOpts,
    #[command(subcommand)]
    command: All,
}

// there is one at a time: its size matters to nobody
#[allow(clippy::large_enum_variant)]
#[derive(Debug, clap::Subcommand)]
enum All {
    #[command(flatten)]
    Server(ServerCommand),
    #[command(flatten)]
    Client(Command),
}

/// Every document for people, named from the root.
fn documents() -> Vec<(String, String)> {
    let root = root();
    let mut paths: Vec<PathBuf> = files(&root.join("docs"), &[".md"]);
    paths.push(root.join("README.md"));
    paths.push(root.join("ARCHITECTURE.md"));
    paths
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&root)
                .expect("it is under the root")
                .display()
                .to_string();
            let text = read(&name);
            (name, text)
        })
        .collect()
}

/// The text without its fenced blocks.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// What stands between back quotes.
fn spans(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

fn is_path(span: &str) -> bool {
    let endings = [".rs", ".md", ".toml", ".yaml", ".json", ".proto", ".lock"];
    !span.contains(' ') && (span.contains('/') || endings.iter().any(|e| span.ends_with(e)))
}

/// The parts of an identifier such as `decide::decide` or `Host::open()`; none when it is none.
fn identifier(span: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = span.trim_end_matches("()").split("::").collect();
    let word = |p: &&str| {
        p.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && p.chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    parts.iter().all(word).then_some(parts)
}

/// Every name that our sources define, our crates and what they use.
fn defined() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let root = root();
    let keywords = [
        "fn", "struct", "enum", "trait", "mod", "const", "static", "type", "service", "rpc",
        "message",
    ];
    for path in files(&root, &[".rs", ".proto"]) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines() {
            names.extend(variant(line));
            let mut words = line
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .filter(|w| !w.is_empty());
            while let Some(word) = words.next() {
                if keywords.contains(&word)
                    && let Some(name) = words.next()
                {
                    names.insert(name.to_owned());
                }
            }
        }
        if let Some(stem) = path.file_stem().and_then(|s| s.to_str()) {
            names.insert(stem.to_owned());
        }
    }
    for path in files(&root, &["Cargo.toml"]) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines() {
            if let Some((name, _)) = line.split_once([' ', '.', '=']) {
                names.insert(name.to_owned());
            }
        }
        let folder = path.parent().and_then(|p| p.file_name());
        names.extend(folder.and_then(|n| n.to_str()).map(str::to_owned));
    }
    names
}

/// The name that a line begins with, if it looks like a variant of an enum.
fn variant(line: &str) -> Option<String> {
    let line = line.trim_start();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric())?;
    let (name, rest) = line.split_at(end);
    let is = name.starts_with(|c: char| c.is_ascii_uppercase())
        && (rest == "," || rest == " {" || rest.starts_with('('));
    is.then(|| name.to_owned())
}

#[test]
fn what_the_architecture_names_is_there() {
    let page = read("ARCHITECTURE.md");
    let prose = prose(&page);
    let root = root();
    let defined = defined();
    let (mut paths, mut names) = (0, 0);
    let mut missing = Vec::new();
    for span in spans(&prose) {
        if is_path(span) {
            paths += 1;
            if !root.join(span).exists() {
                missing.push(span);
            }
        } else if let Some(parts) = identifier(span) {
            names += 1;
            if !parts.iter().all(|p| defined.contains(*p)) {
                missing.push(span);
            }
        } else {
            missing.push(span);
        }
    }
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what is not there (or is neither a path nor an identifier): {missing:?}"
    );
    assert!(paths >= 20 && names >= 20, "{paths} paths, {names} names");
}

#[test]
fn what_is_not_there_is_found() {
    assert_eq!(
        identifier("decide::evolve()"),
        Some(vec!["decide", "evolve"])
    );
    assert_eq!(identifier("a + b"), None);
    assert!(is_path("journey/src/nowhere.rs") && !is_path("evolve"));
    let defined = defined();
    assert!(defined.contains("evolve") && defined.contains("openraft"));
    assert!(!defined.contains(&["evolve", "backwards"].join("_")));
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let mut missing = Vec::new();
    let mut seen = 0;
    for (name, page) in documents() {
        let prose = prose(&page);
        let folder = root.join(&name).parent().expect("a folder").to_owned();
        for link in prose.split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            seen += 1;
            let file = target.split('#').next().unwrap_or_default();
            if !folder.join(file).exists() {
                missing.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(missing.is_empty(), "links that lead nowhere: {missing:?}");
    assert!(seen >= 10, "{seen} links");
}

/// Every `sojourn …` in a `sh` block is a command line that the binary takes, and the files that it names are there.
#[test]
fn every_command_in_the_documents_can_be_typed() {
    let root = root();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (name, page) in documents() {
        for block in blocks(&page, "sh") {
            for line in block.text.replace("\\\n", " ").lines() {
                let Some(words) = command(line) else { continue };
                seen += 1;
                for word in words.iter().filter(|w| w.starts_with("examples/")) {
                    if !root.join(word).exists() {
                        wrong.push(format!("{name}: {word} does not exist"));
                    }
                }
                if let Err(error) = Sojourn::try_parse_from(words) {
                    wrong.push(format!("{name}: {line}\n{error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen >= 20, "{seen} commands");
}

/// The words of a line that calls the binary, by whatever name; a remark behind it is left out.
fn command(line: &str) -> Option<Vec<String>> {
    let mut words = words(line);
    let at = if words.first().is_some_and(|w| w == "cargo") {
        let dashes = words.iter().position(|w| w == "--")?;
        if !words[..dashes].iter().any(|w| w == "sojourn") {
            return None;
        }
        dashes
    } else {
        // variables may be set before it
        let at = words.iter().position(|w| !w.contains('='))?;
        let ours = words[at] == "sojourn" || words[at].ends_with("/sojourn");
        ours.then_some(at)?
    };
    words.drain(..at);
    words[0] = "sojourn".into();
    if let Some(end) = words.iter().position(|w| w == "|" || w == ">" || w == "&") {
        words.truncate(end);
    }
    Some(words)
}

/// Words as a shell takes them: quotes hold together, `#` begins a remark.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn a_line_is_split_as_a_shell_does() {
    let line = r#"sojourn signal send a.b --data '{"x": 1}' | less # look"#;
    let expected = ["sojourn", "signal", "send", "a.b", "--data", r#"{"x": 1}"#];
    assert_eq!(command(line).expect("a command"), expected);
    let run = "cargo run --release --bin sojourn -- demo --once";
    assert_eq!(
        command(run).expect("a command"),
        ["sojourn", "demo", "--once"]
    );
    assert_eq!(command("cargo test --workspace"), None);
    assert!(Sojourn::try_parse_from(["sojourn", "signal", "sned"]).is_err());
}

/// The page of the commands names every command and every flag of its own.
#[test]
fn the_page_of_the_commands_is_complete() {
    let page = read("docs/cli.md");
    let root = Sojourn::command();
    let global: BTreeSet<String> = root
        .get_arguments()
        .filter_map(|a| a.get_long().map(str::to_owned))
        .collect();
    let mut missing: Vec<String> = global
        .iter()
        .filter(|flag| !page.contains(&format!("--{flag}")))
        .cloned()
        .collect();
    let mut open = vec![(String::from("sojourn"), &root)];
    let mut commands = 0;
    while let Some((name, command)) = open.pop() {
        for inner in command.get_subcommands() {
            if !inner.is_hide_set() {
                open.push((format!("{name} {}", inner.get_name()), inner));
            }
        }
        if command.has_subcommands() {
            continue;
        }
        commands += 1;
        // what the page says of a command stands in the rows that name it
        let said: Vec<&str> = page
            .lines()
            .filter(|l| l.contains(&format!("`{name}` ")) || l.contains(&format!("`{name} ")))
            .collect();
        if said.is_empty() {
            missing.push(name);
            continue;
        }
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long().filter(|_| !argument.is_hide_set()) else {
                continue;
            };
            let told = said.iter().any(|l| l.contains(&format!("--{long}")));
            if !told && !global.contains(long) && long != "help" {
                missing.push(format!("{name} --{long}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/cli.md does not tell of {missing:?}"
    );
    assert!(commands >= 25, "{commands} commands");
}

/// What the README shows of the SDK is what the SDK's own documentation compiles.
#[test]
fn the_program_of_the_readme_is_a_doc_test() {
    let documented: Vec<String> = read("client/src/lib.rs")
        .lines()
        .filter_map(|l| l.strip_prefix("//!"))
        .map(|l| l.trim().to_owned())
        .collect();
    let programs = blocks(&read("README.md"), "rust");
    assert_eq!(programs.len(), 1, "one program in the README");
    let strange: Vec<&str> = programs[0]
        .text
        .lines()
        .map(str::trim)
        .filter(|l| !documented.iter().any(|d| d == l))
        .collect();
    assert!(strange.is_empty(), "not in client/src/lib.rs: {strange:?}");
}

/// The words after `mark` in a text, up to the first character that does not belong to a name.
fn names_after<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    let ends = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.split(mark)
        .skip(1)
        .map(|rest| rest.split(ends).next().unwrap_or_default())
        .collect()
}

#[test]
fn every_metric_of_guide_and_dashboard_is_one() {
    let sources: String = files(&root().join("node/src"), &[".rs"])
        .iter()
        .filter(|path| path.to_string_lossy().contains("metrics"))
        .map(|path| std::fs::read_to_string(path).expect("it can be read"))
        .collect();
    let dashboard = read("docs/grafana/sojourn.json").replace('\\', "");
    for (page, text) in [
        ("operate.md", read("docs/operate.md")),
        ("grafana/sojourn.json", dashboard),
    ] {
        let metrics = names_after(&text, "sojourn_");
        let whats = names_after(&text, "what=\"");
        assert!(
            metrics.len() > 3 && whats.len() > 10,
            "{page} names metrics"
        );
        for metric in metrics {
            let name = metric.trim_end_matches("_bucket");
            assert!(
                sources.contains(&format!("\"sojourn_{name}\"")),
                "{page} names the metric sojourn_{metric}, which there is not"
            );
        }
        for what in whats {
            assert!(
                sources.contains(&format!("\"{what}\"")),
                "{page} names what=\"{what}\", which there is not"
            );
        }
    }
}
