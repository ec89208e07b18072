//! The configuration of a node: flags, then `SOJOURN_SECTION__KEY`, then the file, then the defaults.

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything that can be set. An unknown key is an error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the data is.
    pub data: Data,
    /// Where the node listens.
    pub listen: Listen,
    /// What is chosen once, at bootstrap.
    pub cluster: Cluster,
    /// Limits that make sense to change.
    pub limits: Limits,
    /// Checkpoints.
    pub checkpoint: Checkpoint,
}

/// Where the data is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The data folder. Default: `sojourn-data`. Since 0.1.
    pub dir: PathBuf,
}

/// Where the node listens: loopback unless told. Port 0 takes a free one, which is printed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// gRPC and gRPC-Web. Default: `127.0.0.1:7410`. Since 0.1.
    pub grpc: SocketAddr,
    /// HTTP: health, readiness, metrics. Default: `127.0.0.1:7411`. Since 0.1.
    pub http: SocketAddr,
    /// Other nodes. Default: `127.0.0.1:7412`. Since 0.1.
    pub peer: SocketAddr,
    /// The host under which clients and other nodes reach this one. Default: the address that it listens on; the host's
    /// name when it listens on all. Since 0.1.
    pub advertise: Option<String>,
    /// TLS between nodes, both sides with a certificate. Default: none. Since 0.1.
    pub peer_tls: Option<PeerTls>,
}

/// PEM files; they are read again when they change.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTls {
    /// This node's certificate and those between it and the authority: for both directions, and for the host under which
    /// others reach it. Since 0.1.
    pub cert: PathBuf,
    /// Its private key. Since 0.1.
    pub key: PathBuf,
    /// The authority whose certificates are trusted. Since 0.1.
    pub ca: PathBuf,
}

/// How this node belongs to a cluster.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// How many shards: a power of two, 1 to 1,024. Chosen at bootstrap, read from the catalog afterwards. Default: 32.
    /// Since 0.1.
    pub shards: u16,
    /// With a new data folder: begin a new cluster. Default: false. Since 0.1.
    pub bootstrap: bool,
    /// Peer addresses, host:port, of nodes of the cluster: with a new data folder the node joins them. Default: none.
    /// Since 0.1.
    pub join: Vec<String>,
    /// This node's name, for people. Default: the host's. Since 0.1.
    pub name: Option<String>,
    /// What fails together with this node: replicas are kept in different zones. Default: empty. Since 0.1.
    pub zone: String,
    /// Whether shards are spread anew by themselves when a node has joined. Default: true. Since 0.1.
    pub rebalance: bool,
    /// Seconds after which a node that nobody reaches is replaced by the others; 0: never by itself. Default: 300.
    /// Since 0.1.
    pub replace_after_seconds: u64,
}

/// Limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Free disk, in bytes, below which no signal is admitted. Default: 1 GiB. Since 0.1.
    pub disk_free_min: u64,
    /// Seconds for which a repeated signal is recognised; customers of whom nothing has been active for as long leave
    /// memory. Default: 7 days. Since 0.1.
    pub dedup_seconds: u64,
    /// Bytes on disk that the index of receipts may take; beyond, its oldest day is dropped, which is reported as an
    /// error. Default: 8 GiB. Since 0.1.
    pub dedup_bytes: u64,
}

/// Checkpoints.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Seconds between checkpoints of a shard that changes. Default: 60. Since 0.1.
    pub every_seconds: u64,
    /// Bytes of log of a shard after which it is checkpointed. Default: 64 MiB. Since 0.1.
    pub log_bytes: u64,
    /// Bytes of waiting history of a shard after which it is checkpointed. Default: 32 MiB. Since 0.1.
    pub waiting_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Config {
            data: Data {
                dir: "sojourn-data".into(),
            },
            listen: Listen {
                grpc: local(7410),
                http: local(7411),
                peer: local(7412),
                advertise: None,
                peer_tls: None,
            },
            cluster: Cluster {
                shards: 32,
                bootstrap: false,
                join: Vec::new(),
                name: None,
                zone: String::new(),
                rebalance: true,
                replace_after_seconds: 300,
            },
            limits: Limits {
                disk_free_min: crate::limits::DISK_FREE_MIN,
                dedup_seconds: (sojourn_journey::limits::DEDUP_WINDOW.0 / 1_000_000).unsigned_abs(),
                dedup_bytes: crate::limits::DEDUP_BYTES,
            },
            checkpoint: Checkpoint {
                every_seconds: 60,
                log_bytes: 64 << 20,
                waiting_bytes: 32 << 20,
            },
        }
    }
}

const DEDUP_SECONDS_MAX: u64 = 366 * 86_400;

/// What the command line may override.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where gRPC listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where HTTP listens (health, readiness, metrics); port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Where other nodes reach this one; port 0 takes a free one, as it is when gRPC takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub peer: Option<SocketAddr>,
    /// How many shards, at the first start only: a power of two
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
}

impl Config {
    /// Reads everything and checks it.
    ///
    /// # Errors
    /// A text that names the key, what was found, and where.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Config, String> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(format!(
                    "configuration file {} does not exist",
                    file.display()
                ));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        figment = figment.merge(
            Env::prefixed("SOJOURN_")
                .filter(|k| k.as_str().contains("__"))
                .split("__"),
        );
        let mut config: Config = figment.extract().map_err(|errors| {
            errors
                .into_iter()
                .map(|e| e.to_string())
                .collect::<Vec<_>>()
                .join("; ")
        })?;
        if let Some(dir) = &flags.data {
            config.data.dir.clone_from(dir);
        }
        if let Some(address) = flags.listen {
            config.listen.grpc = address;
        }
        if let Some(address) = flags.http {
            config.listen.http = address;
        }
        if let Some(address) = flags.peer {
            config.listen.peer = address;
        } else if flags.listen.is_some_and(|address| address.port() == 0) {
            // somebody who wants no fixed port wants none here either
            config.listen.peer.set_port(0);
        }
        if let Some(shards) = flags.shards {
            config.cluster.shards = shards;
        }
        config.check()?;
        Ok(config)
    }

    /// Whether it makes sense as a whole.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check(&self) -> Result<(), String> {
        let shards = self.cluster.shards;
        if !shards.is_power_of_two() || shards > 1_024 {
            return Err(format!(
                "cluster.shards is {shards}: expected a power of two, 1 to 1024"
            ));
        }
        for seed in &self.cluster.join {
            let port = seed.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port
                .and_then(|(_, port)| port.parse::<u16>().ok())
                .is_none()
            {
                return Err(format!(
                    "cluster.join holds {seed:?}: expected host:port, the peer address of a node"
                ));
            }
        }
        if self.cluster.bootstrap && !self.cluster.join.is_empty() {
            return Err(
                "cluster.bootstrap and cluster.join are both given: a node begins a cluster or joins one".into(),
            );
        }
        let named = |text: &str| text.len() <= 64 && !text.chars().any(char::is_control);
        for (key, text) in [
            ("cluster.zone", Some(&self.cluster.zone)),
            ("cluster.name", self.cluster.name.as_ref()),
            ("listen.advertise", self.listen.advertise.as_ref()),
        ] {
            if !text.is_none_or(|text| named(text)) {
                return Err(format!(
                    "{key} is too long or holds control characters: expected at most 64 bytes"
                ));
            }
        }
        if self.checkpoint.every_seconds == 0 {
            return Err("checkpoint.every_seconds is 0: expected at least 1".into());
        }
        if !(1..=DEDUP_SECONDS_MAX).contains(&self.limits.dedup_seconds) {
            return Err(format!(
                "limits.dedup_seconds is {}: expected 1 to {DEDUP_SECONDS_MAX} (a year)",
                self.limits.dedup_seconds
            ));
        }
        for (name, bytes) in [
            ("checkpoint.log_bytes", self.checkpoint.log_bytes),
            ("checkpoint.waiting_bytes", self.checkpoint.waiting_bytes),
        ] {
            if bytes < 64 << 10 {
                return Err(format!("{name} is {bytes}: expected at least 65536"));
            }
        }
        if self.data.dir.as_os_str().is_empty() {
            return Err("data.dir is empty: expected a folder".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sojourn.toml");
        std::fs::write(
            &file,
            "[cluster]\nshards = 8\n[listen]\ngrpc = \"127.0.0.1:9000\"\n",
        )
        .unwrap();
        let flags = Flags {
            shards: Some(4),
            ..Flags::default()
        };
        let config = Config::load(Some(&file), &flags).unwrap();
        assert_eq!(config.cluster.shards, 4);
        assert_eq!(config.listen.grpc.port(), 9000);
        assert_eq!(config.listen.http.port(), 7411);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sojourn.toml");
        for (text, named) in [
            ("[cluster]\nshards = 3\n", "cluster.shards is 3"),
            ("[cluster]\nshrads = 4\n", "shrads"),
            ("[listen]\ngrpc = \"here\"\n", "listen.grpc"),
            (
                "[cluster]\njoin = [\"here\"]\n",
                "\"here\": expected host:port",
            ),
            (
                "[cluster]\nbootstrap = true\njoin = [\"a:1\"]\n",
                "begins a cluster or joins one",
            ),
            ("[cluster]\nzone = \"a\\u0007\"\n", "cluster.zone"),
            ("[limits]\ndedup_seconds = 0\n", "limits.dedup_seconds is 0"),
            (
                "[checkpoint]\nevery_seconds = 0\n",
                "checkpoint.every_seconds",
            ),
            ("cluster = ", "TOML"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Config::load(Some(&file), &Flags::default()).unwrap_err();
            assert!(error.contains(named), "{text:?}: {error}");
        }
        let missing = dir.path().join("none.toml");
        let error = Config::load(Some(&missing), &Flags::default()).unwrap_err();
        assert!(error.contains("does not exist"), "{error}");
    }
}
