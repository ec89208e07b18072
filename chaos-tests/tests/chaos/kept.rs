//! What earlier versions wrote is read: data folders are kept as they were when their node was killed, with a checkpoint
//! and a log behind it. Added to, never edited; [`keep_what_this_version_writes`] makes another one.

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

async fn first(client: &Client) -> Result<Vec<String>> {
    let data = |text: &str| serde_json::from_str::<serde_json::Value>(text);
    let mut words = Vec::new();
    for (who, kind, id, carried) in [
        ("waits", "k.start", "1", r#"{"number": "1", "plan": "pro"}"#),
        ("größe", "k.start", "1", r#"{"number": "ü"}"#),
        ("ended", "k.start", "1", r#"{"number": "1"}"#),
        ("ended", "k.up", "2", r#"{"number": "1", "n": 2}"#),
        ("ended", "k.b", "3", r#"{"number": "1"}"#),
        ("ended", "k.a", "4", r#"{"number": "1"}"#),
        ("two", "k.start", "1", r#"{"number": "1"}"#),
    ] {
        let sent = signal(kind, &customer(who), id).data(&data(carried)?)?;
        words.push(send(client, sent).await?.word().to_owned());
    }
    Ok(words)
}

async fn second(client: &Client) -> Result<Vec<String>> {
    let data = |text: &str| serde_json::from_str::<serde_json::Value>(text);
    let mut words = Vec::new();
    for (who, kind, id, carried) in [
        ("größe", "k.up", "5", r#"{"number": "ü", "n": 2}"#),
        ("two", "k.start", "5", r#"{"number": "2"}"#),
        ("two", "k.up", "6", r#"{"number": "1", "n": 7}"#),
        ("two", "k.a", "7", r#"{"number": "1"}"#),
        ("waits", "k.up", "5", r#"{"number": "1", "n": 1}"#),
        ("waits", "k.nobody", "6", "{}"),
    ] {
        let sent = signal(kind, &customer(who), id).data(&data(carried)?)?;
        words.push(send(client, sent).await?.word().to_owned());
    }
    Ok(words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_earlier_versions_wrote_is_read() -> Result<()> {
    let mut kept = 0;
    for entry in std::fs::read_dir(folder())? {
        let place = entry?.path();
        kept += 1;
        let mut server = Server::new(Setup::default())?;
        let data = GzDecoder::new(File::open(place.join("data.tar.gz"))?);
        tar::Archive::new(data).unpack(server.data())?;
        server.again().await?;
        let about = place.display().to_string();
        let then: serde_json::Value =
            serde_json::from_reader(File::open(place.join("told.json"))?)?;
        ensure!(
            told(&server).await? == then,
            "{about}: {}",
            told(&server).await?
        );
        // whoever sends again what was acknowledged then learns that it was
        let client = server.client()?;
        for words in [first(&client).await?, second(&client).await?] {
            ensure!(words.iter().all(|w| w == "duplicate"), "{about}: {words:?}");
        }
        // and everybody goes on
        let last =
            signal("k.b", &customer("two"), "8").data(&serde_json::json!({"number": "1"}))?;
        let on = send(&client, last).await?;
        ensure!(on.word() == "moved", "{about}: {}", on.word());
        let resumed = server
            .run([
                "execution",
                "resume",
                "--customer",
                "id=größe",
                "--journey",
                "aufnahme",
                "--instance",
                "ü",
                "--reason",
                "read",
            ])
            .await?;
        ensure!(resumed.status.success(), "{about}: {resumed:?}");
        server.crash().await?;
    }
    ensure!(kept > 0, "nothing is kept in {}", folder().display());
    Ok(())
}

/// Writes a folder for later versions: `SOJOURN_KEEP=name cargo test -p chaos-tests --test chaos keep_what -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes into the repository"]
async fn keep_what_this_version_writes() -> Result<()> {
    let name = std::env::var("SOJOURN_KEEP").context("SOJOURN_KEEP names the folder")?;
    let place = folder().join(name);
    std::fs::create_dir_all(&place)?;
    let mut server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    first(&client).await?;
    let held = server
        .run([
            "execution",
            "hold",
            "--customer",
            "id=größe",
            "--journey",
            "aufnahme",
            "--instance",
            "ü",
            "--reason",
            "to be kept",
        ])
        .await?;
    ensure!(held.status.success(), "{held:?}");
    // a checkpoint, and then a log behind it
    server.stop().await?;
    server.again().await?;
    second(&client).await?;
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
