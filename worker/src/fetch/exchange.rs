//! One request and its answer over one connection, to an address that was checked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{error::FetchError, target::Target};

/// How long a connection may take to each address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 3;
/// Bytes of the head of an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// An answer whose body was not read yet. The connection is closed when this is dropped.
pub(super) struct Answer {
    response: Response<Incoming>,
    host: String,
    connection: AbortHandle,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What encrypts connections, with the certificates that this machine trusts.
///
/// # Errors
/// A message, if the machine trusts none.
pub(super) fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine has no certificates to trust: install its ca-certificates".to_owned());
    }
    connector_trusting(roots)
}

pub(super) fn connector_trusting(roots: RootCertStore) -> Result<TlsConnector, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects to the first address that answers, and asks. `tls` is used for https only.
pub(super) async fn ask(
    target: &Target,
    addresses: &[SocketAddr],
    headers: HeaderMap,
    tls: impl FnOnce() -> Result<TlsConnector, String>,
) -> Result<Answer, FetchError> {
    let unreachable = |reason: String| FetchError::Unreachable { host: target.host.clone(), reason };
    let stream = connect(addresses).await.map_err(unreachable)?;
    if !target.is_https() {
        return exchange(target, headers, stream).await;
    }
    let name = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|error| unreachable(error.to_string()))?;
    let secured = timeout(CONNECT_TIMEOUT, tls().map_err(unreachable)?.connect(name, stream)).await;
    let secured = secured.map_err(|_| unreachable("its handshake takes too long".to_owned()))?;
    exchange(target, headers, secured.map_err(|error| unreachable(error.to_string()))?).await
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = "it has no address".to_owned();
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        }
    }
    Err(last)
}

async fn exchange(
    target: &Target,
    headers: HeaderMap,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Answer, FetchError> {
    let broken = |error: hyper::Error| FetchError::Broken { host: target.host.clone(), reason: said(&error) };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Its errors are those of the request.
    let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    let mut request = Request::get(target.path());
    if let Some(all) = request.headers_mut() {
        *all = headers;
        let host = match target.url.port() {
            Some(port) => format!("{}:{port}", target.host),
            None => target.host.clone(),
        };
        if let Ok(host) = HeaderValue::from_str(&host) {
            all.insert(header::HOST, host);
        }
        all.insert(header::CONNECTION, HeaderValue::from_static("close"));
        // What is packed could become very much when it is unpacked.
        all.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| FetchError::BadUrl(error.to_string()));
    let sent = match request {
        Ok(request) => sender.send_request(request).await.map_err(broken),
        Err(error) => Err(error),
    };
    match sent {
        Ok(response) => Ok(Answer { response, host: target.host.clone(), connection }),
        Err(error) => {
            connection.abort();
            Err(error)
        }
    }
}

/// An error of the library with what caused it.
fn said(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "it ended too early".to_owned();
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Answer {
    pub(super) fn status(&self) -> http::StatusCode {
        self.response.status()
    }

    /// A header, if it is text.
    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Where a redirect leads to. Hosts write other letters than those of ASCII there, too.
    pub(super) fn location(&self) -> Option<String> {
        let location = self.response.headers().get(header::LOCATION)?;
        Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
    }

    /// Reads the body, of so many bytes at most.
    pub(super) async fn body(mut self, limit: u64) -> Result<Bytes, FetchError> {
        let stated = self.header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if stated.is_some_and(|length| length > limit) {
            return Err(FetchError::TooLarge { limit });
        }
        let mut body = BytesMut::new();
        while let Some(frame) = self.response.body_mut().frame().await {
            let frame = frame.map_err(|error| FetchError::Broken { host: self.host.clone(), reason: said(&error) })?;
            let Ok(piece) = frame.into_data() else { continue };
            if (body.len() + piece.len()) as u64 > limit {
                return Err(FetchError::TooLarge { limit });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }
}
