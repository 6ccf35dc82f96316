//! Where a backend is, as operators write it: `disk:PATH`.
//!
//! **Invariant:** a location that was parsed names an absolute path without `.` and `..`, so that two of them can be
//! compared.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// A directory on a disk of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    directory: PathBuf,
}

/// Why text is not a location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// There is no `disk:` before it.
    #[error("{got:?} is not a location: write disk:PATH, for example disk:/mnt/d7")]
    NoKind {
        /// What was given (at most its first 200 characters).
        got: String,
    },
    /// Another kind of backend than this build has.
    #[error("backends of kind {kind:?} are not known to this build; it has: disk (disk:PATH)")]
    UnknownKind {
        /// The part before the colon.
        kind: String,
    },
    /// Nothing after `disk:`.
    #[error("disk: needs the path of a directory after it, for example disk:/mnt/d7")]
    NoPath,
    /// The path cannot be made absolute, or goes up beyond the root.
    #[error("{path:?} cannot be used as a path: {reason}")]
    Path {
        /// As given.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl Location {
    /// The backend's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether one lies within the other, or they are the same.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.directory.starts_with(&other.directory) || other.directory.starts_with(&self.directory)
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let Some((kind, path)) = text.split_once(':') else {
            return Err(LocationError::NoKind { got: text.chars().take(200).collect() });
        };
        match kind {
            "disk" if path.is_empty() => return Err(LocationError::NoPath),
            "disk" => {}
            kind if kind.contains('/') => return Err(LocationError::NoKind { got: text.chars().take(200).collect() }),
            kind => return Err(LocationError::UnknownKind { kind: kind.chars().take(64).collect() }),
        }
        let refused = |reason: String| LocationError::Path { path: path.to_owned(), reason };
        if path.contains('\0') {
            return Err(refused("it contains a zero byte".to_owned()));
        }
        let absolute = std::path::absolute(path).map_err(|e| refused(e.to_string()))?;
        let mut directory = PathBuf::new();
        for part in absolute.components() {
            match part {
                Component::ParentDir if !directory.pop() => return Err(refused("it goes above the root".to_owned())),
                Component::ParentDir | Component::CurDir => {}
                other => directory.push(other),
            }
        }
        if directory.parent().is_none() {
            return Err(refused("the root directory cannot be a backend".to_owned()));
        }
        Ok(Self { directory })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk:{}", self.directory.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_case() {
        let check = |text: &str, expected: Result<&str, &str>| match (text.parse::<Location>(), expected) {
            (Ok(location), Ok(expected)) => assert_eq!(location.to_string(), expected, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (got, _) => panic!("{text}: {got:?}, expected {expected:?}"),
        };
        check("disk:/mnt/d1", Ok("disk:/mnt/d1"));
        check("disk:/mnt/./d1/", Ok("disk:/mnt/d1"));
        check("disk:/mnt/x/../d1", Ok("disk:/mnt/d1"));
        check("disk:/a:b", Ok("disk:/a:b"));
        check("", Err("disk:PATH"));
        check("/mnt/d1", Err("disk:PATH"));
        check("/mnt/a:b", Err("disk:PATH"));
        check("disk:", Err("needs the path"));
        check("s3:bucket", Err("\"s3\""));
        check("Disk:/mnt/d1", Err("\"Disk\""));
        check("disk:/", Err("root"));
        check("disk:/..", Err("root"));
        check("disk:/a\0b", Err("zero byte"));
        assert!("disk:relative".parse::<Location>().unwrap().directory().is_absolute());
    }

    #[test]
    fn overlap_is_by_whole_names() {
        let at = |text: &str| text.parse::<Location>().unwrap();
        assert!(at("disk:/a/b").overlaps(&at("disk:/a")));
        assert!(at("disk:/a").overlaps(&at("disk:/a/b/c")));
        assert!(at("disk:/a").overlaps(&at("disk:/a/")));
        assert!(!at("disk:/a/b").overlaps(&at("disk:/a/bc")));
    }
}
