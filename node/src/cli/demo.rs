//! `demo`: the main job in one command, through the public doors.

use super::run::{Local, client, say, temporary};
use super::{DemoArgs, ServerExit, load_with};
use sojourn_client::cli::{Exit, Say, Standalone};
use sojourn_client::{Client, Outcome, Signal};
use std::time::Duration;

const JOURNEY: &str = include_str!("../../../examples/welcome/journey.yaml");
/// How long the story waits for its own timer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `demo`.
pub async fn demo(args: DemoArgs) -> ServerExit {
    let mut config = match load_with(None, &args.flags, |config| config.cluster.bootstrap = true) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let temporary = match temporary(&mut config, args.flags.data.as_deref()) {
        Ok(temporary) => temporary,
        Err(exit) => return exit,
    };
    let local = match Local::start(&config, args.nodes).await {
        Ok(local) => local,
        Err(exit) => return exit,
    };
    match &local {
        Local::One(node) => eprintln!(
            "a node runs: gRPC on {}, HTTP on {}\n",
            node.grpc, node.http
        ),
        Local::Several(_) => eprintln!("{} nodes run and share the shards\n", args.nodes),
    }
    let server = local.server();
    if let Err(why) = story(&server).await {
        eprintln!("error: the demo failed: {why}");
        local.stop().await;
        return ServerExit::No;
    }
    if args.once {
        local.stop().await;
        return ServerExit::Done;
    }
    let at = if server.ends_with(":7410") {
        String::new()
    } else {
        format!(" --server {server}")
    };
    eprintln!(
        "\nthe server goes on; try in another terminal:\n  \
         sojourn{at} signal send Shop.Order.updated --customer email=cleo@example.com --data '{{\"status\":\"paid\",\"total\":45}}'\n  \
         sojourn{at} execution timeline --customer email=cleo@example.com --journey welcome\n  \
         sojourn{at} execution list --journey welcome\n  \
         sojourn{at} journey graph welcome\nCtrl-C stops it"
    );
    let exit = local.until_stopped().await;
    drop(temporary);
    exit
}

async fn story(server: &str) -> Result<(), String> {
    let client = client(server).await?;
    say("== a journey is published ==");
    let published = client
        .publish(JOURNEY, "demo")
        .await
        .map_err(|e| e.to_string())?;
    say(&format!(
        "{} version {}: live in every shard",
        published.journey, published.version
    ));
    say("\n== signals arrive, customers move ==");
    let signals = [
        ("ada", "web.signup", r#"{"plan":"basic"}"#),
        ("bo", "web.signup", r#"{"plan":"pro"}"#),
        ("cleo", "web.signup", r#"{"plan":"pro"}"#),
        ("ada", "web.email.confirmed", "{}"),
        ("cleo", "web.email.confirmed", "{}"),
        (
            "ada",
            "Shop.Order.updated",
            r#"{"status":"paid","total":60}"#,
        ),
        (
            "cleo",
            "Shop.Order.updated",
            r#"{"status":"open","total":45}"#,
        ),
        ("ada", "web.page.seen", "{}"),
    ];
    for (who, kind, data) in signals {
        send(&client, who, kind, data).await?;
    }
    say("\n== bo never confirms: two seconds later time moves him ==");
    let command = [
        "execution",
        "why",
        "--customer",
        "email=bo@example.com",
        "--journey",
        "welcome",
    ];
    show(server, &command).await?;
    nudged(&client).await?;
    say("\n== what happened to bo and to ada ==");
    for who in ["bo", "ada"] {
        let customer = format!("email={who}@example.com");
        let command = [
            "execution",
            "timeline",
            "--customer",
            &customer,
            "--journey",
            "welcome",
        ];
        show(server, &command).await?;
    }
    say("\n== why cleo is no customer yet ==");
    let command = [
        "execution",
        "why",
        "--customer",
        "email=cleo@example.com",
        "--journey",
        "welcome",
    ];
    show(server, &command).await?;
    say("\n== where everybody is ==");
    show(server, &["journey", "report", "welcome"]).await
}

async fn send(client: &Client, who: &str, kind: &str, data: &str) -> Result<(), String> {
    let signal = Signal::new(kind)
        .source("demo")
        .customer("email", format!("{who}@example.com"))
        .data_bytes(data.to_owned());
    match client.send(signal).await.map_err(|e| e.to_string())? {
        Outcome::Done(receipt) => {
            let fates: Vec<String> = receipt
                .parts
                .iter()
                .filter_map(|p| p.fate.as_ref().map(ToString::to_string))
                .collect();
            say(&format!("{who:5} {kind:20} {}", fates.join("; ")));
            Ok(())
        }
        Outcome::Refused(error) | Outcome::Unknown(error) => Err(error.to_string()),
    }
}

/// Waits until bo's timer has moved him, by asking.
async fn nudged(client: &Client) -> Result<(), String> {
    let bo = sojourn_client::ExecutionRef::Latest {
        customer: sojourn_client::Identifier::new("email", "bo@example.com"),
        journey: "welcome".into(),
        instance: None,
    };
    let asked = async {
        loop {
            let execution = client
                .get(&bo, sojourn_client::Read::default())
                .await
                .map_err(|e| e.to_string())?;
            if execution.execution.is_some_and(|e| e.stage == "nudged") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(format!("bo was not moved within {PATIENCE:?}")))
}

/// Shows a command and what it answers.
async fn show(server: &str, command: &[&str]) -> Result<(), String> {
    say(&format!("$ sojourn {}", command.join(" ")));
    let front = ["sojourn", "--server", server];
    let args: Vec<String> = front
        .iter()
        .chain(command)
        .map(|a| (*a).to_owned())
        .collect();
    match Standalone::run(args, &mut Say::standard()).await {
        Ok(Exit::Done) => Ok(()),
        Ok(exit) => Err(format!("it ended with {exit:?}")),
        Err(error) => Err(error.to_string()),
    }
}
