//! PEM text around DER bytes (RFC 7468), of the kinds used here.

use crate::TrustError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Columns of a line, as RFC 7468 wants them.
const COLUMNS: usize = 64;
/// More certificates than this in one text are refused: a chain has two, roots are two while a CA is exchanged.
const CERTIFICATES_MAX: usize = 16;
/// Longest text that is read: a certificate of ours has below 2 KiB.
const TEXT_BYTES_MAX: usize = 64 << 10;

fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(COLUMNS) {
        out.extend(line.iter().map(|&b| char::from(b)));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

pub(crate) fn certificates_to_pem(certificates: &[CertificateDer<'static>]) -> String {
    certificates.iter().map(|der| encode("CERTIFICATE", der)).collect()
}

pub(crate) fn key_to_pem(pkcs8: &[u8]) -> String {
    encode("PRIVATE KEY", pkcs8)
}

fn check_length(text: &str, what: &'static str) -> Result<(), TrustError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TrustError::malformed(what, format!("{} bytes of text, {TEXT_BYTES_MAX} allowed", text.len())));
    }
    Ok(())
}

/// All certificates of a text, in order; at least one.
pub(crate) fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    check_length(text, "certificate")?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        if found.len() == CERTIFICATES_MAX {
            return Err(TrustError::malformed("certificate", format!("more than {CERTIFICATES_MAX} in one text")));
        }
        found.push(certificate.map_err(|e| TrustError::malformed("certificate", e.to_string()))?);
    }
    if found.is_empty() {
        return Err(TrustError::malformed("certificate", "the text holds none"));
    }
    Ok(found)
}

/// The one private key of a text. The reason of a failure never quotes the text.
pub(crate) fn key_from_pem(text: &str) -> Result<PrivatePkcs8KeyDer<'static>, TrustError> {
    check_length(text, "private key")?;
    PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| TrustError::malformed("private key", "not one PKCS#8 key in PEM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_whatever_its_length() {
        for length in [1, 47, 48, 49, 96, 1000] {
            let der = CertificateDer::from(vec![7u8; length]);
            let text = certificates_to_pem(&[der.clone(), der.clone()]);
            assert!(text.lines().all(|line| line.len() <= COLUMNS));
            assert_eq!(certificates_from_pem(&text).unwrap(), [der.clone(), der]);
        }
        let key = key_from_pem(&key_to_pem(&[9; 48])).unwrap();
        assert_eq!(key.secret_pkcs8_der(), [9; 48]);
    }

    #[test]
    fn what_is_not_pem_is_refused() {
        let certificate = certificates_to_pem(&[CertificateDer::from(vec![7u8; 40])]);
        let many = certificate.repeat(CERTIFICATES_MAX + 1);
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let (head, _) = certificate.split_at(certificate.len() / 2);
        for text in ["", "nonsense", many.as_str(), long.as_str(), head] {
            assert!(certificates_from_pem(text).is_err(), "{:.40}", text);
            assert!(key_from_pem(text).is_err(), "{:.40}", text);
        }
        assert!(key_from_pem(&certificate).is_err());
    }
}
