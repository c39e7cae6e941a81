//! A TCP proxy on loopback that can delay and stop bytes, and reset connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
};

/// The most bytes in one piece.
const PIECE_BYTES: usize = 16 << 10;

/// What happens to the bytes that the proxy carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// All bytes pass.
    Clear,
    /// Each piece is delayed for this long.
    Slow(Duration),
    /// No byte passes in either direction, and no connection is closed. The bytes arrive after the end of the partition.
    Partition,
    /// Bytes pass to the server, but not to the client.
    HalfOpen,
}

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

/// What a piece must wait for before it passes.
enum Toll {
    Pass,
    Wait(Duration),
    /// The piece waits until the weather changes.
    Hold,
}

impl Weather {
    fn toll(self, way: Way) -> Toll {
        match (self, way) {
            (Self::Clear, _) | (Self::HalfOpen, Way::ToServer) => Toll::Pass,
            (Self::Slow(by), _) => Toll::Wait(by),
            (Self::Partition, _) | (Self::HalfOpen, Way::ToClient) => Toll::Hold,
        }
    }
}

/// A proxy. It ends, with its connections, when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Counts resets. A connection that is older than the newest reset ends.
    resets: Arc<watch::Sender<u64>>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Listens on a free port of loopback. Connects each client to the next of `upstreams`, or to another one if that one refuses.
    pub async fn start(upstreams: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::Clear);
        let resets = Arc::new(watch::Sender::new(0));
        let road = Road { weather: weather.clone(), resets: resets.clone() };
        let accepting = tokio::spawn(accept(listener, upstreams, road)).abort_handle();
        Ok(Self { address, weather, resets, accepting })
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather for all connections, including open ones.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Ends every open connection with a reset. New connections are accepted.
    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

/// The state that the connections of one proxy share.
#[derive(Debug, Clone)]
struct Road {
    weather: watch::Sender<Weather>,
    resets: Arc<watch::Sender<u64>>,
}

async fn accept(listener: TcpListener, upstreams: Vec<SocketAddr>, road: Road) {
    for turn in 0.. {
        // A client may go away before it is accepted, which is no reason to end.
        let Ok((client, _)) = listener.accept().await else { continue };
        let first = turn % upstreams.len();
        let mut upstreams = upstreams.clone();
        upstreams.rotate_left(first);
        tokio::spawn(connect(client, upstreams, road.clone()));
    }
}

async fn connect(client: TcpStream, upstreams: Vec<SocketAddr>, road: Road) {
    let mut resets = road.resets.subscribe();
    let carried = async {
        for upstream in upstreams {
            if let Ok(server) = TcpStream::connect(upstream).await {
                return carry(client, server, &road).await;
            }
        }
        // The connection is reset, as if no server listened here.
        let _ = client.set_zero_linger();
    };
    tokio::select! {
        () = carried => {}
        _ = resets.changed() => {}
    }
}

/// Carries bytes in both directions until one side ends. The other side is then reset as well.
async fn carry(client: TcpStream, server: TcpStream, road: &Road) {
    for stream in [&client, &server] {
        // With this, a dropped stream sends a reset, even if the other side has unread bytes.
        let _ = stream.set_zero_linger();
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = pump(from_client, to_server, Way::ToServer, road.weather.subscribe()) => {}
        _ = pump(from_server, to_client, Way::ToClient, road.weather.subscribe()) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece).await?;
        // The end of a stream waits for the weather like bytes do.
        pay(way, &mut weather).await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
    }
}

async fn pay(way: Way, weather: &mut watch::Receiver<Weather>) {
    loop {
        let toll = weather.borrow_and_update().toll(way);
        match toll {
            Toll::Pass => return,
            Toll::Wait(by) => return tokio::time::sleep(by).await,
            // The sender lives longer than the connections.
            Toll::Hold => drop(weather.changed().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// A server that returns every byte, behind a proxy.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        Proxy::start(vec![address]).await.expect("a free port")
    }

    async fn exchange(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_partition_loses_nothing_and_ends() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
        exchange(&mut stream).await.expect("clear weather");
        for weather in [Weather::Partition, Weather::HalfOpen] {
            proxy.set(weather);
            let held = tokio::time::timeout(Duration::from_millis(100), exchange(&mut stream)).await;
            held.expect_err("nothing comes back");
            proxy.set(Weather::Clear);
            assert_eq!(stream.read_u8().await.expect("it comes late"), b'x');
        }
    }

    #[tokio::test]
    async fn delays_are_felt_and_resets_end_connections() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
        proxy.set(Weather::Slow(Duration::from_millis(30)));
        let start = Instant::now();
        exchange(&mut stream).await.expect("slow, but it comes");
        assert!(start.elapsed() >= Duration::from_millis(60), "both ways");
        proxy.reset();
        exchange(&mut stream).await.expect_err("the connection was reset");
        let mut again = TcpStream::connect(proxy.address()).await.expect("it still listens");
        exchange(&mut again).await.expect("a new connection works");
    }
}
