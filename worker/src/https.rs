//! HTTPS, for object stores and the hub alike.

use std::time::Duration;

use object_store::ClientOptions;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Options of a client that speaks to `endpoint`: without TLS only where that is spelled `http://`.
pub(crate) fn client_options(endpoint: &str) -> ClientOptions {
    // The client brings no ciphers of its own. An error says that they have been chosen before, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_allow_http(endpoint.starts_with("http://"))
}
