//! Connections of callers that nobody knows yet. Each must make its first call within a time, and only so many are read from: in all, and
//! from one address. Further ones wait for a place, so that many workers can come back together. Once a call on a connection has been
//! authenticated, the connection counts as one of its caller's.

use std::{
    collections::HashMap,
    io, mem,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use sortinghat_proto::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};
use tonic::{
    Status,
    transport::server::{Connected, TcpIncoming},
};

use super::admission::{Identities, Open, Seat};
use crate::auth::{Caller, ShownCertificate};

/// How many connections wait for a place.
const MOST_WAITING: usize = 4096;
/// How many of them come from one address.
const MOST_WAITING_FROM_ONE_ADDRESS: usize = 1024;

/// The places of connections on which no call has been authenticated.
#[derive(Debug)]
pub(crate) struct Visitors {
    all: Arc<Semaphore>,
    most_from_one_address: usize,
    addresses: Mutex<HashMap<IpAddr, Weak<Address>>>,
}

/// An address that connections come from.
#[derive(Debug)]
struct Address {
    places: Arc<Semaphore>,
    waiting: Semaphore,
}

/// What is known of a connection. Each call finds its connection's visit in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Visit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ip: IpAddr,
    /// Whether any call was made.
    has_called: AtomicBool,
    /// What the other end has shown during the handshake.
    certificate: OnceLock<ShownCertificate>,
    counts: Mutex<Counts>,
}

/// As what a connection is counted.
#[derive(Debug)]
enum Counts {
    /// As that of somebody whom nobody knows yet.
    Visitor { _place: Place },
    /// As one of the first caller who was authenticated on it; `None` where callers are not bounded.
    Caller { _seat: Option<Seat> },
}

#[derive(Debug)]
struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
    _address: Arc<Address>,
}

impl Visitors {
    /// No visitors yet.
    pub(crate) fn new(most_from_one_address: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(limits::MAX_UNKNOWN_CONNECTIONS));
        Arc::new(Self { all, most_from_one_address, addresses: Mutex::default() })
    }

    /// The connections that `incoming` accepts, as soon as they have a place. Those that get none in time are closed.
    pub(crate) fn welcome(self: Arc<Self>, incoming: TcpIncoming) -> impl Stream<Item = io::Result<Connection>> {
        let entering = incoming.map(move |accepted| {
            let visitors = self.clone();
            async move {
                match accepted {
                    Ok(stream) => visitors.enter(stream).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        });
        entering.buffer_unordered(MOST_WAITING).filter_map(std::future::ready)
    }

    async fn enter(&self, stream: TcpStream) -> Option<Connection> {
        // A connection whose address is not known any more is gone.
        let ip = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let entered = timeout(limits::MAX_TIME_TO_FIRST_CALL, self.place(ip)).await.ok().flatten();
        let Some(place) = entered else {
            metrics::counter!("sortinghat_connections_refused_total").increment(1);
            return None;
        };
        let counts = Mutex::new(Counts::Visitor { _place: place });
        let inner = Inner { ip, has_called: AtomicBool::new(false), certificate: OnceLock::new(), counts };
        Some(Connection::new(stream, Visit(Arc::new(inner))))
    }

    /// Waits for a place. There is none if too many wait already.
    async fn place(&self, ip: IpAddr) -> Option<Place> {
        let address = self.address(ip);
        let waits = address.waiting.try_acquire().ok()?;
        // The address's place comes first, so that an address with many connections waits for itself and holds nothing of the others.
        let of_address = address.places.clone().acquire_owned().await.ok()?;
        let of_all = self.all.clone().acquire_owned().await.ok()?;
        drop(waits);
        Some(Place { _of_all: of_all, _of_address: of_address, _address: address })
    }

    fn address(&self, ip: IpAddr) -> Arc<Address> {
        let mut addresses = self.addresses.lock();
        if let Some(address) = addresses.get(&ip).and_then(Weak::upgrade) {
            return address;
        }
        addresses.retain(|_, address| address.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.most_from_one_address));
        let address = Arc::new(Address { places, waiting: Semaphore::new(MOST_WAITING_FROM_ONE_ADDRESS) });
        addresses.insert(ip, Arc::downgrade(&address));
        address
    }
}

impl Visit {
    /// The other end of the connection.
    pub(super) fn address(&self) -> IpAddr {
        self.0.ip
    }

    /// Notes that a call was made, so the connection stays open.
    pub(super) fn called(&self) {
        self.0.has_called.store(true, Ordering::Relaxed);
    }

    /// Notes the certificate that the other end has shown during the handshake.
    pub(crate) fn shows(&self, certificate: ShownCertificate) {
        // There is one handshake.
        let _ = self.0.certificate.set(certificate);
    }

    /// The certificate that the other end has shown.
    pub(super) fn certificate(&self) -> Option<&ShownCertificate> {
        self.0.certificate.get()
    }

    /// Notes that this caller was authenticated, so the connection is no visitor's any more.
    ///
    /// # Errors
    /// The refusal if the caller has as many connections as it may. It is then counted as a visitor's still.
    pub(super) fn is_of(&self, caller: &Caller, identities: &Arc<Identities>) -> Result<(), Status> {
        self.called();
        let mut counts = self.0.counts.lock();
        if matches!(*counts, Counts::Visitor { .. }) {
            let seat = identities.take(caller, Open::Connection)?;
            drop(mem::replace(&mut *counts, Counts::Caller { _seat: seat }));
        }
        Ok(())
    }
}

/// An accepted connection. Reading from it fails if no call is made in time, which closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    visit: Visit,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: TcpStream, visit: Visit) -> Self {
        Self { stream, visit, deadline: Box::pin(sleep(limits::MAX_TIME_TO_FIRST_CALL)) }
    }
}

impl Connected for Connection {
    type ConnectInfo = Visit;

    fn connect_info(&self) -> Visit {
        self.visit.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        if !self.visit.0.has_called.load(Ordering::Relaxed) {
            ready!(self.deadline.as_mut().poll(context));
            // The call may have been made since the deadline was set.
            if !self.visit.0.has_called.load(Ordering::Relaxed) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::{
        io::AsyncReadExt as _,
        net::TcpListener,
        time::{Instant, advance},
    };

    use super::*;

    async fn visitors(
        most: usize,
    ) -> (Arc<Visitors>, Pin<Box<impl Stream<Item = io::Result<Connection>>>>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let again = listener.into_std().expect("a socket");
        let copy = again.try_clone().expect("a descriptor");
        let [listener, address] = [again, copy].map(|socket| TcpListener::from_std(socket).expect("a listener"));
        let visitors = Visitors::new(most);
        (visitors.clone(), Box::pin(visitors.welcome(TcpIncoming::from(listener))), address)
    }

    async fn connect(to: &TcpListener) -> TcpStream {
        TcpStream::connect(to.local_addr().expect("bound")).await.expect("the kernel accepts it")
    }

    #[tokio::test]
    async fn so_many_connections_of_unknown_callers_may_be_open_and_known_callers_count_no_more() {
        let (visitors, mut welcomed, listener) = visitors(2).await;
        let _peers = [connect(&listener).await, connect(&listener).await];
        let first = welcomed.next().await.expect("open").expect("accepted");
        let second = welcomed.next().await.expect("open").expect("accepted");
        let _third = connect(&listener).await;
        assert!(welcomed.next().now_or_never().is_none(), "it waits for a place");

        let identities = Identities::new(1);
        first.connect_info().is_of(&Caller::everyone(), &identities).expect("everyone is not bounded");
        welcomed.next().await.expect("open").expect("the third has the place of the first");
        drop((first, second));
        assert_eq!(visitors.all.available_permits(), limits::MAX_UNKNOWN_CONNECTIONS);
        assert_eq!(visitors.addresses.lock().values().filter(|address| address.strong_count() > 0).count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_gets_no_place_in_time_is_closed() {
        let (_visitors, mut welcomed, listener) = visitors(1).await;
        let _peer = connect(&listener).await;
        let _first = welcomed.next().await.expect("open").expect("accepted");
        let mut second = connect(&listener).await;
        let mut said = [0];
        tokio::select! {
            _ = welcomed.next() => panic!("there is no place"),
            read = second.read(&mut said) => assert_eq!(read.expect("it is closed"), 0),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_call_is_closed_and_one_with_a_call_stays() {
        let (_visitors, mut welcomed, listener) = visitors(2).await;
        let _peers = [connect(&listener).await, connect(&listener).await];
        let mut silent = welcomed.next().await.expect("open").expect("accepted");
        let mut calling = welcomed.next().await.expect("open").expect("accepted");
        calling.connect_info().called();
        let began = Instant::now();
        assert_eq!(silent.read(&mut [0]).await.expect_err("it is late").kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), limits::MAX_TIME_TO_FIRST_CALL);
        advance(10 * limits::MAX_TIME_TO_FIRST_CALL).await;
        assert!(calling.read(&mut [0]).now_or_never().is_none(), "nothing has come, and it is open");
    }
}
