//! Certificates that callers show when they connect, and who has to have made them.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sortinghat_link::{Certificate, CertificateError, expiry, pem_trouble};
use sortinghat_proto::time::UnixMs;

/// Those whose certificates are accepted. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Authorities(Arc<dyn ClientCertVerifier>);

/// A certificate that the caller at the other end of a connection has shown, and whose key it has.
pub struct ShownCertificate {
    /// Its names: those of DNS, in small letters, and URIs.
    pub(super) names: Vec<String>,
    /// When the first of the certificates ends that vouch for it, itself included.
    pub(super) expires: UnixMs,
    chain: Vec<CertificateDer<'static>>,
    /// Who has vouched for it last. This is asked again only after the authorities were replaced, since a signature takes long to check.
    voucher: Mutex<Authorities>,
}

impl Authorities {
    /// The authorities in a PEM file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn of_pem(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| pem_trouble(&error).to_owned())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        // A call without a certificate may still have a token.
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::new(ring::default_provider()))
            .allow_unauthenticated();
        verifier.build().map(Self).map_err(|error| error.to_string())
    }

    /// What checks the certificates of new connections.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.clone()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl ShownCertificate {
    /// The certificate that these authorities have just accepted, with those between it and them.
    ///
    /// # Errors
    /// [`CertificateError`] if it cannot be read.
    pub fn accepted(chain: &[CertificateDer<'_>], by: Authorities) -> Result<Self, CertificateError> {
        let (own, between) = chain.split_first().ok_or(CertificateError::None)?;
        let Certificate { names, expires } = Certificate::read(own)?;
        let expires = first_end(expires, between, UNIX_EPOCH + Duration::from_secs(UnixTime::now().as_secs()));
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok(Self { names, expires: unix_ms(expires), chain, voucher: Mutex::new(by) })
    }

    /// Whether these authorities accept the certificate, too.
    pub(super) fn is_accepted_by(&self, authorities: &Authorities) -> bool {
        let mut voucher = self.voucher.lock();
        if voucher.is(authorities) {
            return true;
        }
        let (own, between) = self.chain.split_first().expect("there is a certificate");
        let is_accepted = authorities.0.verify_client_cert(own, between, UnixTime::now()).is_ok();
        if is_accepted {
            *voucher = authorities.clone();
        }
        is_accepted
    }
}

impl fmt::Debug for ShownCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The first of these ends, that of the certificate itself and those of the certificates between it and an authority. One that had ended before
/// it was accepted cannot be among those that vouch for it.
fn first_end(own: SystemTime, between: &[CertificateDer<'_>], accepted: SystemTime) -> SystemTime {
    let ends = between.iter().filter_map(|certificate| expiry(certificate).ok()).filter(|end| *end > accepted);
    ends.fold(own, SystemTime::min)
}

fn unix_ms(time: SystemTime) -> UnixMs {
    UnixMs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn ending(days: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_after = at(days).into();
        params.self_signed(&KeyPair::generate().expect("random bytes")).expect("valid").der().clone()
    }

    fn at(days: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(days * 24 * 3_600)
    }

    #[test]
    fn a_certificate_is_valid_no_longer_than_those_that_vouch_for_it() {
        let first_of = |between: &[u64]| {
            let between: Vec<CertificateDer<'_>> = between.iter().map(|days| ending(*days)).collect();
            first_end(at(20_000), &between, at(10_000))
        };
        assert_eq!(first_of(&[]), at(20_000));
        assert_eq!(first_of(&[30_000]), at(20_000));
        assert_eq!(first_of(&[30_000, 15_000]), at(15_000));
        assert_eq!(first_of(&[5_000]), at(20_000), "it was not needed");
    }
}
