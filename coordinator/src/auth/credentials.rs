//! The tokens file. It holds hashes of tokens, names of certificates, and no secret.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use serde::Deserialize;
use sortinghat_proto::{Digest, Name, Tenant, limits::MAX_TENANT_WEIGHT, time::UnixMs, words};

use super::{
    certificate::ShownCertificate,
    identity::{Caller, Proof, Served},
    token::{CertificateLine, Grant, ListedCertificate, Token, TokenLine},
};
use crate::config::Complaint;

/// The permissions with which others could let themselves in.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The permission with which everybody on the machine could read the hashes.
const READABLE_BY_ALL: u32 = 0o004;
/// How many names of a certificate that is not known a message repeats.
const MOST_NAMES_TOLD: usize = 3;

/// The callers, by the SHA-256 of their tokens and by the names of their certificates.
///
/// A plain hash is enough, since tokens are random and not chosen by people: `openssl rand -hex 32` makes a token, and
/// `printf %s TOKEN | sha256sum` its hash.
#[derive(Debug)]
pub struct Credentials {
    tokens: Vec<Token>,
    certificates: Vec<ListedCertificate>,
    weights: HashMap<Tenant, u32>,
    /// Whether users of more than one tenant may call.
    is_shared: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantLine {
    name: Tenant,
    weight: u32,
}

/// The content of a tokens file, as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct TokensFile {
    path: PathBuf,
    text: String,
    mode: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    #[serde(default)]
    tokens: Vec<TokenLine>,
    #[serde(default)]
    certificates: Vec<CertificateLine>,
    #[serde(default)]
    tenants: Vec<TenantLine>,
}

/// Why a token or a certificate that was shown is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejected {
    /// The file does not list it.
    #[error("the token is not known here: ask for a new one")]
    Unknown,
    /// The file lists none of the names of the certificate.
    #[error("the certificate is not known here: the tokens file has no [[certificates]] with san = {0}")]
    UnknownCertificate(String),
    /// The names of the certificate are those of several identities.
    #[error(
        "the certificate has names of both {0} and {1}, so nobody knows who calls: give each worker a certificate of its own"
    )]
    TwoCallers(Name, Name),
    /// Those who have made the certificate are not trusted any more.
    #[error("the certificate of {0} was made by an authority that is not trusted here any more: ask for a new one")]
    Distrusted(Name),
    /// The file says that it is revoked.
    #[error("the {what} of {id} was revoked: ask for a new one")]
    Revoked {
        /// "token" or "certificate".
        what: &'static str,
        /// The identity.
        id: Name,
    },
    /// Its time is over.
    #[error("the {what} of {id} expired at {at}: ask for a new one")]
    Expired {
        /// "token" or "certificate".
        what: &'static str,
        /// The identity.
        id: Name,
        /// When, as RFC 3339.
        at: String,
    },
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
    Malformed(#[from] Complaint),
    /// Others may write the file, and so let themselves in.
    #[error("others can write the tokens file {path}, and so let themselves in: run `chmod go-w {path}`")]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// A token or a certificate has rights that contradict each other.
    #[error("the entry {id} of the tokens file cannot be used: {advice}")]
    BadToken {
        /// Its identity.
        id: Name,
        /// What is wrong, and what to write.
        advice: String,
    },
    /// Two entries with one id differ in what they let their holders do.
    #[error(
        "the tokens file has two entries with the id {0} that differ in role, tenant or tenants: tokens and certificates with one id are \
         the same caller's, so give one of them another id"
    )]
    TwoIdentities(Name),
    /// The file lists nobody, so nobody could call.
    #[error("the tokens file has no [[tokens]] and no [[certificates]], so nobody could call: add one")]
    Empty,
    /// The file lists one token for two callers.
    #[error("the tokens file has sha256 {0} twice: remove one of them")]
    Duplicate(Digest),
    /// The file lists one certificate for two callers.
    #[error("the tokens file has the san {0} twice: remove one of them")]
    DuplicateSan(String),
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

impl TokensFile {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// [`CredentialsError::Unreadable`].
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let unreadable = |source| CredentialsError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        Ok(Self { path: path.to_owned(), text, mode })
    }
}

impl TryFrom<&TokensFile> for Credentials {
    type Error = CredentialsError;

    /// Understands a tokens file, and says loudly what is dangerous about it. The error never shows a token, since the file holds none.
    fn try_from(file: &TokensFile) -> Result<Self, CredentialsError> {
        if file.mode & WRITABLE_BY_OTHERS != 0 {
            return Err(CredentialsError::Writable { path: file.path.clone() });
        }
        let credentials = Self::parse(&file.text)?;
        if file.mode & READABLE_BY_ALL != 0 {
            let path = file.path.display();
            tracing::warn!("everybody on this machine can read the tokens file {path}: run `chmod o-r {path}`");
        }
        for id in credentials.workers_for_all() {
            tracing::warn!(
                %id, "this worker serves every tenant (tenants = [\"*\"]): whoever holds its token or its key can run, fail and \
                 complete the tasks of all tenants"
            );
        }
        Ok(credentials)
    }
}

impl Credentials {
    /// Parses the text of a tokens file.
    ///
    /// # Errors
    /// [`CredentialsError`], which never shows a token, since the file holds none.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let Lines { tokens, certificates, tenants } =
            toml::from_str(text).map_err(|error| Complaint::of(&error, text))?;
        if tokens.is_empty() && certificates.is_empty() {
            return Err(CredentialsError::Empty);
        }
        let tokens = tokens.into_iter().map(Token::try_from).collect::<Result<Vec<Token>, CredentialsError>>()?;
        let certificates = certificates.into_iter().map(ListedCertificate::try_from);
        let certificates = certificates.collect::<Result<Vec<ListedCertificate>, CredentialsError>>()?;
        if let Some(twice) = repeated(tokens.iter().map(|token| &token.sha256)) {
            return Err(CredentialsError::Duplicate(twice.clone()));
        }
        if let Some(twice) = repeated(certificates.iter().map(|certificate| &certificate.san)) {
            return Err(CredentialsError::DuplicateSan(twice.as_str().to_owned()));
        }
        let mut rights = HashMap::new();
        for Grant { id, rights: own, .. } in grants(&tokens, &certificates) {
            if rights.insert(id, own).is_some_and(|earlier| earlier != own) {
                return Err(CredentialsError::TwoIdentities(id.clone()));
            }
        }
        let users: BTreeSet<&Tenant> = tokens.iter().filter_map(|token| token.grant.rights.tenant.as_ref()).collect();
        let is_shared = users.len() > 1;
        let mut weights = HashMap::with_capacity(tenants.len());
        for TenantLine { name, weight } in tenants {
            if !users.contains(&name) {
                return Err(CredentialsError::UnknownTenant(name));
            }
            if !(1..=MAX_TENANT_WEIGHT).contains(&weight) {
                return Err(CredentialsError::BadWeight { tenant: name, weight });
            }
            if weights.insert(name.clone(), weight).is_some() {
                return Err(CredentialsError::TwoWeights(name));
            }
        }
        Ok(Self { tokens, certificates, weights, is_shared })
    }

    /// The weights of tenants in the fair share of workers. A tenant that is not listed has the weight 1.
    pub fn weights(&self) -> &HashMap<Tenant, u32> {
        &self.weights
    }

    /// The caller with this token at the time `now`. Compares every hash in the file in constant time, so that the time taken says nothing
    /// about them.
    pub(super) fn caller(&self, token: &str, now: UnixMs) -> Result<Caller, Rejected> {
        let shown = Digest::of(token.as_bytes());
        let mut found = None;
        for known in &self.tokens {
            if known.is(&shown) {
                found = Some(known);
            }
        }
        self.admit(found.ok_or(Rejected::Unknown)?.grant.clone(), Proof::Token, now)
    }

    /// The caller who has shown this certificate, at the time `now`. Exactly one identity must have one of its names, and none of its names
    /// may be revoked. `is_accepted` is whether those who have made it are still trusted.
    pub(super) fn caller_with(
        &self,
        certificate: &ShownCertificate,
        is_accepted: bool,
        now: UnixMs,
    ) -> Result<Caller, Rejected> {
        let has = |listed: &&ListedCertificate| certificate.names.iter().any(|name| name == listed.san.as_str());
        let known = || self.certificates.iter().filter(has);
        // A revoked one counts before the others, wherever it stands in the file.
        let first = known().find(|listed| listed.grant.revoked).or_else(|| known().next());
        let Some(ListedCertificate { san, grant }) = first else {
            let names = certificate.names.iter().take(MOST_NAMES_TOLD).map(|name| words::quoted(name).to_string());
            let names = names.collect::<Vec<String>>().join(" or ");
            return Err(Rejected::UnknownCertificate(if names.is_empty() {
                "its name, as it has none".to_owned()
            } else {
                names
            }));
        };
        if let Some(other) = known().find(|other| other.grant.id != grant.id) {
            return Err(Rejected::TwoCallers(grant.id.clone(), other.grant.id.clone()));
        }
        if !is_accepted && certificate.expires > now {
            return Err(Rejected::Distrusted(grant.id.clone()));
        }
        let grant = Grant { expires: Some(certificate.expires), ..grant.clone() };
        self.admit(grant, Proof::Certificate(san.as_str().to_owned()), now)
    }

    fn admit(&self, grant: Grant, proof: Proof, now: UnixMs) -> Result<Caller, Rejected> {
        let Grant { id, rights, expires, revoked } = grant;
        let what = if proof == Proof::Token { "token" } else { "certificate" };
        match expires.filter(|expires| *expires <= now) {
            _ if revoked => Err(Rejected::Revoked { what, id }),
            Some(at) => Err(Rejected::Expired { what, id, at: date(at) }),
            None => Ok(Caller {
                id,
                proof,
                role: rights.role,
                tenant: rights.tenant,
                serves: rights.serves,
                expires,
                is_alone: !self.is_shared,
            }),
        }
    }

    /// Whether the file lists a certificate.
    pub fn lists_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The workers that serve every tenant.
    fn workers_for_all(&self) -> BTreeSet<&Name> {
        let all = grants(&self.tokens, &self.certificates);
        all.filter(|grant| !grant.revoked && grant.rights.serves == Served::All).map(|grant| &grant.id).collect()
    }
}

fn grants<'a>(tokens: &'a [Token], certificates: &'a [ListedCertificate]) -> impl Iterator<Item = &'a Grant> {
    tokens.iter().map(|token| &token.grant).chain(certificates.iter().map(|certificate| &certificate.grant))
}

/// The first of these that was there before.
fn repeated<T: Ord + Copy>(all: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    all.into_iter().find(|one| !seen.insert(*one))
}

/// A time as RFC 3339, in whole seconds.
fn date(at: UnixMs) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at.0)).to_string()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{certificate::Authorities, identity::Role},
        *,
    };

    fn worker(token: &str, tenants: &str) -> String {
        let hash = Digest::of(token.as_bytes());
        format!("[[tokens]]\nsha256 = '{hash}'\ntenants = {tenants}\nrole = 'worker'\n")
    }

    fn operator(token: &str) -> String {
        format!("[[tokens]]\nsha256 = '{}'\nrole = 'operator'\n", Digest::of(token.as_bytes()))
    }

    fn line(token: &str, role: &str) -> String {
        line_of("a", token, role)
    }

    fn line_of(tenant: &str, token: &str, role: &str) -> String {
        let hash = Digest::of(token.as_bytes());
        format!("[[tokens]]\nsha256 = '{hash}'\ntenant = '{tenant}'\nrole = '{role}'\n")
    }

    fn caller(credentials: &Credentials, token: &str) -> Result<Caller, Rejected> {
        credentials.caller(token, UnixMs(0))
    }

    #[test]
    fn each_token_identifies_its_own_caller() {
        let text = line("one", "user") + &line("two", "admin") + &worker("three", r#"["a", "b"]"#) + &operator("four");
        let credentials = Credentials::parse(&text).expect("valid");
        let tenant = |name: &str| name.parse::<Tenant>().expect("a tenant");
        let [one, two, three, four] =
            ["one", "two", "three", "four"].map(|token| caller(&credentials, token).expect("known"));
        assert_eq!((one.role, one.tenant, one.serves), (Role::User, Some(tenant("a")), Served::none()));
        assert_eq!((two.role, two.tenant, two.serves), (Role::Admin, Some(tenant("a")), Served::only(tenant("a"))));
        assert_eq!((three.role, three.tenant.as_ref()), (Role::Worker, None));
        assert!(three.serves.has(&tenant("a")) && three.serves.has(&tenant("b")) && !three.serves.has(&tenant("c")));
        assert_eq!((four.role, four.tenant, four.serves), (Role::Operator, None, Served::none()));
        assert_eq!(caller(&credentials, "five"), Err(Rejected::Unknown));
        assert!(one.id.as_str().starts_with("token-"), "{} is derived from the hash", one.id);
    }

    #[test]
    fn the_tenants_of_workers_do_not_count_as_users() {
        let is_alone = |others: &str| {
            let credentials = Credentials::parse(&(line("one", "user") + &line("two", "admin") + others));
            caller(&credentials.expect("valid"), "one").expect("known").is_alone
        };
        assert!(is_alone(""));
        assert!(is_alone(&worker("three", r#"["b", "c"]"#)));
        assert!(!is_alone(&line_of("b", "three", "user")));
    }

    #[test]
    fn two_tokens_of_one_identity_are_valid_side_by_side_if_they_agree() {
        let named = |token: &str, role: &str| line(token, role) + "id = 'anna'\n";
        let credentials = Credentials::parse(&(named("old", "user") + &named("new", "user"))).expect("valid");
        assert_eq!(caller(&credentials, "old"), caller(&credentials, "new"));
        let refused = Credentials::parse(&(named("old", "user") + &named("new", "admin"))).expect_err("two roles");
        assert!(refused.to_string().contains("anna"), "{refused}");
    }

    #[test]
    fn files_that_would_let_in_nobody_or_the_wrong_caller_are_refused_with_what_to_write() {
        let twice = line("one", "user") + &line("one", "admin");
        for (text, says) in [
            ("tokens = []", "add one"),
            (&twice, "twice"),
            (&line("one", "root"), "expected one of"),
            (&line("one", "everyone"), "expected one of"),
            ("[[tokens]]\ntoken = 'hunter2'", "unknown field `token`"),
            ("[[tokens]]\nsha256 = 'hunter2'", "line 2"),
            (&line("one", "worker"), r#"tenants = ["a"]"#),
            (&worker("one", "[]"), "empty"),
            (&worker("one", r#"["*", "a"]"#), "not a tenant"),
            (&line("one", "operator"), "no tenant"),
            (&operator("one").replace("operator", "user"), "tenant = "),
            (&(line("one", "user") + "expires = 'tomorrow'\n"), "2027-01-31T00:00:00Z"),
        ] {
            let refused = Credentials::parse(text).expect_err(text).to_string();
            assert!(refused.contains(says) && !refused.contains("hunter2"), "{text}: {refused}");
        }
    }

    #[test]
    fn a_date_may_be_written_as_text_or_in_the_form_of_the_file() {
        for date in ["'1970-01-01T00:00:01Z'", "1970-01-01T00:00:01Z"] {
            let credentials = Credentials::parse(&format!("{}expires = {date}\n", line("one", "user"))).expect(date);
            assert_eq!(caller(&credentials, "one").expect("valid until then").expires, Some(UnixMs(1_000)));
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), line("one", "user")).expect("writable");
        let load = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("it is ours");
            Credentials::try_from(&TokensFile::read(file.path())?)
        };
        load(0o640).expect("only the owner can write it");
        for mode in [0o660, 0o606] {
            let refused = load(mode).expect_err("others can write it").to_string();
            assert!(refused.contains("chmod go-w"), "{refused}");
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

    #[test]
    fn a_certificate_of_which_any_listed_name_is_revoked_is_refused_wherever_the_name_stands() {
        let key = rcgen::KeyPair::generate().expect("random bytes");
        let names = ["gpu-1.lab".to_owned(), "gpu-2.lab".to_owned()];
        let own = rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("valid");
        let authorities = Authorities::of_pem(own.pem().as_bytes()).expect("one certificate");
        let shown = ShownCertificate::accepted(&[own.der().clone()], authorities).expect("readable");
        let line = |san: &str, rest: &str| {
            format!("[[certificates]]\nid = 'gpu'\nsan = '{san}'\nrole = 'worker'\ntenants = ['a']\n{rest}")
        };
        let caller = |first: &str, second: &str| {
            let text = line("gpu-1.lab", first) + &line("gpu-2.lab", second);
            Credentials::parse(&text).expect("valid").caller_with(&shown, true, UnixMs(0))
        };
        caller("", "").expect("both names are valid");
        for (first, second) in [("revoked = true\n", ""), ("", "revoked = true\n")] {
            let refused = caller(first, second).expect_err("one is revoked");
            assert_eq!(refused, Rejected::Revoked { what: "certificate", id: "gpu".parse().expect("a name") });
        }
    }
}
