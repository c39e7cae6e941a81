//! TLS with a certificate that may be replaced while the coordinator serves. Each connection is encrypted with the newest one; those that are
//! open already go on with theirs.

use std::{
    fs, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt as _, future::ready};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sortinghat_proto::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::AppError;
use crate::config::TlsFiles;

/// How many handshakes may be under way.
const MOST_HANDSHAKES: usize = 4096;

/// What the two files of an identity hold.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct IdentityFiles {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl IdentityFiles {
    /// Reads the certificate chain and its key.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, AppError> {
        let read = |path: &std::path::Path| {
            fs::read(path).map_err(|source| AppError::Unreadable { path: path.to_owned(), source })
        };
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)? })
    }

    /// How connections are encrypted with this identity.
    pub(super) fn to_server(&self) -> Result<Arc<ServerConfig>, AppError> {
        let unusable = |reason: String| AppError::Tls { reason };
        let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| unusable(format!("the certificate chain: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| unusable(format!("the key: {error}")))?;
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?;
        let server = server.with_no_client_auth().with_single_cert(chain, key);
        let mut server = server.map_err(|error| unusable(error.to_string()))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(server))
    }
}

/// The connections of `incoming`, encrypted with the newest `identity` if there is one. A connection whose handshake fails, or takes too
/// long, is closed.
pub(super) fn lines<C>(
    incoming: impl Stream<Item = io::Result<C>>,
    identity: Option<watch::Receiver<Arc<ServerConfig>>>,
) -> impl Stream<Item = io::Result<Line<C>>>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let lines = incoming.map(move |accepted| {
        let newest = identity.as_ref().map(|identity| identity.borrow().clone());
        async move {
            match (accepted, newest) {
                (Err(error), _) => Some(Err(error)),
                (Ok(connection), None) => Some(Ok(Line::Plain(connection))),
                (Ok(connection), Some(newest)) => Some(Ok(Line::Encrypted(encrypted(connection, newest).await?))),
            }
        }
    });
    lines.buffer_unordered(MOST_HANDSHAKES).filter_map(ready)
}

async fn encrypted<C: AsyncRead + AsyncWrite + Unpin>(
    connection: C,
    identity: Arc<ServerConfig>,
) -> Option<Box<TlsStream<C>>> {
    let failed = match timeout(limits::MAX_TIME_TO_FIRST_CALL, TlsAcceptor::from(identity).accept(connection)).await {
        Ok(Ok(stream)) => return Some(Box::new(stream)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it took longer than {} s", limits::MAX_TIME_TO_FIRST_CALL.as_secs()),
    };
    tracing::debug!(reason = failed, "a TLS handshake failed");
    metrics::counter!("sortinghat_tls_handshakes_failed_total").increment(1);
    None
}

/// A connection, in plain text or encrypted.
pub(super) enum Line<C> {
    Plain(C),
    Encrypted(Box<TlsStream<C>>),
}

impl<C: Connected> Connected for Line<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> C::ConnectInfo {
        match self {
            Self::Plain(connection) => connection.connect_info(),
            Self::Encrypted(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Line<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_read(context, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<C> {
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
