//! The data directory and its lock: one server at a time, and where to find that one.
//!
//! `DIR/LOCK` is held by flock for the life of the process, so a crash frees it; what is written in it (process id,
//! administration address) is only to be read by people and by `--data-dir` on the command line.

use crate::failure::{Exit, Failure};
use holdfast_coordinator::admin::Code;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "LOCK";
/// Longest lock file looked at.
const LOCK_BYTES_MAX: u64 = 4096;

/// A locked data directory. Dropping it unlocks.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    lock: File,
}

impl DataDirectory {
    /// Makes the directory if it is not there and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unusable = |action: &str, error: std::io::Error| {
            let message = format!("{action} {}: {error}", path.display());
            Failure::new(Code::DataDirectoryUnusable, message).or_try("--data-dir with a directory you may write")
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| unusable("create the data directory", e))?;
        let path = path.canonicalize().map_err(|e| unusable("find the data directory", e))?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(|e| unusable("open the lock of", e))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(&path)),
            Err(error) => return Err(unusable("lock", error.into())),
        }
        let directory = Self { path, lock };
        directory.write("").map_err(|e| unusable("write the lock of", e))?;
        Ok(directory)
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down where this server administers.
    pub(crate) fn announce(&self, admin: SocketAddr) -> std::io::Result<()> {
        self.write(&format!("admin {admin}\n"))
    }

    fn write(&self, more: &str) -> std::io::Result<()> {
        let mut file = &self.lock;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(format!("pid {}\n{more}", std::process::id()).as_bytes())
    }
}

fn in_use(path: &Path) -> Failure {
    let holder = field(path, "pid ").map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let message = format!("data directory {} is in use by another holdfast server{holder}", path.display());
    Failure::new(Code::DataDirectoryInUse, message)
        .or_try("stop that server first, or give another --data-dir")
        .exits(Exit::Refused)
}

/// Where the server of this directory administers, if one runs or ran there. An address that listens everywhere is
/// asked at loopback.
pub(crate) fn admin_address(directory: &Path) -> Option<SocketAddr> {
    let address: SocketAddr = field(directory, "admin ")?.parse().ok()?;
    Some(reachable(address))
}

/// The address a local client can connect to.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    }
}

fn field(directory: &Path, name: &str) -> Option<String> {
    let mut text = String::new();
    File::open(directory.join(LOCK_FILE)).ok()?.take(LOCK_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_by_whom() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let first = DataDirectory::open(&path).unwrap();
        let failure = DataDirectory::open(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains("in use by another"), "{failure}");
        assert!(failure.message.contains(&format!("pid {}", std::process::id())), "{failure}");
        drop(first);
        DataDirectory::open(&path).expect("free again");
    }

    #[test]
    fn the_address_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(admin_address(root.path()), None);
        let directory = DataDirectory::open(root.path()).unwrap();
        assert_eq!(admin_address(root.path()), None);
        directory.announce("0.0.0.0:9001".parse().unwrap()).unwrap();
        assert_eq!(admin_address(root.path()), Some("127.0.0.1:9001".parse().unwrap()));
        directory.announce("[::]:9001".parse().unwrap()).unwrap();
        assert_eq!(admin_address(root.path()), Some("[::1]:9001".parse().unwrap()));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_one_line() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = DataDirectory::open(&file.join("data")).unwrap_err();
        assert_eq!(failure.code, "HF1102");
        assert_eq!(failure.message.lines().count(), 1);
    }
}
