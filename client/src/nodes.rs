//! The nodes that a client may talk to: an HTTP/2 connection to each, made when it is first needed, and which of them
//! did not answer lately. Knows nothing of what is said on a connection.

use crate::error::{Code, Error, root_cause};
use crate::topology::View;
use futures::stream::{FuturesUnordered, StreamExt as _};
use sojourn_proto::v1::{self, cluster_client::ClusterClient};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// Where a node is: `http://10.0.0.1:7410`.
pub(crate) type Address = Arc<str>;

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a node that did not answer is left alone, at first and at most, as long as others can be asked.
const REST_FIRST: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(5);

/// A connection on which nothing comes is asked after this long, and given up after as much again: so a node that is
/// stopped or cut off is left in time for another to be asked within a usual deadline.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The address in the one form in which it is compared; nodes tell theirs without a scheme.
pub(crate) fn address(text: &str) -> Address {
    let text = text.trim().trim_end_matches('/');
    if text.contains("://") {
        text.into()
    } else {
        format!("http://{text}").into()
    }
}

/// The nodes.
pub(crate) struct Nodes {
    /// Those that the caller named, never none.
    seeds: Vec<Address>,
    connect_within: Duration,
    view: watch::Receiver<Arc<View>>,
    inner: Mutex<Inner>,
}

struct Inner {
    channels: HashMap<Address, Channel>,
    /// Where requests go that any node takes: the same as long as it answers.
    home: Address,
    /// Until when who rests, and how often it failed in a row.
    resting: HashMap<Address, (Instant, u32)>,
}

impl Nodes {
    /// # Errors
    /// [`Code::Invalid`] for an address that is none.
    pub fn new(
        seeds: &[String],
        deadline: Duration,
        view: watch::Receiver<Arc<View>>,
    ) -> Result<Nodes, Error> {
        let connect_within = deadline.min(CONNECT_MAX);
        for seed in seeds {
            endpoint(seed, connect_within)?;
        }
        let seeds: Vec<Address> = seeds
            .iter()
            .map(|s| s.trim_end_matches('/').into())
            .collect();
        let Some(home) = seeds.first().cloned() else {
            return Err(Error::new(
                Code::Invalid,
                "no server is named, expected an address such as http://127.0.0.1:7410",
            ));
        };
        Ok(Nodes {
            seeds,
            connect_within,
            view,
            inner: Mutex::new(Inner {
                channels: HashMap::new(),
                home,
                resting: HashMap::new(),
            }),
        })
    }

    /// Connects to the seed that answers first, which becomes home.
    ///
    /// # Errors
    /// Why each of them did not.
    pub async fn connect(&self, within: Duration) -> Result<(), Vec<(Address, String)>> {
        let several = self.seeds.len() > 1;
        let mut connecting: FuturesUnordered<_> = self
            .seeds
            .iter()
            .map(|seed| async move {
                let endpoint = match endpoint(seed, within) {
                    Ok(endpoint) => endpoint,
                    Err(error) => return Err((seed, error.to_string())),
                };
                let connecting = async {
                    let channel = endpoint.connect().await.map_err(|e| root_cause(&e))?;
                    // the connection of a process that is stopped is taken by its system all the same
                    if several {
                        answers(channel.clone()).await?;
                    }
                    Ok::<_, String>(channel)
                };
                match tokio::time::timeout(within, connecting).await {
                    Ok(Ok(channel)) => Ok((seed, channel)),
                    Ok(Err(why)) => Err((seed, why)),
                    Err(_) => Err((
                        seed,
                        format!("no connection within {} s", within.as_secs_f64()),
                    )),
                }
            })
            .collect();
        let mut failed = Vec::new();
        while let Some(connected) = connecting.next().await {
            match connected {
                Ok((seed, channel)) => {
                    let mut inner = self.inner();
                    inner.home = seed.clone();
                    inner.channels.insert(seed.clone(), channel);
                    return Ok(());
                }
                Err((seed, why)) => failed.push((seed.clone(), why)),
            }
        }
        Err(failed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where customers are, as far as is known.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// To be told of changes.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// All that could be asked: the seeds, and those that the topology names.
    pub fn all(&self) -> BTreeSet<Address> {
        let view = self.view();
        self.seeds.iter().chain(view.all()).cloned().collect()
    }

    /// The connection to a node; it connects with its first use, and again by itself after it broke.
    pub fn channel(&self, address: &Address) -> Channel {
        let mut inner = self.inner();
        if let Some(channel) = inner.channels.get(address) {
            return channel.clone();
        }
        let channel = match endpoint(address, self.connect_within) {
            Ok(endpoint) => endpoint.connect_lazy(),
            // cannot be: seeds and topology are checked before; and if it were, its first use would say so
            Err(_) => Endpoint::from_static("http://0.0.0.0:0").connect_lazy(),
        };
        inner.channels.insert(address.clone(), channel.clone());
        channel
    }

    /// Keeps a connection that was made already.
    pub fn adopt(&self, address: &Address, channel: Channel) {
        self.inner().channels.insert(address.clone(), channel);
    }

    /// Whether an address is one that the caller gave, or of a node that answers there.
    pub fn knows(&self, address: &Address) -> bool {
        self.seeds.contains(address) || self.view().all().any(|a| a == address)
    }

    /// Who should be asked: the owner of the hash, else home, else whoever did not fail lately; those to avoid only when
    /// there is nobody else.
    pub fn pick(&self, hash: Option<u64>, avoid: &[Address]) -> Address {
        let view = self.view();
        let now = Instant::now();
        let mut inner = self.inner();
        let rests = |inner: &Inner, address: &Address| {
            inner
                .resting
                .get(address)
                .is_some_and(|(until, _)| *until > now)
        };
        let usable =
            |inner: &Inner, address: &Address| !avoid.contains(address) && !rests(inner, address);
        if let Some(owner) = hash.and_then(|h| view.owner(h))
            && usable(&inner, owner)
        {
            return owner.clone();
        }
        if usable(&inner, &inner.home) {
            return inner.home.clone();
        }
        let others: Vec<&Address> = self.seeds.iter().chain(view.all()).collect();
        if let Some(other) = others.iter().find(|a| usable(&inner, a)) {
            let other = (*other).clone();
            // an avoided home is only avoided this time; one that rests is left
            if rests(&inner, &inner.home) {
                inner.home.clone_from(&other);
            }
            return other;
        }
        // all rest: who has rested longest, another than the avoided where there is one
        let rested = |a: &&&Address| inner.resting.get(**a).map(|(until, _)| *until);
        others
            .iter()
            .filter(|a| !avoid.contains(a))
            .min_by_key(rested)
            .map_or_else(|| inner.home.clone(), |a| (*a).clone())
    }

    /// The same with the connection.
    pub fn ask(&self, hash: Option<u64>, avoid: &[Address]) -> (Address, Channel) {
        let address = self.pick(hash, avoid);
        let channel = self.channel(&address);
        (address, channel)
    }

    /// Whether anybody but these could be asked.
    pub fn has_others(&self, than: &[Address]) -> bool {
        self.seeds
            .iter()
            .chain(self.view().all())
            .any(|a| !than.contains(a))
    }

    /// A node did not answer: it rests, longer each time. Its connection is made anew when it is asked next: one of which the
    /// inner task has ended never works again.
    pub fn failed(&self, address: &Address) {
        let mut inner = self.inner();
        inner.channels.remove(address);
        let failures = inner.resting.get(address).map_or(0, |(_, n)| *n);
        let rest = REST_FIRST
            .saturating_mul(1 << failures.min(10))
            .min(REST_MAX);
        let until = Instant::now() + rest;
        inner
            .resting
            .insert(address.clone(), (until, failures.saturating_add(1)));
    }

    /// A node answered.
    pub fn worked(&self, address: &Address) {
        let mut inner = self.inner();
        if !inner.resting.is_empty() {
            inner.resting.remove(address);
        }
    }

    /// Lets go of nodes that neither the caller nor the topology names any more.
    pub fn forget_absent(&self) {
        let all = self.all();
        let mut inner = self.inner();
        inner.channels.retain(|a, _| all.contains(a));
        inner.resting.retain(|a, _| all.contains(a));
        if !all.contains(&inner.home)
            && let Some(seed) = self.seeds.first()
        {
            inner.home = seed.clone();
        }
    }
}

/// Whether somebody is there who answers; what, is all the same.
async fn answers(channel: Channel) -> Result<(), String> {
    let mut asked = ClusterClient::new(channel);
    match asked.watch_topology(v1::WatchTopologyRequest {}).await {
        Err(status) if status.code() == tonic::Code::Unavailable => Err(root_cause(&status)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// How a node is connected to.
pub(crate) fn endpoint(server: &str, connect_within: Duration) -> Result<Endpoint, Error> {
    let bad = |why: &str| {
        let text = format!(
            "the server is {server:?}: {why}; expected an address such as http://127.0.0.1:7410"
        );
        Error::new(Code::Invalid, text)
    };
    let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|e| bad(&root_cause(&e)))?;
    match endpoint.uri().scheme_str() {
        Some("http") => {}
        Some("https") => return Err(bad("this build speaks no tls")),
        _ => return Err(bad("it has no scheme")),
    }
    Ok(endpoint
        .connect_timeout(connect_within)
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two seeds, and a topology of nodes 1 and 2 that own one half each.
    fn two() -> (Nodes, watch::Sender<Arc<View>>) {
        let node = |id: u64| v1::NodeInfo {
            id,
            grpc: format!("n{id}:1"),
            ..Default::default()
        };
        let view = View::of_wire(&v1::Topology {
            shards: 2,
            owners: vec![1, 2],
            nodes: vec![node(1), node(2)],
            ..Default::default()
        });
        let (sender, receiver) = watch::channel(Arc::new(view));
        let seeds = ["http://s1:1".to_owned(), "http://s2:1/".to_owned()];
        let nodes = Nodes::new(&seeds, Duration::from_secs(1), receiver).expect("addresses");
        (nodes, sender)
    }

    #[test]
    fn the_owner_is_asked_then_home_then_whoever_did_not_fail() {
        let (nodes, _view) = two();
        let [s1, s2, n1, n2] = ["s1:1", "s2:1", "n1:1", "n2:1"].map(address);
        let pick = |hash, avoid: Option<&Address>| {
            let avoid: Vec<Address> = avoid.into_iter().cloned().collect();
            nodes.pick(hash, &avoid)
        };
        assert_eq!(pick(None, None), s1);
        assert_eq!(
            (pick(Some(0), None), pick(Some(u64::MAX), None)),
            (n1.clone(), n2.clone())
        );
        assert_eq!(
            pick(Some(0), Some(&n1)),
            s1,
            "an avoided owner is passed over"
        );
        assert_eq!(pick(None, Some(&s1)), s2);
        assert_eq!(
            pick(None, None),
            s1,
            "home stays home when it is avoided once"
        );
        let asked = [s1.clone(), n1.clone(), s2.clone()];
        assert_eq!(
            nodes.pick(None, &asked),
            n2,
            "each is asked once before one is asked twice"
        );
        assert!(
            nodes.has_others(&asked)
                && !nodes.has_others(&[&asked[..], std::slice::from_ref(&n2)].concat())
        );
        nodes.failed(&n1);
        assert_eq!(pick(Some(0), None), s1);
        nodes.failed(&s1);
        assert_eq!(
            (pick(Some(0), None), pick(None, None)),
            (s2.clone(), s2.clone())
        );
        nodes.worked(&s1);
        assert_eq!(pick(None, None), s2, "the new home is kept");
        for address in [&s1, &s2, &n1, &n2] {
            nodes.failed(address);
        }
        assert_ne!(
            pick(None, Some(&s1)),
            s1,
            "all rest: anybody but the avoided"
        );
    }

    #[tokio::test]
    async fn who_is_named_no_more_is_let_go() {
        let (nodes, view) = two();
        let n1 = address("n1:1");
        for address in nodes.all() {
            nodes.failed(&address);
            let _channel = nodes.channel(&address);
        }
        assert_eq!(nodes.inner().channels.len(), 4);
        view.send_replace(Arc::default());
        nodes.forget_absent();
        let inner = nodes.inner();
        assert_eq!((inner.channels.len(), inner.resting.len()), (2, 2));
        assert!(!inner.channels.contains_key(&n1));
    }

    #[test]
    fn addresses_have_one_form() {
        for text in ["http://h:1", "h:1", " h:1 ", "http://h:1/"] {
            assert_eq!(&*address(text), "http://h:1", "{text:?}");
        }
    }
}
