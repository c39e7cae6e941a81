//! A TCP proxy on loopback that can delay and stop bytes, and reset connections.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// The most bytes in one piece.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces that are on the way over a long line: as many as 160 MB/s bring in 25 ms.
const PIECES_ON_THE_WAY: usize = 256;

/// What happens to the bytes that the proxy carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// All bytes pass.
    Clear,
    /// Each piece is delayed for this long, and the next one leaves after it: a narrow line.
    Slow(Duration),
    /// Each piece arrives this long after it has left, and others are on the way meanwhile: a long line. A round trip takes twice as long.
    Far(Duration),
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
            // How far the line is counts when a piece leaves.
            (Self::Clear | Self::Far(_), _) | (Self::HalfOpen, Way::ToServer) => Toll::Pass,
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
    /// Bytes that clients have sent.
    carried: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Listens on a free port of loopback. Connects each client to the next of `upstreams`, or to another one if that one refuses.
    pub async fn start(upstreams: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::Clear);
        let resets = Arc::new(watch::Sender::new(0));
        let road = Road { weather: weather.clone(), resets: resets.clone(), carried: Arc::default() };
        let carried = road.carried.clone();
        let accepting = tokio::spawn(accept(listener, upstreams, road)).abort_handle();
        Ok(Self { address, weather, resets, carried, accepting })
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather for all connections, including open ones.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// How many bytes clients have sent so far.
    pub fn carried_bytes(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
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
    carried: Arc<AtomicU64>,
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
        _ = pump(from_client, to_server, Way::ToServer, road) => {}
        _ = pump(from_server, to_client, Way::ToClient, road) => {}
    }
}

async fn pump(from: OwnedReadHalf, to: OwnedWriteHalf, way: Way, road: &Road) -> io::Result<()> {
    let (leaving, arriving) = mpsc::channel(PIECES_ON_THE_WAY);
    tokio::try_join!(send_off(from, leaving, way, road), deliver(arriving, to, way, road))?;
    Ok(())
}

/// Reads pieces, each with the time at which it is at the other end of the line. The last one is empty.
async fn send_off(
    mut from: OwnedReadHalf,
    leaving: mpsc::Sender<(Instant, Vec<u8>)>,
    way: Way,
    road: &Road,
) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        from.read_buf(&mut piece).await?;
        if way == Way::ToServer {
            road.carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        let is_last = piece.is_empty();
        let distance = match *road.weather.borrow() {
            Weather::Far(distance) => distance,
            Weather::Clear | Weather::Slow(_) | Weather::Partition | Weather::HalfOpen => Duration::ZERO,
        };
        // The other end of the channel goes when the connection ends.
        if leaving.send((Instant::now() + distance, piece)).await.is_err() || is_last {
            return Ok(());
        }
    }
}

async fn deliver(
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    way: Way,
    road: &Road,
) -> io::Result<()> {
    let mut weather = road.weather.subscribe();
    while let Some((due, piece)) = arriving.recv().await {
        sleep_until(due).await;
        // The end of a stream waits for the weather like bytes do.
        pay(way, &mut weather).await;
        if piece.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&piece).await?;
    }
    Ok(())
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
    async fn over_a_long_line_bytes_are_late_but_do_not_wait_for_each_other() {
        let proxy = echo().await;
        let distance = Duration::from_millis(100);
        proxy.set(Weather::Far(distance));
        let (mut from, mut to) = TcpStream::connect(proxy.address()).await.expect("it listens").into_split();
        let (start, length) = (Instant::now(), 64 * PIECE_BYTES);
        let sending = tokio::spawn(async move {
            to.write_all(&vec![7; length]).await.expect("the line takes them");
            to
        });
        let mut echoed = vec![0; length];
        from.read_exact(&mut echoed).await.expect("they come back");
        let took = start.elapsed();
        assert!(took >= 2 * distance && took < 32 * distance, "{took:?}");
        assert_eq!(proxy.carried_bytes(), length as u64);
        drop(sending.await.expect("sent"));
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
