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
}

/// What is chosen once, at bootstrap, and read from the catalog afterwards.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// How many shards: a power of two, 1 to 1,024. Default: 32. Since 0.1.
    pub shards: u16,
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
            },
            cluster: Cluster { shards: 32 },
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
        if let Some(shards) = flags.shards {
            config.cluster.shards = shards;
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let shards = self.cluster.shards;
        if !shards.is_power_of_two() || shards > 1_024 {
            return Err(format!(
                "cluster.shards is {shards}: expected a power of two, 1 to 1024"
            ));
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
