//! TLS between nodes: each shows a certificate, and each trusts only what one authority has issued.
//!
//! The files are looked at again and again, so that certificates are renewed without a restart. It does not know which
//! certificate is which node's: whoever holds one that the authority has issued belongs to the cluster.

use crate::error::OpenError;
use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After a failed handshake they are looked at as well, but not more often than this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A larger file holds no certificates of ours.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The files of TLS, in PEM. They are looked at every 5 s and when a handshake has failed: new ones count for the
/// connections made from then on, and broken ones change nothing but the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// This node's certificate, and those between it and the authority. It must be good for both directions, and name
    /// what other nodes call this one by: the host of its address.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority, or several, whose certificates are trusted.
    pub ca: PathBuf,
}

/// What is in the files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

struct Loaded {
    contents: Contents,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The keys of this node, as they were last found good.
pub(super) struct Keys {
    files: PeerTls,
    now: RwLock<Loaded>,
    /// It is worth looking at the files.
    nudge: Arc<Notify>,
    figures: Mutex<TlsFigures>,
}

/// What came of looking at the files of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFigures {
    /// How often new certificates were loaded since the transport was opened.
    pub reloads: u64,
    /// Why what is in the files now cannot be used; the certificates before it still count.
    pub refused: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Loads the files, and looks at them as long as somebody holds the answer.
    pub(super) fn open(files: &PeerTls) -> Result<Arc<Keys>, OpenError> {
        let refused = |why: String| OpenError::Config {
            name: "tls".to_owned(),
            why,
        };
        let contents = read(files).map_err(refused)?;
        let loaded = load(files, contents).map_err(refused)?;
        let keys = Arc::new(Keys {
            files: files.clone(),
            now: RwLock::new(loaded),
            nudge: Arc::default(),
            figures: Mutex::default(),
        });
        let runtime = Handle::try_current().map_err(|e| refused(e.to_string()))?;
        runtime.spawn(look_after(Arc::downgrade(&keys), keys.nudge.clone()));
        Ok(keys)
    }

    pub(super) fn figures(&self) -> TlsFigures {
        self.figures.lock().clone()
    }

    /// Greets whoever has connected. An error says what was wrong with them.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let acceptor = TlsAcceptor::from(self.now.read().server.clone());
        let accepted = acceptor.accept(stream).await;
        accepted.map(TlsStream::from).map_err(|e| {
            self.nudge.notify_one();
            explained(&e, &self.files)
        })
    }

    /// Greets the node at `host`, to which `stream` leads.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let connector = TlsConnector::from(self.now.read().client.clone());
        let connected = connector.connect(name, stream).await;
        connected.map(TlsStream::from).map_err(|e| self.explain(&e))
    }

    /// What failed on a connection with TLS, in words.
    pub(super) fn explain(&self, error: &io::Error) -> io::Error {
        self.nudge.notify_one();
        io::Error::new(error.kind(), explained(error, &self.files))
    }
}

/// What a failed handshake means.
fn explained(error: &io::Error, files: &PeerTls) -> String {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => {
            "the other side does not speak TLS, this node does".to_owned()
        }
        Some(rustls::Error::NoCertificatesPresented) => {
            "the other side shows no certificate, and none is let in without".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(why)) => format!(
            "the other side's certificate is not accepted: {why:?} (trusted is what is in {})",
            files.ca.display()
        ),
        Some(rustls::Error::AlertReceived(why)) => {
            format!("the other side does not accept this node's certificate or its TLS: {why:?}")
        }
        Some(other) => format!("the TLS handshake failed: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection ended while it was made; perhaps the other side does not speak TLS"
                .to_owned()
        }
        None => error.to_string(),
    }
}

fn read(files: &PeerTls) -> Result<Contents, String> {
    let one = |what: &str, path: &Path| {
        let failed = |e: io::Error| format!("the {what} {} cannot be read: {e}", path.display());
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(format!(
                "the {what} {} has {bytes} bytes, the limit is {MAX_FILE_BYTES}",
                path.display()
            ));
        }
        std::fs::read(path).map_err(failed)
    };
    Ok(Contents {
        cert: one("certificate", &files.cert)?,
        key: one("private key", &files.key)?,
        ca: one("authority's certificate", &files.ca)?,
    })
}

fn certificates(
    what: &str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!(
            "the {what} {} holds no certificate, expected one or more in PEM",
            path.display()
        )),
        Ok(found) => Ok(found),
        Err(e) => Err(format!("the {what} {} is no PEM: {e}", path.display())),
    }
}

fn load(files: &PeerTls, contents: Contents) -> Result<Loaded, String> {
    let chain = certificates("certificate", &files.cert, &contents.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|e| {
        format!(
            "the private key {} cannot be used, expected one in PEM: {e}",
            files.key.display()
        )
    })?;
    let mut roots = RootCertStore::empty();
    for root in certificates("authority's certificate", &files.ca, &contents.ca)? {
        roots.add(root).map_err(|e| {
            format!(
                "the authority's certificate {} cannot be used: {e}",
                files.ca.display()
            )
        })?;
    }
    let unusable = |e: rustls::Error| {
        format!(
            "the certificate {} cannot be used with the private key {}: {e}",
            files.cert.display(),
            files.key.display()
        )
    };
    let (roots, crypto) = (
        Arc::new(roots),
        Arc::new(rustls::crypto::ring::default_provider()),
    );
    // Both sides are Sojourn, so nothing older is needed.
    let versions = &[&rustls::version::TLS13];
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), crypto.clone());
    let verifier = verifier.build().map_err(|e| {
        format!(
            "the authority's certificate {} cannot be used: {e}",
            files.ca.display()
        )
    })?;
    let mut server = ServerConfig::builder_with_provider(crypto.clone())
        .with_protocol_versions(versions)
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(unusable)?;
    let mut client = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(versions)
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Loaded {
        contents,
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

/// Loads the files anew whenever they have changed, until nobody needs them.
async fn look_after(keys: Weak<Keys>, nudge: Arc<Notify>) {
    let mut refused: Option<Result<Contents, String>> = None;
    loop {
        // The keys are not held meanwhile: whoever lets go of them ends this.
        let nudged = tokio::time::timeout(LOOK_EVERY, nudge.notified()).await;
        let Some(files) = keys.upgrade().map(|keys| keys.files.clone()) else {
            return;
        };
        if nudged.is_ok() {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        let read = {
            let files = files.clone();
            tokio::task::spawn_blocking(move || read(&files)).await
        };
        // It ends when the runtime does.
        let (Ok(found), Some(of)) = (read, keys.upgrade()) else {
            return;
        };
        if found
            .as_ref()
            .is_ok_and(|found| *found == of.now.read().contents)
        {
            refused = None;
            of.figures.lock().refused = None;
            continue;
        }
        if refused.as_ref() == Some(&found) {
            continue;
        }
        match found.clone().and_then(|contents| load(&files, contents)) {
            Ok(loaded) => {
                *of.now.write() = loaded;
                refused = None;
                {
                    let mut figures = of.figures.lock();
                    figures.reloads += 1;
                    figures.refused = None;
                }
                tracing::info!(cert = %files.cert.display(), "new certificates count from now on");
            }
            Err(why) => {
                refused = Some(found);
                of.figures.lock().refused = Some(why.clone());
                tracing::error!(%why, "new certificates cannot be used; the ones before stay");
            }
        }
    }
}
