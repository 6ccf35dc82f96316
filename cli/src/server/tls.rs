//! Certificate and key from PEM files into a TLS configuration.

use super::config::TlsFiles;
use crate::failure::Failure;
use holdfast_coordinator::admin::Code;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

/// TLS 1.2 and 1.3, no client certificates, HTTP/1.1.
pub(crate) fn load(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let mut reader = open(&files.cert)?;
    let chain: Vec<_> = rustls_pemfile::certs(&mut reader)
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(&files.cert, &e.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(&files.cert, "it holds no certificate"));
    }
    let key = rustls_pemfile::private_key(&mut open(&files.key)?)
        .map_err(|e| unusable(&files.key, &e.to_string()))?
        .ok_or_else(|| unusable(&files.key, "it holds no private key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&files.cert, &e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| unusable(&files.cert, &e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    File::open(path).map(BufReader::new).map_err(|e| unusable(path, &e.to_string()))
}

fn unusable(path: &Path, why: &str) -> Failure {
    Failure::usage(Code::UnusableCertificate, format!("{}: {why}", path.display()))
        .or_try("--tls-cert with the certificate chain and --tls-key with its key, both PEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let cert = directory.path().join("cert.pem");
        let key = directory.path().join("key.pem");
        let files = TlsFiles { cert: cert.clone(), key };
        assert!(load(&files).unwrap_err().message.contains("cert.pem"));
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&cert, text).unwrap();
            let failure = load(&files).unwrap_err();
            assert_eq!(failure.code, "HF1110", "{text}");
            assert!(failure.message.contains("cert.pem"), "{failure}");
        }
    }
}
