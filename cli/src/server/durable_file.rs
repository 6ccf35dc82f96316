//! Small files that must be whole or not there: written aside, synced, renamed, the directory synced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// The server's user alone.
    Owner,
    /// As the umask says.
    Anybody,
}

/// Puts `bytes` in place of whatever `path` held. On return they are on stable storage; a crash before leaves the old
/// content.
pub(crate) fn replace(path: &Path, bytes: &[u8], readers: Readers) -> std::io::Result<()> {
    let aside = aside(path);
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Anybody => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&aside)?;
    if readers == Readers::Owner {
        // A file left over from a crash may have had another mode.
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    sync_parent(path)
}

/// Makes a directory in one that is there; one that is there already is fine. On return it is on stable storage.
pub(crate) fn make_directory(path: &Path) -> std::io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        // Made by a process that may have been cut off before it synced.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => sync_parent(path),
        Err(error) => Err(error),
    }
}

/// Removes a file; one that is not there is fine. On return it stays removed.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The bytes of a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_reads_and_removes_and_keeps_secrets_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(aside(&path), "left over").unwrap();
        fs::set_permissions(aside(&path), Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"one", Readers::Owner).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        replace(&path, b"two", Readers::Owner).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(b"two".as_slice()));
        assert!(!aside(&path).exists());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
