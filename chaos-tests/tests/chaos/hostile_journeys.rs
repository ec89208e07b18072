//! Journeys that mean harm, sent to a running server: each is refused with line and column, none is published, and the
//! server goes on deciding meanwhile.

use crate::support::{customer, execution, healthy, publish, send, signal};
use anyhow::{Result, bail, ensure};
use sojourn_chaos_tests::invariants::{events, timeline};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::wire::event::What;
use sojourn_client::{Client, Code};
use std::time::{Duration, Instant};

/// What is left of a journey when one line is bad.
const AROUND: &str = "journey: j\nentry: [{ on: a.b }]\nstages:\n";

/// A hostile text, the line at which its problem stands (0: any, or the whole), and a part of what is said.
fn cases() -> Vec<(String, u32, &'static str)> {
    let stage = |inside: &str| {
        format!("{AROUND}  - stage: x\n    {inside}\n  - {{ stage: y, end: done }}\n")
    };
    let when = |expression: String| {
        let quoted = serde_json::Value::from(expression);
        stage(&format!(
            "transitions: [{{ to: y, on: c.d, when: {quoted} }}]"
        ))
    };
    let laughs: String = (1..12)
        .map(|n| {
            let refs = vec![format!("*l{}", n - 1); 10].join(",");
            format!("l{n}: &l{n} [{refs}]\n")
        })
        .collect();
    vec![
        (String::new(), 0, "expected"),
        ("journey: [".into(), 1, "cannot be read"),
        ("journey: j\n\tstages: []".into(), 0, "cannot be read"),
        (format!("l0: &l0 lol\n{laughs}"), 1, "anchors"),
        ("a: &a [*a]\n".into(), 1, "anchors"),
        (
            "journey: j\n---\njourney: k\n".into(),
            2,
            "several documents",
        ),
        (
            "journey: !!python/object:os.system x".into(),
            1,
            "cannot be read",
        ),
        (
            format!("journey: {}", "[".repeat(200_000)),
            1,
            "deeper than 64",
        ),
        (
            format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000)),
            1,
            "deeper than 64",
        ),
        (
            format!("journey: j\ntitle: {}\n", "x".repeat((1 << 20) + 1)),
            0,
            "a journey may have",
        ),
        (format!("journey: j\n{}", "- ".repeat(300_000)), 0, ""),
        (
            "journey: Not A Slug\nstages: [{ stage: x, end: y }]".into(),
            1,
            "name",
        ),
        (
            "tilte: x\njourney: j\nstages: [{ stage: x, end: y }]".into(),
            1,
            "is no key of a journey",
        ),
        (
            stage("transitions: [{ to: nowhere, on: c.d }]"),
            5,
            "no stage `nowhere`",
        ),
        (
            stage("transitions: [{ to: y, on: signal.x }]"),
            5,
            "cannot be a signal type",
        ),
        (
            stage("transitions: [{ to: y, after: soon }]"),
            5,
            "no duration",
        ),
        (
            stage("transitions: [{ to: y, on: c.d, after: 3d }]"),
            5,
            "at most one trigger",
        ),
        (
            stage("enter: [{ webhook: { to: nobody } }]\n    transitions: [{ to: y, on: c.d }]"),
            5,
            "no endpoint `nobody`",
        ),
        (
            stage(&format!(
                "transitions: [{}]",
                vec!["{ to: y, on: c.d }"; 65].join(", ")
            )),
            4,
            "64",
        ),
        (
            format!(
                "{AROUND}{}  - {{ stage: z, end: done }}\n",
                (0..1_001)
                    .map(|n| format!(
                        "  - {{ stage: s{n}, transitions: [{{ to: z, on: c.d }}] }}\n"
                    ))
                    .collect::<String>()
            ),
            0,
            "1000",
        ),
        (when("x +".into()), 5, "no expression"),
        (when("(".repeat(2_000)), 5, ""),
        (
            when(format!("{}1{}", "(".repeat(1_500), ")".repeat(1_500))),
            5,
            "",
        ),
        (when(vec!["1"; 20_000].join(" + ")), 5, ""),
        (when(vec!["A.b.c == 1"; 300].join(" && ")), 5, ""),
        (when(format!("A.b.c == \"{}\"", "x".repeat(70_000))), 5, ""),
        (
            when(
                "[1].all(a, [1].all(b, [1].all(c, [1].all(d, [1].all(e, [1].all(f, a == f))))))"
                    .into(),
            ),
            5,
            "",
        ),
        (when(format!("{}true", "!".repeat(5_000))), 5, ""),
        (
            when("signal.data.x.matches('(a*)*b{1000}{1000}')".into()),
            5,
            "",
        ),
        (when("\u{0}".into()), 5, ""),
    ]
}

/// That a text is refused, with a problem at the line that says so, by publish and by validate.
async fn refused(client: &Client, text: &str, line: u32, says: &str) -> Result<()> {
    let begun = Instant::now();
    let error = match client.publish(text, "story").await {
        Ok(published) => bail!("it was published: {published:?}"),
        Err(error) => error,
    };
    // a debug build is some twenty times slower than what people run
    ensure!(
        begun.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        begun.elapsed()
    );
    ensure!(error.code() == Code::Invalid, "{error:?}");
    ensure!(
        error.to_string().len() < 10_000,
        "an answer that nobody can read"
    );
    let mut there = false;
    for violation in error.violations() {
        // text:LINE:COLUMN: path; the last may say how many more there are
        let Some(place) = violation.field.strip_prefix("text:") else {
            ensure!(
                violation.description.ends_with("more"),
                "no place: {violation}"
            );
            continue;
        };
        let mut place = place.split(':');
        let found: u32 = place.next().unwrap_or_default().parse()?;
        let column: u32 = place.next().unwrap_or_default().parse()?;
        ensure!(found == 0 || column > 0, "no column: {violation}");
        there |= (line == 0 || found == line) && violation.description.contains(says);
    }
    ensure!(there, "nothing says {says:?} at line {line}: {error}");
    let checked = client.validate(text).await?;
    let there = checked
        .problems
        .iter()
        .any(|p| (line == 0 || p.line == line) && p.message.contains(says) && !p.warning);
    ensure!(
        !checked.valid && there,
        "validate says otherwise: {checked:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_refused_with_its_place_while_the_server_goes_on() -> Result<()> {
    let mut server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    let good = format!("{AROUND}  - stage: x\n    transitions: [{{ to: x, on: c.d }}]\n")
        .replace("journey: j", "journey: good");
    publish(&client, &good).await?;
    let ann = customer("ann");
    send(&client, signal("a.b", &ann, "start")).await?;
    let cases = cases();
    let mut wrong = Vec::new();
    for (n, (text, line, says)) in cases.iter().enumerate() {
        if let Err(error) = refused(&client, text, *line, says).await {
            let shown: String = text.chars().take(80).collect();
            wrong.push(format!("case {n} {shown:?}: {error:#}"));
        }
        // somebody moves in between
        let receipt = send(&client, signal("c.d", &ann, &format!("between{n}"))).await?;
        ensure!(receipt.word() == "moved", "after case {n}: {receipt:?}");
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    healthy(&mut server).await?;
    let names: Vec<String> = client
        .journeys()
        .await?
        .into_iter()
        .map(|j| j.name)
        .collect();
    ensure!(names == ["good"], "published: {names:?}");
    ensure!(execution(&client, &ann, "good").await?.visit == cases.len() as u32 + 1);
    Ok(())
}

/// Waits for nothing and goes round for ever.
const CIRCLE: &str = r#"
journey: circle
entry: [{ on: a.start }]
variables: { n: { type: number, from: signal.data.n } }
stages:
  - stage: one
    transitions: [{ to: two, when: vars.n > 0 }]
  - stage: two
    transitions: [{ to: one, when: vars.n > 0 }]
  - { stage: never, end: done }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_is_warned_of_and_stops_with_an_incident() -> Result<()> {
    let mut server = Server::start(Setup::default()).await?;
    let client: Client = server.client()?;
    let published = client.publish(CIRCLE, "story").await?;
    ensure!(
        published.problems.iter().any(|p| p.warning && p.line > 0),
        "it is published, and warned of: {published:?}"
    );
    let ann = customer("ann");
    let start = signal("a.start", &ann, "start").data(&serde_json::json!({ "n": 1 }))?;
    send(&client, start).await?;
    server.crash().await?;
    let stands = execution(&client, &ann, "circle").await?;
    ensure!(stands.incident.is_some(), "an incident: {stands:?}");
    let moved = events(&timeline(&client, &ann, "circle").await?);
    let moves = moved
        .iter()
        .filter(|(_, _, w)| matches!(w, What::Moved(_)))
        .count();
    ensure!(moves == 64, "it went {moves} times round");
    healthy(&mut server).await
}
