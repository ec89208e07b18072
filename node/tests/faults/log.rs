//! A torn end of the log is cut and said; damage elsewhere is refused until the operator decides.

use super::support::*;
use sojourn_cluster::repair::inspect;
use sojourn_cluster::{FileScan, Row};
use std::path::Path;

/// The newest file of the log.
fn newest(dir: &Path) -> FileScan {
    let report = inspect(dir).expect("inspects");
    let mut of_row = report.files.into_iter().filter(|f| f.row == Row::Append);
    of_row.next_back().expect("a file")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_is_cut_and_said_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    let acknowledged = send_all(&server.client, 0..20).await;
    server.kill();
    // a write that began: the header and some of the body of a record
    let last = newest(&dir);
    let mut bytes = std::fs::read(&last.path).unwrap();
    bytes.truncate(last.good_bytes as usize);
    let (record_bytes, footer_at) = (4_096_u64, 4_000_u64);
    bytes.extend((record_bytes << 8).to_be_bytes());
    bytes.extend(footer_at.to_be_bytes());
    bytes.extend([0xa5; 164]);
    std::fs::write(&last.path, &bytes).unwrap();
    let (code, shown) = repair(&dir, &[]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("a torn record of 180 bytes"), "{shown}");
    let mut server = Server::serves(&dir, NO_CHECKPOINTS).await;
    let said = server.said();
    assert!(
        said.contains("WARN") && said.contains("torn record") && said.contains(".raftlog"),
        "{said}"
    );
    all_there(&server.client, &acknowledged).await;
    goes_on(&server.client, "new").await;
    server.kill();
    let mut server = Server::serves(&dir, NO_CHECKPOINTS).await;
    let said = server.said();
    assert!(!said.contains("torn record"), "cut once: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_is_refused_shown_and_cut_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    let early = send_all(&server.client, 0..10).await;
    let middle = send_all(&server.client, 10..20).await;
    let late = send_all(&server.client, 20..30).await;
    server.kill();
    let last = newest(&dir);
    flip(&last.path, last.good_bytes * 2 / 3);
    let damaged = std::fs::read(&last.path).unwrap();

    let ended = Server::start(&dir, NO_CHECKPOINTS)
        .await
        .err()
        .expect("it refuses");
    let file = last.path.display().to_string();
    ended.refuses(&[&file, "offset", "`sojourn repair`"]);
    assert_eq!(
        std::fs::read(&last.path).unwrap(),
        damaged,
        "nothing is changed"
    );

    let (code, shown) = repair(&dir, &[]);
    assert_eq!(code, 5, "{shown}");
    for word in ["damage in", &file, "would lose", "shard", "--apply"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert_eq!(
        std::fs::read(&last.path).unwrap(),
        damaged,
        "nothing is changed"
    );
    let (code, shown) = repair(&dir, &["--apply"]);
    assert_eq!(code, 0, "{shown}");
    let aside = last.path.with_extension("raftlog.damaged-1");
    assert_eq!(std::fs::read(&aside).unwrap(), damaged, "{shown}");

    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    all_there(&server.client, &early).await;
    let lost = missing(&server.client, &late).await;
    assert_eq!(lost.len(), late.len(), "all behind the damage: {lost:?}");
    let lost = missing(&server.client, &middle).await;
    assert!(lost.len() < middle.len(), "some are before it: {lost:?}");
    // what was lost can be sent again, and what was not is known
    let again = send_all(&server.client, 0..30).await;
    let known = again.values().filter(|word| **word == "duplicate").count();
    assert_eq!(known, 60 - late.len() - lost.len());
    server.kill();
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    let report = server.client.report("steps", None).await.unwrap();
    assert_eq!((report.started, report.active), (30, 30));
}

/// The log may be damaged where a checkpoint covers it: then only what came after the checkpoint is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_checkpoint_covers_is_not_lost_with_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    let covered = send_all(&server.client, 0..20).await;
    server.stop();
    // what this test stands on: a stop makes a checkpoint of every shard
    let (_, shown) = repair(&dir, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&shown).expect("it is json");
    let covered_shards = json["checkpoints"]["covered"].as_object().map(|c| {
        let shard = |group: &&String| group.as_str() != "0";
        c.keys().filter(shard).count()
    });
    assert_eq!(covered_shards, Some(2), "{shown}");
    let boundary = newest(&dir).good_bytes;
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    let later = send_all(&server.client, 20..40).await;
    server.kill();
    let template = folder.path().join("template");
    copy_all(&dir, &template);
    let end = newest(&dir).good_bytes;
    for offset in [boundary / 3, boundary + (end - boundary) / 2] {
        std::fs::remove_dir_all(&dir).unwrap();
        copy_all(&template, &dir);
        flip(&newest(&dir).path, offset);
        let ended = Server::start(&dir, NO_CHECKPOINTS)
            .await
            .err()
            .expect("it refuses");
        ended.refuses(&["offset", "`sojourn repair`"]);
        let (code, shown) = repair(&dir, &["--apply"]);
        assert_eq!(code, 0, "{shown}");
        let server = Server::serves(&dir, NO_CHECKPOINTS).await;
        all_there(&server.client, &covered).await;
        let lost = missing(&server.client, &later).await;
        assert!(!lost.is_empty(), "at {offset}: {shown}");
        send_all(&server.client, 20..40).await;
        let before = story(&server.client, &later).await;
        server.kill();
        let server = Server::serves(&dir, NO_CHECKPOINTS).await;
        all_there(&server.client, &covered).await;
        all_there(&server.client, &later).await;
        assert_eq!(before, story(&server.client, &later).await, "at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_there_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    let acknowledged = send_all(&server.client, 0..5).await;
    server.stop();
    std::fs::rename(dir.join("log"), folder.path().join("log")).unwrap();
    let ended = Server::start(&dir, NO_CHECKPOINTS)
        .await
        .err()
        .expect("it refuses");
    ended.refuses(&["the log is missing", "restore the data folder"]);
    assert!(!dir.join("log").exists());
    // nor when everything is lost but the node's name: it would begin a second cluster of the same id
    for part in ["history", "checkpoints"] {
        std::fs::rename(dir.join(part), folder.path().join(part)).unwrap();
    }
    let ended = Server::start(&dir, NO_CHECKPOINTS)
        .await
        .err()
        .expect("it refuses");
    ended.refuses(&["the log is missing", "log-begun"]);
    std::fs::remove_dir_all(dir.join("history")).unwrap();
    for part in ["history", "checkpoints", "log"] {
        std::fs::rename(folder.path().join(part), dir.join(part)).unwrap();
    }
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    all_there(&server.client, &acknowledged).await;
}

/// Two faults at once: the checkpoints are gone, and the log is cut before the end of history.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_behind_history_is_never_continued_with_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    let acknowledged = send_all(&server.client, 0..20).await;
    server.stop();
    let last = newest(&dir);
    flip(&last.path, last.good_bytes * 2 / 3);
    std::fs::remove_dir_all(dir.join("checkpoints")).unwrap();
    let (code, shown) = repair(&dir, &["--apply"]);
    assert_eq!(code, 0, "{shown}");
    match Server::start(&dir, NO_CHECKPOINTS).await {
        // where the log reaches back to its beginning, the state comes from it and ends too early
        Err(ended) => ended.refuses(&["history", "it goes up to entry", "the log ends at"]),
        // where it does not, the state comes from history, which has all of it
        Ok(server) => all_there(&server.client, &acknowledged).await,
    }
}
