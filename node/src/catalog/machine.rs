//! The replicated state of the catalog. Applying compiles nothing and judges nothing.

use super::cluster::ClusterState;
use crate::history::{CatalogCopy, Store};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use sojourn_cluster::id::Position;
use sojourn_cluster::{Cut, EntryKind, Machine, Rebuilt};
use sojourn_proto::stored;
use std::collections::BTreeMap;
use std::sync::Arc;
use stored::catalog_change::Change;
use tokio::sync::watch;

/// What the catalog holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogState {
    /// The log index of the last change.
    pub position: u64,
    /// The cluster's own facts, once it is bootstrapped.
    pub bootstrap: Option<stored::Bootstrap>,
    /// Journeys by (workspace, name).
    pub journeys: BTreeMap<(String, String), stored::CatalogJourney>,
    /// Endpoints by (workspace, name).
    pub endpoints: BTreeMap<(String, String), stored::PutEndpoint>,
    /// Nodes, layout and the change under way. They have a position of their own: decisions do not depend on them.
    pub cluster: ClusterState,
}

impl CatalogState {
    /// Applies a change; a text when it no longer fits what was applied before it, and then nothing is changed.
    fn change(&mut self, index: u64, change: stored::CatalogChange) -> Option<String> {
        let (at, actor) = (change.at, change.actor);
        match change.change {
            // a change that is unknown to this version was refused before: the machine stops
            None => {}
            // the first one stands
            Some(Change::Bootstrap(b)) => {
                let first = self.bootstrap.is_none();
                if first {
                    self.cluster.bootstrap(index, &b);
                }
                self.bootstrap.get_or_insert(b);
            }
            Some(Change::AddNode(node)) => return self.cluster.add(index, at, node).err(),
            Some(Change::UpdateNode(node)) => {
                let shards = self.bootstrap.as_ref().map_or(1, |b| b.shards);
                return self.cluster.update(index, node, shards).err();
            }
            Some(Change::BeginChange(begin)) => return self.cluster.begin(index, at, begin).err(),
            Some(Change::ChangeProgress(progress)) => {
                return self.cluster.progress(index, at, progress).err();
            }
            Some(Change::Publish(p)) => {
                let key = (p.workspace.clone(), p.journey.clone());
                let taken = self.journeys.get(&key).and_then(|j| {
                    j.versions
                        .iter()
                        .find(|v| v.version == p.version && v.sha256 != p.sha256)
                });
                if taken.is_some() {
                    return Some(format!(
                        "version {} of journey {} was published meanwhile with another text; publish again",
                        p.version, p.journey
                    ));
                }
                let journey = self
                    .journeys
                    .entry((p.workspace.clone(), p.journey.clone()))
                    .or_insert_with(|| stored::CatalogJourney {
                        workspace: p.workspace,
                        journey: p.journey,
                        state: sojourn_proto::v1::JourneyState::Active as i32 as u32,
                        versions: Vec::new(),
                        live: 0,
                    });
                if !journey.versions.iter().any(|v| v.version == p.version) {
                    journey.versions.push(stored::CatalogVersion {
                        version: p.version,
                        text: p.text,
                        sha256: p.sha256,
                        at,
                        actor,
                    });
                }
                journey.live = p.version;
            }
            Some(Change::State(s)) => {
                if let Some(journey) = self.journeys.get_mut(&(s.workspace, s.journey)) {
                    journey.state = s.state;
                }
            }
            Some(Change::PutEndpoint(e)) => {
                self.endpoints
                    .insert((e.workspace.clone(), e.name.clone()), e);
            }
            Some(Change::DeleteEndpoint(e)) => {
                self.endpoints.remove(&(e.workspace, e.name));
            }
        }
        self.position = index;
        None
    }

    fn to_stored(&self) -> stored::Catalog {
        stored::Catalog {
            position: self.position,
            bootstrap: self.bootstrap.clone(),
            journeys: self.journeys.values().cloned().collect(),
            endpoints: self.endpoints.values().cloned().collect(),
            nodes: self.cluster.nodes.values().cloned().collect(),
            last_node: self.cluster.last_node,
            layout: self.cluster.layout.clone(),
            change: self.cluster.change.clone(),
            cluster_position: self.cluster.position,
        }
    }

    fn from_stored(from: stored::Catalog) -> Self {
        CatalogState {
            position: from.position,
            bootstrap: from.bootstrap,
            journeys: from
                .journeys
                .into_iter()
                .map(|j| ((j.workspace.clone(), j.journey.clone()), j))
                .collect(),
            endpoints: from
                .endpoints
                .into_iter()
                .map(|e| ((e.workspace.clone(), e.name.clone()), e))
                .collect(),
            cluster: ClusterState {
                position: from.cluster_position,
                nodes: from.nodes.into_iter().map(|n| (n.id, n)).collect(),
                last_node: from.last_node,
                layout: from.layout,
                change: from.change,
            },
        }
    }
}

const FORMAT: u8 = 1;
/// Bytes of a chunk of the catalog's checkpoint.
const CHUNK_BYTES: usize = 16 * 1024;

/// The catalog's machine.
pub struct CatalogMachine {
    state: Mutex<CatalogState>,
    /// Chunks of a checkpoint that is being restored.
    restoring: Mutex<Vec<u8>>,
    /// Where the whole catalog is kept once more, for a node that lost its checkpoints.
    history: Arc<Store>,
    /// The position of the last change.
    pub position: watch::Sender<u64>,
    /// Nodes, layout and the change under way, whenever they change.
    pub cluster: watch::Sender<Arc<ClusterState>>,
}

impl CatalogMachine {
    /// An empty catalog.
    pub fn new(history: Arc<Store>) -> Self {
        CatalogMachine {
            state: Mutex::default(),
            restoring: Mutex::default(),
            history,
            position: watch::channel(0).0,
            cluster: watch::channel(Arc::default()).0,
        }
    }

    /// Takes over a stored catalog; without bytes, an empty one.
    fn take_over(&self, bytes: &[u8]) -> Result<(), String> {
        let restored = match bytes.split_first() {
            None => CatalogState::default(),
            Some((&FORMAT, rest)) => stored::Catalog::decode(rest)
                .map(CatalogState::from_stored)
                .map_err(|e| format!("the catalog cannot be decoded: {e}"))?,
            Some((format, _)) => {
                return Err(format!(
                    "the catalog has format {format}, this version reads {FORMAT}"
                ));
            }
        };
        let (position, cluster) = (restored.position, Arc::new(restored.cluster.clone()));
        *self.state.lock() = restored;
        self.position.send_replace(position);
        self.cluster.send_replace(cluster);
        Ok(())
    }

    /// The state now.
    pub fn state(&self) -> CatalogState {
        self.state.lock().clone()
    }
}

impl Machine for CatalogMachine {
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes {
        if kind == EntryKind::Decisions {
            let change = stored::CatalogChange::decode(body.clone())
                .unwrap_or_else(|e| panic!("the catalog cannot apply log entry {}: {e}", at.index));
            assert!(
                change.change.is_some(),
                "the catalog cannot apply log entry {}: a change that this version does not know",
                at.index
            );
            let mut state = self.state.lock();
            let cluster = state.cluster.position;
            let conflict = state.change(at.index, change);
            if state.cluster.position != cluster {
                self.cluster.send_replace(Arc::new(state.cluster.clone()));
            }
            self.position.send_replace(state.position);
            return conflict.unwrap_or_default().into();
        }
        Bytes::new()
    }

    fn cut(&self, _at: Position, _full: bool) -> Box<dyn Cut> {
        let mut bytes = vec![FORMAT];
        // encoding into a Vec cannot fail: it grows
        self.state
            .lock()
            .to_stored()
            .encode(&mut bytes)
            .unwrap_or_default();
        Box::new(CatalogCut {
            bytes,
            next: 0,
            history: self.history.clone(),
        })
    }

    fn waiting_bytes(&self) -> u64 {
        0
    }

    fn restore_begin(&self) {
        // what there is stays until the other is whole: views are built of it
        self.restoring.lock().clear();
    }

    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String> {
        // every cut is whole: one that begins anew replaces what came before
        let Some((&first, rest)) = chunk.split_first() else {
            return Err("an empty chunk of the catalog".into());
        };
        let mut restoring = self.restoring.lock();
        if first == 0 {
            restoring.clear();
        }
        restoring.extend_from_slice(rest);
        Ok(())
    }

    fn restore_end(&self, _at: Option<Position>) -> Result<(), String> {
        let bytes = std::mem::take(&mut *self.restoring.lock());
        self.take_over(&bytes)
    }

    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        let copy = self.history.catalog().map_err(|e| e.to_string())?;
        let Some(CatalogCopy { manifest, state }) = copy else {
            return Ok(None);
        };
        self.take_over(&state)?;
        Ok(Some(Rebuilt { manifest }))
    }

    fn hash(&self) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&self.state.lock().to_stored().encode_to_vec())
    }
}

struct CatalogCut {
    bytes: Vec<u8>,
    next: usize,
    history: Arc<Store>,
}

impl Cut for CatalogCut {
    fn before(&mut self, manifest: &[u8]) -> Result<(), String> {
        self.history
            .write_catalog(manifest, &self.bytes)
            .map_err(|e| e.to_string())
    }

    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.next..).filter(|r| !r.is_empty())?;
        let take = rest.len().min(CHUNK_BYTES);
        // the first byte tells the first chunk from those that follow it
        let mut chunk = vec![u8::from(self.next > 0)];
        chunk.extend_from_slice(&rest[..take]);
        self.next += take;
        Some(chunk)
    }

    fn done(self: Box<Self>, _ok: bool) {}
}
