//! The root key: from the environment at the first start, else generated and kept in `DIR/credentials`.
//!
//! Invariants: the file is readable by its owner only, and complete or absent; a secret is never logged.

use super::durable_file::{self, Readers};
use crate::failure::Failure;
use holdfast_coordinator::admin::{Code, check_access_key, check_secret_key, generate_key};
use holdfast_sdk::Credentials;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "credentials";
const ACCESS_KEY_VARIABLE: &str = "HOLDFAST_ACCESS_KEY_ID";
const SECRET_KEY_VARIABLE: &str = "HOLDFAST_SECRET_ACCESS_KEY";

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    access_key: String,
    secret_key: String,
}

/// Where a root key of a first start came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootKey {
    /// The environment; whoever set it knows it.
    Given(Credentials),
    /// Made here, and in the file.
    Generated(Credentials),
}

impl RootKey {
    pub(crate) fn credentials(&self) -> &Credentials {
        match self {
            Self::Given(credentials) | Self::Generated(credentials) => credentials,
        }
    }
}

/// `DIR/credentials`.
pub(crate) fn file_in(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// The root key of a first start. Durable before it returns, so that a crash right after makes no second one.
pub(crate) fn for_first_start(data_dir: &Path) -> Result<RootKey, Failure> {
    if let Some(given) = from_environment()? {
        return Ok(RootKey::Given(given));
    }
    let path = file_in(data_dir);
    if let Some(kept) = read(&path)? {
        return Ok(RootKey::Generated(kept));
    }
    let generated = generate_key();
    let credentials = Credentials { access_key: generated.access_key, secret_key: generated.secret_key };
    write(data_dir, &credentials).map_err(|e| {
        unusable(format!("write {}: {e}", path.display())).or_try("free room or give another --data-dir")
    })?;
    Ok(RootKey::Generated(credentials))
}

/// From `HOLDFAST_ACCESS_KEY_ID` and `HOLDFAST_SECRET_ACCESS_KEY`; `None` unless set.
pub(crate) fn from_environment() -> Result<Option<Credentials>, Failure> {
    from_variables(std::env::var(ACCESS_KEY_VARIABLE).ok(), std::env::var(SECRET_KEY_VARIABLE).ok())
}

fn from_variables(access_key: Option<String>, secret_key: Option<String>) -> Result<Option<Credentials>, Failure> {
    let given = |value: Option<String>| value.filter(|v| !v.is_empty());
    match (given(access_key), given(secret_key)) {
        (None, None) => Ok(None),
        (Some(access_key), Some(secret_key)) => {
            checked(Credentials { access_key, secret_key }, ACCESS_KEY_VARIABLE).map(Some)
        }
        _ => Err(unusable(format!("{ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE} belong together"))
            .or_try("set both or neither")),
    }
}

/// From a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Credentials>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(format!("read {}: {error}", path.display()))),
    };
    // The parser's own message would quote the line, and with it the secret.
    let stored: Stored = toml::from_str(&text).map_err(|_| {
        unusable(format!("{} is not a credentials file", path.display()))
            .or_try("two lines: access_key = \"...\" and secret_key = \"...\"")
    })?;
    let credentials = Credentials { access_key: stored.access_key, secret_key: stored.secret_key };
    checked(credentials, &path.display().to_string()).map(Some)
}

fn checked(credentials: Credentials, place: &str) -> Result<Credentials, Failure> {
    check_access_key(&credentials.access_key)
        .and_then(|()| check_secret_key(&credentials.secret_key))
        .map_err(|why| unusable(format!("{place}: {why}")))?;
    Ok(credentials)
}

fn unusable(message: String) -> Failure {
    Failure::usage(Code::UnusableCredentials, message)
}

fn write(data_dir: &Path, credentials: &Credentials) -> std::io::Result<()> {
    let stored = Stored { access_key: credentials.access_key.clone(), secret_key: credentials.secret_key.clone() };
    let text = toml::to_string(&stored).map_err(std::io::Error::other)?;
    durable_file::replace(&file_in(data_dir), text.as_bytes(), Readers::Owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn written_private_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials { access_key: "HFABC".into(), secret_key: "0123456789".into() };
        write(directory.path(), &credentials).unwrap();
        let path = file_in(directory.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), Some(credentials));
    }

    #[test]
    fn a_file_that_is_none_is_refused_without_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = file_in(directory.path());
        assert_eq!(read(&path).unwrap(), None);
        for text in ["", "hush-hush", "access_key = \"abc\"", "access_key = \"a/b\"\nsecret_key = \"hush-hush\""] {
            fs::write(&path, text).unwrap();
            let failure = read(&path).unwrap_err();
            assert_eq!(failure.code, "HF1104", "{text}");
            assert!(!failure.to_string().contains("hush"), "{failure}");
        }
    }

    #[test]
    fn variables_belong_together() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(from_variables(None, None), Ok(None));
        assert_eq!(from_variables(some(""), None), Ok(None));
        assert!(from_variables(some("abc"), some("12345678")).unwrap().is_some());
        for (access_key, secret_key) in [(some("abc"), None), (None, some("12345678")), (some("abc"), some("short"))] {
            assert_eq!(from_variables(access_key, secret_key).unwrap_err().code, "HF1104");
        }
    }
}
