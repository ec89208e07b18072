//! `cluster`: the nodes, where the shards are, and how that is changed.

mod follow;
mod json;
mod text;

use super::exit::{Exit, Trouble};
use super::{ActorArgs, GlobalOpts, Say};
use crate::client::Client;
use crate::cluster::{Control, Wish};

/// `sojourn cluster …`.
#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Show the nodes, what is wrong with shards, and the change under way, as one node sees them
    Status,
    /// Show the nodes
    Nodes,
    /// Show every shard: its owner, its voters, its replicas
    Shards,
    /// Show what a change would do; without a wish, what would make the layout best
    Plan(PlanArgs),
    /// Begin a change and show its id; without a wish, make the layout best
    Apply(ApplyArgs),
    /// Have a node give all its replicas away
    Drain(NodeArgs),
    /// Take out a node that is gone or empty; it never comes back under its id
    Remove(NodeArgs),
    /// Let a draining node take replicas again
    Activate(NodeArgs),
    /// Show what changes from now on, until Ctrl-C
    Watch,
    /// Give a shard to another of its voters
    Transfer(TransferArgs),
    /// Let a change stand still
    Pause(ControlArgs),
    /// Let a change go on
    Resume(ControlArgs),
    /// End a change; what has moved stays
    Cancel(ControlArgs),
    /// Compare the states of all replicas at one position
    Verify(VerifyArgs),
}

/// What is wished of which nodes.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// This node gives all its replicas away
    #[arg(long, value_name = "NODE")]
    drain: Vec<u64>,
    /// This node is gone or empty, and never comes back under its id
    #[arg(long, value_name = "NODE")]
    remove: Vec<u64>,
    /// This node, which is draining, takes replicas again
    #[arg(long, value_name = "NODE")]
    activate: Vec<u64>,
}

impl PlanArgs {
    fn wishes(&self) -> Vec<Wish> {
        let drain = self.drain.iter().map(|n| Wish::Drain(*n));
        let remove = self.remove.iter().map(|n| Wish::Remove(*n));
        let activate = self.activate.iter().map(|n| Wish::Activate(*n));
        drain.chain(remove).chain(activate).collect()
    }
}

/// How a change is begun.
#[derive(Debug, clap::Args)]
pub struct HowArgs {
    /// Follow the change until it has ended
    #[arg(long)]
    wait: bool,
    /// Only when the layout still has this version, as `plan` shows it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    expected_layout: Option<u64>,
    #[command(flatten)]
    by: ActorArgs,
    /// Why, for the record
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

/// `sojourn cluster apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    wishes: PlanArgs,
    #[command(flatten)]
    how: HowArgs,
}

/// `sojourn cluster drain NODE` and its like.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// The node's id, as `nodes` shows it
    node: u64,
    #[command(flatten)]
    how: HowArgs,
}

/// `sojourn cluster transfer SHARD --to NODE`.
#[derive(Debug, clap::Args)]
pub struct TransferArgs {
    /// The shard
    shard: u32,
    /// The voter that is to own it
    #[arg(long, value_name = "NODE")]
    to: u64,
    #[command(flatten)]
    by: ActorArgs,
}

/// `sojourn cluster pause ID` and its like.
#[derive(Debug, clap::Args)]
pub struct ControlArgs {
    /// The change's id, as `apply` and `status` show it
    id: String,
    #[command(flatten)]
    by: ActorArgs,
    /// Why, for the record
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

/// `sojourn cluster verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// This shard; may be repeated [default: all]
    #[arg(long, value_name = "SHARD")]
    shard: Vec<u32>,
}

pub(super) async fn run(
    command: ClusterCommand,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let client = global.client().await?;
    match command {
        ClusterCommand::Status => {
            let status = client.cluster_status().await.map_err(Trouble::reading)?;
            if say.json() {
                say.value(&json::status(&status));
            } else {
                say.data(text::status(&status));
            }
        }
        ClusterCommand::Nodes => {
            let status = client.cluster_status().await.map_err(Trouble::reading)?;
            if say.json() {
                say.value(&status.nodes.iter().map(json::node).collect());
            } else {
                say.data(text::nodes(&status, true));
                say.talk(text::whose(&status));
            }
        }
        ClusterCommand::Shards => {
            let status = client.cluster_status().await.map_err(Trouble::reading)?;
            if say.json() {
                let shards = status.shards.iter();
                say.value(&shards.map(|s| json::shard(&status, s)).collect());
            } else {
                say.data(text::shards(&status));
                say.talk(text::whose(&status));
            }
        }
        ClusterCommand::Plan(args) => {
            let plan = client.cluster_plan(&args.wishes()).await;
            let plan = plan.map_err(Trouble::reading)?;
            if say.json() {
                say.value(&json::plan(&plan));
            } else {
                say.data(text::plan(&plan));
            }
        }
        ClusterCommand::Apply(args) => {
            return apply(&client, &args.wishes.wishes(), &args.how, say).await;
        }
        ClusterCommand::Drain(args) => {
            return apply(&client, &[Wish::Drain(args.node)], &args.how, say).await;
        }
        ClusterCommand::Remove(args) => {
            return apply(&client, &[Wish::Remove(args.node)], &args.how, say).await;
        }
        ClusterCommand::Activate(args) => {
            return apply(&client, &[Wish::Activate(args.node)], &args.how, say).await;
        }
        ClusterCommand::Watch => return follow::watch(&client, say).await,
        ClusterCommand::Transfer(args) => {
            let answer = client
                .cluster_transfer(args.shard, args.to, args.by.name())
                .await?;
            if say.json() {
                say.value(
                    &serde_json::json!({ "shard": args.shard, "owner": answer.owner, "was": answer.was }),
                );
            } else if answer.owner == answer.was {
                say.talk(format_args!(
                    "shard {} is owned by node {} already",
                    args.shard, answer.owner
                ));
            } else {
                say.talk(format_args!(
                    "shard {} is owned by node {}, was by {}",
                    args.shard,
                    answer.owner,
                    text::node_or(answer.was, "nobody")
                ));
            }
        }
        ClusterCommand::Pause(args) => {
            return control(&client, &args, Control::Pause, say).await;
        }
        ClusterCommand::Resume(args) => {
            return control(&client, &args, Control::Resume, say).await;
        }
        ClusterCommand::Cancel(args) => {
            return control(&client, &args, Control::Cancel, say).await;
        }
        ClusterCommand::Verify(args) => {
            let answer = client.cluster_verify(&args.shard).await;
            let answer = answer.map_err(Trouble::reading)?;
            if say.json() {
                say.value(&json::verify(&answer));
            } else {
                say.data(text::verify(&answer));
                say.talk(text::verdict(&answer));
            }
            return Ok(if answer.equal { Exit::Done } else { Exit::No });
        }
    }
    Ok(Exit::Done)
}

async fn apply(
    client: &Client,
    wishes: &[Wish],
    how: &HowArgs,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let begun = client
        .cluster_apply(wishes, how.expected_layout, how.by.name(), &how.reason)
        .await?;
    let Some(change) = begun else {
        if say.json() {
            say.value(&serde_json::json!({ "change": null }));
        } else {
            say.talk("nothing to do");
        }
        return Ok(Exit::Done);
    };
    if how.wait {
        return follow::change(client, change, say).await;
    }
    if say.json() {
        say.value(&serde_json::json!({ "change": json::change(&change) }));
    } else {
        say.data(&change.id);
        say.talk(text::change(&change));
    }
    Ok(Exit::Done)
}

async fn control(
    client: &Client,
    args: &ControlArgs,
    control: Control,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let change = client
        .cluster_control(&args.id, control, args.by.name(), &args.reason)
        .await?;
    if say.json() {
        say.value(&serde_json::json!({ "change": json::change(&change) }));
    } else {
        say.talk(text::change(&change));
    }
    Ok(Exit::Done)
}
