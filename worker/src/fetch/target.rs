//! From a URL to addresses that may be connected to. The name is looked up once for each connection, and what was checked is what is
//! connected to, so an answer of the name server that changes afterwards changes nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use futures::{FutureExt as _, future::BoxFuture};
use url::{Host, Position, Url};

use super::{address::Allowance, error::FetchError};

/// Finds the addresses of a name.
pub(super) trait Lookup: Send + Sync {
    /// All addresses of this name.
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the system.
#[derive(Debug)]
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) }.boxed()
    }
}

/// A URL that may be fetched as far as its text shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) url: Url,
    /// The host as messages name it.
    pub(super) host: String,
    port: u16,
}

impl Target {
    /// What a host is asked for: the path with the query.
    pub(super) fn path(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// [`FetchError::BadUrl`] or [`FetchError::Insecure`].
    pub(super) fn parse(url: &str, allows_http: bool) -> Result<Self, FetchError> {
        let url = Url::parse(url.trim()).map_err(|error| FetchError::BadUrl(error.to_string()))?;
        Self::of(url, allows_http)
    }

    /// As [`Self::parse`].
    pub(super) fn of(mut url: Url, allows_http: bool) -> Result<Self, FetchError> {
        let bad = |why: &str| Err(FetchError::BadUrl(why.to_owned()));
        match url.scheme() {
            "https" => {}
            "http" if allows_http => {}
            "http" => return Err(FetchError::Insecure),
            scheme => return Err(FetchError::BadUrl(format!("{scheme}: is not https:"))),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return bad("it holds a user name or a password");
        }
        url.set_fragment(None);
        let Some(host) = url.host_str().map(str::to_owned) else { return bad("it names no host") };
        let port = url.port_or_known_default().unwrap_or(443);
        // The usual ports, and those that no service of a system has. Mail servers and their like read HTTP as commands.
        if port < 1024 && port != 80 && port != 443 {
            return Err(FetchError::BadUrl(format!("port {port} is not one of the web")));
        }
        Ok(Self { url, host, port })
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The URL to which an answer of this one leads on.
    pub(super) fn follow(&self, location: &str, allows_http: bool) -> Result<Self, FetchError> {
        let url = self.url.join(location);
        Self::of(url.map_err(|error| FetchError::BadUrl(format!("a redirect to {location:?}: {error}")))?, allows_http)
    }

    /// The addresses to connect to, all of which were checked.
    ///
    /// # Errors
    /// [`FetchError::NotPublic`] if one of the host's addresses is not of the public internet, or [`FetchError::Unresolved`].
    pub(super) async fn addresses(
        &self,
        lookup: &dyn Lookup,
        allowance: &Allowance,
    ) -> Result<Vec<SocketAddr>, FetchError> {
        let host = self.host.clone();
        let unresolved = |reason: String| FetchError::Unresolved { host: self.host.clone(), reason };
        let found = match self.url.host() {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            // A name without a dot is one of this network: its resolver would complete it.
            Some(Host::Domain(name)) if !name.trim_end_matches('.').contains('.') => {
                return Err(FetchError::NotPublic { host });
            }
            Some(Host::Domain(name)) => lookup.lookup(name).await.map_err(|error| unresolved(error.to_string()))?,
            None => return Err(FetchError::BadUrl("it names no host".to_owned())),
        };
        if found.is_empty() {
            return Err(unresolved("the name server knows none".to_owned()));
        }
        let addresses: Vec<SocketAddr> = found.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
        // A name that has a private address beside public ones is one that tries to get in.
        match addresses.iter().all(|address| allowance.admits(*address)) {
            true => Ok(addresses),
            false => Err(FetchError::NotPublic { host }),
        }
    }
}
