//! The tokens file, which holds hashes of tokens and never the tokens themselves.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sortinghat_proto::{Digest, Tenant, limits::MAX_TENANT_WEIGHT};
use subtle::ConstantTimeEq as _;

use super::{Caller, Role};

/// The callers, by the SHA-256 of their tokens.
///
/// A plain hash is enough, since tokens are random and not chosen by people: `openssl rand -hex 32` makes a token, and
/// `printf %s TOKEN | sha256sum` its hash.
#[derive(Debug, Clone)]
pub struct Credentials {
    tokens: Vec<Token>,
    weights: HashMap<Tenant, u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    sha256: Digest,
    tenant: Tenant,
    role: Role,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantLine {
    name: Tenant,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    tokens: Vec<Token>,
    #[serde(default)]
    tenants: Vec<TenantLine>,
}

/// Why a tokens file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("failed to read the tokens file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML with the documented keys.
    #[error("failed to understand the tokens file: {0}")]
    Malformed(#[from] toml::de::Error),
    /// The file lists no token, so nobody could call.
    #[error("the tokens file has no [[tokens]], so nobody could call: add one")]
    Empty,
    /// The file lists one token for two callers.
    #[error("the tokens file has sha256 {0} twice: remove one of them")]
    Duplicate(Digest),
    /// The file has a weight for a tenant without a token, which would have no effect.
    #[error("the tokens file has a weight for tenant {0}, which has no token")]
    UnknownTenant(Tenant),
    /// The file has two weights for one tenant.
    #[error("the tokens file has two weights for tenant {0}")]
    TwoWeights(Tenant),
    /// A weight is out of bounds. A tenant with the weight 0 would wait for ever.
    #[error("the weight of tenant {tenant} must be 1 to {MAX_TENANT_WEIGHT}, not {weight}")]
    BadWeight {
        /// The tenant.
        tenant: Tenant,
        /// The weight in the file.
        weight: u32,
    },
}

impl Credentials {
    /// Reads the credentials from a file.
    ///
    /// # Errors
    /// [`CredentialsError`], which never shows a token, since the file holds none.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let text = fs::read_to_string(path)
            .map_err(|source| CredentialsError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Parses the text of a tokens file.
    ///
    /// # Errors
    /// As for [`Credentials::load`].
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let TokensFile { tokens, tenants } = toml::from_str(text)?;
        if tokens.is_empty() {
            return Err(CredentialsError::Empty);
        }
        for (index, token) in tokens.iter().enumerate() {
            if tokens[..index].iter().any(|earlier| earlier.sha256 == token.sha256) {
                return Err(CredentialsError::Duplicate(token.sha256.clone()));
            }
        }
        let mut weights = HashMap::with_capacity(tenants.len());
        for TenantLine { name, weight } in tenants {
            if !tokens.iter().any(|token| token.tenant == name) {
                return Err(CredentialsError::UnknownTenant(name));
            }
            if !(1..=MAX_TENANT_WEIGHT).contains(&weight) {
                return Err(CredentialsError::BadWeight { tenant: name, weight });
            }
            if weights.insert(name.clone(), weight).is_some() {
                return Err(CredentialsError::TwoWeights(name));
            }
        }
        Ok(Self { tokens, weights })
    }

    /// The weights of tenants in the fair share of workers. A tenant that is not listed has the weight 1.
    pub fn weights(&self) -> &HashMap<Tenant, u32> {
        &self.weights
    }

    /// Whether users of more than one tenant may call.
    pub(super) fn has_several_tenants(&self) -> bool {
        let mut users = self.tokens.iter().filter(|token| token.role != Role::Worker);
        users.next().is_some_and(|first| users.any(|other| other.tenant != first.tenant))
    }

    /// The caller with this token. Compares every hash in the file in constant time, so that the time taken says nothing about them.
    pub(super) fn find(&self, token: &str) -> Option<Caller> {
        let shown = Digest::of(token.as_bytes());
        let mut found = None;
        for known in &self.tokens {
            if bool::from(known.sha256.as_str().as_bytes().ct_eq(shown.as_str().as_bytes())) {
                found = Some(known);
            }
        }
        found.map(|known| Caller { tenant: known.tenant.clone(), role: known.role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(token: &str, role: &str) -> String {
        line_of("a", token, role)
    }

    fn line_of(tenant: &str, token: &str, role: &str) -> String {
        let hash = Digest::of(token.as_bytes());
        format!("[[tokens]]\nsha256 = '{hash}'\ntenant = '{tenant}'\nrole = '{role}'\n")
    }

    #[test]
    fn each_token_identifies_its_own_caller() {
        let credentials = Credentials::parse(&(line("one", "user") + &line("two", "worker"))).expect("valid");
        assert_eq!(credentials.find("two").expect("known").role, Role::Worker);
        assert_eq!(credentials.find("three"), None);
    }

    #[test]
    fn the_tenants_of_workers_do_not_count_as_users() {
        let is_shared = |others: &str| {
            Credentials::parse(&(line("one", "user") + &line("two", "admin") + others))
                .expect("valid")
                .has_several_tenants()
        };
        assert!(!is_shared(""));
        assert!(!is_shared(&line_of("infrastructure", "three", "worker")));
        assert!(is_shared(&line_of("b", "three", "user")));
    }

    #[test]
    fn files_that_would_let_in_nobody_or_the_wrong_caller_are_refused() {
        let twice = line("one", "user") + &line("one", "admin");
        for text in ["tokens = []", &twice, &line("one", "root"), "[[tokens]]\ntoken = 'plain'"] {
            Credentials::parse(text).expect_err(text);
        }
    }

    #[test]
    fn weights_belong_to_tenants_that_can_call_and_are_given_once() {
        let weighted = |tenants: &str| Credentials::parse(&format!("{}{tenants}", line("one", "user")));
        let credentials = weighted("[[tenants]]\nname = 'a'\nweight = 3\n").expect("valid");
        assert_eq!(credentials.weights()[&"a".parse().expect("a tenant")], 3);
        for (tenants, says) in [
            ("[[tenants]]\nname = 'b'\nweight = 3\n", "no token"),
            ("[[tenants]]\nname = 'a'\nweight = 0\n", "1 to 1000"),
            ("[[tenants]]\nname = 'a'\nweight = 3\n[[tenants]]\nname = 'a'\nweight = 4\n", "two weights"),
        ] {
            assert!(weighted(tenants).expect_err(says).to_string().contains(says), "{tenants}");
        }
    }
}
