//! A link: calls are made with the newest tokens and certificates.
//!
//! Files are compared by their content. So it does not matter how they are replaced: by a rename, or by a link to another folder, as mounted
//! secrets are. Files that cannot be used change nothing: the last good ones stay in use.

use std::{
    fmt,
    future::pending,
    time::{Duration, SystemTime},
};

use sortinghat_proto::protocol::{PROTOCOL, PROTOCOL_KEY};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::Channel,
};

use crate::{LinkError, Prepared, expiry_warning};

/// How often to look whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often to warn of a certificate that expires soon.
const WARNED_AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// Adds the token to every call, and which contract the caller speaks.
#[derive(Clone)]
pub struct Bearer(pub(crate) Option<MetadataValue<Ascii>>);

/// What a call is made with.
#[derive(Clone)]
pub struct Connection {
    /// The connection. It connects again by itself.
    pub channel: Channel,
    /// The token.
    pub bearer: Bearer,
}

/// A connection to a coordinator that follows its files. It is cheap to clone.
#[derive(Clone)]
pub struct Link {
    newest: watch::Receiver<Connection>,
}

/// A certificate that lies in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expiring {
    /// What the warning is about: "the certificate in FILE".
    pub(crate) what: String,
    pub(crate) expires: SystemTime,
}

impl Link {
    /// Follows the files from now on, on the runtime of the caller, for as long as there is a clone of this.
    pub(crate) fn new(channel: Channel, prepared: Prepared) -> Self {
        let (sender, newest) = watch::channel(prepared.over(channel));
        if prepared.endpoint.has_files() {
            tokio::spawn(follow(prepared, sender));
        }
        Self { newest }
    }

    /// What to make the next call with.
    pub fn newest(&self) -> Connection {
        self.newest.borrow().clone()
    }

    /// Waits until calls are made with something newer than when this was last called.
    pub async fn changed(&mut self) {
        if self.newest.changed().await.is_err() {
            // Nothing lies in files.
            pending::<()>().await;
        }
    }
}

/// Looks at the files until nobody needs that.
async fn follow(mut good: Prepared, newest: watch::Sender<Connection>) {
    let (mut trouble, mut warned) = (None, None);
    loop {
        if warned.is_none_or(|warned: Instant| warned.elapsed() >= WARNED_AGAIN) {
            warn_of_expiry(&good);
            warned = Some(Instant::now());
        }
        tokio::select! {
            () = newest.closed() => return,
            () = sleep(LOOK_INTERVAL) => {}
        }
        let reason = match look(&good).await {
            Ok(None) => None,
            Ok(Some(changed)) => {
                let channel = match changed.content.has_the_same_certificates(&good.content) {
                    true => newest.borrow().channel.clone(),
                    false => changed.lazily(),
                };
                newest.send_replace(changed.over(channel));
                tracing::info!(
                    "the token or the certificates for the coordinator changed, and the new ones are in use"
                );
                (good, warned) = (changed, None);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason.as_ref().filter(|_| reason != trouble) {
            tracing::warn!(
                reason,
                "what is shown to the coordinator changed and cannot be used: the last good content stays in use"
            );
        }
        trouble = reason;
    }
}

/// Reads the files; `None` if they have not changed.
async fn look(good: &Prepared) -> Result<Option<Prepared>, LinkError> {
    let endpoint = good.endpoint.clone();
    // A folder on another machine may hang.
    let read = spawn_blocking(move || endpoint.read()).await.expect("reading does not panic")?;
    if read == good.content {
        return Ok(None);
    }
    good.endpoint.prepare_with(read, good.pace).map(Some)
}

#[expect(clippy::disallowed_methods, reason = "certificates expire by the wall clock")]
fn warn_of_expiry(prepared: &Prepared) {
    for Expiring { what, expires } in &prepared.expiring {
        if let Some(warning) = expiry_warning(what, *expires, SystemTime::now()) {
            tracing::warn!("{warning}");
        }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request.metadata_mut().insert(PROTOCOL_KEY, PROTOCOL.into());
        Ok(request)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("link")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use crate::{Endpoint, Pace, Source};

    use super::*;

    const PACE: Pace = Pace {
        connect_timeout: Duration::from_secs(1),
        keepalive_interval: Duration::from_secs(20),
        keepalive_timeout: Duration::from_secs(10),
    };

    /// Makes the folder's token another one, as mounted secrets change: by a link to another folder.
    fn mount(folder: &Path, version: &str, token: &str) {
        fs::create_dir(folder.join(version)).expect("writable");
        fs::write(folder.join(version).join("token"), token).expect("writable");
        symlink(version, folder.join("..next")).expect("writable");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("writable");
    }

    fn shown(link: &Link) -> String {
        let request = link.newest().bearer.call(Request::new(())).expect("it adds a token");
        request.metadata().get("authorization").expect("a token").to_str().expect("text").to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_shown_as_soon_as_it_is_replaced_and_one_that_cannot_be_used_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        mount(folder.path(), "1", "one\n");
        symlink("..data/token", folder.path().join("token")).expect("writable");
        let token = Some(Source::File(folder.path().join("token")));
        let endpoint = Endpoint { token, ..Endpoint::local("http://127.0.0.1:1") };
        let mut link = endpoint.prepare(PACE).expect("a token").link_lazily();
        assert_eq!(shown(&link), "Bearer one");
        let swapped = Instant::now();
        mount(folder.path(), "2", "two\n");
        link.changed().await;
        assert_eq!(shown(&link), "Bearer two");
        assert!(swapped.elapsed() <= LOOK_INTERVAL, "{:?}", swapped.elapsed());
        mount(folder.path(), "3", "\n");
        sleep(5 * LOOK_INTERVAL).await;
        assert_eq!(shown(&link), "Bearer two");
        mount(folder.path(), "4", "four\n");
        link.changed().await;
        assert_eq!(shown(&link), "Bearer four");
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_in_no_file_never_changes() {
        let mut link = Endpoint::local("http://127.0.0.1:1").prepare(PACE).expect("an address").link_lazily();
        let changed = tokio::time::timeout(Duration::from_secs(3_600), link.changed());
        changed.await.expect_err("it waits for ever");
    }
}
