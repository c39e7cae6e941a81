//! Settings from a file, the environment and flags, which are checked once and become a [`Config`] that cannot hold nonsense.

mod complaint;
mod settings;
mod values;

use std::{
    io,
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use sortinghat_objects::UrlError;
use sortinghat_proto::{Name, limits};

pub use complaint::Complaint;
pub use settings::Settings;
pub use sortinghat_objects::ObjectStoreUrl;
pub use values::{LogFilter, LogFormat, RedisUrl, Span, StoreUrl, ValueError};

/// The configuration of a coordinator. Every default is filled in, and every path is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address that gRPC is served on. Port 0 stands for any free port.
    pub listen: SocketAddr,
    /// The folder of the coordinator's files.
    pub data_dir: PathBuf,
    /// The store of the queue.
    pub store: StoreUrl,
    /// The settings of a Redis store; `None` for any other store.
    pub redis: Option<RedisConfig>,
    /// The store of photos, datasets, models and predictions.
    pub object_store: ObjectStoreUrl,
    /// How long a worker may be silent before its tasks are given to other workers.
    pub lease_ttl: Span,
    /// How many items of a job are one task.
    pub shard_items: NonZeroU64,
    /// How long a job is kept after its end.
    pub retention: Span,
    /// How long an object is kept after nothing refers to it any more.
    pub object_grace: Span,
    /// Whether this coordinator removes such objects.
    pub collect_objects: bool,
    /// How many jobs of one tenant may wait.
    pub max_waiting_jobs_per_tenant: NonZeroU64,
    /// How many tasks of all tenants may wait.
    pub max_waiting_tasks: NonZeroU64,
    /// How many connections from one address may be open on which nobody has shown a token yet.
    pub max_unknown_connections_per_address: NonZeroUsize,
    /// How many connections one identity may have open, how many calls under way, and how many workers.
    pub max_open_per_identity: NonZeroUsize,
    /// How long calls are still accepted after the coordinator was told to stop.
    pub drain_delay: Span,
    /// How long the calls in flight may take to end when the coordinator stops.
    pub drain_grace: Span,
    /// The address that the pages for operators are served on over HTTP; `None` if they are not served.
    pub metrics_listen: Option<SocketAddr>,
    /// The certificate and its key; `None` for plain text, on loopback only.
    pub tls: Option<TlsFiles>,
    /// The tokens file; `None` lets every caller in, on loopback only.
    pub credentials: Option<PathBuf>,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The filter of log lines.
    pub log_filter: LogFilter,
}

/// The settings of a Redis as the queue's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// The file that holds the password for Redis.
    pub password_file: Option<PathBuf>,
    /// The name that separates deployments in one Redis.
    pub deployment: Name,
    /// Whether to go on although Redis may lose, or has lost, writes that it acknowledged.
    pub allow_data_loss: bool,
}

/// The PEM files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates of those whose certificates identify callers; `None` if no certificate does.
    pub client_ca: Option<PathBuf>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("failed to read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not TOML, names an unknown setting or holds a bad value.
    #[error("failed to understand the configuration file {path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why, with the line.
        source: Complaint,
    },
    /// A path cannot be made absolute.
    #[error("failed to find the folder {path}: {source}")]
    BadPath {
        /// The path as it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No data folder was given, and there is no home folder for the default.
    #[error("no data folder: set --data-dir (or SORTINGHAT_DATA_DIR), since HOME is not set")]
    NoHome,
    /// A setting of a Redis store was given for another store.
    #[error("{flag} is for a Redis store and would be ignored: set --store redis://HOST, or leave {flag} out")]
    Ignored {
        /// The flag.
        flag: &'static str,
    },
    /// A Redis store was given without an object store. The coordinators of one queue must share their objects.
    #[error(
        "a Redis store also needs an object store that all its coordinators share: set --object-store s3://BUCKET/PREFIX, or \
         file:///FOLDER if all of them see that folder"
    )]
    PrivateObjects,
    /// One of the two TLS files is not set.
    #[error("--tls-cert and --tls-key go together: {missing} is not set")]
    HalfTls {
        /// The flag that is not set.
        missing: &'static str,
    },
    /// Certificates of callers would never be asked for, or could not be told apart.
    #[error(
        "--client-ca is for workers that connect with TLS and are listed in the tokens file, so it also needs --tls-cert, --tls-key and \
         --credentials: {missing} is not set"
    )]
    LoneClientCa {
        /// The flag that is not set.
        missing: &'static str,
    },
    /// Other machines could reach the coordinator without TLS or without credentials.
    #[error(
        "refusing to listen on {address}, which other machines can reach, without {missing}: set --tls-cert, --tls-key \
         and --credentials, or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
        /// What is not set.
        missing: &'static str,
    },
    /// The data folder cannot hold the objects.
    #[error(transparent)]
    Objects(#[from] UrlError),
    /// A value is refused, by itself or beside other values.
    #[error(transparent)]
    Value(#[from] ValueError),
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7878);
const DEFAULT_DEPLOYMENT: &str = "sortinghat";
const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(30);
const DEFAULT_SHARD_ITEMS: NonZeroU64 = NonZeroU64::new(limits::DEFAULT_SHARD_ITEMS).expect("not 0");
const DEFAULT_RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);
const DEFAULT_OBJECT_GRACE: Duration = Duration::from_secs(24 * 3_600);
const DEFAULT_MAX_WAITING_JOBS_PER_TENANT: NonZeroU64 =
    NonZeroU64::new(limits::DEFAULT_MAX_WAITING_JOBS_PER_TENANT).expect("not 0");
const DEFAULT_MAX_WAITING_TASKS: NonZeroU64 = NonZeroU64::new(limits::DEFAULT_MAX_WAITING_TASKS).expect("not 0");
const DEFAULT_MAX_UNKNOWN_CONNECTIONS_PER_ADDRESS: NonZeroUsize =
    NonZeroUsize::new(limits::DEFAULT_MAX_UNKNOWN_CONNECTIONS_PER_ADDRESS).expect("not 0");
const DEFAULT_MAX_OPEN_PER_IDENTITY: NonZeroUsize =
    NonZeroUsize::new(limits::DEFAULT_MAX_OPEN_PER_IDENTITY).expect("not 0");
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(10);

impl Config {
    /// The configuration from `flags`, which include the environment's settings, completed by those of a file.
    ///
    /// # Errors
    /// [`ConfigError`], which says what to set.
    pub fn load(flags: Settings, file: Option<&Path>) -> Result<Self, ConfigError> {
        let settings = match file {
            Some(path) => flags.over(Settings::read(path)?),
            None => flags,
        };
        Self::resolve(settings)
    }

    /// Fills in the defaults and checks the settings together.
    ///
    /// # Errors
    /// [`ConfigError`], which says what to set.
    pub fn resolve(settings: Settings) -> Result<Self, ConfigError> {
        let data_dir = absolute(settings.data_dir.map_or_else(default_data_dir, Ok)?)?;
        let store = match settings.store {
            Some(StoreUrl::Embedded(path)) => StoreUrl::Embedded(absolute(path)?),
            Some(other @ (StoreUrl::Redis(_) | StoreUrl::Memory)) => other,
            None => StoreUrl::Embedded(data_dir.join("queue.redb")),
        };
        let object_store = match settings.object_store {
            Some(url) => url,
            None if matches!(store, StoreUrl::Redis(_)) => return Err(ConfigError::PrivateObjects),
            None => ObjectStoreUrl::of_folder(&data_dir.join("objects"))?,
        };
        let redis = redis(&store, settings.store_password_file, settings.store_deployment, settings.allow_data_loss)?;
        let lease_ttl = settings.lease_ttl.map_or(Ok(Span::new(DEFAULT_LEASE_TTL)), Span::checked_as_lease)?;
        let object_grace = settings.object_grace.unwrap_or(Span::new(DEFAULT_OBJECT_GRACE));
        let config = Self {
            redis,
            listen: settings.listen.unwrap_or(DEFAULT_LISTEN),
            store,
            object_store,
            lease_ttl,
            shard_items: settings.shard_items.unwrap_or(DEFAULT_SHARD_ITEMS),
            retention: settings.retention.unwrap_or(Span::new(DEFAULT_RETENTION)),
            object_grace: object_grace.checked_as_object_grace(lease_ttl)?,
            collect_objects: settings.collect_objects.unwrap_or(true),
            max_waiting_jobs_per_tenant: settings
                .max_waiting_jobs_per_tenant
                .unwrap_or(DEFAULT_MAX_WAITING_JOBS_PER_TENANT),
            max_waiting_tasks: settings.max_waiting_tasks.unwrap_or(DEFAULT_MAX_WAITING_TASKS),
            max_unknown_connections_per_address: settings
                .max_unknown_connections_per_address
                .unwrap_or(DEFAULT_MAX_UNKNOWN_CONNECTIONS_PER_ADDRESS),
            max_open_per_identity: settings.max_open_per_identity.unwrap_or(DEFAULT_MAX_OPEN_PER_IDENTITY),
            drain_delay: settings.drain_delay.unwrap_or(Span::new(Duration::ZERO)),
            drain_grace: settings.drain_grace.unwrap_or(Span::new(DEFAULT_DRAIN_GRACE)),
            metrics_listen: settings.metrics_listen,
            tls: tls(settings.tls_cert, settings.tls_key, settings.client_ca, settings.credentials.is_some())?,
            credentials: settings.credentials.map(absolute).transpose()?,
            log_format: settings.log_format.unwrap_or_default(),
            log_filter: settings.log_filter.unwrap_or_default(),
            data_dir,
        };
        config.refuse_exposure()?;
        Ok(config)
    }

    /// The configuration in the form of a file, from which the same configuration can be read again. It names files and holds no secret.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&Settings::from(self.clone())).expect("settings are strings")
    }

    fn refuse_exposure(&self) -> Result<(), ConfigError> {
        let missing = match (&self.tls, &self.credentials) {
            (Some(_), Some(_)) => return Ok(()),
            (None, None) => "TLS and credentials",
            (None, Some(_)) => "TLS",
            (Some(_), None) => "credentials",
        };
        let mut addresses = std::iter::once(self.listen).chain(self.metrics_listen);
        match addresses.find(|address| !address.ip().is_loopback()) {
            Some(address) => Err(ConfigError::Exposed { address, missing }),
            None => Ok(()),
        }
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(&path).map_err(|source| ConfigError::BadPath { path, source })
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    let data_home = std::env::var_os("XDG_DATA_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let base = data_home.or_else(|| Some(home?.join(".local/share"))).ok_or(ConfigError::NoHome)?;
    Ok(base.join("sortinghat/coordinator"))
}

/// The settings of a Redis store. It is an error to give one for another store.
fn redis(
    store: &StoreUrl,
    password_file: Option<PathBuf>,
    deployment: Option<Name>,
    allow_data_loss: Option<bool>,
) -> Result<Option<RedisConfig>, ConfigError> {
    if matches!(store, StoreUrl::Redis(_)) {
        return Ok(Some(RedisConfig {
            password_file: password_file.map(absolute).transpose()?,
            deployment: deployment.unwrap_or_else(|| DEFAULT_DEPLOYMENT.parse().expect("it is a name")),
            allow_data_loss: allow_data_loss.unwrap_or_default(),
        }));
    }
    let given = [
        ("--store-password-file", password_file.is_some()),
        ("--store-deployment", deployment.is_some()),
        ("--allow-data-loss", allow_data_loss.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(ConfigError::Ignored { flag }),
        None => Ok(None),
    }
}

fn tls(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    has_credentials: bool,
) -> Result<Option<TlsFiles>, ConfigError> {
    let client_ca = client_ca.map(absolute).transpose()?;
    let lacks = [("--tls-cert", cert.is_some()), ("--tls-key", key.is_some()), ("--credentials", has_credentials)];
    if let (Some(_), Some((missing, _))) = (&client_ca, lacks.into_iter().find(|(_, is_set)| !is_set)) {
        return Err(ConfigError::LoneClientCa { missing });
    }
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: absolute(cert)?, key: absolute(key)?, client_ca })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::HalfTls { missing: "--tls-key" }),
        (None, Some(_)) => Err(ConfigError::HalfTls { missing: "--tls-cert" }),
    }
}

#[cfg(test)]
mod tests;
