//! History that is damaged is named, or not needed: never a panic, never a gap that nobody is told of.

use super::support::*;
use std::path::Path;

type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 4] = [
    ("bytes", |file| corrupt(file, 61)),
    ("a bit", |file| flip(file, used(file) / 2)),
    ("half", |file| truncate(file, used(file) / 2)),
    ("gone", |file| std::fs::remove_file(file).unwrap()),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_it_may_be_damaged_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template");
    let server = Server::serves(&template, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    let mut acknowledged = send_all(&server.client, 0..20).await;
    server.stop();
    let server = Server::serves(&template, NO_CHECKPOINTS).await;
    acknowledged.extend(send_all(&server.client, 20..25).await);
    let before = story(&server.client, &acknowledged).await;
    server.kill();
    let root = template.join("history");
    let (mut refused, mut unharmed) = (Vec::new(), Vec::new());
    for file in files(&root) {
        let name = file.strip_prefix(&template).unwrap().to_owned();
        if std::fs::metadata(&file).unwrap().len() == 0 {
            continue;
        }
        for (how, damage) in DAMAGES {
            let what = format!("{} {how}", name.display());
            let dir = folder.path().join("data");
            copy_all(&template, &dir);
            damage(&dir.join(&name));
            match Server::start(&dir, NO_CHECKPOINTS).await {
                Err(ended) => {
                    ended.refuses(&["history", "copy"]);
                    // the operator who asks is told the same
                    let (code, shown) = repair(&dir, &[]);
                    assert_eq!(code, 5, "{what}: {}\n{shown}", ended.said);
                    assert!(shown.contains("history: damaged"), "{what}: {shown}");
                    refused.push(what);
                }
                Ok(server) => {
                    // whatever it was, it was not needed
                    nothing_lost(&what, &missing(&server.client, &acknowledged).await);
                    assert_eq!(before, story(&server.client, &acknowledged).await, "{what}");
                    server.stop();
                    unharmed.push(what);
                }
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    assert!(
        refused.len() > 10,
        "refused {refused:?}, unharmed {unharmed:?}"
    );
}

/// A history from a backup that is older than the rest would have a gap.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_history_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    send_all(&server.client, 0..10).await;
    server.stop();
    let older = folder.path().join("older");
    copy_all(&dir.join("history"), &older);
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    let acknowledged = send_all(&server.client, 10..20).await;
    server.stop();
    let newer = folder.path().join("newer");
    std::fs::rename(dir.join("history"), &newer).unwrap();
    copy_all(&older, &dir.join("history"));
    let ended = Server::start(&dir, NO_CHECKPOINTS)
        .await
        .err()
        .expect("it refuses");
    ended.refuses(&["history", "it ends at entry", "was complete up to", "copy"]);
    let (code, shown) = repair(&dir, &["--apply"]);
    assert_eq!(code, 5, "{shown}");
    assert!(shown.contains("it ends at entry"), "{shown}");
    // the refusal did no harm
    std::fs::remove_dir_all(dir.join("history")).unwrap();
    std::fs::rename(&newer, dir.join("history")).unwrap();
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    all_there(&server.client, &acknowledged).await;
    story(&server.client, &acknowledged).await;
}
