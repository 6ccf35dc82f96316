//! A file system of a few MiB in a file, so that "disk full" is the kernel's own answer and can be undone.

use super::system::{must_run, run};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// An ext4 mounted at `path()`. Unmounted when dropped; whoever uses it must be gone by then, else it is detached and
/// vanishes with the last user.
pub struct SmallDisk {
    path: PathBuf,
    image: PathBuf,
}

impl SmallDisk {
    /// Makes a disk of `bytes` and mounts it at `path`, which must not exist. Needs root, as namespaces do.
    pub fn mount(path: &Path, bytes: u64) -> Self {
        let image = path.with_extension("image");
        File::create_new(&image).and_then(|file| file.set_len(bytes)).expect("make the image of a small disk");
        fs::create_dir(path).expect("make the directory of a small disk");
        let (image_text, path_text) = (image.display().to_string(), path.display().to_string());
        // No blocks kept for root: the server under test is root too.
        must_run("mkfs.ext4", &["-q", "-m", "0", &image_text]);
        must_run("mount", &["-o", "loop", &image_text, &path_text]);
        Self { path: path.to_owned(), image }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        let figures = statvfs(&self.path).expect("ask a small disk for its room");
        figures.f_bavail * figures.f_frsize
    }

    /// Takes all room but about `left` bytes.
    pub fn fill(&self, left: u64) {
        let file = File::create(self.ballast()).expect("make the ballast");
        let bytes = self.free_bytes().saturating_sub(left);
        if bytes > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, bytes).expect("fill a small disk");
        }
    }

    /// Gives the room back.
    pub fn empty(&self) {
        fs::remove_file(self.ballast()).expect("remove the ballast");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.path.display().to_string();
        if run("umount", &[&path]).is_err() {
            let _ = run("umount", &["-l", &path]);
        }
        let _ = fs::remove_dir(&self.path);
        let _ = fs::remove_file(&self.image);
    }
}
