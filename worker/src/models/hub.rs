//! Fetches files of weights from the Hugging Face hub, and keeps them.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use object_store::{BackoffConfig, ObjectStoreExt as _, RetryConfig, http::HttpBuilder};
use safetensors::SafeTensors;
use sortinghat_objects::client_options;
use tempfile::NamedTempFile;

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
}

impl Hub {
    /// The hub that Hugging Face's own tools would use: at `HF_ENDPOINT`, with `HF_TOKEN`.
    pub(super) fn from_env() -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self { endpoint: set("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned()), token: set("HF_TOKEN") }
    }

    /// A file of a repository `owner/name`, as its main branch had it when it was first fetched into `cache_dir`. The error is the
    /// reason, for people.
    pub(super) fn fetch(&self, repository: &str, file: &str, cache_dir: &Path) -> Result<Vec<u8>, String> {
        let folder = cache_dir.join(repository);
        if let Ok(bytes) = fs::read(folder.join(file)) {
            return Ok(bytes);
        }
        let bytes =
            self.download(repository, file).map_err(|reason| format!("the hub's {repository}/{file} ({reason})"))?;
        // Anything else, perhaps the page of a proxy, is not kept, so that the next call fetches again.
        if SafeTensors::deserialize(&bytes).is_ok() {
            keep(&bytes, &folder, file).map_err(|error| format!("{} ({error})", folder.display()))?;
        }
        Ok(bytes)
    }

    fn download(&self, repository: &str, file: &str) -> Result<Vec<u8>, String> {
        let is_plain_http = self.endpoint.starts_with("http://");
        let mut client = client_options(is_plain_http).with_timeout_disabled().with_read_timeout(READ_TIMEOUT);
        if let Some(token) = &self.token {
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

/// Puts a file into a folder, completely or not at all.
fn keep(bytes: &[u8], folder: &Path, file: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut unfinished = NamedTempFile::new_in(folder)?;
    unfinished.write_all(bytes)?;
    unfinished.persist(folder.join(file))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
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

    fn hub(address: SocketAddr) -> Hub {
        Hub { endpoint: format!("http://{address}"), token: Some("secret".to_owned()) }
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
        let hub = hub(address);
        let fetch = || hub.fetch("owner/name", "model.safetensors", cache.path());
        assert_eq!(fetch().unwrap(), weights);
        let asked = asked.join().unwrap();
        assert_eq!(asked[0], "get /owner/name/resolve/main/model.safetensors http/1.1");
        assert!(asked.contains(&"authorization: bearer secret".to_owned()), "{asked:?}");
        let stored = stored.join().unwrap();
        assert!(
            !stored.iter().any(|line| line.starts_with("authorization")),
            "the token is the hub's alone: {stored:?}"
        );
        assert_eq!(fetch().unwrap(), weights, "nobody listens any more");
    }

    #[test]
    fn a_file_that_holds_no_weights_is_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        let (address, asked) = answer_one(ok(b"<html>Log in to the network"));
        let hub = hub(address);
        hub.fetch("owner/name", "model.safetensors", cache.path()).unwrap();
        asked.join().unwrap();
        let reason = hub.fetch("owner/name", "model.safetensors", cache.path()).unwrap_err();
        assert!(reason.starts_with("the hub's owner/name/model.safetensors"), "{reason}");
    }
}
