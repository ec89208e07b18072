//! Arrows go down only: each crate knows those below it and no other.

use crate::root;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

/// What each of our crates may know of ours, whatever for: building and testing count too.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("sojourn-proto", &[]),
    ("sojourn-journey", &[]),
    ("sojourn-cluster", &["sojourn-proto"]),
    ("sojourn-client", &["sojourn-proto", "sojourn-journey"]),
    (
        "sojourn-node",
        &[
            "sojourn-proto",
            "sojourn-journey",
            "sojourn-cluster",
            "sojourn-client",
        ],
    ),
    (
        "chaos-tests",
        &[
            "sojourn-proto",
            "sojourn-journey",
            "sojourn-cluster",
            "sojourn-client",
            "sojourn-node",
        ],
    ),
    (
        "sojourn-fuzz",
        &[
            "sojourn-proto",
            "sojourn-journey",
            "sojourn-cluster",
            "sojourn-client",
            "sojourn-node",
        ],
    ),
];

/// Libraries that the rules may use: none of them touches the world. Who adds one adds it here, on purpose.
const PURE: [&str; 11] = [
    "cel",
    "jiff",
    "regex",
    "schemars",
    "serde",
    "serde-saphyr",
    "serde_json",
    "strsim",
    "thiserror",
    "unicode-normalization",
    "xxhash-rust",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata of this workspace")
}

fn packages(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|p| (p.name.as_str(), p))
        .collect()
}

/// The arrows that nobody allowed, as `from -> to`.
fn wrong<'a>(arrows: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let ours: BTreeSet<&str> = allowed.keys().copied().collect();
    arrows
        .into_iter()
        .filter(|(_, to)| ours.contains(to) || to.starts_with("sojourn"))
        .filter(|(from, to)| !allowed.get(from).is_some_and(|a| a.contains(to)))
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect()
}

#[test]
fn arrows_only_go_down() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let known: Vec<&str> = packages.keys().copied().collect();
    let mut expected: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(
        known, expected,
        "the crates of the workspace; say in ALLOWED what a new one may know"
    );
    let arrows = packages.values().flat_map(|p| {
        p.dependencies
            .iter()
            .map(|d| (p.name.as_str(), d.name.as_str()))
    });
    let wrong = wrong(arrows);
    assert!(wrong.is_empty(), "arrows that do not go down: {wrong:?}");
}

#[test]
fn an_arrow_that_goes_up_or_across_is_found() {
    let found = wrong([
        ("sojourn-journey", "sojourn-proto"),
        ("sojourn-cluster", "sojourn-journey"),
        ("sojourn-client", "sojourn-node"),
        ("sojourn-node", "sojourn-later"),
        ("sojourn-cluster", "sojourn-proto"),
        ("sojourn-cluster", "tokio"),
    ]);
    assert_eq!(
        found,
        [
            "sojourn-journey -> sojourn-proto",
            "sojourn-cluster -> sojourn-journey",
            "sojourn-client -> sojourn-node",
            "sojourn-node -> sojourn-later",
        ]
    );
}

#[test]
fn the_rules_cannot_touch_the_world() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let used: BTreeSet<&str> = packages["sojourn-journey"]
        .dependencies
        .iter()
        .filter(|d| d.kind != DependencyKind::Development)
        .map(|d| d.name.as_str())
        .collect();
    let strange: Vec<&&str> = used.iter().filter(|d| !PURE.contains(d)).collect();
    assert!(
        strange.is_empty(),
        "`journey` is pure, and these are not known to be: {strange:?}"
    );
    // what a library cannot hold, the lint holds: no clock, no file, no thread, no environment
    let lint = crate::read("journey/clippy.toml");
    for banned in [
        "std::time::SystemTime",
        "std::time::Instant",
        "std::fs::File",
        "std::net::TcpStream",
        "std::thread::spawn",
        "std::env::var",
        "std::collections::HashMap",
    ] {
        assert!(
            lint.contains(&format!("\"{banned}\"")),
            "journey/clippy.toml no longer bans {banned}"
        );
    }
}

/// A program that reads the clock in two places has two ideas of now.
#[test]
fn the_node_reads_the_wall_clock_in_one_place() {
    let src = root().join("node/src");
    let readers: Vec<String> = crate::files(&src, &[".rs"])
        .into_iter()
        .filter(|path| {
            let text = std::fs::read_to_string(path).expect("a source file");
            ["SystemTime::now", "Timestamp::now", "Zoned::now"]
                .iter()
                .any(|now| text.contains(now))
        })
        .map(|path| {
            let name = path.strip_prefix(&src).expect("it is under node/src");
            name.display().to_string()
        })
        .collect();
    assert_eq!(readers, ["clock.rs"]);
}
