//! Reading the tokens file and the TLS identity again, while calls go on: after each change, at most [`LOOK_INTERVAL`] later, and when the
//! process gets SIGHUP.
//!
//! Files are compared by their content. So it does not matter how they are replaced: by a rename, or by a link to another folder, as mounted
//! secrets are. Files that cannot be used change nothing: the last good ones stay in use.

use std::{fmt::Display, path::PathBuf, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{signal::unix::Signal, sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{AppError, tls::IdentityFiles};
use crate::{
    auth::{Authenticator, Credentials, CredentialsError, TokensFile},
    config::TlsFiles,
    engine::Engine,
};

/// How often to look whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Reads the files of a coordinator again when they change.
pub(super) struct Reloader {
    pub(super) tokens: Option<Tokens>,
    pub(super) identity: Option<Identity>,
    pub(super) hangups: Signal,
}

/// The tokens file.
pub(super) struct Tokens {
    path: PathBuf,
    /// Its content when it was good last.
    good: TokensFile,
    /// Where the newest tokens are told.
    newest: watch::Sender<Authenticator>,
    engine: Engine,
}

/// The certificate and its key.
pub(super) struct Identity {
    paths: TlsFiles,
    /// Their content when they were good last.
    good: IdentityFiles,
    /// Where the newest identity is told.
    newest: watch::Sender<Arc<ServerConfig>>,
}

impl Reloader {
    /// Looks at intervals and at each SIGHUP, until `stop` is cancelled. Without such files, SIGHUP does nothing.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (mut of_tokens, mut of_identity) = (Trouble::new("tokens"), Trouble::new("certificate"));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.hangups.recv() => tracing::info!("SIGHUP: looking for changed files"),
                () = sleep(LOOK_INTERVAL) => {}
            }
            if let Some(tokens) = &mut self.tokens {
                of_tokens.note(tokens.look().await);
            }
            if let Some(identity) = &mut self.identity {
                of_identity.note(identity.look().await);
            }
        }
    }
}

impl Tokens {
    /// A receiver of the newest tokens, and what keeps it up to date if there is a tokens file with this path and content.
    pub(super) fn watch(
        authenticator: Authenticator,
        file: Option<(PathBuf, TokensFile)>,
        engine: &Engine,
    ) -> (Option<Self>, watch::Receiver<Authenticator>) {
        let (newest, tokens) = watch::channel(authenticator);
        (file.map(|(path, good)| Self { path, good, newest, engine: engine.clone() }), tokens)
    }

    /// Takes the tokens of the file if it has changed. Returns whether it has.
    async fn look(&mut self) -> Result<bool, CredentialsError> {
        let path = self.path.clone();
        // A folder on another machine may hang.
        let read = spawn_blocking(move || TokensFile::read(&path)).await.expect("reading does not panic")?;
        if self.good == read {
            return Ok(false);
        }
        let credentials = Credentials::try_from(&read)?;
        self.good = read;
        self.engine.set_weights(credentials.weights().clone());
        self.newest.send_replace(credentials.into());
        Ok(true)
    }
}

impl Identity {
    /// What keeps the receiver of the newest identity up to date, and the receiver; `None` without TLS.
    pub(super) fn watch(
        identity: Option<(Arc<ServerConfig>, IdentityFiles)>,
        paths: Option<TlsFiles>,
    ) -> Option<(Self, watch::Receiver<Arc<ServerConfig>>)> {
        let ((server, good), paths) = identity.zip(paths)?;
        let (newest, identity) = watch::channel(server);
        Some((Self { paths, good, newest }, identity))
    }

    /// Takes the certificate and the key if they have changed. Returns whether they have.
    async fn look(&mut self) -> Result<bool, AppError> {
        let paths = self.paths.clone();
        let read = spawn_blocking(move || IdentityFiles::read(&paths)).await.expect("reading does not panic")?;
        if self.good == read {
            return Ok(false);
        }
        self.newest.send_replace(read.to_server()?);
        self.good = read;
        Ok(true)
    }
}

/// Why the newest files of one sort cannot be used, so that it is said once.
struct Trouble {
    files: &'static str,
    reason: Option<String>,
}

impl Trouble {
    fn new(files: &'static str) -> Self {
        Self { files, reason: None }
    }

    /// Says the result of a look if it is news, and keeps the metrics.
    fn note(&mut self, looked: Result<bool, impl Display>) {
        let files = self.files;
        if matches!(looked, Ok(true)) {
            tracing::info!("the {files} changed, and the new content is in use");
            metrics::counter!("sortinghat_reloads_total", "files" => files).increment(1);
        }
        let reason = looked.err().map(|error| error.to_string());
        if let Some(reason) = reason.as_ref().filter(|_| reason != self.reason) {
            tracing::error!(reason, "the changed {files} cannot be used: the last good content stays in use");
        }
        metrics::gauge!("sortinghat_stale_files", "files" => files).set(if reason.is_some() { 1.0 } else { 0.0 });
        self.reason = reason;
    }
}
