//! The tokens file: hashes, never tokens.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sortinghat_proto::{Digest, Tenant};
use subtle::ConstantTimeEq as _;

use super::{Caller, Role};

/// The tokens that are let in, by their SHA-256.
///
/// A plain hash is enough since tokens are random, not chosen by people: `openssl rand -hex 32` makes one, and
/// `printf %s TOKEN | sha256sum` its line here.
#[derive(Debug, Clone)]
pub struct Credentials {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    sha256: Digest,
    tenant: Tenant,
    role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    tokens: Vec<Token>,
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
        let TokensFile { tokens } = toml::from_str(text)?;
        if tokens.is_empty() {
            return Err(CredentialsError::Empty);
        }
        for (index, token) in tokens.iter().enumerate() {
            if tokens[..index].iter().any(|earlier| earlier.sha256 == token.sha256) {
                return Err(CredentialsError::Duplicate(token.sha256.clone()));
            }
        }
        Ok(Self { tokens })
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
        format!("[[tokens]]\nsha256 = '{}'\ntenant = 'a'\nrole = '{role}'\n", Digest::of(token.as_bytes()))
    }

    #[test]
    fn each_token_is_its_own_caller() {
        let credentials = Credentials::parse(&(line("one", "user") + &line("two", "worker"))).expect("valid");
        assert_eq!(credentials.find("two").expect("known").role, Role::Worker);
        assert_eq!(credentials.find("three"), None);
    }

    #[test]
    fn files_that_would_let_in_nobody_or_the_wrong_one_are_refused() {
        let twice = line("one", "user") + &line("one", "admin");
        for text in ["tokens = []", &twice, &line("one", "root"), "[[tokens]]\ntoken = 'plain'"] {
            Credentials::parse(text).expect_err(text);
        }
    }
}
