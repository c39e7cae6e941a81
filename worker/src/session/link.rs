//! The connection to the coordinator: address, certificates, token.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use sortinghat_proto::{
    limits,
    v1::{SynchronizeRequest, SynchronizeResponse, worker_service_client::WorkerServiceClient},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use url::{Host, Url};

use crate::config::RunArgs;

/// The variable that holds the token where there is no file of it. There is no option for it, since everybody on the machine can read the
/// arguments of a process.
pub(super) const TOKEN_VARIABLE: &str = "SORTINGHAT_TOKEN";

/// Why a connection to the coordinator cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address cannot be used.
    #[error("coordinator {url}: {reason}")]
    BadUrl {
        /// As it was given.
        url: Url,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read.
    #[error("failed to read {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Calls the coordinator; connects at the first call.
#[derive(Debug, Clone)]
pub(super) struct Link {
    client: WorkerServiceClient<Channel>,
    token: Token,
}

#[derive(Clone)]
enum Token {
    None,
    Fixed(String),
    /// Read for every call, so that a token can be replaced while the worker runs.
    File(PathBuf),
}

impl Link {
    /// A link to the coordinator that `args` name. `token` is shown where there is no file of one.
    pub(super) fn new(args: &RunArgs, token: Option<String>) -> Result<Self, LinkError> {
        let token = match (&args.token_file, token) {
            (Some(path), _) => Token::File(path.clone()),
            (None, Some(token)) => Token::Fixed(token),
            (None, None) => Token::None,
        };
        token.read()?;
        let url = &args.coordinator;
        let bad = |reason: String| LinkError::BadUrl { url: url.clone(), reason };
        let endpoint = Endpoint::from_shared(url.to_string()).map_err(|error| bad(error.to_string()))?;
        let mut endpoint = endpoint
            .connect_timeout(Duration::from_secs(3))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .tcp_nodelay(true);
        match url.scheme() {
            "https" => {
                endpoint = endpoint.tls_config(tls(args)?).map_err(|error| bad(error.to_string()))?;
            }
            "http" if !matches!(token, Token::None) && !is_loopback(url) => {
                return Err(bad("without TLS everybody on the way could read the token; use https://".into()));
            }
            "http" => {}
            scheme => return Err(bad(format!("{scheme}:// is not supported; use http:// or https://"))),
        }
        let client = WorkerServiceClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(limits::MAX_MESSAGE_BYTES);
        Ok(Self { client, token })
    }

    /// Sends one message and returns its answer, which must come within `bound`.
    pub(super) async fn synchronize(
        &mut self,
        message: SynchronizeRequest,
        bound: Duration,
    ) -> Result<SynchronizeResponse, Status> {
        let mut request = Request::new(message);
        if let Some(token) = self.token.read().map_err(|error| Status::unauthenticated(error.to_string()))? {
            request.metadata_mut().insert("authorization", token);
        }
        let answer = tokio::time::timeout(bound, self.client.synchronize(request)).await;
        let late = |_| Status::deadline_exceeded(format!("no answer within {} ms", bound.as_millis()));
        answer.map_err(late)?.map(tonic::Response::into_inner)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Fixed(_) => f.write_str("hidden"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl Token {
    fn read(&self) -> Result<Option<MetadataValue<Ascii>>, LinkError> {
        let (text, path) = match self {
            Self::None => return Ok(None),
            Self::Fixed(token) => (token.clone(), TOKEN_VARIABLE.into()),
            Self::File(path) => (
                fs::read_to_string(path).map_err(|source| LinkError::File { path: path.clone(), source })?,
                path.clone(),
            ),
        };
        let unusable = |_| LinkError::File { path, source: io::Error::other("not a token") };
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim()).parse().map_err(unusable)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Trusts the certificates of `--ca-file`, or else those of the system.
fn tls(args: &RunArgs) -> Result<ClientTlsConfig, LinkError> {
    let Some(path) = &args.ca_file else { return Ok(ClientTlsConfig::new().with_native_roots()) };
    let pem = fs::read(path).map_err(|source| LinkError::File { path: path.clone(), source })?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Command, CommandLine};
    use clap::Parser as _;

    fn link(arguments: &[&str], token: Option<&str>) -> Result<Link, LinkError> {
        let line = ["sortinghat-worker", "run", "--coordinator"].iter().chain(arguments);
        match CommandLine::try_parse_from(line).unwrap().command {
            Command::Run(args) => Link::new(&args, token.map(str::to_owned)),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_token_is_never_sent_without_tls_to_another_machine() {
        let error = link(&["http://10.0.0.1:7878"], Some("secret")).unwrap_err();
        assert!(error.to_string().contains("use https://"), "{error}");
        link(&["http://127.0.0.1:7878"], Some("secret")).expect("loopback stays on this machine");
    }

    #[tokio::test]
    async fn an_absent_token_file_is_named_at_the_start() {
        let error = link(&["http://127.0.0.1:1", "--token-file", "/nonexistent/token"], None).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/token"), "{error}");
    }

    #[tokio::test]
    async fn another_scheme_is_refused() {
        assert!(matches!(link(&["ftp://127.0.0.1"], None), Err(LinkError::BadUrl { .. })));
    }
}
