//! Reading the tokens file again, while calls go on: after each change, at most [`LOOK_INTERVAL`] later, and when the process gets SIGHUP.
//!
//! The file is compared by its content. So it does not matter how it is replaced: by a rename, or by a link to another folder, as mounted
//! secrets are. A file that cannot be used changes nothing: the tokens of the last good one stay valid.

use std::{path::PathBuf, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Authenticator, Credentials, CredentialsError, TokensFile},
    engine::Engine,
};

/// How often to look whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// 1 while the newest tokens file cannot be used, and an older one is in use.
const STALE: &str = "sortinghat_tokens_file_stale";

/// Reads the tokens file again when it changes.
pub(super) struct Reloader {
    /// The tokens file; `None` on a coordinator that has none.
    pub(super) path: Option<PathBuf>,
    /// Its content when it was read last.
    pub(super) seen: Option<TokensFile>,
    /// Where the newest tokens are told.
    pub(super) tokens: watch::Sender<Authenticator>,
    pub(super) engine: Engine,
}

impl Reloader {
    /// Looks at intervals and at each SIGHUP, until `stop` is cancelled. Without a tokens file, SIGHUP does nothing.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut hangups = signal(SignalKind::hangup()).expect("the system accepts signal handlers");
        let mut trouble = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangups.recv() => tracing::info!("SIGHUP: looking for changed files"),
                () = sleep(LOOK_INTERVAL) => {}
            }
            let Some(path) = self.path.clone() else { continue };
            let now = self.look(path).await.err().map(|error| error.to_string());
            if now != trouble {
                if let Some(reason) = &now {
                    tracing::error!(
                        reason,
                        "the changed tokens file cannot be used: the tokens of the last good one stay valid"
                    );
                }
                metrics::gauge!(STALE).set(if now.is_some() { 1.0 } else { 0.0 });
                trouble = now;
            }
        }
    }

    /// Takes the tokens of the file if it has changed since it was seen.
    async fn look(&mut self, path: PathBuf) -> Result<(), CredentialsError> {
        // A folder on another machine may hang.
        let read =
            tokio::task::spawn_blocking(move || TokensFile::read(&path)).await.expect("reading does not panic")?;
        if self.seen.as_ref() == Some(&read) {
            return Ok(());
        }
        let credentials = Credentials::try_from(&read)?;
        tracing::info!("the tokens file has changed: its tokens are valid from now on");
        metrics::counter!("sortinghat_tokens_file_reloads_total").increment(1);
        self.seen = Some(read);
        self.engine.set_weights(credentials.weights().clone());
        self.tokens.send_replace(credentials.into());
        Ok(())
    }
}
