//! Reading the tokens file and the files of TLS again, while calls go on: after each change, at most [`LOOK_INTERVAL`] later, and when the
//! process gets SIGHUP.
//!
//! Files are compared by their content. So it does not matter how they are replaced: by a rename, or by a link to another folder, as mounted
//! secrets are. Files that cannot be used change nothing: the last good ones stay in use.

use std::{
    fmt::Display,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    signal::unix::Signal,
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    AppError,
    tls::{Tls, TlsContent},
};
use crate::{
    auth::{Authenticator, Credentials, CredentialsError, TokensFile},
    config::TlsFiles,
    engine::Engine,
};

/// How often to look whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often to warn of a certificate that expires soon.
const WARNED_AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// Reads the files of a coordinator again when they change.
pub(super) struct Reloader {
    pub(super) tokens: Option<Tokens>,
    pub(super) certificates: Option<Certificates>,
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

/// The certificate and its key, and the authorities of callers.
pub(super) struct Certificates {
    paths: TlsFiles,
    /// Their content when they were good last.
    good: TlsContent,
    /// Where new connections find how they are encrypted.
    newest: watch::Sender<Arc<Tls>>,
    /// Where calls find whose certificates are accepted.
    callers: watch::Sender<Authenticator>,
    /// When somebody was last warned of a certificate that expires soon.
    warned: Option<Instant>,
}

impl Reloader {
    /// Looks at intervals and at each SIGHUP, until `stop` is cancelled. Without such files, SIGHUP does nothing.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (mut of_tokens, mut of_certificates) = (Trouble::new("tokens"), Trouble::new("certificate"));
        loop {
            self.certificates.iter_mut().for_each(Certificates::note_expiry);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.hangups.recv() => tracing::info!("SIGHUP: looking for changed files"),
                () = sleep(LOOK_INTERVAL) => {}
            }
            if let Some(tokens) = &mut self.tokens {
                of_tokens.note(tokens.look().await);
            }
            if let Some(certificates) = &mut self.certificates {
                of_certificates.note(certificates.look().await);
            }
        }
    }
}

impl Tokens {
    /// What tells `newest` the tokens of the file at `path`, whose content is known.
    pub(super) fn new(path: PathBuf, good: TokensFile, newest: watch::Sender<Authenticator>, engine: &Engine) -> Self {
        Self { path, good, newest, engine: engine.clone() }
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
        self.newest.send_modify(|callers| callers.set_credentials(credentials));
        Ok(true)
    }
}

impl Certificates {
    /// What keeps the receiver of the newest TLS up to date and tells `callers` whose certificates are accepted, and the receiver.
    pub(super) fn watch(
        tls: Tls,
        good: TlsContent,
        paths: TlsFiles,
        callers: watch::Sender<Authenticator>,
    ) -> (Self, watch::Receiver<Arc<Tls>>) {
        callers.send_modify(|callers| callers.set_authorities(tls.authorities.clone()));
        let (newest, tls) = watch::channel(Arc::new(tls));
        (Self { paths, good, newest, callers, warned: None }, tls)
    }

    /// Takes the certificates and the key if they have changed. Returns whether they have.
    async fn look(&mut self) -> Result<bool, AppError> {
        let paths = self.paths.clone();
        let read = spawn_blocking(move || TlsContent::read(&paths)).await.expect("reading does not panic")?;
        if self.good == read {
            return Ok(false);
        }
        let tls = read.to_tls(&self.paths)?;
        self.callers.send_modify(|callers| callers.set_authorities(tls.authorities.clone()));
        self.newest.send_replace(Arc::new(tls));
        self.good = read;
        self.warned = None;
        Ok(true)
    }

    /// Keeps the metric of when the certificates expire, and warns once a day if that is soon.
    #[expect(clippy::disallowed_methods, reason = "certificates expire by the wall clock")]
    fn note_expiry(&mut self) {
        let warnings = self.newest.borrow().note_expiry(SystemTime::now());
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARNED_AGAIN) {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            self.warned = Some(Instant::now());
        }
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
