//! Authentication: who calls, and what the caller may do.

mod credentials;

use std::collections::HashMap;

use http::{HeaderMap, header::AUTHORIZATION};
use serde::Deserialize;
use sortinghat_proto::{Refusal, Tenant};
use tonic::Status;

pub use credentials::{Credentials, CredentialsError};

/// An authenticated caller. Handlers find it in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant whose jobs and objects the caller sees.
    pub tenant: Tenant,
    /// What the caller may do.
    pub role: Role,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Submits jobs and reads their results.
    User,
    /// Runs tasks of every tenant.
    Worker,
    /// May do what users and workers may do.
    Admin,
}

impl Role {
    /// The role's name in the tokens file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }
}

/// Identifies callers.
#[derive(Debug, Clone)]
pub enum Authenticator {
    /// Every caller is the admin of [`Tenant::local`]. For loopback only.
    Open,
    /// Callers send `authorization: Bearer TOKEN`.
    Tokens(Credentials),
}

impl Authenticator {
    /// The weights of tenants in the fair share of workers. A tenant that is not listed has the weight 1.
    pub fn weights(&self) -> HashMap<Tenant, u32> {
        match self {
            Self::Open => HashMap::new(),
            Self::Tokens(credentials) => credentials.weights().clone(),
        }
    }

    /// Whether users of more than one tenant may call.
    pub fn has_several_tenants(&self) -> bool {
        match self {
            Self::Open => false,
            Self::Tokens(credentials) => credentials.has_several_tenants(),
        }
    }

    /// The caller whose token is in `headers`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, with a message that says whether the token is missing, malformed or unknown.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let credentials = match self {
            Self::Open => return Ok(Caller { tenant: Tenant::local(), role: Role::Admin }),
            Self::Tokens(credentials) => credentials,
        };
        let header = headers.get(AUTHORIZATION).ok_or_else(|| {
            Refusal::unauthenticated("a token is required: send the metadata `authorization: Bearer TOKEN`")
        })?;
        let token = header
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| Refusal::unauthenticated("the authorization header is malformed: write `Bearer TOKEN`"))?;
        credentials
            .find(token)
            .ok_or_else(|| Refusal::unauthenticated("the token is not known here: ask for a new one"))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const TOKENS: &str = r#"
        [[tokens]]
        sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" # "test"
        tenant = "team-a"
        role = "user"
    "#;

    fn authenticate(header: Option<&str>) -> Result<Caller, Status> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(AUTHORIZATION, value.parse().expect("a header value"));
        }
        Authenticator::Tokens(Credentials::parse(TOKENS).expect("valid")).authenticate(&headers)
    }

    #[test]
    fn a_known_token_gives_its_tenant_and_role() {
        let caller = authenticate(Some("Bearer test")).expect("known");
        assert_eq!((caller.tenant.as_str(), caller.role), ("team-a", Role::User));
    }

    #[test]
    fn missing_malformed_and_unknown_tokens_are_each_refused_for_their_own_reason() {
        for (header, reason) in [
            (None, "required"),
            (Some("test"), "malformed"),
            (Some("Basic test"), "malformed"),
            (Some("Bearer x"), "not known"),
        ] {
            let status = authenticate(header).expect_err("refused");
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(status.message().contains(reason), "{header:?}: {}", status.message());
        }
    }

    #[test]
    fn without_credentials_every_caller_is_the_local_admin() {
        let caller = Authenticator::Open.authenticate(&HeaderMap::new()).expect("open");
        assert_eq!((caller.tenant, caller.role), (Tenant::local(), Role::Admin));
    }
}
