//! Whether the metadata in a data directory are those of the node whose certificate lies beside them.
//!
//! A voter must never forget what it voted: one that came back under its number with empty metadata, or with another
//! node's, could vote twice and bring two leaders about. So each part keeps a word about the other:
//!
//!     DIR/metadata/node        cluster and number of the node that the metadata are of
//!     DIR/node/has-metadata    there were metadata once, so they must be there
//!
//! **Invariant:** metadata that are gone or another's are refused before anything is opened or made.

use crate::failure::{Exit, Failure};
use crate::server::durable_file::{self, Readers};
use holdfast_coordinator::admin::Code;
use holdfast_proto::cluster::NodeIdentity;
use std::io;
use std::path::{Path, PathBuf};

/// The one way on for a node that cannot be what it was.
const NEXT_STEP: &str = "the directory as it was; if that is lost, an empty --data-dir and --join with a new token";

/// Before the metadata of a node are opened. Directories of versions that kept no such words pass.
pub(crate) fn check(data_dir: &Path, own: &NodeIdentity) -> Result<(), Failure> {
    let refused = |why: String| {
        let message = format!("{}: {why}", data_dir.display());
        Failure::new(Code::DataDirectoryMismatch, message).or_try(NEXT_STEP).exits(Exit::Refused)
    };
    if let Some(owner) = durable_file::read(&owner_path(data_dir)).map_err(|e| failed(&owner_path(data_dir), &e))? {
        let owner = String::from_utf8_lossy(&owner).trim().to_owned();
        let own = words(own);
        if owner != own {
            return Err(refused(format!("the certificate is of {own}, the metadata are of {owner}")));
        }
        return Ok(());
    }
    let had = durable_file::read(&marker_path(data_dir)).map_err(|e| failed(&marker_path(data_dir), &e))?;
    if had.is_some() {
        return Err(refused(format!("the metadata of {} are gone, and with them what it has voted", words(own))));
    }
    Ok(())
}

/// Once they are open and it is a member of a cluster. The owner goes first: a marker alone would refuse the next start.
pub(crate) fn note(data_dir: &Path, own: &NodeIdentity) -> Result<(), Failure> {
    let owner = format!("{}\n", words(own));
    for (path, content) in [(owner_path(data_dir), owner.as_str()), (marker_path(data_dir), "")] {
        let is_noted = durable_file::read(&path).map_err(|e| failed(&path, &e))?.is_some();
        if !is_noted {
            durable_file::replace(&path, content.as_bytes(), Readers::Anybody).map_err(|e| failed(&path, &e))?;
        }
    }
    Ok(())
}

fn words(identity: &NodeIdentity) -> String {
    format!("cluster {} node {}", identity.cluster, identity.node.0)
}

fn owner_path(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata").join("node")
}

fn marker_path(data_dir: &Path) -> PathBuf {
    data_dir.join("node").join("has-metadata")
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::StartFailed, format!("use {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::cluster::Roles;
    use holdfast_proto::{ClusterId, NodeId};
    use std::fs;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("metadata")).unwrap();
        fs::create_dir(directory.path().join("node")).unwrap();
        directory
    }

    fn node(cluster: u8, node: u64) -> NodeIdentity {
        let (cluster, node) = (ClusterId([cluster; 16]), NodeId(node));
        NodeIdentity { cluster, node, roles: Roles::BOTH, region: "r".to_owned(), zone: "z".to_owned() }
    }

    #[test]
    fn metadata_that_are_gone_or_anothers_are_refused() {
        let two = directory();
        check(two.path(), &node(7, 2)).expect("a first start");
        note(two.path(), &node(7, 2)).unwrap();
        note(two.path(), &node(7, 2)).unwrap();
        check(two.path(), &node(7, 2)).expect("a later start");

        fs::remove_dir_all(two.path().join("metadata")).unwrap();
        let gone = check(two.path(), &node(7, 2)).unwrap_err();
        assert!(gone.message.contains("node 2 are gone"), "{gone}");
        assert_eq!((gone.code.as_str(), gone.exit as u8), ("HF1111", 6));

        for other in [node(7, 3), node(8, 2)] {
            let three = directory();
            note(three.path(), &other).unwrap();
            fs::rename(three.path().join("metadata"), two.path().join("metadata")).unwrap();
            let mixed = check(two.path(), &node(7, 2)).unwrap_err();
            assert!(mixed.message.contains(&words(&other)), "{mixed}");
            assert!(mixed.next_step.contains("--join"), "{mixed}");
            fs::remove_dir_all(two.path().join("metadata")).unwrap();
        }
    }

    #[test]
    fn a_start_cut_off_before_the_marker_is_carried_on() {
        let directory = directory();
        note(directory.path(), &node(7, 2)).unwrap();
        fs::remove_file(marker_path(directory.path())).unwrap();
        check(directory.path(), &node(7, 2)).unwrap();
        note(directory.path(), &node(7, 2)).unwrap();
        assert!(marker_path(directory.path()).exists());
    }
}
