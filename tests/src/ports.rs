//! Addresses of processes that come back at the same place.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Where the search begins; below are the ports of well-known services.
const FIRST: u32 = 12_000;
/// Addresses of one process, which other tests of its time begin to look for elsewhere.
const PER_PROCESS: u32 = 16;

/// A free address of loopback. Nobody is given it by chance while its process is down: it lies below the ports that the system
/// hands out to connections and to whoever asks for any.
///
/// # Panics
/// If there is none.
pub fn lasting_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let handed_out =
        fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux says which ports it hands out");
    let end: u32 = handed_out.split_whitespace().next().and_then(|first| first.parse().ok()).expect("two numbers");
    let ports = end.checked_sub(FIRST).filter(|ports| *ports > 0).expect("there are ports that are not handed out");
    let mut addresses = (0..ports).map(|_| {
        let place = process::id().wrapping_mul(PER_PROCESS).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(FIRST + place % ports).expect("below 65536")))
    });
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("loopback has free ports")
}
