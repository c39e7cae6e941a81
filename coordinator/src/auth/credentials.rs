//! The tokens file: hashes, never tokens.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sortinghat_proto::{Digest, Tenant, limits::MAX_TENANT_WEIGHT};
use subtle::ConstantTimeEq as _;

use super::{Caller, Role};

/// The tokens that are let in, by their SHA-256.
///
/// A plain hash is enough since tokens are random, not chosen by people: `openssl rand -hex 32` makes one, and
/// `printf %s TOKEN | sha256sum` its line here.
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
    /// It cannot be read.
    #[error("failed to read the tokens file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML of the documented shape.
    #[error("failed to understand the tokens file: {0}")]
    Malformed(#[from] toml::de::Error),
    /// Nobody could call.
    #[error("the tokens file has no [[tokens]]: nobody could call")]
    Empty,
    /// One token cannot be two callers.
    #[error("the tokens file has sha256 {0} twice")]
    Duplicate(Digest),
    /// A weight would have no effect: nobody calls for this tenant.
    #[error("the tokens file has a weight for tenant {0}, which has no token")]
    UnknownTenant(Tenant),
    /// Two weights of one tenant.
    #[error("the tokens file has two weights for tenant {0}")]
    TwoWeights(Tenant),
    /// A tenant of no weight would wait for ever.
    #[error("the weight of tenant {tenant} must be 1 to {MAX_TENANT_WEIGHT}, not {weight}")]
    BadWeight {
        /// Whose.
        tenant: Tenant,
        /// As it was given.
        weight: u32,
    },
}

impl Credentials {
    /// The credentials in a file.
    ///
    /// # Errors
    /// [`CredentialsError`]; never shows a token, since the file holds none.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let text = fs::read_to_string(path)
            .map_err(|source| CredentialsError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// The credentials in a file's text.
    ///
    /// # Errors
    /// As [`Credentials::load`].
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

    /// The weights of tenants in the fair share of workers; those that are not named have 1.
    pub fn weights(&self) -> &HashMap<Tenant, u32> {
        &self.weights
    }

    /// Whether users of more than one tenant may call.
    pub(super) fn has_several_tenants(&self) -> bool {
        let mut users = self.tokens.iter().filter(|token| token.role != Role::Worker);
        users.next().is_some_and(|first| users.any(|other| other.tenant != first.tenant))
    }

    /// The caller with this token. Takes the same time wherever the token differs, and looks at every line.
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
    fn each_token_is_its_own_caller() {
        let credentials = Credentials::parse(&(line("one", "user") + &line("two", "worker"))).expect("valid");
        assert_eq!(credentials.find("two").expect("known").role, Role::Worker);
        assert_eq!(credentials.find("three"), None);
    }

    #[test]
    fn tenants_of_workers_do_not_count() {
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
    fn files_that_would_let_in_nobody_or_the_wrong_one_are_refused() {
        let twice = line("one", "user") + &line("one", "admin");
        for text in ["tokens = []", &twice, &line("one", "root"), "[[tokens]]\ntoken = 'plain'"] {
            Credentials::parse(text).expect_err(text);
        }
    }

    #[test]
    fn weights_belong_to_tenants_that_can_call_and_are_said_once() {
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
