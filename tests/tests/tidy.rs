//! Promise: the house stays tidy (docs of every file, lengths, dependency arrows, no leftovers).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code (before the first `#[cfg(test)]`) a file may have.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "data" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_of_readable_length() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 50, "the walk found only {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        if !text.starts_with("//!") {
            wrong.push(format!("{name}: no module doc in its first line"));
        }
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
        if code > LINES_MAX && !name.contains("tests") {
            wrong.push(format!("{name}: {code} lines of code, {LINES_MAX} allowed: find the seam"));
        }
        for leftover in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("db", "g!("), concat!("to", "do!(")] {
            if text.contains(leftover) {
                wrong.push(format!("{name}: leftover {leftover}"));
            }
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if ["utils", "util", "helpers", "common", "misc"].contains(&stem.as_str()) {
            wrong.push(format!("{name}: named for nothing"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    // ARCHITECTURE.md, "Crates": who may depend on whom. `bench` and `tests` may depend on anything.
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("proto", &[][..]),
        ("codec", &[][..]),
        ("faults", &["proto"][..]),
        ("backends", &["proto", "faults"][..]),
        ("trust", &["proto"][..]),
        ("transport", &["proto", "faults", "trust"][..]),
        ("storage-node", &["proto", "faults", "transport", "backends"][..]),
        ("placement", &["proto", "codec"][..]),
        ("coordinator", &["proto", "codec", "faults", "placement", "trust", "transport"][..]),
        ("sdk", &["proto"][..]),
        (
            "cli",
            &[
                "proto",
                "codec",
                "faults",
                "placement",
                "trust",
                "transport",
                "backends",
                "storage-node",
                "coordinator",
                "sdk",
            ][..],
        ),
    ]);
    for (member, allowed) in allowed {
        let manifest: toml::Table =
            fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap();
        let dependencies = manifest.get("dependencies").and_then(|d| d.as_table()).cloned().unwrap_or_default();
        let ours: BTreeSet<String> =
            dependencies.keys().filter_map(|k| k.strip_prefix("holdfast-")).map(str::to_owned).collect();
        let allowed: BTreeSet<String> = allowed.iter().map(|s| (*s).to_owned()).collect();
        let extra: Vec<_> = ours.difference(&allowed).collect();
        assert!(extra.is_empty(), "{member} must not depend on {extra:?}");
    }
}

#[test]
fn no_s3_library_type_leaves_its_folder() {
    let mut files = Vec::new();
    rust_files(&root().join("coordinator").join("src"), &mut files);
    let outside = files.iter().filter(|p| !p.starts_with(root().join("coordinator/src/s3")));
    for path in outside {
        assert!(!fs::read_to_string(path).unwrap().contains("s3s::"), "{} names an s3s type", path.display());
    }
}
