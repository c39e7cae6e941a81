//! Addresses for processes that are started again at the same address.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// The first port of the search. The ports below belong to well-known services.
const FIRST: u32 = 12_000;
/// How many ports belong to one process. Tests that run at the same time search from different ports.
const PER_PROCESS: u32 = 16;

/// A free address of loopback. It stays free while its process is down, since it is below the ports that the system assigns to connections
/// and to processes that ask for any port.
///
/// # Panics
/// If there is none.
pub fn lasting_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let handed_out =
        fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux tells which ports it assigns");
    let end: u32 = handed_out.split_whitespace().next().and_then(|first| first.parse().ok()).expect("two numbers");
    let ports = end.checked_sub(FIRST).filter(|ports| *ports > 0).expect("there are ports that are not assigned");
    let mut addresses = (0..ports).map(|_| {
        let place = process::id().wrapping_mul(PER_PROCESS).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(FIRST + place % ports).expect("below 65536")))
    });
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("loopback has free ports")
}
