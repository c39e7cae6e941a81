//! TLS with certificates that may be replaced while the coordinator serves. Each connection is encrypted with the newest one; those that are
//! open already go on with theirs. Callers may show a certificate of their own, and need not: they may have a token.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use futures::{Stream, StreamExt as _, future::ready};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sortinghat_link::{expiry_warning, first_expiry, pem_trouble};
use sortinghat_proto::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::AppError;
use crate::{
    api::Connection,
    auth::{Authorities, ShownCertificate},
    config::TlsFiles,
};

/// How many handshakes may be under way.
const MOST_HANDSHAKES: usize = 4096;

/// What the files of TLS hold.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TlsContent {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// How connections are encrypted, and whose certificates are accepted.
pub(super) struct Tls {
    server: Arc<ServerConfig>,
    pub(super) authorities: Option<Authorities>,
    expiring: Vec<Expiring>,
}

/// A file with certificates, of which one expires first.
struct Expiring {
    /// The setting that names the file, as metrics write it.
    setting: &'static str,
    path: PathBuf,
    expires: SystemTime,
}

impl TlsContent {
    /// Reads the certificate chain, its key, and the authorities of callers.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, AppError> {
        let read =
            |path: &Path| fs::read(path).map_err(|source| AppError::Unreadable { path: path.to_owned(), source });
        let client_ca = files.client_ca.as_deref().map(read).transpose()?;
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)?, client_ca })
    }

    /// How connections are encrypted with this content of `files`.
    pub(super) fn to_tls(&self, files: &TlsFiles) -> Result<Tls, AppError> {
        let unusable = |reason: String| AppError::Tls { reason };
        let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| unusable(format!("the certificate chain: {}", pem_trouble(&error))))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let key = key.map_err(|error| unusable(format!("the key: {}", pem_trouble(&error))))?;
        let authorities = self.client_ca.as_deref().map(Authorities::of_pem).transpose();
        let authorities = authorities.map_err(|error| unusable(format!("the certificates of --client-ca: {error}")))?;
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?;
        let server = match &authorities {
            Some(authorities) => server.with_client_cert_verifier(authorities.verifier()),
            None => server.with_no_client_auth(),
        };
        let mut server = server.with_single_cert(chain, key).map_err(|error| unusable(error.to_string()))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Tls { server: Arc::new(server), authorities, expiring: self.expiring(files) })
    }

    fn expiring(&self, files: &TlsFiles) -> Vec<Expiring> {
        let own = Some(("tls_cert", &files.cert, &self.cert));
        let ca = files.client_ca.as_ref().zip(self.client_ca.as_ref()).map(|(path, pem)| ("client_ca", path, pem));
        let expiring = own.into_iter().chain(ca).filter_map(|(setting, path, pem)| {
            let expires = first_expiry(pem).ok()?;
            Some(Expiring { setting, path: path.clone(), expires })
        });
        expiring.collect()
    }
}

impl Tls {
    /// Keeps the metric of when certificates expire, and returns what to say of those that expire soon.
    pub(super) fn note_expiry(&self, now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        for Expiring { setting, path, expires } in &self.expiring {
            let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            metrics::gauge!("sortinghat_certificate_expiry_timestamp_seconds", "file" => *setting).set(seconds);
            warnings.extend(expiry_warning(&format!("the certificate in {}", path.display()), *expires, now));
        }
        warnings
    }

    /// Encrypts a connection, and notes the certificate that the other end shows.
    async fn accept(&self, connection: Connection) -> Result<TlsStream<Connection>, String> {
        let accepting = TlsAcceptor::from(self.server.clone()).accept(connection);
        let stream = match timeout(limits::MAX_TIME_TO_FIRST_CALL, accepting).await {
            Ok(accepted) => accepted.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("it took longer than {} s", limits::MAX_TIME_TO_FIRST_CALL.as_secs())),
        };
        let (connection, session) = stream.get_ref();
        if let (Some(chain), Some(authorities)) = (session.peer_certificates(), &self.authorities) {
            let certificate = ShownCertificate::accepted(chain, authorities.clone());
            connection.connect_info().shows(certificate.map_err(|error| error.to_string())?);
        }
        Ok(stream)
    }
}

/// The connections of `incoming`, encrypted with the newest `tls` if there is one. A connection whose handshake fails, or takes too long, is
/// closed.
pub(super) fn lines(
    incoming: impl Stream<Item = io::Result<Connection>>,
    tls: Option<watch::Receiver<Arc<Tls>>>,
) -> impl Stream<Item = io::Result<Line>> {
    let lines = incoming.map(move |accepted| {
        let newest = tls.as_ref().map(|tls| tls.borrow().clone());
        async move {
            let (connection, tls) = match (accepted, newest) {
                (Err(error), _) => return Some(Err(error)),
                (Ok(connection), None) => return Some(Ok(Line::Plain(connection))),
                (Ok(connection), Some(tls)) => (connection, tls),
            };
            match tls.accept(connection).await {
                Ok(stream) => Some(Ok(Line::Encrypted(Box::new(stream)))),
                Err(reason) => {
                    tracing::debug!(reason, "a TLS handshake failed");
                    metrics::counter!("sortinghat_tls_handshakes_failed_total").increment(1);
                    None
                }
            }
        }
    });
    lines.buffer_unordered(MOST_HANDSHAKES).filter_map(ready)
}

/// A connection, in plain text or encrypted.
pub(super) enum Line {
    Plain(Connection),
    Encrypted(Box<TlsStream<Connection>>),
}

impl Connected for Line {
    type ConnectInfo = <Connection as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        match self {
            Self::Plain(connection) => connection.connect_info(),
            Self::Encrypted(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_read(context, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_write(context, bytes),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_flush(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_shutdown(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_write_vectored(context, parts),
            Self::Encrypted(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(connection) => connection.is_write_vectored(),
            Self::Encrypted(stream) => stream.is_write_vectored(),
        }
    }
}
