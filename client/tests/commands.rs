//! Commands against a server that fails, and offline: what they say and how they end.

mod world;

use sojourn_client::cli::{Exit, Say, Standalone};
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use world::{Fault, Server, World};

async fn run(words: &[&str]) -> (Exit, String, String) {
    let (mut say, said) = Say::captured();
    let args = std::iter::once("sojourn")
        .chain(words.iter().copied())
        .map(str::to_owned);
    let exit = match Standalone::run(args, &mut say).await {
        Ok(exit) => exit,
        Err(usage) => panic!("{words:?}: {usage}"),
    };
    (exit, said.data(), said.talk())
}

fn json(data: &str) -> serde_json::Value {
    serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder can be made"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder is there");
        let mut names: Vec<String> = entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// By customer, the ids of [`csv`] in the order of the file.
fn order(rows: usize, customers: usize) -> HashMap<String, Vec<String>> {
    let mut order: HashMap<String, Vec<String>> = HashMap::new();
    for row in 0..rows {
        let customer = order.entry(format!("c{}", row % customers)).or_default();
        customer.push(format!("e{row}"));
    }
    order
}

/// `rows` rows of `customers` customers.
fn csv(rows: usize, customers: usize) -> String {
    let mut text = String::from("id,app,act\n");
    for row in 0..rows {
        text.push_str(&format!("e{row},c{},A\n", row % customers));
    }
    text
}

async fn import(server: &str, file: &Path, more: &[&str]) -> (Exit, String, String) {
    let file = file.display().to_string();
    let mut words = vec![
        "signal",
        "import",
        &file,
        "--server",
        server,
        "--id",
        "id",
        "--customer",
        "app=app",
        "--type",
        "act",
        "--source",
        "t",
        "--json",
    ];
    words.extend_from_slice(more);
    run(&words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_adds_up_and_again_is_all_duplicates() {
    let world = World::faultless();
    let server = Server::start(&world);
    let folder = Folder::new();
    let file = folder.file("a.csv", csv(3_000, 100));
    let (exit, data, talk) = import(&server.url(), &file, &[]).await;
    let report = json(&data);
    assert_eq!(exit, Exit::Done, "{talk}");
    assert_eq!(report["rows"], 3_000);
    assert_eq!(report["fates"]["started"], 100);
    assert_eq!(report["fates"]["moved"], 2_900);
    assert_eq!(world.state().applied, order(3_000, 100));
    let (exit, data, _) = import(&server.url(), &file, &[]).await;
    let report = json(&data);
    assert_eq!(exit, Exit::Done);
    assert_eq!(
        (&report["rows"], &report["fates"]["duplicate"]),
        (&3_000.into(), &3_000.into())
    );
    assert_eq!(report["first_fates"]["moved"], 2_900);
    assert_eq!(folder.names(), ["a.csv"], "no state file stays behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_ends_the_import_with_4_and_it_goes_on_later() {
    let world = World::faultless();
    let server = Server::start(&world);
    let (address, url) = (server.address, server.url());
    let folder = Folder::new();
    let file = folder.file("a.csv", csv(30_000, 1_000));
    let importing = tokio::spawn({
        let (url, file) = (url.clone(), file.clone());
        async move { import(&url, &file, &["--patience", "1s"]).await }
    });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while world.applied() < 3_000 {
        assert!(std::time::Instant::now() < deadline, "nothing arrives");
        tokio::task::yield_now().await;
    }
    drop(server);
    let (exit, data, talk) = importing.await.expect("it ends");
    assert_eq!(exit, Exit::Unreachable, "{talk}");
    assert!(
        talk.contains("the same command goes on from there"),
        "{talk}"
    );
    let first = json(&data)["rows"].as_u64().expect("a number");
    assert!(first < 30_000);
    assert_eq!(folder.names(), ["a.csv", "a.csv.sojourn-import"]);

    // another mapping must not go on where this one stopped
    let (exit, _, talk) = import(&url, &file, &["--type-prefix", "x."]).await;
    assert_eq!(exit, Exit::Unreachable, "nobody is there yet: {talk}");
    let _again = Server::at(&world, address);
    let (exit, _, talk) = import(&url, &file, &["--type-prefix", "x."]).await;
    assert_eq!(exit, Exit::No);
    assert!(talk.contains("belongs to another mapping"), "{talk}");

    let (exit, data, talk) = import(&url, &file, &[]).await;
    assert_eq!(exit, Exit::Done, "{talk}");
    assert!(talk.contains("goes on after row") || first == 0, "{talk}");
    let report = json(&data);
    assert_eq!(report["rows"], 30_000);
    assert_eq!(report["first_fates"]["started"], 1_000);
    assert_eq!(report["first_fates"]["moved"], 29_000);
    assert_eq!(world.state().applied, order(30_000, 1_000));
    assert_eq!(folder.names(), ["a.csv"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_broken_off_leaves_each_customer_in_order() {
    // few customers: at any moment many rows wait behind an earlier one of their customer
    let world = World::faultless();
    let server = Server::start(&world);
    let folder = Folder::new();
    let file = folder.file("a.csv", csv(20_000, 50));
    for part in 1..=3 {
        let importing = tokio::spawn({
            let (url, file) = (server.url(), file.clone());
            async move { import(&url, &file, &[]).await }
        });
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while world.applied() < part * 2_000 {
            assert!(std::time::Instant::now() < deadline, "nothing arrives");
            tokio::task::yield_now().await;
        }
        importing.abort();
        assert!(importing.await.is_err(), "it was not broken off");
    }
    let (exit, _, talk) = import(&server.url(), &file, &[]).await;
    assert_eq!(exit, Exit::Done, "{talk}");
    assert_eq!(world.state().applied, order(20_000, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_named_and_the_import_goes_on_unless_strict() {
    let world = World::new(|_, s| {
        if s.id == "e2" {
            Fault::Invalid
        } else {
            Fault::None
        }
    });
    let server = Server::start(&world);
    let folder = Folder::new();
    let file = folder.file("a.csv", "id,app,act\ne1,c1,A\ne2,c1,A\n,c1,A\ne4,c1,A\n");
    let (exit, data, _) = import(&server.url(), &file, &[]).await;
    let report = json(&data);
    assert_eq!(exit, Exit::No);
    assert_eq!((&report["rows"], &report["failed"]), (&4.into(), &2.into()));
    assert_eq!(report["failures"][0]["row"], 2);
    assert!(
        report["failures"][0]["message"]
            .as_str()
            .is_some_and(|m| m.contains("signal.type: not taken here")),
        "{report}"
    );
    assert_eq!(
        (
            &report["failures"][1]["row"],
            &report["failures"][1]["line"]
        ),
        (&3.into(), &4.into())
    );
    assert_eq!(report["failures"][1]["column"], "id");
    assert_eq!(world.state().applied["c1"], ["e1", "e4"]);

    let (exit, data, talk) = import(&server.url(), &file, &["--strict", "--no-resume"]).await;
    assert_eq!(exit, Exit::No);
    assert!(talk.contains("row 2 (line 3)"), "{talk}");
    assert_eq!(json(&data)["rows"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_cloudevents_and_a_summary_for_people() {
    let world = World::faultless();
    let server = Server::start(&world);
    let folder = Folder::new();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for id in 0..3 {
        writeln!(
            gz,
            r#"{{"specversion":"1.0","id":"{id}","source":"web","type":"t","subject":"ada"}}"#
        )
        .expect("memory can be written");
    }
    let file = folder.file(
        "events.jsonl.gz",
        gz.finish().expect("memory can be written"),
    );
    let path = file.display().to_string();
    let (exit, data, talk) = run(&["signal", "import", &path, "--server", &server.url()]).await;
    assert_eq!(exit, Exit::Done, "{talk}");
    assert_eq!(
        data,
        "fate       rows\nstarted       1\nmoved         2\nrecorded      0\nexited        0\nunmatched     0\n\
         ended         0\nheld          0\nrefused       0\nno_match      0\nduplicate     0\nfailed        0\n\
         rows          3\n"
    );
    assert!(talk.starts_with("events.jsonl.gz: 3 rows in "), "{talk}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signal_is_sent_and_its_receipt_shown() {
    let world = World::new(|_, s| match s.id.as_str() {
        "bad" => Fault::Invalid,
        "lost" => Fault::Silent,
        _ => Fault::None,
    });
    let server = Server::start(&world);
    let url = server.url();
    let send = |id: &'static str, more: &'static [&'static str]| {
        let url = url.clone();
        async move {
            let mut words = vec![
                "signal",
                "send",
                "a.b",
                "--customer",
                "id=1",
                "--id",
                id,
                "--server",
                &url,
            ];
            words.extend_from_slice(more);
            run(&words).await
        }
    };
    assert_eq!(
        send("1", &[]).await,
        (
            Exit::Done,
            "bench started in here (0-0-1)\n".into(),
            String::new()
        )
    );
    let (_, data, _) = send("1", &[]).await;
    assert_eq!(
        data,
        "duplicate; the first time: bench started in here (0-0-1)\n"
    );
    let (_, data, _) = send("2", &["--json"]).await;
    let receipt = json(&data);
    assert_eq!(
        (&receipt["fate"], &receipt["parts"][0]["to"]),
        (&"moved".into(), &"there".into())
    );
    let (exit, data, talk) = send("bad", &[]).await;
    assert_eq!((exit, data.as_str()), (Exit::No, ""));
    assert!(talk.contains("signal.type: not taken here"), "{talk}");
    let (exit, _, talk) = send("lost", &["--deadline", "200ms"]).await;
    assert_eq!(exit, Exit::Unknown);
    assert!(talk.contains("send it again with --id lost"), "{talk}");
}

#[tokio::test(flavor = "multi_thread")]
async fn journeys_are_listed_in_a_table_and_as_json() {
    let world = World::faultless();
    let server = Server::start(&world);
    let (exit, data, talk) = run(&["journey", "list", "--server", &server.url()]).await;
    assert_eq!((exit, data.as_str()), (Exit::Done, ""));
    assert!(talk.contains("sojourn journey publish FILE"), "{talk}");
    world
        .state()
        .published
        .insert("loan".into(), "journey: loan\n".into());
    let (_, data, _) = run(&["journey", "list", "--server", &server.url()]).await;
    assert_eq!(
        data,
        "journey  title    state   live  active\nloan     Ä title  active     1   1,234\n"
    );
    let (_, data, _) = run(&["journey", "list", "--json", "--server", &server.url()]).await;
    assert_eq!(json(&data)[0]["state"], "active");
    let (exit, _, talk) = run(&["journey", "show", "nope", "--server", &server.url()]).await;
    assert_eq!(
        (exit, talk.as_str()),
        (Exit::No, "error: no journey is named \"nope\"\n")
    );
}

const JOURNEY: &str = "\
journey: tiny
entry:
  - on: form.sent
stages:
  - stage: waiting
    transitions:
      - { to: done, on: paper.came }
      - { to: lost, after: 3d }
  - stage: done
    end: converted
  - stage: lost
    end: lost
";

#[tokio::test]
async fn journeys_are_checked_tried_and_drawn_offline() {
    let folder = Folder::new();
    let good = folder.file("tiny.yaml", JOURNEY).display().to_string();
    let (exit, _, talk) = run(&["journey", "lint", &good]).await;
    assert_eq!(exit, Exit::Done, "{talk}");
    assert!(
        talk.contains("journey tiny can be published: 3 stages"),
        "{talk}"
    );

    let bad = folder
        .file("bad.yaml", JOURNEY.replace("to: done", "to: dune"))
        .display()
        .to_string();
    let (exit, data, talk) = run(&["journey", "lint", &good, &bad]).await;
    assert_eq!(exit, Exit::No, "{talk}");
    assert!(data.starts_with(&format!("{bad}:7:")), "{data}");
    assert!(
        data.contains("error: stages[0].transitions[0].to"),
        "{data}"
    );
    let (_, data, _) = run(&["journey", "lint", &bad, "--json"]).await;
    assert_eq!(json(&data)[0]["problems"][0]["line"], 7);

    for (format, word) in [("mermaid", "flowchart"), ("dot", "digraph")] {
        let (exit, data, _) = run(&["journey", "graph", &good, "--format", format]).await;
        assert_eq!(exit, Exit::Done);
        assert!(data.contains(word) && data.contains("waiting"), "{data}");
    }

    let steps = "tests:\n  - test: a paper comes\n    customer: { id: a }\n    steps:\n      - signal: form.sent\n        \
                 expect: { receipt: started, stage: waiting }\n      - signal: paper.came\n        expect: { stage: STAGE }\n";
    let test = folder
        .file("tiny.test.yaml", steps.replace("STAGE", "done"))
        .display()
        .to_string();
    let (exit, data, talk) = run(&["journey", "test", &test]).await;
    assert_eq!(
        (exit, data.as_str()),
        (Exit::Done, "passed  a paper comes (2 steps)\n"),
        "{talk}"
    );
    folder.file("tiny.test.yaml", steps.replace("STAGE", "lost"));
    let (exit, data, talk) = run(&["journey", "test", &test]).await;
    assert_eq!(exit, Exit::No);
    assert!(
        data.starts_with("FAILED  a paper comes") && data.contains("tiny.test.yaml:7: step 2:"),
        "{data}"
    );
    assert!(talk.contains("0 passed, 1 failed"), "{talk}");
    let lonely = folder.file("lonely.test.yaml", steps).display().to_string();
    let (exit, _, talk) = run(&["journey", "test", &lonely]).await;
    assert_eq!(exit, Exit::Usage);
    assert!(talk.contains("name it with --journey FILE"), "{talk}");
}

#[tokio::test]
async fn a_simulation_gives_the_same_report_each_time() {
    let folder = Folder::new();
    let journey = folder.file("tiny.yaml", JOURNEY).display().to_string();
    // in disorder: the simulation goes by the times
    let events = "id,time,app,act\n\
                  2,2026-01-02T00:00:00Z,a,paper.came\n\
                  1,2026-01-01T00:00:00Z,a,form.sent\n\
                  3,2026-01-02T00:00:00Z,b,form.sent\n\
                  3,2026-01-02T00:00:00Z,b,form.sent\n\
                  4,2026-01-02T00:00:00Z,c,other.thing\n\
                  5,nonsense,c,other.thing\n";
    let input = folder.file("in.csv", events).display().to_string();
    let words = [
        "simulate",
        &journey,
        "--input",
        &input,
        "--id",
        "id",
        "--time",
        "time",
        "--customer",
        "app=app",
        "--type",
        "act",
        "--json",
    ];
    let (exit, data, talk) = run(&words).await;
    let report = json(&data);
    assert_eq!(exit, Exit::No, "a row is bad: {talk}");
    assert_eq!(report["rows"], 6);
    for (fate, count) in [
        ("started", 2),
        ("moved", 1),
        ("duplicate", 1),
        ("no_match", 1),
    ] {
        assert_eq!(report["fates"][fate], count, "{fate}: {report}");
    }
    assert_eq!(report["failures"][0]["row"], 6);
    let stage = &report["reports"][0]["stages"][0];
    assert_eq!(
        (&stage["here"], &stage["completed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(stage["mean_seconds"], 86_400.0);
    assert_eq!(run(&words).await.1, data);

    let mut later = words.to_vec();
    later.extend(["--until", "2026-01-06T00:00:00Z"]);
    let report = json(&run(&later).await.1);
    assert_eq!(report["reports"][0]["active"], 0);
    assert_eq!(
        report["reports"][0]["outcomes"][1]["outcome"], "lost",
        "{report}"
    );
    later.pop();
    later.push("2025-01-01T00:00:00Z");
    let (exit, _, talk) = run(&later).await;
    assert_eq!(exit, Exit::Usage, "{talk}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_measures_calls_and_streams_in_closed_and_open_loop() {
    let world = World::faultless();
    let server = Server::start(&world);
    let url = server.url();
    for more in [
        vec![],
        vec!["--stream"],
        vec!["--open", "500"],
        vec!["--open", "500", "--stream"],
    ] {
        let mut words = vec![
            "bench",
            "signals",
            "--server",
            &url,
            "--in-flight",
            "1,8",
            "--customers",
            "50",
            "--connections",
            "2",
            "--seconds",
            "1",
            "--rounds",
            "1",
            "--no-echo",
            "--json",
        ];
        words.extend(more.iter().copied());
        let (exit, data, talk) = run(&words).await;
        assert_eq!(exit, Exit::Done, "{more:?}: {talk}");
        let report = json(&data);
        for run in report["runs"].as_array().expect("a list") {
            let server = &run["server"];
            let answers = server["answers"].as_u64().expect("a number");
            assert!(answers > 50, "{more:?}: {report}");
            if more.contains(&"--open") {
                assert!((450..=550).contains(&answers), "{more:?}: {report}");
            }
            let (p50, max) = (&server["latency_us"]["p50"], &server["latency_us"]["max"]);
            assert!(
                p50.as_u64() > Some(0) && p50.as_u64() <= max.as_u64(),
                "{report}"
            );
        }
    }
    assert!(world.state().published.contains_key("bench"));
    let (exit, data, talk) = run(&[
        "bench",
        "executions",
        "--server",
        &url,
        "--count",
        "2000",
        "--connections",
        "2",
        "--json",
    ])
    .await;
    assert_eq!(exit, Exit::Done, "{talk}");
    assert_eq!(json(&data)["started"], 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_of_a_cluster_asks_each_owner() {
    let world = World::faultless();
    world.state().topology.hands_over = true;
    let servers: Vec<Server> = (1..=2).map(|id| world.join(id)).collect();
    world.owners(&[1, 2]);
    let urls = format!("{},{}", servers[0].url(), servers[1].url());
    for more in [vec![], vec!["--stream"], vec!["--open", "500", "--stream"]] {
        let mut words = vec!["bench", "signals", "--server", &urls];
        words.extend(["--in-flight", "1,5", "--customers", "400", "--seconds", "1"]);
        words.extend(["--rounds", "1", "--no-echo", "--json", "--connections", "3"]);
        words.extend(more.iter().copied());
        let (exit, data, talk) = run(&words).await;
        assert_eq!(exit, Exit::Done, "{more:?}: {talk}");
        for run in json(&data)["runs"].as_array().expect("a list") {
            assert!(
                run["server"]["answers"].as_u64() > Some(50),
                "{more:?}: {run}"
            );
        }
    }
    let (straight, astray) = world.ways();
    // but the customers that were started before the topology was known
    assert!(
        straight > 0 && astray <= 3 * 400,
        "{straight} straight, {astray} astray"
    );
}
