//! Which addresses may be connected to: those that belong to the public internet.
//!
//! A URL comes from a stranger, and the worker stands inside a network. What only this network can reach, such as a router, a database or
//! the metadata of a cloud's machine, must not be reachable by a URL.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Networks of IPv4 that are not of the public internet: the special-purpose registry of IANA (RFC 6890), multicast, and the address
/// under which the machines of Azure find their metadata, which is a public one.
const PRIVATE_V4: [(Ipv4Addr, u32); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Networks inside 2000::/3, where all public addresses of IPv6 lie, that are none: protocol assignments with Teredo, documentation, 6to4.
const PRIVATE_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Behind this prefix, a network without IPv4 reaches the addresses of IPv4 (RFC 6052).
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether an address belongs to the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_in = |(network, bits): &(Ipv4Addr, u32)| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        address.to_bits() & mask == network.to_bits()
    };
    !PRIVATE_V4.iter().any(is_in)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    if is_in_v6(address, &NAT64) {
        return is_public_v4(Ipv4Addr::from_bits(address.to_bits() as u32));
    }
    is_in_v6(address, &GLOBAL_V6) && !PRIVATE_V6.iter().any(|network| is_in_v6(address, network))
}

fn is_in_v6(address: Ipv6Addr, (network, bits): &(Ipv6Addr, u32)) -> bool {
    address.to_bits() >> (128 - bits) == network.to_bits() >> (128 - bits)
}

/// For tests: addresses of this machine that may be connected to although they are private, each with its port.
///
/// Nothing but addresses of the loopback interface can be named, so that even a worker whose operator sets this by mistake reaches no other
/// machine by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance(Vec<SocketAddr>);

impl Allowance {
    /// Whether nothing is allowed, as it should be outside of tests.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this address may be connected to.
    pub(super) fn admits(&self, address: SocketAddr) -> bool {
        is_public(address.ip()) || self.0.contains(&address)
    }

    #[cfg(test)]
    pub(super) fn of(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = |text: &str| {
            let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT"))?;
            match address.ip().is_loopback() {
                true => Ok(address),
                false => Err(format!("{text} is not an address of the loopback interface")),
            }
        };
        text.split(',').filter(|text| !text.is_empty()).map(address).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_public_internet_are_told_from_all_others() {
        for public in
            ["1.1.1.1", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn the_allowance_for_tests_names_nothing_but_ports_of_this_machine() {
        let allowed: Allowance = "127.0.0.1:80,[::1]:81".parse().unwrap();
        assert!(allowed.admits("127.0.0.1:80".parse().unwrap()));
        assert!(!allowed.admits("127.0.0.1:81".parse().unwrap()));
        assert!(!Allowance::default().admits("127.0.0.1:80".parse().unwrap()));
        for refused in ["10.0.0.1:80", "0.0.0.0:80", "127.0.0.1", "localhost:80", "169.254.169.254:80"] {
            refused.parse::<Allowance>().unwrap_err();
        }
    }
}
