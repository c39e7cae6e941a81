//! What a certificate says: whose it is, and until when.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{
    CertificateDer,
    pem::{self, PemObject as _},
};
use webpki::EndEntityCert;
use yasna::{ASN1Result, BERReader, BERReaderSeq, Tag, tags::TAG_UTCTIME};

/// How long before its end a certificate should be replaced.
const REPLACED_BEFORE: Duration = Duration::from_secs(14 * 24 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject alternative names that are names of DNS, in small letters, and URIs with `://`, as they are. A name of DNS has no colon, so
    /// they cannot be taken for each other.
    pub names: Vec<String>,
    /// When it stops being valid.
    pub expires: SystemTime,
}

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The text is no PEM, or has no certificate in it.
    #[error("there is no certificate (PEM) in it")]
    None,
    /// One of the certificates is not as X.509 has it.
    #[error("a certificate in it cannot be read: {0}")]
    Malformed(String),
}

impl Certificate {
    /// Reads a certificate that somebody has shown.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let read = EndEntityCert::try_from(der).map_err(malformed)?;
        let dns = read.valid_dns_names().map(str::to_ascii_lowercase);
        // What a certificate calls a URI may be any text, such as a name of DNS that its authority may not vouch for.
        let uris = read.valid_uri_names().filter(|uri| uri.contains("://")).map(ToOwned::to_owned);
        let names = dns.chain(uris).collect();
        Ok(Self { names, expires: expiry(der)? })
    }
}

/// When the first of the certificates of a PEM file stops being valid.
///
/// # Errors
/// [`CertificateError`], also if there is no certificate.
pub fn first_expiry(pem: &[u8]) -> Result<SystemTime, CertificateError> {
    let ends = CertificateDer::pem_slice_iter(pem).map(|certificate| {
        let certificate = certificate.map_err(|error| malformed(pem_trouble(&error)))?;
        expiry(&certificate)
    });
    ends.collect::<Result<Vec<_>, _>>()?.into_iter().min().ok_or(CertificateError::None)
}

/// What is wrong with a PEM file. Its own description of an error quotes the file, which may hold a key.
pub fn pem_trouble(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "the file has none in PEM form",
        pem::Error::MissingSectionEnd { .. } => "the file breaks off before the END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line in the file is damaged",
        pem::Error::Base64Decode(_) => "what stands between the BEGIN and the END line is damaged",
        _ => "the file cannot be read as PEM",
    }
}

/// The end of a certificate's validity (RFC 5280, 4.1), which webpki checks and does not tell.
///
/// # Errors
/// [`CertificateError::Malformed`].
pub fn expiry(der: &[u8]) -> Result<SystemTime, CertificateError> {
    let certificate = |reader: BERReader<'_, '_>| {
        reader.read_sequence(|parts| {
            let expires = parts.next().read_sequence(|signed| {
                // The version, if it is not the first one.
                signed.read_optional(|version| version.read_tagged(Tag::context(0), |version| version.read_u8()))?;
                let (_serial, _algorithm, _issuer) = (skip(signed)?, skip(signed)?, skip(signed)?);
                let expires = signed.next().read_sequence(|validity| {
                    skip(validity)?;
                    time(validity.next())
                })?;
                skip_rest(signed)?;
                Ok(expires)
            })?;
            skip_rest(parts)?;
            Ok(expires)
        })
    };
    yasna::parse_der(der, certificate).map_err(malformed)
}

fn time(reader: BERReader<'_, '_>) -> ASN1Result<SystemTime> {
    match reader.lookahead_tag()? {
        TAG_UTCTIME => Ok((*reader.read_utctime()?.datetime()).into()),
        _ => Ok((*reader.read_generalized_time()?.datetime()).into()),
    }
}

fn skip(sequence: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    sequence.next().read_der().map(drop)
}

fn skip_rest(sequence: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    while sequence.read_optional(|part| part.read_der())?.is_some() {}
    Ok(())
}

fn malformed(error: impl ToString) -> CertificateError {
    CertificateError::Malformed(error.to_string())
}

/// What to say at the time `now` of `what`, such as "the certificate in FILE", which expires at the given time; `None` as long as there is
/// nothing to do about it, which is until 14 days before.
pub fn expiry_warning(what: &str, expires: SystemTime, now: SystemTime) -> Option<String> {
    let at = humantime::format_rfc3339_seconds(expires);
    match expires.duration_since(now) {
        Ok(left) if left > REPLACED_BEFORE => None,
        Ok(left) if left < 2 * 24 * HOUR => {
            Some(format!("{what} expires in {} h, at {at}: replace it", left.as_secs() / HOUR.as_secs()))
        }
        Ok(left) => {
            Some(format!("{what} expires in {} days, at {at}: replace it", left.as_secs() / (24 * HOUR.as_secs())))
        }
        Err(_) => Some(format!("{what} expired at {at}: replace it")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn pem(names: Vec<SanType>, expires: SystemTime) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_after = expires.into();
        params.self_signed(&KeyPair::generate().expect("random bytes")).expect("valid").pem()
    }

    #[expect(clippy::disallowed_methods, reason = "certificates expire by the wall clock")]
    fn now() -> SystemTime {
        SystemTime::now()
    }

    fn whole_seconds(time: SystemTime) -> SystemTime {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_says_its_names_and_its_end() {
        let expires = whole_seconds(now() + DAY);
        let ia5 = |text: &str| text.try_into().expect("ASCII");
        let names = vec![
            SanType::DnsName(ia5("GPU-1.Lab")),
            SanType::URI(ia5("spiffe://lab/GPU-1")),
            SanType::URI(ia5("gpu-2.lab")),
            SanType::URI(ia5("urn:gpu-2")),
            SanType::IpAddress("127.0.0.1".parse().expect("an address")),
            SanType::Rfc822Name(ia5("gpu@lab")),
        ];
        let own = pem(names, expires);
        let der = CertificateDer::from_pem_slice(own.as_bytes()).expect("PEM");
        let names = ["gpu-1.lab", "spiffe://lab/GPU-1"].map(ToOwned::to_owned).to_vec();
        assert_eq!(Certificate::read(&der), Ok(Certificate { names, expires }));
        // From 2050 on, the end is written in another form.
        let long = pem(vec![], expires + 30 * 365 * DAY);
        assert_eq!(first_expiry(long.as_bytes()), Ok(expires + 30 * 365 * DAY));
        assert_eq!(first_expiry((long + &own).as_bytes()), Ok(expires));
    }

    #[test]
    fn a_file_without_a_certificate_or_with_half_of_one_is_refused() {
        let whole = pem(vec![], now());
        let half = &whole[..whole.len() / 2];
        for text in ["", "nonsense", half, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(first_expiry(text.as_bytes()).is_err(), "{text}");
        }
        let key = KeyPair::generate().expect("random bytes").serialize_pem();
        assert_eq!(first_expiry(key.as_bytes()), Err(CertificateError::None));
    }

    #[test]
    fn it_is_time_to_replace_a_certificate_fourteen_days_before_its_end() {
        let now = now();
        let said = |expires| expiry_warning("the certificate in a.pem", expires, now).unwrap_or_default();
        assert_eq!(said(now + 15 * DAY), "");
        assert!(said(now + 14 * DAY).contains("the certificate in a.pem expires in 14 days, at 2"));
        assert!(said(now + DAY + HOUR).contains("in 25 h"));
        assert!(said(now - DAY).contains("expired at"));
    }
}
