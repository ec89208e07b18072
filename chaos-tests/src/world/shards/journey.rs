//! The one journey of these worlds: it has timers, a condition and actions, ends and begins again. It has some versions, each
//! with other times; the catalog at position 1 has the first one only, each later position one more, and the newest is live.

use anyhow::{Result, anyhow};
use sojourn_node::catalog::{CatalogState, View};
use sojourn_proto::stored;
use std::sync::Arc;

/// The workspace of everybody.
pub const WORKSPACE: &str = "default";
/// The journey.
pub const JOURNEY: &str = "round";
/// Where signals come from.
pub const SOURCE: &str = "app";

const TEXT: &str = r#"
journey: round
reentry: { mode: after_exit }
entry:
  - on: app.begin
stages:
  - stage: open
    transitions:
      - to: called
        on: app.go
        do:
          - webhook: { to: hook, body: { why: go, signal: "{{ signal.id }}" } }
      - { to: late, after: OPEN }
  - stage: called
    enter:
      - webhook: { to: hook, body: { why: called } }
    transitions:
      - { to: open, on: app.back }
      - { to: done, when: app.amount.n > 6 }
      - { to: late, after: CALLED }
  - stage: late
    enter:
      - webhook: { to: hook, body: { why: late } }
    repeat:
      - every: 2s
        at_most: 3
        do:
          - webhook: { to: hook, body: { why: reminder } }
    transitions:
      - { to: open, on: app.back }
      - { to: called, on: app.go }
      - { to: done, when: app.amount.n > 8 }
  - stage: done
    end: converted
"#;

/// The kinds of signals, the likelier ones more than once.
pub const KINDS: [&str; 8] = [
    "app.begin",
    "app.begin",
    "app.go",
    "app.go",
    "app.go",
    "app.back",
    "app.back",
    "app.amount.set",
];

/// After how many seconds each version goes on by itself, from `open` and from `called`.
const AFTER: [(i64, i64); 4] = [(1, 3), (2, 2), (1, 1), (3, 2)];

/// How many versions there are: the same stages, with other times.
pub const VERSIONS: usize = AFTER.len();

/// After how many microseconds a version's timer at a place is due; `None`: another timer, or no such version.
pub fn due_after(version: u32, place: &str) -> Option<i64> {
    let (open, called) = AFTER.get((version as usize).checked_sub(1)?)?;
    match place {
        "stage/open/transition/1" => Some(open * 1_000_000),
        "stage/called/transition/2" => Some(called * 1_000_000),
        _ => None,
    }
}

/// The catalogs, the oldest first.
///
/// # Errors
/// The journey cannot be compiled.
pub fn views() -> Result<Vec<Arc<View>>> {
    let mut views: Vec<Arc<View>> = Vec::with_capacity(VERSIONS);
    for newest in 1..=VERSIONS as u32 {
        let before = views.last().cloned().unwrap_or_default();
        views.push(view(newest, &before)?);
    }
    Ok(views)
}

fn text(version: u32) -> String {
    let (open, called) = AFTER[version as usize - 1];
    TEXT.replace("OPEN", &format!("{open}s"))
        .replace("CALLED", &format!("{called}s"))
}

/// The catalog with this version as the newest.
fn view(newest: u32, before: &View) -> Result<Arc<View>> {
    let version = |version| stored::CatalogVersion {
        version,
        text: text(version),
        ..Default::default()
    };
    let journey = stored::CatalogJourney {
        workspace: WORKSPACE.to_owned(),
        journey: JOURNEY.to_owned(),
        versions: (1..=newest).map(version).collect(),
        live: newest,
        ..Default::default()
    };
    let state = CatalogState {
        position: newest.into(),
        journeys: [((WORKSPACE.to_owned(), JOURNEY.to_owned()), journey)].into(),
        ..CatalogState::default()
    };
    let view = View::build(&state, before);
    let compiled = view
        .workspace(WORKSPACE)
        .and_then(|space| space.journeys.get(JOURNEY))
        .and_then(|journey| journey.live())
        .ok_or_else(|| anyhow!("the journey of the world is not there"))?;
    match &compiled.compiled {
        Ok(_) => Ok(Arc::new(view)),
        Err(why) => Err(anyhow!("the journey of the world: {why}")),
    }
}
