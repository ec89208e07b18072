//! Data folders that are somebody else's, in use, or cannot be written.

use super::disk::Mounted;
use super::support::*;
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_is_named_with_what_to_do() {
    type Damage = fn(&Path);
    let cases: [(Damage, i32, &[&str]); 9] = [
        (
            |d| std::fs::write(d.join("FORMAT"), "sojourn 2\n").unwrap(),
            5,
            &[
                "\"sojourn 2\"",
                "this version reads \"sojourn 1\"",
                "use the version that wrote it",
            ],
        ),
        (
            |d| std::fs::write(d.join("FORMAT"), "sojourn 0\n").unwrap(),
            5,
            &["\"sojourn 0\"", "use the version that wrote it"],
        ),
        (
            |d| std::fs::write(d.join("FORMAT"), [0xff, 0x00, 0x9f]).unwrap(),
            5,
            &["its format is"],
        ),
        (
            |d| std::fs::remove_file(d.join("FORMAT")).unwrap(),
            5,
            &["no FORMAT file", "from a copy"],
        ),
        (
            |d| std::fs::write(d.join("node-id"), "one\n").unwrap(),
            5,
            &["node-id", "\"one\"", "expected a number"],
        ),
        (
            |d| std::fs::write(d.join("node-id"), [0xc3; 5_000]).unwrap(),
            5,
            &["node-id", "expected a number"],
        ),
        (
            |d| std::fs::remove_file(d.join("node-id")).unwrap(),
            5,
            &["node-id", "from a copy"],
        ),
        (
            |d| std::fs::write(d.join("cluster-id"), "").unwrap(),
            5,
            &["cluster-id is empty"],
        ),
        (
            |d| std::fs::write(d.join("cluster-id"), "somebody else\n").unwrap(),
            5,
            &["somebody else", "belongs to cluster"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template");
    Server::serves(&template, NO_CHECKPOINTS).await.stop();
    for (number, (damage, code, words)) in cases.into_iter().enumerate() {
        let dir = folder.path().join(format!("case-{number}"));
        copy_all(&template, &dir);
        damage(&dir);
        let ended = Server::start(&dir, NO_CHECKPOINTS)
            .await
            .err()
            .expect("it refuses");
        ended.ends(code, words);
        let shown = dir.display().to_string();
        ended.ends(code, &[&shown]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_one_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    let second = Server::start(&dir, NO_CHECKPOINTS)
        .await
        .err()
        .expect("it refuses");
    second.ends(1, &["another process has it open", "--data"]);
    let (code, shown) = repair(&dir, &[]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("stop that one first"), "{shown}");
    publish(&server.client).await;
    goes_on(&server.client, "unharmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "mine").unwrap();
    let ended = Server::start(&file, &[]).await.err().expect("it refuses");
    ended.ends(1, &["it is a file", "--data"]);
    let below = Server::start(&file.join("below"), &[])
        .await
        .err()
        .expect("it refuses");
    below.ends(1, &["it cannot be written", "--data"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    let (code, shown) = repair(&file, &[]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("not a data folder"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("holiday.jpg"), "a picture").unwrap();
    let ended = Server::start(folder.path(), &[])
        .await
        .err()
        .expect("it refuses");
    ended.refuses(&["it is not empty", "choose an empty one"]);
    assert!(!folder.path().join("FORMAT").exists());
}

/// A first start that ended before the folder was whole is begun again.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_only_begun_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["lock", "cluster-id", "node-id.part"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let server = Server::serves(folder.path(), NO_CHECKPOINTS).await;
    publish(&server.client).await;
    goes_on(&server.client, "first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_written_is_said() {
    let disk = Mounted::new("8m");
    disk.remount("ro");
    let dir = disk.path().join("data");
    let ended = Server::start(&dir, &[]).await.err().expect("it refuses");
    let shown = dir.display().to_string();
    ended.ends(1, &[&shown, "it cannot be written", "mount it writable"]);
}
