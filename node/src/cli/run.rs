//! `dev` and `serve`: a node until it is told to stop.

use super::several::Several;
use super::{DevArgs, ServeArgs, ServerExit, load_with};
use crate::config::Config;
use crate::node::{Node, NodeError};
use sojourn_client::Client;
use std::path::Path;

/// Runs `serve`.
pub async fn serve(args: ServeArgs) -> ServerExit {
    let ServeArgs {
        config,
        flags,
        bootstrap,
        join,
        advertise,
        name,
        zone,
        end_with_stdin,
        check,
    } = args;
    let config = load_with(config.as_deref(), &flags, |config| {
        if bootstrap {
            config.cluster.join.clear();
        }
        config.cluster.bootstrap |= bootstrap;
        if !join.is_empty() {
            config.cluster.bootstrap = false;
            config.cluster.join = join;
        }
        config.listen.advertise = advertise.or(config.listen.advertise.take());
        config.cluster.name = name.or(config.cluster.name.take());
        if let Some(zone) = zone {
            config.cluster.zone = zone;
        }
    });
    let config = match config {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if check {
        return match toml::to_string_pretty(&config) {
            Ok(text) => {
                say(&text);
                ServerExit::Done
            }
            Err(error) => {
                eprintln!("error: {error}");
                ServerExit::Bug
            }
        };
    }
    let node = match start(&config).await {
        Ok(node) => node,
        Err(exit) => return exit,
    };
    eprintln!(
        "sojourn serves gRPC on {} and HTTP on {}",
        node.grpc, node.http
    );
    eprintln!(
        "node {} of cluster {}, for other nodes on {}",
        node.id, node.cluster, node.peer
    );
    until_stopped(node, end_with_stdin).await
}

/// Runs `dev`.
pub async fn dev(args: DevArgs) -> ServerExit {
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
    if let Local::One(node) = &local {
        eprintln!("sojourn dev: gRPC on {}, HTTP on {}", node.grpc, node.http);
    }
    eprintln!(
        "data in {}{}",
        config.data.dir.display(),
        if temporary.is_some() {
            " (temporary)"
        } else {
            ""
        }
    );
    for file in &args.journeys {
        if let Err(why) = publish(&local.server(), file).await {
            eprintln!("error: {}: {why}", file.display());
            local.stop().await;
            return ServerExit::No;
        }
    }
    let server = local.server();
    let at = if server.ends_with(":7410") {
        String::new()
    } else {
        format!(" --server {server}")
    };
    eprintln!(
        "\nnext, in another terminal:\n  \
         sojourn{at} journey publish examples/welcome/journey.yaml\n  \
         sojourn{at} signal send web.signup --customer email=ada@example.com --data '{{\"plan\":\"basic\"}}'\n  \
         sojourn{at} execution timeline --customer email=ada@example.com --journey welcome\n  \
         sojourn{at} execution why --customer email=ada@example.com --journey welcome\n  \
         sojourn{at} journey report welcome\nCtrl-C stops it"
    );
    let exit = local.until_stopped().await;
    drop(temporary);
    exit
}

/// One node in this process, or several of their own.
pub(super) enum Local {
    /// One.
    One(Box<Node>),
    /// Several.
    Several(Several),
}

impl Local {
    /// Starts so many nodes.
    pub(super) async fn start(config: &Config, nodes: u16) -> Result<Local, ServerExit> {
        if nodes == 1 {
            return start(config).await.map(|node| Local::One(Box::new(node)));
        }
        match Several::start(config, nodes).await {
            Ok(several) => Ok(Local::Several(several)),
            Err(why) => {
                eprintln!("error: {why}");
                Err(ServerExit::No)
            }
        }
    }

    /// Where clients reach it.
    pub(super) fn server(&self) -> String {
        match self {
            Local::One(node) => format!("http://{}", node.grpc),
            Local::Several(several) => format!("http://{}", several.grpc),
        }
    }

    /// Stops it.
    pub(super) async fn stop(self) {
        match self {
            Local::One(node) => node.stop().await,
            Local::Several(several) => several.stop().await,
        }
    }

    /// Serves until Ctrl-C, SIGTERM, or a failure that it cannot survive.
    pub(super) async fn until_stopped(self) -> ServerExit {
        match self {
            Local::One(node) => until_stopped(*node, false).await,
            Local::Several(mut several) => {
                several.watch(told_to_stop()).await;
                eprintln!("stopping");
                several.stop().await;
                ServerExit::Done
            }
        }
    }
}

/// Waits until the standard input has ended.
async fn end_of_stdin() {
    let (tell, told) = tokio::sync::oneshot::channel();
    // a thread that nobody waits for: it may read for ever
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = tell.send(());
    });
    let _ = told.await;
}

/// Waits for Ctrl-C or SIGTERM.
async fn told_to_stop() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

/// A temporary data folder, unless one was named.
pub(super) fn temporary(
    config: &mut Config,
    named: Option<&Path>,
) -> Result<Option<tempfile::TempDir>, ServerExit> {
    if named.is_some() {
        return Ok(None);
    }
    match tempfile::Builder::new().prefix("sojourn-").tempdir() {
        Ok(dir) => {
            config.data.dir = dir.path().join("data");
            Ok(Some(dir))
        }
        Err(error) => {
            eprintln!("error: no temporary folder: {error}; name one with --data DIR");
            Err(ServerExit::No)
        }
    }
}

async fn publish(server: &str, file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let client = client(server).await?;
    let published = client
        .publish(&text, "dev")
        .await
        .map_err(|e| e.to_string())?;
    eprintln!(
        "published {} version {}",
        published.journey, published.version
    );
    Ok(())
}

/// A client, through the public door.
pub(super) async fn client(server: &str) -> Result<Client, String> {
    Client::connect(server).await.map_err(|e| e.to_string())
}

/// Starts a node, or says why not.
pub(super) async fn start(config: &Config) -> Result<Node, ServerExit> {
    Node::start(config).await.map_err(|error| {
        eprintln!("error: {error}");
        exit_of(&error)
    })
}

fn exit_of(error: &NodeError) -> ServerExit {
    if matches!(error, NodeError::Usage(_)) {
        ServerExit::Usage
    } else if error.is_data() {
        ServerExit::Data
    } else {
        ServerExit::No
    }
}

/// Serves until Ctrl-C, SIGTERM, or a failure that the node cannot survive.
async fn until_stopped(node: Node, end_with_stdin: bool) -> ServerExit {
    tokio::select! {
        error = node.failed() => {
            eprintln!("error: {error}");
            // nothing more may be written or acknowledged
            return exit_of(&error);
        }
        () = told_to_stop() => {}
        () = end_of_stdin(), if end_with_stdin => {}
    }
    eprintln!("stopping");
    node.stop().await;
    ServerExit::Done
}

/// Data, to the standard output; a reader that has gone is no error.
pub(super) fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}
