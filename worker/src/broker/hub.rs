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
use sortinghat_objects::client_options;
use tempfile::NamedTempFile;

use crate::objects::sealed;

const PUBLIC: &str = "https://huggingface.co";
/// Two short retries are enough, because the job is retried as well.
const RETRIES: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a download may stall. The whole of it may take as long as the connection needs.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A hub: the public one or a private one.
pub(super) struct Hub {
    endpoint: String,
    token: Option<String>,
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

impl Hub {
    /// The hub that Hugging Face's own tools would use: at `HF_ENDPOINT`, with `HF_TOKEN`.
    pub(super) fn from_env(folder: PathBuf) -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self { endpoint: set("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned()), token: set("HF_TOKEN"), folder }
    }

    /// A file of a repository `owner/name`, as its main branch had it when it was first fetched for whoever `showing` says. The error is
    /// the reason, for people.
    pub(super) fn fetch(&self, repository: &str, file: &str, showing: Showing) -> Result<File, String> {
        // What one may read with the token, another may not read without it.
        let kept = match showing {
            Showing::Token if self.token.is_some() => self.folder.join("with-token"),
            Showing::Token | Showing::Nothing => self.folder.clone(),
        };
        let folder = kept.join(repository);
        if let Ok(file) = File::open(folder.join(file)) {
            return Ok(file);
        }
        let bytes = self.download(repository, file, showing);
        let bytes = bytes.map_err(|reason| format!("the hub's {repository}/{file} ({reason})"))?;
        // Anything else, perhaps the page of a proxy, is not kept, so that the next call fetches again.
        let opened = match SafeTensors::deserialize(&bytes) {
            Ok(_) => keep(&bytes, &folder, file),
            Err(_) => sealed::sealed(&bytes).map(File::from),
        };
        opened.map_err(|error| format!("{} ({error})", folder.display()))
    }

    fn download(&self, repository: &str, file: &str, showing: Showing) -> Result<Vec<u8>, String> {
        let is_plain_http = self.endpoint.starts_with("http://");
        let mut client = client_options(is_plain_http).with_timeout_disabled().with_read_timeout(READ_TIMEOUT);
        if let Some(token) = self.token.as_ref().filter(|_| showing == Showing::Token) {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            let mut bearer = bearer.map_err(|_| "HF_TOKEN holds characters that no header can".to_owned())?;
            bearer.set_sensitive(true);
            client = client.with_default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
        }
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT };
        let store = HttpBuilder::new().with_url(&self.endpoint).with_client_options(client).with_retry(retry).build();
        let store = store.map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let place = format!("{repository}/resolve/main/{file}").into();
        let fetched = runtime
            .map_err(|error| error.to_string())?
            .block_on(async { store.get(&place).await?.bytes().await })
            .map_err(|error| error.to_string())?;
        Ok(fetched.into())
    }
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
        Hub { endpoint: format!("http://{address}"), token: Some("secret".to_owned()), folder: folder.to_owned() }
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
        let reason = fetch().unwrap_err();
        assert!(reason.starts_with("the hub's owner/name/model.safetensors"), "{reason}");
    }
}
