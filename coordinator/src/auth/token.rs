//! One token of the tokens file, checked.

use std::{collections::BTreeSet, sync::Arc, time::UNIX_EPOCH};

use serde::{Deserialize, Deserializer, de::Error as _};
use sortinghat_proto::{Digest, Name, Tenant, time::UnixMs};
use subtle::ConstantTimeEq as _;

use super::{
    credentials::CredentialsError,
    identity::{Role, Served},
};

/// A token as the file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenLine {
    id: Option<Name>,
    sha256: Digest,
    role: Role,
    tenant: Option<Tenant>,
    tenants: Option<Vec<String>>,
    expires: Option<Expiry>,
    #[serde(default)]
    revoked: bool,
}

/// A date, as text or in TOML's own form.
#[derive(Debug, Clone, Copy)]
struct Expiry(UnixMs);

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Toml(toml::value::Datetime),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Toml(date) => date.to_string(),
        };
        let date = humantime::parse_rfc3339(&text)
            .map_err(|_| D::Error::custom("expires is a date in UTC: write \"2027-01-31T00:00:00Z\""))?;
        Ok(Self(UnixMs(date.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)))
    }
}

/// What a token lets its holder do. Tokens with the same id have the same rights, so that one can be replaced while both are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) role: Role,
    pub(super) tenant: Option<Tenant>,
    pub(super) serves: Served,
}

/// A token, checked.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) id: Name,
    pub(super) sha256: Digest,
    pub(super) rights: Rights,
    pub(super) expires: Option<UnixMs>,
    pub(super) revoked: bool,
}

impl Token {
    /// Whether `shown`, the hash of what a caller has shown, is the hash of this token. The time that this takes says nothing about it.
    pub(super) fn is(&self, shown: &Digest) -> bool {
        self.sha256.as_str().as_bytes().ct_eq(shown.as_str().as_bytes()).into()
    }
}

impl TryFrom<TokenLine> for Token {
    type Error = CredentialsError;

    fn try_from(line: TokenLine) -> Result<Self, CredentialsError> {
        let TokenLine { id, sha256, role, tenant, tenants, expires, revoked } = line;
        let derived = || format!("token-{}", &sha256.as_str()[..8]).parse().expect("hexadecimal digits make a name");
        let id = id.unwrap_or_else(derived);
        let rights = rights(&id, role, tenant, tenants)?;
        Ok(Self { id, sha256, rights, expires: expires.map(|expiry| expiry.0), revoked })
    }
}

fn rights(
    id: &Name,
    role: Role,
    tenant: Option<Tenant>,
    tenants: Option<Vec<String>>,
) -> Result<Rights, CredentialsError> {
    let wrong = |advice: String| CredentialsError::BadToken { id: id.clone(), advice };
    match (role, tenant, tenants) {
        (Role::User, Some(tenant), None) => Ok(Rights { role, tenant: Some(tenant), serves: Served::none() }),
        (Role::Admin, Some(tenant), None) => {
            Ok(Rights { role, serves: Served::only(tenant.clone()), tenant: Some(tenant) })
        }
        (Role::Worker, None, Some(tenants)) => {
            Ok(Rights { role, tenant: None, serves: served(&tenants).map_err(wrong)? })
        }
        (Role::Operator, None, None) => Ok(Rights { role, tenant: None, serves: Served::none() }),
        (Role::User | Role::Admin, ..) => Err(wrong(format!(
            "it has the role {role} and so needs one tenant: write tenant = \"NAME\", and no tenants"
        ))),
        (Role::Worker, tenant, _) => {
            let example = tenant.as_ref().map_or("NAME", Tenant::as_str);
            Err(wrong(format!(
                "it is a worker's, and must name the tenants whose tasks the worker may run: write tenants = [\"{example}\"], or \
                 tenants = [\"*\"] for every tenant, and no tenant"
            )))
        }
        // No file can write the role of everyone.
        (Role::Operator | Role::Everyone, ..) => {
            Err(wrong("it is an operator's, who belongs to no tenant: leave out tenant and tenants".to_owned()))
        }
    }
}

fn served(names: &[String]) -> Result<Served, String> {
    match names {
        [] => Err("its tenants are empty: name at least one, or leave the token out".to_owned()),
        [all] if all == "*" => Ok(Served::All),
        names => {
            let tenant = |name: &String| name.parse().map_err(|refusal| format!("of its tenants, {refusal}"));
            Ok(Served::These(Arc::new(names.iter().map(tenant).collect::<Result<BTreeSet<Tenant>, String>>()?)))
        }
    }
}
