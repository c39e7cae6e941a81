//! The settings that a file, the environment and flags may give. All of them are optional.

use std::{
    fs,
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use sortinghat_proto::Name;

use super::{Complaint, Config, ConfigError, LogFilter, LogFormat, ObjectStoreUrl, Span, StoreUrl};

/// The settings of one source. The keys of a file are the names of the flags, with underscores instead of dashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address that the coordinator serves gRPC on. Port 0 chooses any free port, which is written to DATA_DIR/coordinator.addr.
    /// An address that other machines can reach requires --tls-cert, --tls-key and --credentials [default: 127.0.0.1:7878]
    #[arg(long, env = "SORTINGHAT_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Folder for the coordinator's files. Only one coordinator at a time may use it [default:
    /// ~/.local/share/sortinghat/coordinator]
    #[arg(long, env = "SORTINGHAT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Store of the queue: embedded:FILE for one coordinator, redis://HOST:PORT (rediss:// for TLS) for several coordinators, or
    /// memory: for tests, which forgets everything at the end [default: embedded:DATA_DIR/queue.redb]
    #[arg(long, env = "SORTINGHAT_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<StoreUrl>,
    /// File that holds the password for Redis. Only for a Redis store [default: none]
    #[arg(long, env = "SORTINGHAT_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,
    /// Name that separates deployments in one Redis. Coordinators with the same name serve the same queue. Only for a Redis store
    /// [default: sortinghat]
    #[arg(long, env = "SORTINGHAT_STORE_DEPLOYMENT", value_name = "NAME")]
    pub store_deployment: Option<Name>,
    /// Use a Redis even if it may lose, or has lost, jobs that it acknowledged. Only for a Redis store [default: false]
    #[arg(long, env = "SORTINGHAT_ALLOW_DATA_LOSS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub allow_data_loss: Option<bool>,
    /// Store of photos, datasets, models and results: file:///FOLDER or s3://BUCKET/PREFIX. Required with a Redis store, whose
    /// coordinators must share it [default: file://DATA_DIR/objects]
    #[arg(long, env = "SORTINGHAT_OBJECT_STORE", hide_env_values = true, value_name = "URL")]
    pub object_store: Option<ObjectStoreUrl>,
    /// How long a worker may be silent before its tasks are given to other workers. A duration from 100ms to 1h, such as 30s
    /// [default: 30s]
    #[arg(long, env = "SORTINGHAT_LEASE_TTL", value_name = "DURATION")]
    pub lease_ttl: Option<Span>,
    /// Number of items (photos) in one task. A job with more items is divided into shards of this size [default: 1024]
    #[arg(long, env = "SORTINGHAT_SHARD_ITEMS", value_name = "COUNT")]
    pub shard_items: Option<NonZeroU64>,
    /// How long a job is kept after its end, together with its history and its report or predictions. Datasets and models are
    /// kept until they are deleted. A duration, such as 30days [default: 30days]
    #[arg(long, env = "SORTINGHAT_RETENTION", value_name = "DURATION")]
    pub retention: Option<Span>,
    /// An object to which no dataset, no model and no job refers any more is removed after half of this time at the earliest, and
    /// after one and a half times this at the latest. A client has half of this time
    /// between the upload of an object and the submission of its job. A duration of at least 10 leases, the same for all
    /// coordinators of one queue [default: 1day]
    #[arg(long, env = "SORTINGHAT_OBJECT_GRACE", value_name = "DURATION")]
    pub object_grace: Option<Span>,
    /// Remove objects that nothing refers to, and the files of unfinished uploads, after --object-grace [default: true]
    #[arg(long, env = "SORTINGHAT_COLLECT_OBJECTS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub collect_objects: Option<bool>,
    /// Number of jobs of one tenant that may wait. Further jobs are refused until some of them have started [default: 1000000]
    #[arg(long, env = "SORTINGHAT_MAX_WAITING_JOBS_PER_TENANT", value_name = "COUNT")]
    pub max_waiting_jobs_per_tenant: Option<NonZeroU64>,
    /// Number of tasks of all tenants that may wait. Further jobs are refused until some tasks have started [default: 4000000]
    #[arg(long, env = "SORTINGHAT_MAX_WAITING_TASKS", value_name = "COUNT")]
    pub max_waiting_tasks: Option<NonZeroU64>,
    /// Number of connections from one address on which nobody has shown a token yet. Further ones wait for a place [default: 64]
    #[arg(long, env = "SORTINGHAT_MAX_UNKNOWN_CONNECTIONS_PER_ADDRESS", value_name = "COUNT")]
    pub max_unknown_connections_per_address: Option<NonZeroUsize>,
    /// Number of connections that one identity of the tokens file may have open; it may have as many calls under way, and as many workers
    /// [default: 1000]
    #[arg(long, env = "SORTINGHAT_MAX_OPEN_PER_IDENTITY", value_name = "COUNT")]
    pub max_open_per_identity: Option<NonZeroUsize>,
    /// How long the coordinator goes on accepting calls after it was told to stop, while its health already says that it is not ready. Load
    /// balancers take it out in this time. A duration, such as 5s [default: 0s]
    #[arg(long, env = "SORTINGHAT_DRAIN_DELAY", value_name = "DURATION")]
    pub drain_delay: Option<Span>,
    /// How long the calls in flight may take to end after the coordinator was told to stop. A duration, such as 10s [default:
    /// 10s]
    #[arg(long, env = "SORTINGHAT_DRAIN_GRACE", value_name = "DURATION")]
    pub drain_grace: Option<Span>,
    /// Address to serve /metrics (Prometheus), /healthz and the probes /livez, /readyz and /startupz on, over plain HTTP. An address that other machines can reach requires
    /// --tls-cert, --tls-key and --credentials [default: none]
    #[arg(long, env = "SORTINGHAT_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Certificate chain of the server (PEM). Requires --tls-key [default: none, plain text]
    #[arg(long, env = "SORTINGHAT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM). Requires --tls-cert [default: none, plain text]
    #[arg(long, env = "SORTINGHAT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Certificates (PEM) of those whose certificates workers may show instead of a token. The tokens file lists the workers'
    /// `[[certificates]]`. Requires --tls-cert, --tls-key and --credentials [default: none, tokens only]
    #[arg(long, env = "SORTINGHAT_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Tokens file (TOML) that lists the callers: one `[[tokens]]` for each token, with id, sha256, role = "user", "admin",
    /// "worker" or "operator", the tenant of a user or an admin, the tenants of a worker, and perhaps expires (RFC 3339) or
    /// revoked = true; one `[[certificates]]` for each certificate, with id, san (a URI or a name of DNS), role = "worker" and
    /// tenants. `[[tenants]]` with name and weight gives a tenant a larger share of the workers than 1 [default: none,
    /// everyone may call]
    #[arg(long, env = "SORTINGHAT_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// Format of log lines: text for people, or json with one object a line [default: text]
    #[arg(long, env = "SORTINGHAT_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Filter of log lines, such as info or sortinghat_coordinator=debug [default: info]
    #[arg(long, env = "SORTINGHAT_LOG", value_name = "FILTER")]
    pub log_filter: Option<LogFilter>,
}

impl Settings {
    /// Reads the settings in a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Malformed`] with the line, which also reports a setting that does not exist.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| {
            let source = Complaint::of(&error, &text);
            ConfigError::Malformed { path: path.to_owned(), source }
        })
    }

    /// These settings, completed by those of `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            data_dir: self.data_dir.or(lower.data_dir),
            store: self.store.or(lower.store),
            store_password_file: self.store_password_file.or(lower.store_password_file),
            store_deployment: self.store_deployment.or(lower.store_deployment),
            allow_data_loss: self.allow_data_loss.or(lower.allow_data_loss),
            object_store: self.object_store.or(lower.object_store),
            lease_ttl: self.lease_ttl.or(lower.lease_ttl),
            shard_items: self.shard_items.or(lower.shard_items),
            retention: self.retention.or(lower.retention),
            object_grace: self.object_grace.or(lower.object_grace),
            collect_objects: self.collect_objects.or(lower.collect_objects),
            max_waiting_jobs_per_tenant: self.max_waiting_jobs_per_tenant.or(lower.max_waiting_jobs_per_tenant),
            max_waiting_tasks: self.max_waiting_tasks.or(lower.max_waiting_tasks),
            max_unknown_connections_per_address: self
                .max_unknown_connections_per_address
                .or(lower.max_unknown_connections_per_address),
            max_open_per_identity: self.max_open_per_identity.or(lower.max_open_per_identity),
            drain_delay: self.drain_delay.or(lower.drain_delay),
            drain_grace: self.drain_grace.or(lower.drain_grace),
            metrics_listen: self.metrics_listen.or(lower.metrics_listen),
            tls_cert: self.tls_cert.or(lower.tls_cert),
            tls_key: self.tls_key.or(lower.tls_key),
            client_ca: self.client_ca.or(lower.client_ca),
            credentials: self.credentials.or(lower.credentials),
            log_format: self.log_format.or(lower.log_format),
            log_filter: self.log_filter.or(lower.log_filter),
        }
    }
}

impl From<Config> for Settings {
    fn from(config: Config) -> Self {
        let redis = config.redis;
        let client_ca = config.tls.as_ref().and_then(|tls| tls.client_ca.clone());
        let (tls_cert, tls_key) = config.tls.map(|tls| (tls.cert, tls.key)).unzip();
        Self {
            listen: Some(config.listen),
            data_dir: Some(config.data_dir),
            store: Some(config.store),
            store_password_file: redis.as_ref().and_then(|redis| redis.password_file.clone()),
            store_deployment: redis.as_ref().map(|redis| redis.deployment.clone()),
            allow_data_loss: redis.as_ref().map(|redis| redis.allow_data_loss),
            object_store: Some(config.object_store),
            lease_ttl: Some(config.lease_ttl),
            shard_items: Some(config.shard_items),
            retention: Some(config.retention),
            object_grace: Some(config.object_grace),
            collect_objects: Some(config.collect_objects),
            max_waiting_jobs_per_tenant: Some(config.max_waiting_jobs_per_tenant),
            max_waiting_tasks: Some(config.max_waiting_tasks),
            max_unknown_connections_per_address: Some(config.max_unknown_connections_per_address),
            max_open_per_identity: Some(config.max_open_per_identity),
            drain_delay: Some(config.drain_delay),
            drain_grace: Some(config.drain_grace),
            metrics_listen: config.metrics_listen,
            tls_cert,
            tls_key,
            client_ca,
            credentials: config.credentials,
            log_format: Some(config.log_format),
            log_filter: Some(config.log_filter),
        }
    }
}
