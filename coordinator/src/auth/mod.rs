//! Authentication: who calls, and what the caller may do.

mod certificate;
mod credentials;
mod identity;
mod token;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use sortinghat_proto::{Refusal, Tenant, time::UnixMs};
use tonic::Status;

pub use certificate::{Authorities, ShownCertificate};
pub use credentials::{Credentials, CredentialsError, TokensFile};
pub use identity::{Caller, Proof, Role, Served, Sight};

/// Identifies callers. It is cheap to clone.
#[derive(Debug, Clone)]
pub enum Authenticator {
    /// Every caller is [`Caller::everyone`]. For loopback only.
    Open,
    /// Callers send `authorization: Bearer TOKEN`, or show a certificate when they connect.
    Known {
        /// The content of the tokens file.
        credentials: Arc<Credentials>,
        /// Those whose certificates are accepted; `None` if no certificate is.
        authorities: Option<Authorities>,
    },
}

impl From<Credentials> for Authenticator {
    fn from(credentials: Credentials) -> Self {
        Self::Known { credentials: Arc::new(credentials), authorities: None }
    }
}

impl Authenticator {
    /// The weights of tenants in the fair share of workers. A tenant that is not listed has the weight 1.
    pub fn weights(&self) -> HashMap<Tenant, u32> {
        match self {
            Self::Open => HashMap::new(),
            Self::Known { credentials, .. } => credentials.weights().clone(),
        }
    }

    /// Knows the callers of a newer tokens file from now on.
    pub fn set_credentials(&mut self, newer: Credentials) {
        if let Self::Known { credentials, .. } = self {
            *credentials = Arc::new(newer);
        }
    }

    /// Accepts the certificates of these authorities from now on, and no others.
    pub fn set_authorities(&mut self, newer: Option<Authorities>) {
        if let Self::Known { authorities, .. } = self {
            *authorities = newer;
        }
    }

    /// The caller whose token is in `headers`, or else who has shown this certificate, at the time `now`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, with a message that says whether the token or certificate is missing, malformed, unknown, expired or revoked.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<&ShownCertificate>,
        now: UnixMs,
    ) -> Result<Caller, Status> {
        let (credentials, authorities) = match self {
            Self::Open => return Ok(Caller::everyone()),
            Self::Known { credentials, authorities } => (credentials, authorities),
        };
        let refused = |rejected: credentials::Rejected| Refusal::unauthenticated(rejected.to_string());
        let header = match (headers.get(AUTHORIZATION), certificate) {
            (Some(header), _) => header,
            (None, Some(certificate)) => {
                let accepted = authorities.as_ref().is_some_and(|authorities| certificate.is_accepted_by(authorities));
                return credentials.caller_with(certificate, accepted, now).map_err(refused);
            }
            (None, None) => {
                let or =
                    if authorities.is_some() { ", or, as a worker, show a certificate when you connect" } else { "" };
                let message = format!("a token is required: send the metadata `authorization: Bearer TOKEN`{or}");
                return Err(Refusal::unauthenticated(message));
            }
        };
        let token = header
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| Refusal::unauthenticated("the authorization header is malformed: write `Bearer TOKEN`"))?;
        credentials.caller(token, now).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const TOKENS: &str = r#"
        [[tokens]]
        id = "anna"
        sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" # "test"
        tenant = "team-a"
        role = "user"
        expires = "1970-01-01T00:00:10Z"
        [[tokens]]
        id = "bob"
        sha256 = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752" # "test2"
        tenant = "team-a"
        role = "user"
        revoked = true
    "#;

    fn authenticate(header: Option<&str>, now: u64) -> Result<Caller, Status> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(AUTHORIZATION, value.parse().expect("a header value"));
        }
        Authenticator::from(Credentials::parse(TOKENS).expect("valid")).authenticate(&headers, None, UnixMs(now))
    }

    #[test]
    fn a_known_token_gives_its_identity() {
        let caller = authenticate(Some("Bearer test"), 9_999).expect("known");
        assert_eq!((caller.id.as_str(), caller.role), ("anna", Role::User));
        assert_eq!(caller.tenant, Some("team-a".parse().expect("a tenant")));
        assert_eq!((caller.serves, caller.expires), (Served::none(), Some(UnixMs(10_000))));
    }

    #[test]
    fn each_token_that_is_not_valid_is_refused_for_its_own_reason() {
        for (header, reason) in [
            (None, "required"),
            (Some("test"), "malformed"),
            (Some("Basic test"), "malformed"),
            (Some("Bearer x"), "not known"),
            (Some("Bearer test"), "expired at 1970-01-01T00:00:10Z"),
            (Some("Bearer test2"), "revoked"),
        ] {
            let status = authenticate(header, 10_000).expect_err("refused");
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(status.message().contains(reason), "{header:?}: {}", status.message());
        }
    }

    #[test]
    fn without_credentials_every_caller_is_user_worker_and_operator() {
        let caller = Authenticator::Open.authenticate(&HeaderMap::new(), None, UnixMs(0)).expect("open");
        assert_eq!(caller, Caller::everyone());
        assert!(caller.serves.has(&Tenant::local()) && caller.tenant == Some(Tenant::local()));
    }
}
