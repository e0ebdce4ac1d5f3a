//! TLS from files, read again when they change.
//!
//! A file that changes to something that cannot be used changes nothing: the log names
//! it, and connections go on being made with what was read before. Connections that are
//! open keep what they began with.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most bytes of one file.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What is spoken behind TLS: gRPC, and gRPC-Web.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files that make TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate and those it was signed with, in PEM.
    pub certificate: PathBuf,
    /// The private key of the certificate, in PEM.
    pub key: PathBuf,
    /// Certificates, one of which must have signed every client's; none where clients
    /// need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Why files do not make TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is longer than any such file is.
    #[error("`{0}` is longer than {FILE_BYTES_MAX} bytes")]
    Long(PathBuf),
    /// Anybody on the machine can read the private key.
    #[error("`{path}` is open to everybody (mode {mode:03o}); run `chmod 600 {path}`")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("`{path}` must hold {expected} in PEM")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Certificate and key cannot be used.
    #[error("`{certificate}` and `{key}` cannot be used together: {problem}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        problem: rustls::Error,
    },
    /// The clients' authorities cannot be used.
    #[error("`{path}` holds no certificate of an authority that can be used: {problem}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The provider of the cryptography does not speak our versions.
    #[error("cannot set up TLS")]
    Provider(#[source] rustls::Error),
}

/// What the files held when they were last looked at.
struct Texts {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

/// TLS as the files have it.
pub struct Tls {
    files: Files,
    current: ArcSwap<ServerConfig>,
    /// What came of the last look: the same again is neither tried nor told again.
    last: Mutex<Look>,
    now: Notify,
}

/// What came of a look at the files.
#[derive(Clone, PartialEq, Eq)]
enum Look {
    Held(blake3::Hash),
    Unreadable(String),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let texts = files.read()?;
        let config = files.config(&texts)?;
        let last = Mutex::new(Look::Held(texts.hash()));
        let current = ArcSwap::from_pointee(config);
        Ok(Self { files, current, last, now: Notify::new() })
    }

    /// What new connections are made with.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Has the files looked at now.
    pub fn look_now(&self) {
        self.now.notify_one();
    }

    /// Looks at the files every now and then, for ever.
    pub async fn follow(self: Arc<Self>) {
        loop {
            // Told to look now, or the time has come: it is the same.
            let _ = tokio::time::timeout(LOOK_EVERY, self.now.notified()).await;
            let this = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || this.look()).await.is_err() {
                tracing::error!("a look at the files of TLS ended early");
            }
        }
    }

    /// Looks at the files, and takes up what they hold now if that can be used.
    fn look(&self) {
        let read = self.files.read();
        let seen = match &read {
            Ok(texts) => Look::Held(texts.hash()),
            Err(error) => Look::Unreadable(told(error)),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == seen {
            return;
        }
        *last = seen;
        drop(last);
        match read.and_then(|texts| self.files.config(&texts)) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!("certificates were read anew");
            }
            Err(error) => {
                let error = told(&error);
                tracing::error!(%error, "certificates could not be read anew; the old ones stay in use");
            }
        }
    }
}

/// An error with what caused it.
fn told(error: &TlsError) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Texts {
    fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let ca = self.client_ca.as_deref().unwrap_or_default();
        for text in [self.certificate.as_slice(), &self.key, ca] {
            hasher.update(blake3::hash(text).as_bytes());
        }
        hasher.finalize()
    }
}

impl Files {
    fn read(&self) -> Result<Texts, TlsError> {
        Ok(Texts {
            certificate: read(&self.certificate, false)?.to_vec(),
            key: read(&self.key, true)?,
            client_ca: match &self.client_ca {
                Some(path) => Some(read(path, false)?.to_vec()),
                None => None,
            },
        })
    }

    fn config(&self, texts: &Texts) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.certificate, &texts.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key)
            .map_err(|_| TlsError::Content { path: self.key.clone(), expected: "a private key" })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(TlsError::Provider)?;
        let builder = match (&self.client_ca, &texts.client_ca) {
            (Some(path), Some(text)) => {
                let unusable = |problem: String| TlsError::ClientCa { path: path.clone(), problem };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, text)? {
                    roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|error| unusable(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|problem| {
            let (certificate, key) = (self.certificate.clone(), self.key.clone());
            TlsError::Pair { certificate, key, problem }
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => {
            Err(TlsError::Content { path: path.to_owned(), expected: "certificates" })
        }
    }
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    // A group may read it: that is how those who renew certificates hand keys out.
    if secret && mode & 0o037 != 0 {
        return Err(TlsError::Open { path: path.to_owned(), mode });
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(TlsError::Long(path.to_owned()));
    }
    // Room for everything from the start: bytes that move leave copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or_default().saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
