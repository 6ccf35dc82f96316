//! Server-side encryption, which there is none of yet: what is wrongly asked for is said as S3 says it, what is rightly
//! asked for answers `NotImplemented`, so that nobody believes plain bytes to be encrypted.
//!
//! Source: S3 user guide, "Protecting data with server-side encryption", and the headers' pages of the API reference.

use super::super::error::{invalid_argument, invalid_request, not_implemented};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use md5::{Digest, Md5};
use s3s::{S3Error, S3ErrorCode, S3Result};

const METHOD: &str = "x-amz-server-side-encryption";
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const KMS_CONTEXT: &str = "x-amz-server-side-encryption-context";
/// How the three headers of a customer's key begin.
const CUSTOMER: &str = "x-amz-server-side-encryption-customer-";
const SOURCE_CUSTOMER: &str = "x-amz-copy-source-server-side-encryption-customer-";
const METHODS: [&str; 3] = ["AES256", "aws:kms", "aws:kms:dsse"];
/// AES-256.
const KEY_BYTES: usize = 32;

/// Refuses a write that asks for encryption.
pub(super) fn refuse(headers: &HeaderMap) -> S3Result<()> {
    let method = text(headers, METHOD)?;
    let customer = customer_key(headers, CUSTOMER)?;
    let of_kms = headers.contains_key(KMS_KEY) || headers.contains_key(KMS_CONTEXT);
    match method {
        Some(_) if customer => Err(invalid_argument(
            "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
        )),
        Some(method) if !METHODS.contains(&method) => {
            Err(invalid_argument("The encryption method specified is not supported"))
        }
        Some("AES256") | None if of_kms => {
            Err(invalid_argument("A KMS key or context needs the encryption method aws:kms"))
        }
        Some(_) => Err(not_implemented("Server-side encryption")),
        None if customer => Err(not_implemented("Server-side encryption with customer keys")),
        None => Ok(()),
    }
}

/// Refuses a read that names a key: nothing stored was encrypted with one.
pub(super) fn refuse_for_read(headers: &HeaderMap) -> S3Result<()> {
    if headers.contains_key(METHOD) || headers.contains_key(KMS_KEY) {
        return Err(invalid_argument(format!("{METHOD} is not a header of this request")));
    }
    not_applicable(customer_key(headers, CUSTOMER)?)
}

/// The same for the source of a copy.
pub(super) fn refuse_for_source(headers: &HeaderMap) -> S3Result<()> {
    not_applicable(customer_key(headers, SOURCE_CUSTOMER)?)
}

fn not_applicable(customer: bool) -> S3Result<()> {
    if customer {
        return Err(invalid_request("The encryption parameters are not applicable to this object."));
    }
    Ok(())
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> S3Result<Option<&'h str>> {
    let value = headers.get(name).map(|v| v.to_str().map_err(|_| invalid_argument(format!("{name} is not text"))));
    value.transpose()
}

/// Whether the three headers of a customer's key are there, well made and of one another.
fn customer_key(headers: &HeaderMap, prefix: &str) -> S3Result<bool> {
    let field = |name: &str| text(headers, &format!("{prefix}{name}"));
    let (algorithm, key, hash) = (field("algorithm")?, field("key")?, field("key-md5")?);
    let (algorithm, key, hash) = match (algorithm, key, hash) {
        (None, None, None) => return Ok(false),
        (Some(algorithm), Some(key), Some(hash)) => (algorithm, key, hash),
        _ => {
            return Err(invalid_argument(
                "Requests with customer keys must provide an algorithm, the key and the MD5 of the key",
            ));
        }
    };
    if algorithm != "AES256" {
        let message = "The encryption request that you specified is not valid. The valid value is AES256.";
        return Err(S3Error::with_message(S3ErrorCode::InvalidEncryptionAlgorithmError, message));
    }
    let key = BASE64.decode(key).ok().filter(|key| key.len() == KEY_BYTES);
    let key = key.ok_or_else(|| invalid_argument("The secret key was invalid for the specified algorithm."))?;
    if BASE64.encode(Md5::digest(&key)) != hash {
        return Err(invalid_argument("The calculated MD5 hash of the key did not match the hash that was provided."));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        list.iter().map(pair).collect()
    }

    #[test]
    fn encryption_is_never_silently_left_out() {
        let key = BASE64.encode([7u8; 32]);
        let hash = BASE64.encode(Md5::digest([7u8; 32]));
        let algorithm = ("x-amz-server-side-encryption-customer-algorithm", "AES256");
        let key = ("x-amz-server-side-encryption-customer-key", key.as_str());
        let hash = ("x-amz-server-side-encryption-customer-key-md5", hash.as_str());
        let wrong_hash = (hash.0, "AAAAAAAAAAAAAAAAAAAAAA==");
        let (aes, kms) = ((METHOD, "AES256"), (METHOD, "aws:kms"));
        let kms_key = (KMS_KEY, "k");
        let table = [
            (vec![], "ok"),
            (vec![aes], "NotImplemented"),
            (vec![kms], "NotImplemented"),
            (vec![kms, kms_key], "NotImplemented"),
            (vec![aes, kms_key], "InvalidArgument"),
            (vec![kms_key], "InvalidArgument"),
            (vec![(METHOD, "aes:kms")], "InvalidArgument"),
            (vec![algorithm, key, hash], "NotImplemented"),
            (vec![algorithm, key], "InvalidArgument"),
            (vec![key, hash], "InvalidArgument"),
            (vec![algorithm], "InvalidArgument"),
            (vec![algorithm, key, wrong_hash], "InvalidArgument"),
            (vec![(algorithm.0, "DES"), key, hash], "InvalidEncryptionAlgorithmError"),
            (vec![algorithm, key, hash, aes], "InvalidArgument"),
        ];
        for (list, expected) in table {
            let judged = refuse(&headers(&list));
            assert_eq!(judged.as_ref().map_or_else(|e| e.code().as_str(), |()| "ok"), expected, "{list:?}");
        }
        assert!(refuse_for_read(&headers(&[])).is_ok());
        let read = refuse_for_read(&headers(&[algorithm, key, hash])).unwrap_err();
        assert_eq!(read.code().as_str(), "InvalidRequest");
    }
}
