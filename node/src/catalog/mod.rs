//! Definitions, their versions, endpoints: one Raft group of the cluster, every node a replica, read locally.

pub mod change;
pub mod machine;
pub mod view;

pub use change::{Catalog, ChangeError};
pub use machine::{CatalogMachine, CatalogState};
pub use view::{JourneyView, VersionView, View, WorkspaceView};
