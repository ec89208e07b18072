//! What earlier versions wrote is read: data folders are kept as they were when their node was killed, with a checkpoint
//! and a log behind it. Added to, never edited; [`what_this_version_writes_is_read`] makes another one.

use crate::support::{customer, publish, send, signal};
use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::Client;
use std::fs::File;
use std::path::{Path, PathBuf};

const JOURNEY: &str = r#"
journey: aufnahme
variables:
  plan: { type: text, from: signal.data.plan }
instance_key: signal.data.number
entry: [{ on: k.start }]
stages:
  - stage: one
    enter: [{ log: { text: "hello, {{ customer.id }}" } }]
    transitions:
      - { to: two, on: k.up, when: 'signal.data.n > 1' }
      - { to: late, after: 3650d }
  - stage: two
    transitions:
      - { to: three, all: [k.a, k.b], within: 3650d }
  - { stage: three, end: done }
  - { stage: late, end: lost }
"#;

/// Whose stories are kept: one waits in a stage, one is held with a signal waiting, one has ended, one has two instances
/// and a pattern that saw its first signal.
const WHO: [&str; 4] = ["waits", "größe", "ended", "two"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kept")
}

/// Everything that is told of everybody, without what time changes.
async fn told(server: &Server) -> Result<serde_json::Value> {
    let mut all = serde_json::Map::new();
    for who in WHO {
        let key = format!("id={who}");
        let args = ["execution", "timeline", "--customer", &key, "--json"];
        let output = server.run(args).await?;
        ensure!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout)?;
        let entries: Result<Vec<serde_json::Value>, _> =
            lines.lines().map(serde_json::from_str).collect();
        all.insert(who.to_owned(), entries?.into());
    }
    Ok(all.into())
}

/// Who sends what, under which id, with which data.
type Sent = (&'static str, &'static str, &'static str, &'static str);

/// Before the checkpoint.
const FIRST: [Sent; 7] = [
    ("waits", "k.start", "1", r#"{"number": "1", "plan": "pro"}"#),
    ("größe", "k.start", "1", r#"{"number": "ü"}"#),
    ("ended", "k.start", "1", r#"{"number": "1"}"#),
    ("ended", "k.up", "2", r#"{"number": "1", "n": 2}"#),
    ("ended", "k.b", "3", r#"{"number": "1"}"#),
    ("ended", "k.a", "4", r#"{"number": "1"}"#),
    ("two", "k.start", "1", r#"{"number": "1"}"#),
];

/// Behind it, in the log only.
const SECOND: [Sent; 6] = [
    ("größe", "k.up", "5", r#"{"number": "ü", "n": 2}"#),
    ("two", "k.start", "5", r#"{"number": "2"}"#),
    ("two", "k.up", "6", r#"{"number": "1", "n": 7}"#),
    ("two", "k.a", "7", r#"{"number": "1"}"#),
    ("waits", "k.up", "5", r#"{"number": "1", "n": 1}"#),
    ("waits", "k.nobody", "6", "{}"),
];

async fn tell(client: &Client, all: &[Sent]) -> Result<Vec<&'static str>> {
    let mut words = Vec::new();
    for (who, kind, id, carried) in all {
        let carried: serde_json::Value = serde_json::from_str(carried)?;
        let sent = signal(kind, &customer(who), id).data(&carried)?;
        words.push(send(client, sent).await?.word());
    }
    Ok(words)
}

/// Holds the one that is held, or lets it go on.
async fn by_hand(server: &Server, command: &str) -> Result<()> {
    let whose = ["--customer", "id=größe", "--journey", "aufnahme"];
    let which = ["--instance", "ü", "--reason", "to be kept"];
    let words = ["execution", command].into_iter().chain(whose).chain(which);
    let output = server.run(words).await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// Starts this version on what is kept in a folder.
async fn read(place: &Path) -> Result<()> {
    let mut server = Server::new(Setup::default())?;
    let data = GzDecoder::new(File::open(place.join("data.tar.gz"))?);
    tar::Archive::new(data).unpack(server.data())?;
    server.again().await?;
    let then: serde_json::Value = serde_json::from_reader(File::open(place.join("told.json"))?)?;
    let now = told(&server).await?;
    ensure!(now == then, "{now}");
    // whoever sends again what was acknowledged then learns that it was
    let client = server.client()?;
    for all in [&FIRST[..], &SECOND[..]] {
        let words = tell(&client, all).await?;
        ensure!(words.iter().all(|w| *w == "duplicate"), "{words:?}");
    }
    // and everybody goes on
    let on = tell(&client, &[("two", "k.b", "8", r#"{"number": "1"}"#)]).await?;
    ensure!(on == ["moved"], "{on:?}");
    by_hand(&server, "resume").await?;
    server.crash().await
}

/// Keeps in a folder what this version writes.
async fn keep(place: &Path) -> Result<()> {
    std::fs::create_dir_all(place)?;
    let mut server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    tell(&client, &FIRST).await?;
    by_hand(&server, "hold").await?;
    // a checkpoint, and then a log behind it
    server.stop().await?;
    server.again().await?;
    tell(&client, &SECOND).await?;
    let told = told(&server).await?;
    server.kill()?;
    serde_json::to_writer_pretty(File::create(place.join("told.json"))?, &told)?;
    let packed = GzEncoder::new(
        File::create(place.join("data.tar.gz"))?,
        Compression::best(),
    );
    let mut archive = tar::Builder::new(packed);
    archive.append_dir_all(".", server.data())?;
    archive.into_inner()?.finish()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_earlier_versions_wrote_is_read() -> Result<()> {
    let mut kept = 0;
    for entry in std::fs::read_dir(folder())? {
        let place = entry?.path();
        kept += 1;
        read(&place)
            .await
            .with_context(|| place.display().to_string())?;
    }
    ensure!(kept > 0, "nothing is kept in {}", folder().display());
    Ok(())
}

/// With `SOJOURN_KEEP=name` the folder stays, for later versions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_version_writes_is_read() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let place = match std::env::var("SOJOURN_KEEP") {
        Ok(name) => folder().join(name),
        Err(_) => scratch.path().to_owned(),
    };
    keep(&place).await?;
    read(&place).await
}
