//! Checkpoints that cannot be read cost time, never data.

use super::support::*;
use sojourn_cluster::log_env::DefaultFileSystem;
use sojourn_cluster::{GroupId, HostConfig, MetaKey, open_log};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Checkpoints every second.
const OFTEN: &[(&str, &str)] = &[
    ("SOJOURN_CHECKPOINT__EVERY_SECONDS", "1"),
    ("SOJOURN_LIMITS__DISK_FREE_MIN", "0"),
];

/// A folder of which the checkpoints are needed: the log before them is gone, and goes on after them.
async fn lived_in(dir: &Path) -> (Acknowledged, Vec<String>) {
    let until = Instant::now() + PATIENCE;
    let mut acknowledged = Acknowledged::new();
    // the log is purged a moment after its checkpoint, of which nobody outside is told
    for round in 0.. {
        let server = Server::serves(dir, OFTEN).await;
        if round == 0 {
            publish(&server.client).await;
        }
        acknowledged.extend(send_all(&server.client, round * 20..round * 20 + 20).await);
        server.checkpointed().await;
        server.kill();
        if is_purged(dir) {
            break;
        }
        assert!(Instant::now() < until, "the log is never purged");
    }
    let server = Server::serves(dir, NO_CHECKPOINTS).await;
    acknowledged.extend(send_all(&server.client, 100_000..100_010).await);
    let story = story(&server.client, &acknowledged).await;
    server.kill();
    (acknowledged, story)
}

/// Whether the log of every group begins after its first entry.
fn is_purged(dir: &Path) -> bool {
    let config = HostConfig {
        dir: dir.to_owned(),
        ..HostConfig::default()
    };
    let (log, _) = open_log(&config, Arc::new(DefaultFileSystem)).expect("opens");
    let purged = |group| log.meta(GroupId(group), MetaKey::Purged).is_some();
    (0..3).all(purged)
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_checkpoints_are_set_aside_and_made_anew_from_history() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template");
    let (acknowledged, before) = lived_in(&template).await;
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("bytes", |c| corrupt(&c.join("db"), 97)),
        ("truncated", |c| {
            let db = c.join("db");
            truncate(&db, used(&db) / 2);
        }),
        ("its data deleted", |c| {
            std::fs::remove_file(c.join("db")).unwrap();
        }),
        ("its settings corrupt", |c| corrupt(&c.join("conf"), 7)),
        ("all of it deleted", |c| std::fs::remove_dir_all(c).unwrap()),
    ];
    for (name, damage) in damages {
        let dir = folder.path().join(name.replace(' ', "-"));
        copy_all(&template, &dir);
        damage(&dir.join("checkpoints"));
        let mut server = Server::serves(&dir, NO_CHECKPOINTS).await;
        all_there(&server.client, &acknowledged).await;
        let after = story(&server.client, &acknowledged).await;
        assert_eq!(before, after, "{name}");
        goes_on(&server.client, "new").await;
        let said = server.said();
        assert!(
            said.contains("WARN") && said.contains("was made anew from history"),
            "{name}: {said}"
        );
        // made anew means written again: the next start needs no history
        server.stop();
        let (code, shown) = repair(&dir, &[]);
        assert_eq!(code, 0, "{name}: {shown}");
        let mut server = Server::serves(&dir, NO_CHECKPOINTS).await;
        all_there(&server.client, &acknowledged).await;
        let said = server.said();
        assert!(!said.contains("made anew"), "{name}: {said}");
    }
}

/// One bit may be in what sled does not need any more; noticed or not, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_turned_bit_is_noticed_or_was_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template");
    let (acknowledged, before) = lived_in(&template).await;
    let length = used(&template.join("checkpoints/db"));
    let (mut noticed, places) = (0, 12);
    for place in 0..places {
        let dir = folder.path().join("data");
        copy_all(&template, &dir);
        flip(
            &dir.join("checkpoints/db"),
            length * (2 * place + 1) / (2 * places),
        );
        let (code, shown) = repair(&dir, &[]);
        assert!(
            code == 0 || shown.contains("checkpoints: damaged"),
            "{shown}"
        );
        let mut server = Server::serves(&dir, NO_CHECKPOINTS).await;
        let anew = server.said().contains("made anew");
        assert!(anew || code == 0, "{shown}\n{}", server.said());
        all_there(&server.client, &acknowledged).await;
        assert_eq!(
            before,
            story(&server.client, &acknowledged).await,
            "{place}"
        );
        noticed += u64::from(anew);
        drop(server);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert!(noticed > 0, "not one of {places} bits was needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_names_corrupt_checkpoints_and_changes_nothing_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let (acknowledged, before) = lived_in(&dir).await;
    let (code, shown) = repair(&dir, &[]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("nothing is damaged"), "{shown}");
    corrupt(&dir.join("checkpoints/db"), 97);
    let damaged = std::fs::read(dir.join("checkpoints/db")).unwrap();
    let (code, shown) = repair(&dir, &[]);
    assert_eq!(code, 5, "{shown}");
    assert!(
        shown.contains("checkpoints: damaged") && shown.contains("nothing is lost"),
        "{shown}"
    );
    assert_eq!(std::fs::read(dir.join("checkpoints/db")).unwrap(), damaged);
    let (code, shown) = repair(&dir, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&shown).expect("it is json");
    assert_eq!(code, 5, "{shown}");
    assert_eq!(json["whole"], false);
    assert_eq!(json["mendable"], true);
    assert!(json["checkpoints"]["damage"].is_string(), "{json}");
    let (code, shown) = repair(&dir, &["--apply"]);
    assert_eq!(code, 0, "{shown}");
    assert!(dir.join("checkpoints.damaged-1/db").exists(), "{shown}");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    all_there(&server.client, &acknowledged).await;
    assert_eq!(before, story(&server.client, &acknowledged).await);
}
