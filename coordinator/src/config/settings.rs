//! What a file, the environment and flags may say; everything optional.

use std::{fs, net::SocketAddr, num::NonZeroU64, path::Path, path::PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use sortinghat_proto::Name;

use super::{Config, ConfigError, LogFilter, LogFormat, ObjectStoreUrl, Span, StoreUrl};

/// The settings of one source. In a file, the keys are the flags with underscores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address to serve gRPC on; port 0 for any free one [default: 127.0.0.1:7878]
    #[arg(long, env = "SORTINGHAT_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Folder for the coordinator's files [default: ~/.local/share/sortinghat/coordinator]
    #[arg(long, env = "SORTINGHAT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the queue is kept: embedded:FILE, redis://HOST:PORT (rediss:// for TLS), or memory: for tests
    /// [default: embedded:DATA_DIR/queue.redb]
    #[arg(long, env = "SORTINGHAT_STORE", value_name = "URL")]
    pub store: Option<StoreUrl>,
    /// File that holds the password for Redis
    #[arg(long, env = "SORTINGHAT_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,
    /// Name that keeps deployments in one Redis apart; coordinators with the same one serve the same queue [default: sortinghat]
    #[arg(long, env = "SORTINGHAT_STORE_DEPLOYMENT", value_name = "NAME")]
    pub store_deployment: Option<Name>,
    /// Use a Redis that may lose, or has lost, jobs that it acknowledged [default: false]
    #[arg(long, env = "SORTINGHAT_ALLOW_DATA_LOSS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub allow_data_loss: Option<bool>,
    /// Where objects are kept: file:///FOLDER or s3://BUCKET/PREFIX [default: file://DATA_DIR/objects, none with a Redis]
    #[arg(long, env = "SORTINGHAT_OBJECT_STORE", value_name = "URL")]
    pub object_store: Option<ObjectStoreUrl>,
    /// How long a worker may be silent before its tasks go to others, such as 30s [default: 30s]
    #[arg(long, env = "SORTINGHAT_LEASE_TTL", value_name = "DURATION")]
    pub lease_ttl: Option<Span>,
    /// Items of a job that are one task; one with more photos is divided into shards of this many [default: 1024]
    #[arg(long, env = "SORTINGHAT_SHARD_ITEMS", value_name = "COUNT")]
    pub shard_items: Option<NonZeroU64>,
    /// How long a job is kept after its end, with its history and the way to its report or predictions; datasets and models
    /// stay [default: 30days]
    #[arg(long, env = "SORTINGHAT_RETENTION", value_name = "DURATION")]
    pub retention: Option<Span>,
    /// How long a photo or another object is kept that no dataset, no model and no job refers to. Half of it is how long an
    /// upload may take until its job is submitted; at least 10 leases. The same for all coordinators of one queue [default: 1day]
    #[arg(long, env = "SORTINGHAT_OBJECT_GRACE", value_name = "DURATION")]
    pub object_grace: Option<Span>,
    /// Remove objects that nothing refers to, and what unfinished uploads have left, after that time [default: true]
    #[arg(long, env = "SORTINGHAT_COLLECT_OBJECTS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub collect_objects: Option<bool>,
    /// Jobs of one tenant that may wait; more are refused until some have started [default: 1000000]
    #[arg(long, env = "SORTINGHAT_MAX_WAITING_JOBS_PER_TENANT", value_name = "COUNT")]
    pub max_waiting_jobs_per_tenant: Option<NonZeroU64>,
    /// Tasks of all tenants that may wait; more jobs are refused until some have started [default: 4000000]
    #[arg(long, env = "SORTINGHAT_MAX_WAITING_TASKS", value_name = "COUNT")]
    pub max_waiting_tasks: Option<NonZeroU64>,
    /// How long calls in flight may take to end when the coordinator stops [default: 10s]
    #[arg(long, env = "SORTINGHAT_DRAIN_GRACE", value_name = "DURATION")]
    pub drain_grace: Option<Span>,
    /// Address to serve /metrics and /healthz on [default: none]
    #[arg(long, env = "SORTINGHAT_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Certificate chain (PEM)
    #[arg(long, env = "SORTINGHAT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "SORTINGHAT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Tokens file (TOML): `[[tokens]]` with sha256, tenant, and role = "user", "worker" or "admin"; `[[tenants]]` with name and
    /// weight, where a tenant shall have more than one part of the workers
    #[arg(long, env = "SORTINGHAT_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// How log lines look [default: text]
    #[arg(long, env = "SORTINGHAT_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which log lines are written, such as info or sortinghat_coordinator=debug [default: info]
    #[arg(long, env = "SORTINGHAT_LOG", value_name = "FILTER")]
    pub log_filter: Option<LogFilter>,
}

impl Settings {
    /// The settings in a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Malformed`] with the line, also for a setting that does not exist.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) })
    }

    /// These settings, and `lower` where they are silent.
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
            drain_grace: self.drain_grace.or(lower.drain_grace),
            metrics_listen: self.metrics_listen.or(lower.metrics_listen),
            tls_cert: self.tls_cert.or(lower.tls_cert),
            tls_key: self.tls_key.or(lower.tls_key),
            credentials: self.credentials.or(lower.credentials),
            log_format: self.log_format.or(lower.log_format),
            log_filter: self.log_filter.or(lower.log_filter),
        }
    }
}

impl From<Config> for Settings {
    fn from(config: Config) -> Self {
        let redis = config.redis;
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
            drain_grace: Some(config.drain_grace),
            metrics_listen: config.metrics_listen,
            tls_cert,
            tls_key,
            credentials: config.credentials,
            log_format: Some(config.log_format),
            log_filter: Some(config.log_filter),
        }
    }
}
