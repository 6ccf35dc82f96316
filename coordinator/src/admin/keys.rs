//! Access keys: what a valid one is, how one is made, and the endpoints that create, list and delete them.
//!
//! Invariant: a secret leaves the server once, in the answer that creates the key.

use super::{AdminFailure, AdminResult, Code, Shared, decode, finish};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use holdfast_proto::ErrorKind;
use holdfast_proto::admin::{KeyCreate, KeyView};
use holdfast_proto::manifest::AccessKey;
use rand::Rng;
use std::ops::RangeInclusive;

/// Lengths of an access key: AWS allows 16 to 128; test set-ups everywhere use shorter ones.
const ACCESS_KEY_BYTES: RangeInclusive<usize> = 3..=128;
/// Lengths of a secret: below 8 a signature can be searched; above 128 nothing is gained.
const SECRET_KEY_BYTES: RangeInclusive<usize> = 8..=128;
/// Longest name for people.
const NAME_BYTES_MAX: usize = 128;
/// Characters of a generated access key: none that are mistaken for another. 32 of them, 5 bits each.
const ACCESS_KEY_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters of a generated secret: 64 of them, 6 bits each, none that needs quoting in a shell or a URL.
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// 18 characters after the prefix: 90 bits, so two generated keys never meet.
const ACCESS_KEY_RANDOM: usize = 18;
/// 40 characters: 240 bits.
const SECRET_RANDOM: usize = 40;

/// A fresh pair.
#[derive(Clone, PartialEq, Eq)]
pub struct GeneratedKey {
    /// What requests name: `HF` and 18 characters.
    pub access_key: String,
    /// What signs them: 40 characters.
    pub secret_key: String,
}

/// Makes a pair from the system's random source.
pub fn generate_key() -> GeneratedKey {
    let mut random = rand::rng();
    let mut pick = |alphabet: &[u8], count: usize| -> String {
        (0..count).map(|_| char::from(alphabet[random.random_range(0..alphabet.len())])).collect()
    };
    GeneratedKey {
        access_key: format!("HF{}", pick(ACCESS_KEY_ALPHABET, ACCESS_KEY_RANDOM)),
        secret_key: pick(SECRET_ALPHABET, SECRET_RANDOM),
    }
}

/// Why a text cannot be an access key; `Ok` if it can.
pub fn check_access_key(access_key: &str) -> Result<(), String> {
    if !ACCESS_KEY_BYTES.contains(&access_key.len()) {
        return Err(format!("an access key has {ACCESS_KEY_BYTES:?} characters, this one {}", access_key.len()));
    }
    // A slash, comma or equals sign would break the authorization header that carries it.
    if access_key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b'+')) {
        return Ok(());
    }
    Err("an access key has letters, digits and - _ . @ + only".to_owned())
}

/// Why a text cannot be a secret key; `Ok` if it can.
pub fn check_secret_key(secret_key: &str) -> Result<(), String> {
    if !SECRET_KEY_BYTES.contains(&secret_key.len()) {
        return Err(format!("a secret key has {SECRET_KEY_BYTES:?} characters, this one {}", secret_key.len()));
    }
    if secret_key.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("a secret key has printable ASCII characters without blanks only".to_owned())
}

pub(crate) async fn list(State(state): Shared) -> AdminResult<Json<Vec<KeyView>>> {
    let keys = state.metadata.access_key_list().await?;
    Ok(Json(keys.into_iter().map(view).collect()))
}

pub(crate) async fn create(State(state): Shared, body: Bytes) -> AdminResult<Json<KeyView>> {
    let key = new_key(decode(&body)?, (state.clock)())?;
    tracing::info!(access_key = key.access_key, name = key.name, "access key created");
    let shown = KeyView { secret_key: Some(key.secret_key.clone()), ..view(key.clone()) };
    finish(async move { Ok(state.metadata.access_key_create(key).await?) }).await?;
    Ok(Json(shown))
}

pub(crate) async fn remove(State(state): Shared, Path(access_key): Path<String>) -> AdminResult<Json<KeyView>> {
    let key = state.metadata.access_key(&access_key).ok_or_else(|| {
        let message = format!("no access key {access_key:?}");
        AdminFailure::new(Code::NoSuchAccessKey, ErrorKind::NotFound, message).or_try("holdfast key list")
    })?;
    if key.is_root {
        let message = format!("{access_key} is the root key; without it nobody could administer the store");
        return Err(AdminFailure::new(Code::RootKeyStays, ErrorKind::Conflict, message));
    }
    tracing::info!(access_key, "access key deleted");
    finish(async move { Ok(state.metadata.access_key_delete(&access_key).await?) }).await?;
    Ok(Json(view(key)))
}

/// Without the secret.
fn view(key: AccessKey) -> KeyView {
    KeyView {
        access_key: key.access_key,
        secret_key: None,
        name: key.name,
        created_ms: key.created_ms,
        is_root: key.is_root,
    }
}

fn new_key(create: KeyCreate, now_ms: u64) -> AdminResult<AccessKey> {
    let invalid = |message: String| AdminFailure::new(Code::InvalidAccessKey, ErrorKind::Invalid, message);
    let generated = generate_key();
    let (access_key, secret_key) = match (create.access_key, create.secret_key) {
        (Some(access_key), Some(secret_key)) => (access_key, secret_key),
        (None, None) => (generated.access_key, generated.secret_key),
        _ => return Err(invalid("give both an access key and its secret, or neither".to_owned())),
    };
    check_access_key(&access_key).map_err(invalid)?;
    check_secret_key(&secret_key).map_err(invalid)?;
    if create.name.len() > NAME_BYTES_MAX || create.name.chars().any(char::is_control) {
        return Err(invalid(format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters")));
    }
    let name = if create.name.is_empty() { access_key.clone() } else { create.name };
    Ok(AccessKey { access_key, secret_key, name, created_ms: now_ms, is_root: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_are_valid_and_differ() {
        let (one, two) = (generate_key(), generate_key());
        assert_ne!(one.access_key, two.access_key);
        assert_ne!(one.secret_key, two.secret_key);
        assert_eq!(one.access_key.len(), 20);
        assert_eq!(check_access_key(&one.access_key), Ok(()));
        assert_eq!(check_secret_key(&one.secret_key), Ok(()));
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        for bad in ["", "ab", "with/slash", "with,comma", "with=equals", "with blank", "ümlaut", &"x".repeat(129)] {
            assert!(check_access_key(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "short", "with a blank", "line\nbreak", &"x".repeat(129)] {
            assert!(check_secret_key(bad).is_err(), "{bad:?}");
        }
        for (access_key, secret_key) in [(Some("abc"), None), (None, Some("12345678"))] {
            let create = KeyCreate {
                access_key: access_key.map(str::to_owned),
                secret_key: secret_key.map(str::to_owned),
                ..KeyCreate::default()
            };
            assert_eq!(new_key(create, 1).unwrap_err().code, Code::InvalidAccessKey);
        }
        let key = new_key(KeyCreate { name: "ci".into(), ..KeyCreate::default() }, 7).unwrap();
        assert_eq!((key.name.as_str(), key.created_ms, key.is_root), ("ci", 7, false));
    }
}
