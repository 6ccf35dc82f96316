//! `identity.json`: what says that a directory is a backend, and which; and `LOCK`, which keeps a second opener out.
//!
//! Invariant: the identity is written last when a directory is formatted, whole and synced, and never changed.

use super::open_error::{FormatError, OpenError};
use holdfast_proto::shard_header::crc32c;
use holdfast_proto::{BackendId, ClusterId};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) const IDENTITY_NAME: &str = "identity.json";
const IDENTITY_TEMPORARY_NAME: &str = "identity.json.tmp";
const LOCK_NAME: &str = "LOCK";
const MAGIC: &str = "holdfast-backend";
const FORMAT: u32 = 1;
/// A fresh file system's root holds this directory; it does not make the place taken.
const ALLOWED_IN_EMPTY: [&str; 2] = ["lost+found", IDENTITY_TEMPORARY_NAME];
/// An identity takes about 300 bytes; more is not one.
const IDENTITY_BYTES_MAX: u64 = 64 * 1024;

/// Who a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its id, made when it was formatted.
    pub id: BackendId,
    /// Short name for people.
    pub name: String,
    /// When it was formatted, milliseconds since 1970.
    pub created_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    magic: String,
    format: u32,
    cluster: ClusterId,
    backend: BackendId,
    name: String,
    created_ms: u64,
    checksum: String,
}

impl Identity {
    /// Makes `directory` (absent, or empty but for `lost+found`) the place of this backend. Durable on return.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), FormatError> {
        let failed = |action| move |error| FormatError::io(directory, action, error);
        make_directory(directory)?;
        let temporary = directory.join(IDENTITY_TEMPORARY_NAME);
        let mut file = File::create(&temporary).map_err(failed("create identity"))?;
        file.write_all(self.to_json().as_bytes()).map_err(failed("write identity"))?;
        file.sync_all().map_err(failed("sync identity"))?;
        std::fs::rename(&temporary, directory.join(IDENTITY_NAME)).map_err(failed("rename identity"))?;
        sync_directory(directory).map_err(failed("sync directory"))
    }

    /// Reads the identity found in `directory`, whosever it is.
    pub(crate) fn read(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(IDENTITY_NAME);
        let damaged = |reason: String| OpenError::Damaged { directory: directory.to_owned(), reason };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(absent(directory)),
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(absent(directory)),
            Err(error) => return Err(OpenError::io(directory, "open identity", error)),
        };
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, IDENTITY_BYTES_MAX), &mut text).map_err(
            |error| match error.kind() {
                ErrorKind::InvalidData => damaged(format!("{IDENTITY_NAME} is not text")),
                _ => OpenError::io(directory, "read identity", error),
            },
        )?;
        let stored: Stored =
            serde_json::from_str(&text).map_err(|error| damaged(format!("{IDENTITY_NAME} cannot be read: {error}")))?;
        if stored.magic != MAGIC {
            return Err(damaged(format!("{IDENTITY_NAME} is not a backend's")));
        }
        if stored.format != FORMAT {
            return Err(OpenError::UnknownFormat { directory: directory.to_owned(), format: stored.format });
        }
        let identity =
            Self { cluster: stored.cluster, id: stored.backend, name: stored.name, created_ms: stored.created_ms };
        if identity.checksum() != stored.checksum {
            return Err(damaged(format!("{IDENTITY_NAME} fails its checksum")));
        }
        Ok(identity)
    }

    /// Reads the identity and refuses any but the expected one.
    pub(crate) fn expect(directory: &Path, cluster: ClusterId, id: BackendId) -> Result<Self, OpenError> {
        let found = Self::read(directory)?;
        if found.cluster != cluster || found.id != id {
            return Err(OpenError::Foreign {
                directory: directory.to_owned(),
                expected: id,
                found: found.id,
                found_cluster: found.cluster,
            });
        }
        Ok(found)
    }

    fn to_json(&self) -> String {
        let stored = Stored {
            magic: MAGIC.to_owned(),
            format: FORMAT,
            cluster: self.cluster,
            backend: self.id,
            name: self.name.clone(),
            created_ms: self.created_ms,
            checksum: self.checksum(),
        };
        serde_json::to_string_pretty(&stored).expect("strings and numbers always serialize")
    }

    fn checksum(&self) -> String {
        let mut bytes = FORMAT.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.created_ms.to_le_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        format!("crc32c:{:08x}", crc32c(&bytes))
    }
}

/// Takes the directory's lock for as long as the handle lives.
pub(crate) fn lock(directory: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let handle = rustix::fs::open(directory.join(LOCK_NAME), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| OpenError::io(directory, "open lock file", error))?;
    match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(handle),
        Err(Errno::WOULDBLOCK) => Err(OpenError::Locked { directory: directory.to_owned() }),
        Err(error) => Err(OpenError::io(directory, "lock", error)),
    }
}

fn make_directory(directory: &Path) -> Result<(), FormatError> {
    let failed = |action| move |error| FormatError::io(directory, action, error);
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(failed("list directory"))?.file_name().to_string_lossy().into_owned();
                if !ALLOWED_IN_EMPTY.contains(&name.as_str()) {
                    return Err(FormatError::NotEmpty { directory: directory.to_owned(), found: name });
                }
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
            std::fs::create_dir_all(directory).map_err(failed("create directory"))?;
            // Each name that was made is durable only once the directory it stands in was synced.
            let parents = made.into_iter().filter_map(Path::parent);
            let here = |path: &'_ Path| if path.as_os_str().is_empty() { ".".into() } else { path.to_owned() };
            parents.map(here).try_for_each(|parent| sync_directory(&parent)).map_err(failed("sync parent directory"))
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(FormatError::NotADirectory { directory: directory.to_owned() })
        }
        Err(error) => Err(FormatError::io(directory, "list directory", error)),
    }
}

/// What it means that there is no identity file.
fn absent(directory: &Path) -> OpenError {
    let names: Vec<String> = match std::fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        Err(_) => return OpenError::Missing { directory: directory.to_owned() },
    };
    if names.iter().any(|name| name == "extents" || name == "index") {
        let reason = format!("{IDENTITY_NAME} is gone, but the backend's files are there");
        return OpenError::Damaged { directory: directory.to_owned(), reason };
    }
    OpenError::Wiped { directory: directory.to_owned() }
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { cluster: ClusterId([1; 16]), id: BackendId([2; 16]), name: "d1".to_owned(), created_ms: 5 }
    }

    #[test]
    fn written_once_and_read_back() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("a/b");
        identity().write(&place).unwrap();
        assert_eq!(Identity::read(&place), Ok(identity()));
        let again = identity().write(&place);
        assert!(matches!(again, Err(FormatError::NotEmpty { .. })), "{again:?}");
        std::fs::write(base.path().join("file"), "x").unwrap();
        assert!(matches!(identity().write(&base.path().join("file")), Err(FormatError::NotADirectory { .. })));
    }

    #[test]
    fn each_way_of_being_wrong_has_its_own_error() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("d1");
        let expect = || Identity::expect(&place, ClusterId([1; 16]), BackendId([2; 16]));
        assert!(matches!(expect(), Err(OpenError::Missing { .. })));
        std::fs::create_dir(&place).unwrap();
        assert!(matches!(expect(), Err(OpenError::Wiped { .. })));
        std::fs::create_dir(place.join("extents")).unwrap();
        assert!(matches!(expect(), Err(OpenError::Damaged { .. })));
        std::fs::remove_dir(place.join("extents")).unwrap();
        identity().write(&place).unwrap();
        assert!(expect().is_ok());
        let other = Identity::expect(&place, ClusterId([9; 16]), BackendId([2; 16]));
        assert!(matches!(other, Err(OpenError::Foreign { .. })));
        let good = std::fs::read_to_string(place.join(IDENTITY_NAME)).unwrap();
        for (from, to) in [("\"d1\"", "\"d2\""), ("{", ""), ("holdfast-backend", "else"), (": 5", ": 6")] {
            std::fs::write(place.join(IDENTITY_NAME), good.replace(from, to)).unwrap();
            assert!(matches!(expect(), Err(OpenError::Damaged { .. })), "{from} -> {to}: {:?}", expect());
        }
        std::fs::write(place.join(IDENTITY_NAME), good.replace("\"format\": 1", "\"format\": 2")).unwrap();
        assert!(matches!(expect(), Err(OpenError::UnknownFormat { format: 2, .. })));
    }

    #[test]
    fn a_second_opener_is_kept_out() {
        let place = tempfile::tempdir().unwrap();
        let first = lock(place.path()).unwrap();
        assert!(matches!(lock(place.path()), Err(OpenError::Locked { .. })));
        drop(first);
        assert!(lock(place.path()).is_ok());
    }
}
