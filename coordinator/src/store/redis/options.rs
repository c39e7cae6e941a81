//! How to reach a Redis.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use redis::{Client, ConnectionAddr, IntoConnectionInfo as _, RedisResult};
use sortinghat_proto::Name;

use crate::config::RedisUrl;

/// Which Redis, and which deployment in it.
#[derive(Clone)]
pub struct RedisOptions {
    /// The address of the Redis.
    pub url: RedisUrl,
    /// The file that holds the password of the user that the URL names, or else of the default user. It is read again for every connection.
    pub password_file: Option<PathBuf>,
    /// The hash tag of every key. Two deployments in one Redis do not see each other.
    pub deployment: Name,
    /// Whether to go on although Redis may lose, or has lost, writes that it acknowledged. This is logged loudly.
    pub allow_data_loss: bool,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, password_file, deployment, allow_data_loss } = self;
        f.debug_struct("RedisOptions")
            .field("url", url)
            .field("password_file", password_file)
            .field("deployment", deployment)
            .field("allow_data_loss", allow_data_loss)
            .finish()
    }
}

impl RedisOptions {
    /// A client for the configured address, or for another node of the same cluster.
    pub(super) fn client(&self, node: Option<&str>) -> RedisResult<Client> {
        let mut info = self.url.url().as_str().into_connection_info()?;
        let mut settings = info.redis_settings().clone().set_lib_name("sortinghat", env!("CARGO_PKG_VERSION"));
        if let Some(path) = &self.password_file {
            settings = settings.set_password(read_password(path)?);
        }
        info = info.set_redis_settings(settings);
        if let Some(node) = node {
            let address = redirected(info.addr(), node);
            info = info.set_addr(address);
        }
        Client::open(info)
    }
}

/// The password in a file. Editors end a file with a line break, which is not part of the password.
fn read_password(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("failed to read {}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The node's address, with the TLS settings of the configured one. A node without a host is on the same host.
fn redirected(configured: &ConnectionAddr, node: &str) -> ConnectionAddr {
    let (host, port) = node.rsplit_once(':').unwrap_or((node, "6379"));
    let port = port.parse().unwrap_or(6379);
    let named = |same: &String| if host.is_empty() { same.clone() } else { host.to_owned() };
    match configured {
        ConnectionAddr::Tcp(same, _) => ConnectionAddr::Tcp(named(same), port),
        ConnectionAddr::TcpTls { host: same, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: named(same), port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        other => other.clone(),
    }
}
