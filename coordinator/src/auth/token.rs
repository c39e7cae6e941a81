//! What the tokens file lists, checked: one token or one certificate, and what it lets its holder do.

use std::{collections::BTreeSet, sync::Arc, time::UNIX_EPOCH};

use serde::{Deserialize, Deserializer, de::Error as _};
use sortinghat_proto::{Digest, Name, Tenant, time::UnixMs, words};
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

/// A certificate as the file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateLine {
    id: Option<Name>,
    san: San,
    role: Role,
    tenant: Option<Tenant>,
    tenants: Option<Vec<String>>,
    #[serde(default)]
    revoked: bool,
}

/// A subject alternative name: a URI, or a name of DNS in small letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct San(String);

impl TryFrom<String> for San {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_uri = text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
        if is_uri && text.chars().all(|character| character.is_ascii_graphic()) {
            return Ok(Self(text));
        }
        let in_dns = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
        if !text.is_empty() && text.chars().all(in_dns) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!(
            "san is a URI, such as \"spiffe://lab/gpu-1\", or a name of DNS without wildcards, such as \"gpu-1.lab.example\", and not {}",
            words::quoted(&text)
        ))
    }
}

impl San {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
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

/// What a token or a certificate lets its holder do. Those with the same id have the same rights, so that one can be replaced while both are
/// valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) role: Role,
    pub(super) tenant: Option<Tenant>,
    pub(super) serves: Served,
}

/// To whom a token or a certificate belongs.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) id: Name,
    pub(super) rights: Rights,
    pub(super) expires: Option<UnixMs>,
    pub(super) revoked: bool,
}

/// A token, checked.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) sha256: Digest,
    pub(super) grant: Grant,
}

/// A certificate, checked.
#[derive(Debug, Clone)]
pub(super) struct ListedCertificate {
    pub(super) san: San,
    pub(super) grant: Grant,
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
        let id = id.unwrap_or_else(|| derived("token", &sha256));
        let rights = rights(&id, role, tenant, tenants)?;
        Ok(Self { sha256, grant: Grant { id, rights, expires: expires.map(|expiry| expiry.0), revoked } })
    }
}

impl TryFrom<CertificateLine> for ListedCertificate {
    type Error = CredentialsError;

    fn try_from(line: CertificateLine) -> Result<Self, CredentialsError> {
        let CertificateLine { id, san, role, tenant, tenants, revoked } = line;
        let id = id.unwrap_or_else(|| derived("certificate", &Digest::of(san.as_str().as_bytes())));
        if role != Role::Worker {
            let advice = "it is a certificate, and certificates are for workers: write role = \"worker\", or give the caller a token";
            return Err(CredentialsError::BadToken { id, advice: advice.to_owned() });
        }
        let rights = rights(&id, role, tenant, tenants)?;
        Ok(Self { san, grant: Grant { id, rights, expires: None, revoked } })
    }
}

/// The id of a token or a certificate to which the file gives none.
fn derived(what: &str, hash: &Digest) -> Name {
    format!("{what}-{}", &hash.as_str()[..8]).parse().expect("hexadecimal digits make a name")
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
