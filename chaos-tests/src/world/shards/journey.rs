//! The one journey of these worlds: it has timers, a condition and actions, ends and begins again. The catalog is this view
//! of it, given to every node: that it is published and arrives everywhere is not in these worlds.

use anyhow::{Result, anyhow};
use sojourn_node::catalog::{CatalogState, View};
use sojourn_proto::stored;
use std::sync::Arc;

/// The workspace of everybody.
pub const WORKSPACE: &str = "default";
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
      - { to: late, after: 1s }
  - stage: called
    enter:
      - webhook: { to: hook, body: { why: called } }
    transitions:
      - { to: open, on: app.back }
      - { to: done, when: app.amount.n > 6 }
      - { to: late, after: 3s }
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

/// The published catalog.
///
/// # Errors
/// The journey cannot be compiled.
pub fn view() -> Result<Arc<View>> {
    let version = stored::CatalogVersion {
        version: 1,
        text: TEXT.to_owned(),
        ..Default::default()
    };
    let journey = stored::CatalogJourney {
        workspace: WORKSPACE.to_owned(),
        journey: "round".to_owned(),
        versions: vec![version],
        live: 1,
        ..Default::default()
    };
    let state = CatalogState {
        position: 1,
        journeys: [((WORKSPACE.to_owned(), "round".to_owned()), journey)].into(),
        ..CatalogState::default()
    };
    let view = View::build(&state, &View::default());
    let compiled = view
        .workspace(WORKSPACE)
        .and_then(|space| space.journeys.get("round"))
        .and_then(|journey| journey.live())
        .ok_or_else(|| anyhow!("the journey of the world is not there"))?;
    match &compiled.compiled {
        Ok(_) => Ok(Arc::new(view)),
        Err(why) => Err(anyhow!("the journey of the world: {why}")),
    }
}
