//! Connections of callers that nobody knows yet. On each a call must be authenticated within a time, and only so many are read from: in all,
//! and from one address. Further ones wait for a place, so that many workers can come back together. Once a call on a connection has been
//! authenticated, the connection counts as one of its caller's, and stays open for as long as that caller may call.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use sortinghat_proto::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, timeout},
};
use tonic::{
    Status,
    transport::server::{Connected, TcpIncoming},
};

use super::{
    admission::{Identities, Open, Seat},
    gate::Expulsion,
};
use crate::auth::{Caller, ShownCertificate};

/// The part of an address of IPv6 that one subscriber has to itself, and so may take any address of.
const SUBSCRIBER: u128 = !0 << 64;
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
#[derive(Clone)]
pub(crate) struct Visit(Arc<Inner>);

struct Inner {
    ip: IpAddr,
    /// How many calls are under way that were let in.
    calls: AtomicUsize,
    /// What the other end has shown during the handshake.
    certificate: OnceLock<Arc<ShownCertificate>>,
    counts: Mutex<Counts>,
}

/// As what a connection is counted.
enum Counts {
    /// As that of somebody whom nobody knows yet.
    Visitor { _place: Place },
    /// As one of the caller who was authenticated on it first. There is no seat where callers are not bounded. The expulsion is taken by the
    /// connection, which waits for it.
    Caller { _seat: Option<Seat>, expulsion: Option<Expulsion> },
    /// As nobody's, since its caller was expelled and no other one has called yet.
    Nobody,
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
        let ip = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| subscriber(peer.ip()));
        let entered = timeout(limits::MAX_TIME_TO_FIRST_CALL, self.place(ip)).await.ok().flatten();
        let Some(place) = entered else {
            metrics::counter!("sortinghat_connections_refused_total").increment(1);
            return None;
        };
        Some(Connection::new(stream, Visit::new(ip, place)))
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

/// Whose address this is: of IPv6 the first half, since whoever has one such address has all others with the same half.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & SUBSCRIBER)),
    }
}

/// A call that is under way on a connection. It keeps the connection open until this is dropped.
pub(super) struct CallUnderWay(Visit);

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Visit {
    fn new(ip: IpAddr, place: Place) -> Self {
        let counts = Mutex::new(Counts::Visitor { _place: place });
        Self(Arc::new(Inner { ip, calls: AtomicUsize::new(0), certificate: OnceLock::new(), counts }))
    }

    /// The visit of somebody whom nobody knows yet.
    #[cfg(test)]
    pub(super) async fn of_nobody() -> Self {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self::new(ip, Visitors::new(1).place(ip).await.expect("there is one"))
    }

    /// Whether the connection is a caller's.
    #[cfg(test)]
    pub(super) fn is_known(&self) -> bool {
        matches!(*self.0.counts.lock(), Counts::Caller { .. })
    }

    /// The other end of the connection; of IPv6 the first half of its address.
    pub(super) fn address(&self) -> IpAddr {
        self.0.ip
    }

    /// Notes that a call was let in, so the connection stays open until it has ended.
    pub(super) fn begin_call(&self) -> CallUnderWay {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        CallUnderWay(self.clone())
    }

    /// Notes the certificate that the other end has shown during the handshake.
    pub(crate) fn shows(&self, certificate: ShownCertificate) {
        // There is one handshake.
        let _ = self.0.certificate.set(Arc::new(certificate));
    }

    /// The certificate that the other end has shown.
    pub(super) fn certificate(&self) -> Option<&Arc<ShownCertificate>> {
        self.0.certificate.get()
    }

    /// Notes that this caller was authenticated, so the connection is no visitor's any more, until `expulsion` ends.
    ///
    /// # Errors
    /// The refusal if the caller has as many connections as it may. It is then counted as a visitor's still.
    pub(super) fn is_of(
        &self,
        caller: &Caller,
        identities: &Arc<Identities>,
        expulsion: impl FnOnce() -> Option<Expulsion>,
    ) -> Result<(), Status> {
        let mut counts = self.0.counts.lock();
        if !matches!(*counts, Counts::Caller { .. }) {
            let seat = identities.take(caller, Open::Connection)?;
            *counts = Counts::Caller { _seat: seat, expulsion: expulsion() };
        }
        Ok(())
    }
}

/// An accepted connection. Reading from it and writing to it fail, which closes it, if no caller is authenticated in time, and when its
/// caller may not call any more and no other one is authenticated in time.
pub(crate) struct Connection {
    stream: TcpStream,
    visit: Visit,
    lasts: Lasts,
}

/// For how long a connection stays open.
enum Lasts {
    /// Until then, unless a caller is authenticated before. It is put off while a call is under way.
    Until(Pin<Box<Sleep>>),
    /// Until this ends; for ever if nobody can be expelled.
    WithCaller(Option<Expulsion>),
}

impl Lasts {
    fn a_while() -> Self {
        Self::Until(Box::pin(sleep(limits::MAX_TIME_TO_FIRST_CALL)))
    }
}

impl Connection {
    fn new(stream: TcpStream, visit: Visit) -> Self {
        Self { stream, visit, lasts: Lasts::a_while() }
    }

    /// Fails once the connection has to be closed. Otherwise the task is woken when it has to be looked at again.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            match &mut self.lasts {
                Lasts::Until(deadline) => {
                    if let Counts::Caller { expulsion, .. } = &mut *self.visit.0.counts.lock() {
                        self.lasts = Lasts::WithCaller(expulsion.take());
                        continue;
                    }
                    if deadline.as_mut().poll(context).is_pending() {
                        return Ok(());
                    }
                    // Health watches are few, and all other calls are of authenticated callers.
                    if self.visit.0.calls.load(Ordering::Relaxed) == 0 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    deadline.as_mut().reset(Instant::now() + limits::MAX_TIME_TO_FIRST_CALL);
                }
                Lasts::WithCaller(None) => return Ok(()),
                Lasts::WithCaller(Some(expulsion)) => {
                    if expulsion.as_mut().poll(context).is_pending() {
                        return Ok(());
                    }
                    // The seat is free at once. The caller is still told why, and may show a newer token instead.
                    *self.visit.0.counts.lock() = Counts::Nobody;
                    self.lasts = Lasts::a_while();
                }
            }
        }
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
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
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
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::pending};
    use tokio::{io::AsyncReadExt as _, net::TcpListener, time::advance};

    use super::*;
    use crate::auth::Role;

    fn worker() -> Caller {
        Caller { id: "worker".parse().expect("a name"), role: Role::Worker, ..Caller::everyone() }
    }

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
        first.connect_info().is_of(&Caller::everyone(), &identities, || None).expect("everyone is not bounded");
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
    async fn a_connection_on_which_nobody_is_authenticated_is_closed_and_one_of_a_caller_stays() {
        let (_visitors, mut welcomed, listener) = visitors(2).await;
        let _peers = [connect(&listener).await, connect(&listener).await];
        let mut silent = welcomed.next().await.expect("open").expect("accepted");
        let mut calling = welcomed.next().await.expect("open").expect("accepted");
        calling.connect_info().is_of(&worker(), &Identities::new(1), || Some(Box::pin(pending()))).expect("room");
        let began = Instant::now();
        assert_eq!(silent.read(&mut [0]).await.expect_err("it is late").kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), limits::MAX_TIME_TO_FIRST_CALL);
        advance(10 * limits::MAX_TIME_TO_FIRST_CALL).await;
        assert!(calling.read(&mut [0]).now_or_never().is_none(), "nothing has come, and it is open");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_under_way_puts_the_end_off_and_a_caller_over_its_bound_does_not() {
        let (_visitors, mut welcomed, listener) = visitors(2).await;
        let _peers = [connect(&listener).await, connect(&listener).await];
        let mut watching = welcomed.next().await.expect("open").expect("accepted");
        let mut refused = welcomed.next().await.expect("open").expect("accepted");
        let identities = Identities::new(0);
        refused.connect_info().is_of(&worker(), &identities, || None).expect_err("it may have none");
        let watch = watching.connect_info().begin_call();
        let began = Instant::now();
        assert_eq!(refused.read(&mut [0]).await.expect_err("it is late").kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), limits::MAX_TIME_TO_FIRST_CALL);
        advance(10 * limits::MAX_TIME_TO_FIRST_CALL).await;
        assert!(watching.read(&mut [0]).now_or_never().is_none(), "the watch goes on");
        drop(watch);
        assert_eq!(watching.read(&mut [0]).await.expect_err("it has ended").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expelled_caller_gives_its_seat_back_and_the_connection_is_closed_unless_somebody_else_calls() {
        let (_visitors, mut welcomed, listener) = visitors(2).await;
        let _peers = [connect(&listener).await, connect(&listener).await];
        let mut left = welcomed.next().await.expect("open").expect("accepted");
        let mut renewed = welcomed.next().await.expect("open").expect("accepted");
        let (expel, expelled) = tokio::sync::watch::channel(false);
        let expulsion = || -> Option<Expulsion> {
            let mut expelled = expelled.clone();
            Some(Box::pin(async move {
                let _ = expelled.wait_for(|is_so| *is_so).await;
                Status::unauthenticated("revoked")
            }))
        };
        let identities = Identities::new(2);
        for connection in [&mut left, &mut renewed] {
            connection.connect_info().is_of(&worker(), &identities, expulsion).expect("room");
            assert!(connection.read(&mut [0]).now_or_never().is_none(), "nothing has come, and it is open");
        }
        identities.take(&worker(), Open::Connection).expect_err("it has two");
        expel.send_replace(true);
        let began = Instant::now();
        for connection in [&mut left, &mut renewed] {
            assert!(connection.read(&mut [0]).now_or_never().is_none(), "the caller is told why");
        }
        renewed.connect_info().is_of(&worker(), &identities, || None).expect("the seats are free");
        assert_eq!(left.read(&mut [0]).await.expect_err("it is closed").kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), limits::MAX_TIME_TO_FIRST_CALL);
        assert!(renewed.read(&mut [0]).now_or_never().is_none(), "it has shown a newer token");
    }

    #[test]
    fn all_addresses_of_one_subscriber_are_one() {
        let of = |address: &str| subscriber(address.parse().expect("an address")).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!([of("::ffff:10.0.0.1"), of("10.0.0.2")], ["10.0.0.1", "10.0.0.2"]);
    }
}
