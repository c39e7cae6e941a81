//! Fetches files of weights from the Hugging Face hub, and keeps them.

use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use object_store::{BackoffConfig, ObjectStoreExt as _, RetryConfig, http::HttpBuilder};
use safetensors::SafeTensors;
use secrecy::{ExposeSecret as _, SecretString};
use sortinghat_objects::{client_options, in_short};
use sortinghat_proto::secrets::{refuse_secrets, without_secrets};
use tempfile::NamedTempFile;
use url::Url;

use crate::objects::sealed;

const PUBLIC: &str = "https://huggingface.co";
/// Two short retries are enough, because the job is retried as well.
const RETRIES: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a download may stall. The whole of it may take as long as the connection needs.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A hub: the public one or a private one.
pub(super) struct Hub {
    endpoint: Url,
    token: Option<SecretString>,
    /// Where its files are kept.
    folder: PathBuf,
}

/// What the hub is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Showing {
    /// Nothing: it gives what it gives to everybody.
    Nothing,
    /// The operator's token, if there is one.
    Token,
}

/// Why the hub cannot be asked, as its variables are set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubSettingsError {
    /// The address is none, or it holds a secret, which would be shown wherever the address is.
    #[error(
        "HF_ENDPOINT is {shown:?}: write https://HOST[:PORT] without a user or a password, and set HF_TOKEN for a private hub"
    )]
    Endpoint {
        /// As it was given, without secrets.
        shown: String,
    },
    /// The token cannot be sent.
    #[error("HF_TOKEN holds characters that cannot be sent: set it to the token alone")]
    Token,
}

/// Why a file could not be had from the hub. The messages are for tenants: without addresses, folders and what the hub has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HubError {
    /// The hub does not have it.
    #[error("the hub of models has no such file")]
    Missing,
    /// The hub says this of a repository that is not public, and also of one that does not exist.
    #[error("the hub of models refuses it: there is no such repository, or it is not public")]
    Denied,
    /// The hub does not answer, or not as it should.
    #[error("the hub of models could not be asked")]
    Unavailable,
    /// The worker has no room for it.
    #[error("the worker could not keep what the hub of models has sent")]
    NoRoom,
}

impl Hub {
    /// The hub that Hugging Face's own tools would use: at `HF_ENDPOINT`, with `HF_TOKEN`.
    ///
    /// # Errors
    /// [`HubSettingsError`].
    pub(super) fn from_env(folder: PathBuf) -> Result<Self, HubSettingsError> {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self::at(&set("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned()), set("HF_TOKEN"), folder)
    }

    fn at(endpoint: &str, token: Option<String>, folder: PathBuf) -> Result<Self, HubSettingsError> {
        let url = refuse_secrets(endpoint).ok().and_then(|endpoint| Url::parse(&endpoint).ok());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let unusable = || HubSettingsError::Endpoint { shown: without_secrets(endpoint).into_owned() };
        let hub = Self { endpoint: url.ok_or_else(unusable)?, token: token.map(SecretString::from), folder };
        hub.bearer()?;
        Ok(hub)
    }

    /// What shows the token to the hub, if there is a token.
    fn bearer(&self) -> Result<Option<HeaderValue>, HubSettingsError> {
        let Some(token) = &self.token else { return Ok(None) };
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
        let mut bearer = bearer.map_err(|_| HubSettingsError::Token)?;
        bearer.set_sensitive(true);
        Ok(Some(bearer))
    }

    /// A file of a repository `owner/name`, as its main branch had it when it was first fetched for whoever `showing` says. What went wrong
    /// is logged for operators.
    pub(super) fn fetch(&self, repository: &str, file: &str, showing: Showing) -> Result<File, HubError> {
        // What one may read with the token, another may not read without it.
        let kept = match showing {
            Showing::Token if self.token.is_some() => self.folder.join("with-token"),
            Showing::Token | Showing::Nothing => self.folder.clone(),
        };
        let folder = kept.join(repository);
        if let Ok(file) = File::open(folder.join(file)) {
            return Ok(file);
        }
        let bytes = self.download(repository, file, showing).map_err(|error| {
            let reason = harmless(&error);
            tracing::warn!(hub = %self.endpoint, repository, file, reason, "failed to fetch from the hub");
            error_of(&error)
        })?;
        // Anything else, perhaps the page of a proxy, is not kept, so that the next call fetches again.
        let opened = match SafeTensors::deserialize(&bytes) {
            Ok(_) => keep(&bytes, &folder, file),
            Err(_) => sealed::sealed(&bytes).map(File::from),
        };
        opened.map_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "failed to keep a file of the hub");
            HubError::NoRoom
        })
    }

    fn download(&self, repository: &str, file: &str, showing: Showing) -> object_store::Result<Vec<u8>> {
        let is_plain_http = self.endpoint.scheme() == "http";
        let mut client = client_options(is_plain_http).with_timeout_disabled().with_read_timeout(READ_TIMEOUT);
        let bearer = self.bearer().ok().flatten().filter(|_| showing == Showing::Token);
        if let Some(bearer) = bearer {
            client = client.with_default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
        }
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT };
        let endpoint = self.endpoint.as_str().trim_end_matches('/');
        let store = HttpBuilder::new().with_url(endpoint).with_client_options(client).with_retry(retry).build()?;
        let generic = |error: io::Error| object_store::Error::Generic { store: "hub", source: error.into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(generic)?;
        let place = format!("{repository}/resolve/main/{file}").into();
        let fetched = runtime.block_on(async { store.get(&place).await?.bytes().await })?;
        Ok(fetched.into())
    }
}

/// What an error of the hub means for a tenant.
fn error_of(error: &object_store::Error) -> HubError {
    match error {
        object_store::Error::NotFound { .. } => HubError::Missing,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => HubError::Denied,
        _ => HubError::Unavailable,
    }
}

/// What an error says, without the rest of the answer and without the signatures in the addresses that a hub redirects to.
fn harmless(error: &object_store::Error) -> String {
    let words = in_short(error);
    words.split(' ').map(without_secrets).collect::<Vec<_>>().join(" ")
}

/// Puts a file into a folder, completely or not at all, and opens it.
fn keep(bytes: &[u8], folder: &Path, file: &str) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let mut unfinished = NamedTempFile::new_in(folder)?;
    unfinished.write_all(bytes)?;
    unfinished.persist(folder.join(file))?;
    File::open(folder.join(file))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        net::{SocketAddr, TcpListener},
        thread,
    };

    use safetensors::{Dtype, tensor::TensorView};

    use super::*;

    /// Answers one call, and returns the lines that it asked with.
    fn answer_one(response: Vec<u8>) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            let (mut socket, _) = listener.accept().unwrap();
            let lines = BufReader::new(&socket).lines().map(Result::unwrap);
            let request = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
            socket.write_all(&response).unwrap();
            request
        };
        (address, thread::spawn(serve))
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    fn hub(address: SocketAddr, folder: &Path) -> Hub {
        Hub::at(&format!("http://{address}"), Some("secret".to_owned()), folder.to_owned()).unwrap()
    }

    fn content(mut file: File) -> Vec<u8> {
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn a_file_is_fetched_from_where_the_hub_redirects_to_and_then_kept() {
        let weights = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        let weights = safetensors::serialize([("weight", weights)], None).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let (storage, stored) = answer_one(ok(&weights));
        let moved = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://{storage}/blob\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let (address, asked) = answer_one(moved.into_bytes());
        let hub = hub(address, cache.path());
        let fetch = |showing| hub.fetch("owner/name", "model.safetensors", showing);
        assert_eq!(content(fetch(Showing::Token).unwrap()), weights);
        let asked = asked.join().unwrap();
        assert_eq!(asked[0], "get /owner/name/resolve/main/model.safetensors http/1.1");
        assert!(asked.contains(&"authorization: bearer secret".to_owned()), "{asked:?}");
        let stored = stored.join().unwrap();
        assert!(
            !stored.iter().any(|line| line.starts_with("authorization")),
            "the token is the hub's alone: {stored:?}"
        );
        assert_eq!(content(fetch(Showing::Token).unwrap()), weights, "nobody listens any more");
        fetch(Showing::Nothing).expect_err("what was fetched with the token is not for who has none");
    }

    #[test]
    fn the_operators_token_is_not_shown_for_a_tenant() {
        let cache = tempfile::tempdir().unwrap();
        let (address, asked) = answer_one(ok(b"public"));
        hub(address, cache.path()).fetch("owner/name", "model.safetensors", Showing::Nothing).unwrap();
        let asked = asked.join().unwrap();
        assert!(!asked.iter().any(|line| line.contains("secret")), "{asked:?}");
    }

    #[test]
    fn a_file_that_holds_no_weights_is_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        let (address, asked) = answer_one(ok(b"<html>Log in to the network"));
        let hub = hub(address, cache.path());
        let fetch = || hub.fetch("owner/name", "model.safetensors", Showing::Token);
        assert!(content(fetch().unwrap()).starts_with(b"<html>"), "whoever loads it says what it is");
        asked.join().unwrap();
        assert_eq!(fetch().unwrap_err(), HubError::Unavailable, "nobody listens any more");
    }

    #[test]
    fn a_tenant_is_told_whether_the_hub_has_refuses_or_does_not_answer_and_never_where_it_is() {
        for (status, error) in [
            ("404 Not Found", HubError::Missing),
            ("401 Unauthorized", HubError::Denied),
            ("403 Forbidden", HubError::Denied),
            ("418 I'm a teapot", HubError::Unavailable),
        ] {
            let cache = tempfile::tempdir().unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let (address, asked) = answer_one(answer.into_bytes());
            let told = hub(address, cache.path()).fetch("owner/name", "model.safetensors", Showing::Token).unwrap_err();
            asked.join().unwrap();
            assert_eq!(told, error, "{status}");
            assert!(!told.to_string().contains("127.0.0.1"), "{told}");
        }
    }

    #[test]
    fn an_address_with_a_password_and_a_token_that_cannot_be_sent_are_refused_at_the_start_without_showing_them() {
        let refused = |endpoint, token: &str| match Hub::at(endpoint, Some(token.to_owned()), PathBuf::new()) {
            Err(refused) => refused.to_string(),
            Ok(_) => panic!("{endpoint} {token} would be used"),
        };
        for endpoint in ["https://anna:hunter2@hub", "https://hub?key=hunter2", "hub.example.org", "ftp://hub"] {
            let refused = refused(endpoint, "secret");
            assert!(refused.contains("HF_ENDPOINT") && !refused.contains("hunter2"), "{refused}");
        }
        let refused = refused(PUBLIC, "hunter2\n");
        assert!(refused.contains("HF_TOKEN") && !refused.contains("hunter2"), "{refused}");
    }
}
