//! tonic over the simulated network.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use hyper_util::rt::TokioIo;
use sortinghat_proto::v1::{
    artifact_service_client::ArtifactServiceClient, job_service_client::JobServiceClient,
    worker_service_client::WorkerServiceClient,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use turmoil::net::{TcpListener, TcpStream};

const PORT: u16 = 7878;
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// A simulated connection in the type that the server needs.
pub(crate) struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The connections that clients open to this host.
pub(crate) async fn connections() -> io::Result<impl Stream<Item = io::Result<Connection>>> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    Ok(stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| Connection(stream));
        Some((accepted, listener))
    }))
}

/// One caller's clients of one coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(crate) jobs: JobServiceClient<Channel>,
    pub(crate) artifacts: ArtifactServiceClient<Channel>,
    pub(crate) workers: WorkerServiceClient<Channel>,
}

impl Clients {
    /// Clients that connect at the first call, and again after a connection was lost.
    pub(crate) fn of(host: &'static str) -> Self {
        let endpoint: Endpoint = format!("http://{host}:{PORT}").parse().expect("a host makes a URL");
        let endpoint = endpoint
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CALL_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2));
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| async move {
            TcpStream::connect((host, PORT)).await.map(TokioIo::new)
        }));
        Self {
            jobs: JobServiceClient::new(channel.clone()),
            artifacts: ArtifactServiceClient::new(channel.clone()),
            workers: WorkerServiceClient::new(channel),
        }
    }
}
