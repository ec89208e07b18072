//! Definitions, their versions, endpoints; nodes and the layout: one Raft group of the cluster, every node a replica, read locally.

pub mod change;
pub mod cluster;
pub mod machine;
pub mod view;

pub use change::{Catalog, ChangeError};
pub use cluster::ClusterState;
pub use machine::{CatalogMachine, CatalogState};
pub use view::{JourneyView, VersionView, View, WorkspaceView};
