//! The first start of a store: chooses backends, formats them, and has the first cluster map made.
//!
//! Planned, then executed: the plan is on stable storage in `DIR/first-start.json` before the first directory is made,
//! and removed once the cluster map is in the metadata; a start that was interrupted anywhere goes on from it.
//! Invariant: nothing that was not empty when the plan was made is formatted.

use super::config::{DEFAULT_BACKENDS, SchemeShape, ServerConfig};
use super::durable_file::{self, Readers};
use crate::failure::{Exit, Failure};
use holdfast_coordinator::admin::Code;
use holdfast_coordinator::metadata::BackendRecord;
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::{BackendId, ClusterId, NodeId};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const PLAN_FILE: &str = "first-start.json";

/// What a first start is to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The cluster to be.
    pub(crate) cluster: ClusterId,
    /// k.
    pub(crate) k: usize,
    /// m.
    pub(crate) m: usize,
    /// Its backends.
    pub(crate) backends: Vec<PlannedBackend>,
}

/// One backend to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedBackend {
    pub(crate) id: BackendId,
    pub(crate) name: String,
    pub(crate) location: String,
}

impl PlannedBackend {
    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        Path::new(self.location.strip_prefix("disk:").unwrap_or(&self.location))
    }

    /// As the cluster map records it.
    pub(crate) fn record(&self) -> BackendRecord {
        BackendRecord {
            id: self.id,
            name: self.name.clone(),
            location: self.location.clone(),
            intent: BackendIntent::Active,
            node: NodeId::FIRST,
        }
    }
}

impl Plan {
    /// The plan of a start that was interrupted; `None` if there was none.
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let path = data_dir.join(PLAN_FILE);
        let text = durable_file::read(&path).map_err(|e| failed(format!("read {}: {e}", path.display())))?;
        let Some(text) = text else { return Ok(None) };
        let plan = serde_json::from_slice(&text).map_err(|e| failed(format!("read {}: {e}", path.display())))?;
        Ok(Some(plan))
    }

    /// A plan by the settings. Every directory must be empty or absent.
    pub(crate) fn make(
        config: &ServerConfig,
        data_dir: &Path,
        cluster: ClusterId,
        now_ms: u64,
    ) -> Result<Self, Failure> {
        let scheme = config.scheme.unwrap_or(super::config::DEFAULT_SCHEME);
        let locations = if config.backends.is_empty() { default_locations(data_dir) } else { config.backends.clone() };
        check_count(scheme, locations.len())?;
        let backends: Vec<PlannedBackend> = locations
            .into_iter()
            .enumerate()
            .map(|(at, location)| PlannedBackend {
                id: BackendId::from_parts(now_ms, rand::rng().random()),
                name: format!("d{}", at + 1),
                location,
            })
            .collect();
        for backend in &backends {
            check_empty(backend.directory())?;
        }
        Ok(Self { cluster, k: scheme.k, m: scheme.m, backends })
    }

    /// Puts the plan on stable storage.
    pub(crate) fn write(&self, data_dir: &Path) -> Result<(), Failure> {
        let path = data_dir.join(PLAN_FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed(format!("write the plan: {e}")))?;
        durable_file::replace(&path, &text, Readers::Anybody)
            .map_err(|e| failed(format!("write {}: {e}", path.display())))
    }

    /// Forgets the plan, once the cluster map is in the metadata.
    pub(crate) fn forget(data_dir: &Path) -> Result<(), Failure> {
        let path = data_dir.join(PLAN_FILE);
        durable_file::remove(&path).map_err(|e| failed(format!("remove {}: {e}", path.display())))
    }

    /// The scheme.
    pub(crate) fn scheme(&self) -> SchemeShape {
        SchemeShape { k: self.k, m: self.m }
    }
}

/// On later starts: backends and scheme on the command line must be those of the store, or absent.
pub(crate) fn check_later_start(
    config: &ServerConfig,
    backends: &[BackendRecord],
    scheme: SchemeShape,
) -> Result<(), Failure> {
    if let Some(asked) = config.scheme.filter(|asked| *asked != scheme) {
        let message = format!("this store was made with scheme {scheme}; {asked} was asked for");
        return Err(Failure::usage(Code::SchemeDiffers, message).or_try(format!("--scheme {scheme}, or none")));
    }
    let known = |location: &String| backends.iter().any(|backend| same_place(&backend.location, location));
    match config.backends.iter().find(|location| !known(location)) {
        None => Ok(()),
        Some(stranger) => {
            let message = format!("{stranger} is not a backend of this store");
            Err(Failure::usage(Code::BackendsDiffer, message)
                .or_try(format!("start without it, then `holdfast backend add {stranger}` (or `backend replace`)")))
        }
    }
}

/// Whether two locations name one directory, through links if both exist.
fn same_place(one: &str, other: &str) -> bool {
    let canonical = |location: &str| {
        let path = PathBuf::from(location.strip_prefix("disk:").unwrap_or(location));
        path.canonicalize().unwrap_or(path)
    };
    one == other || canonical(one) == canonical(other)
}

pub(crate) fn default_locations(data_dir: &Path) -> Vec<String> {
    (1..=DEFAULT_BACKENDS)
        .map(|number| format!("disk:{}", data_dir.join(format!("disks/d{number}")).display()))
        .collect()
}

fn check_count(scheme: SchemeShape, count: usize) -> Result<(), Failure> {
    if count >= scheme.n() {
        return Ok(());
    }
    let message = format!("scheme {scheme} needs {} backends, {count} are configured", scheme.n());
    Err(Failure::usage(Code::TooFewBackends, message).or_try("more --backend disk:PATH, or a smaller --scheme K+M"))
}

pub(crate) fn check_empty(directory: &Path) -> Result<(), Failure> {
    let mut entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(format!("look into {}: {error}", directory.display()))),
    };
    // A freshly made file system holds this directory and nothing else.
    match entries.find(|entry| entry.as_ref().map_or(true, |e| e.file_name() != "lost+found")) {
        None => Ok(()),
        Some(_) => Err(failed(format!("{} is not empty; a new backend needs an empty directory", directory.display()))
            .or_try("another --backend, or the --data-dir it belongs to")
            .exits(Exit::Refused)),
    }
}

pub(crate) fn failed(message: String) -> Failure {
    Failure::new(Code::FirstStartFailed, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::ServerArgs;
    use std::collections::BTreeMap;

    fn config(data_dir: &Path, backends: &[&str], scheme: Option<&str>) -> ServerConfig {
        let arguments = ServerArgs {
            data_dir: Some(data_dir.display().to_string()),
            backends: backends.iter().map(|b| (*b).to_owned()).collect(),
            scheme: scheme.map(str::to_owned),
            ..ServerArgs::default()
        };
        ServerConfig::load(&arguments, &BTreeMap::new()).unwrap().0
    }

    #[test]
    fn planned_kept_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let plan = Plan::make(&config(root.path(), &[], None), root.path(), ClusterId([1; 16]), 5).unwrap();
        let names: Vec<_> = plan.backends.iter().map(|b| b.name.as_str()).collect();
        assert_eq!(names, ["d1", "d2", "d3", "d4", "d5", "d6"]);
        assert_eq!(plan.scheme(), SchemeShape { k: 4, m: 2 });
        assert_eq!(plan.backends[1].directory(), root.path().join("disks/d2"));
        assert_eq!(Plan::read(root.path()), Ok(None));
        plan.write(root.path()).unwrap();
        assert_eq!(Plan::read(root.path()), Ok(Some(plan)));
        Plan::forget(root.path()).unwrap();
        Plan::forget(root.path()).unwrap();
        assert_eq!(Plan::read(root.path()), Ok(None));
    }

    #[test]
    fn what_cannot_be_planned_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let make = |config: ServerConfig| Plan::make(&config, root.path(), ClusterId([1; 16]), 5);
        let failure = make(config(root.path(), &[], Some("9+9"))).unwrap_err();
        assert_eq!(failure.code, "HF1105");
        assert!(failure.message.contains("needs 18 backends, 6 are"), "{failure}");
        let full = root.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("precious"), "x").unwrap();
        let places = [format!("disk:{}", full.display()), format!("disk:{}", root.path().join("new").display())];
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let failure = make(config(root.path(), &places, Some("1+1"))).unwrap_err();
        assert!(failure.message.contains("not empty"), "{failure}");
    }

    #[test]
    fn later_starts_must_agree() {
        let root = tempfile::tempdir().unwrap();
        let shape = SchemeShape { k: 1, m: 1 };
        let records: Vec<BackendRecord> = ["a", "b"]
            .iter()
            .map(|name| BackendRecord {
                id: BackendId::default(),
                name: (*name).into(),
                location: format!("disk:/srv/{name}"),
                intent: BackendIntent::Active,
                node: NodeId::FIRST,
            })
            .collect();
        let check = |backends: &[&str], scheme| {
            check_later_start(&config(root.path(), backends, scheme), &records, shape).err().map(|f| f.code)
        };
        assert_eq!(check(&[], None), None);
        assert_eq!(check(&["disk:/srv/a", "disk:/srv/b"], Some("1+1")), None);
        assert_eq!(check(&["disk:/srv/b"], None), None, "those added later need not be named");
        assert_eq!(check(&["disk:/srv/c"], None).as_deref(), Some("HF1106"));
        assert_eq!(check(&[], Some("2+1")).as_deref(), Some("HF1107"));
    }
}
