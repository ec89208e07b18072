//! A disk that is full, and a disk whose fsync fails.

use super::support::*;
use sojourn_client::{Client, Code, ExecutionRef, Identifier, Outcome, Read};
use sojourn_cluster::sim::{Fault, FaultyDisk};
use sojourn_cluster::{Running, Seams, open_checkpoints, open_log};
use sojourn_node::config::Config;
use sojourn_node::node::{Node, NodeError};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// A small file system in memory, gone when dropped.
pub struct Mounted {
    folder: tempfile::TempDir,
}

fn run(arguments: &[&str], path: &Path) -> Result<(), String> {
    let (program, rest) = arguments.split_first().expect("a program");
    let done = Command::new(program).args(rest).arg(path).output();
    let done = done.map_err(|e| format!("{program}: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned())
}

impl Mounted {
    pub fn new(size: &str) -> Mounted {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        if let Err(why) = run(
            &["mount", "-t", "tmpfs", "-o", &size, "tmpfs"],
            folder.path(),
        ) {
            panic!("this test needs the right to mount a tmpfs (root, or CAP_SYS_ADMIN): {why}");
        }
        Mounted { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn remount(&self, option: &str) {
        let options = format!("remount,{option}");
        run(&["mount", "-o", &options], self.path()).expect("remounts");
    }

    fn free(&self) -> u64 {
        sojourn_node::folder::free_bytes(self.path()).expect("the system says")
    }

    /// Takes space until only so much is left.
    fn fill_up_to(&self, left: u64) {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.path().join("ballast")).unwrap();
        let block = vec![7_u8; 64 << 10];
        while self.free() > left + block.len() as u64 {
            ballast.write_all(&block).expect("there is space");
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // lazily: a process that a failed test left may still hold it for a moment
        if let Err(why) = run(&["umount", "-l"], self.folder.path()) {
            eprintln!("{} stays mounted: {why}", self.folder.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_space_left_signals_are_refused_and_reads_answered() {
    let disk = Mounted::new("96m");
    let dir = disk.path().join("data");
    let env = [
        ("SOJOURN_CHECKPOINT__EVERY_SECONDS", "3600"),
        ("SOJOURN_LIMITS__DISK_FREE_MIN", "20971520"),
    ];
    let mut server = Server::serves(&dir, &env).await;
    let client = server.client.clone();
    publish(&client).await;
    let acknowledged = send_all(&client, 0..5).await;
    disk.fill_up_to(10 << 20);
    let quick = client.with_deadline(Duration::from_millis(300));
    // it looks once a second
    let error = until_refused(&quick).await;
    assert_eq!(error.code(), Code::Overloaded, "{error:?}");
    assert_eq!(error.cause(), "overloaded_disk", "{error:?}");
    assert!(
        error.message().contains("limits.disk_free_min") && error.message().contains("free some"),
        "{error}"
    );
    // a look is always allowed
    all_there(&client, &acknowledged).await;
    story(&client, &acknowledged).await;
    let of = ExecutionRef::Latest {
        customer: Identifier::new("id", "c1"),
        journey: "steps".into(),
        instance: None,
    };
    client.why(&of, Read::default()).await.expect("answers");
    assert!(server.said().contains("the disk is nearly full"));
    disk.make_room();
    // its client repeats while the deadline lasts
    goes_on(&client, "after").await;
    server.kill();
    // full from the start is the same answer
    disk.fill_up_to(10 << 20);
    let server = Server::serves(&dir, &env).await;
    let quick = server.client.with_deadline(Duration::from_millis(300));
    let error = quick
        .send(signal("t.start", "early", 10))
        .await
        .unwrap_err();
    assert_eq!(error.cause(), "overloaded_disk", "{error:?}");
    all_there(&server.client, &acknowledged).await;
}

/// Sends until the answer is no.
async fn until_refused(client: &Client) -> sojourn_client::Error {
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut n = 0;
    while tokio::time::Instant::now() < until {
        n += 1;
        match client
            .send(signal("t.start", &format!("more{n}"), 10))
            .await
        {
            Ok(Outcome::Done(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(other) => panic!("{other:?}"),
            Err(error) => return error,
        }
    }
    panic!("it admits signals although the disk is nearly full");
}

/// Sends large signals until the server has ended; gives what was acknowledged.
async fn send_until_the_end(client: &Client) -> Acknowledged {
    let client = client.with_deadline(Duration::from_secs(2));
    let mut done = Acknowledged::new();
    for n in 0..4_000 {
        let customer = format!("big{n}");
        let signal = signal("t.start", &customer, 60_000);
        let id = signal.signal_id().to_owned();
        match client.send(signal).await {
            Ok(Outcome::Done(receipt)) => {
                done.insert((customer, id), receipt.word());
            }
            Ok(Outcome::Unknown(_)) | Err(_) => return done,
            Ok(Outcome::Refused(error)) => panic!("{error}"),
        }
    }
    panic!("the disk is never full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_node_and_loses_nothing() {
    for checkpoints in ["3600", "1"] {
        let disk = Mounted::new("96m");
        let dir = disk.path().join("data");
        let env = [
            ("SOJOURN_CHECKPOINT__EVERY_SECONDS", checkpoints),
            ("SOJOURN_LIMITS__DISK_FREE_MIN", "0"),
        ];
        let server = Server::serves(&dir, &env).await;
        publish(&server.client).await;
        let mut acknowledged = send_all(&server.client, 0..10).await;
        disk.fill_up_to(6 << 20);
        acknowledged.extend(send_until_the_end(&server.client).await);
        let ended = server.gone();
        ended.refuses(&[
            "writing",
            "the disk is full",
            "free some space",
            "start the node again",
        ]);
        let shown = dir.display().to_string();
        ended.refuses(&[&shown]);
        disk.make_room();
        let server = Server::serves(&dir, &env).await;
        all_there(&server.client, &acknowledged).await;
        goes_on(&server.client, "after").await;
        let story = story(&server.client, &acknowledged).await;
        server.stop();
        let server = Server::serves(&dir, &env).await;
        assert_eq!(story, self::story(&server.client, &acknowledged).await);
    }
}

/// A disk so full that a start cannot write is no damage, and is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_says_so() {
    let disk = Mounted::new("96m");
    let dir = disk.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    publish(&server.client).await;
    let acknowledged = send_all(&server.client, 0..10).await;
    server.kill();
    disk.fill_up_to(0);
    let fresh = disk.path().join("fresh");
    let ended = Server::start(&fresh, NO_CHECKPOINTS)
        .await
        .err()
        .expect("it refuses");
    let error = ended.error().to_lowercase();
    assert!(error.contains("space"), "{error}");
    if let Err(ended) = Server::start(&dir, NO_CHECKPOINTS).await {
        let error = ended.error().to_lowercase();
        assert!(error.contains("space"), "{error}");
    }
    disk.make_room();
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    all_there(&server.client, &acknowledged).await;
    goes_on(&server.client, "after").await;
    server.kill();
    Server::serves(&fresh, NO_CHECKPOINTS).await;
}

#[test]
fn a_failed_fsync_stops_the_node_and_nothing_is_acknowledged_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.data.dir = folder.path().join("data");
    config.cluster.shards = 2;
    config.limits.disk_free_min = 0;
    config.listen.grpc.set_port(0);
    config.listen.http.set_port(0);
    config.listen.peer.set_port(0);
    config.cluster.bootstrap = true;
    let run = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let runtime = run();
    let acknowledged = runtime.block_on(async {
        let disk = FaultyDisk::new();
        let on = disk.clone();
        let node = Node::start_with(&config, move |cfg| {
            Ok(Seams {
                log: open_log(cfg, Arc::new(on))?.0,
                checkpoints: open_checkpoints(cfg)?.0,
                running: Running::Threads,
            })
        })
        .await
        .expect("it starts");
        let client = Client::connect(format!("http://{}", node.grpc))
            .await
            .unwrap();
        publish(&client).await;
        let acknowledged = send_all(&client, 0..10).await;
        disk.set(Fault::Sync);
        let quick = client.with_deadline(Duration::from_millis(500));
        for n in 0..6 {
            let outcome = quick.send(signal("t.start", &format!("late{n}"), 10)).await;
            assert!(
                !matches!(outcome, Ok(Outcome::Done(_))),
                "acknowledged what is not on disk: {outcome:?}"
            );
        }
        let failed = tokio::time::timeout(PATIENCE, node.failed())
            .await
            .expect("it fails");
        let NodeError::Failed(failure) = &failed else {
            panic!("{failed}")
        };
        assert!(failed.is_data(), "{failed}");
        assert!(failure.what.contains("fsync"), "{failure}");
        assert!(failure.where_.contains("log"), "{failure}");
        assert!(
            failure.todo.contains("check the disk")
                && failure.todo.contains("start the node again"),
            "{failure}"
        );
        // a disk that works again does not heal the node: nobody knows what it holds
        disk.set(Fault::None);
        let outcome = quick.send(signal("t.start", "healed", 10)).await;
        assert!(!matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
        acknowledged
    });
    // as a process that ends
    drop(runtime);
    let runtime = run();
    runtime.block_on(async {
        let server = Server::serves(&config.data.dir, NO_CHECKPOINTS).await;
        all_there(&server.client, &acknowledged).await;
        goes_on(&server.client, "after").await;
    });
}
