//! Certificates, made as a test needs them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

/// Who makes certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Panics
    /// If there is no randomness for its key.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random bytes");
        Self(CertifiedIssuer::self_signed(params, key).expect("its parameters are complete"))
    }

    /// Its own certificate (PEM).
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server on this machine.
    pub fn server(&self) -> Certified {
        let days = Duration::from_secs(90 * 24 * 3_600);
        self.certify(&["localhost"], now() + days, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate with these names, URIs or names of DNS, that is valid for a day.
    pub fn worker(&self, names: &[&str]) -> Certified {
        self.worker_until(names, now() + Duration::from_secs(24 * 3_600))
    }

    /// A certificate with these names, URIs or names of DNS, that is valid until `expires`.
    pub fn worker_until(&self, names: &[&str], expires: SystemTime) -> Certified {
        self.certify(names, expires, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn certify(&self, names: &[&str], expires: SystemTime, usage: ExtendedKeyUsagePurpose) -> Certified {
        let name = |name: &&str| {
            let text = (*name).try_into().expect("ASCII");
            if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(name).collect();
        params.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().expect("an address")));
        params.not_after = expires.into();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("random bytes");
        let cert = params.signed_by(&key, &self.0).expect("its parameters are complete").pem();
        Certified { cert, key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certified {
    /// Writes both into `folder`, as NAME.pem and NAME.key, each replaced at once.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let write = |extension: &str, text: &str| replace(&folder.join(format!("{name}.{extension}")), text);
        (write("pem", &self.cert), write("key", &self.key))
    }
}

/// The time by which certificates expire.
#[expect(clippy::disallowed_methods, reason = "certificates expire by the wall clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Replaces a file at once, and returns its path.
///
/// # Panics
/// If its folder cannot be written.
pub fn replace(path: &Path, text: &str) -> PathBuf {
    let next = path.with_extension("next");
    fs::write(&next, text).expect("the folder is writable");
    fs::rename(&next, path).expect("the folder is writable");
    path.to_owned()
}
