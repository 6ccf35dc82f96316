//! Random histories against a map: whatever order shards are written, overwritten, deleted, listed, compacted and
//! reopened in, the backend answers as the map does.

use super::*;
use crate::contract::{CLUSTER, joined, put, sample_cells, sample_header};
use proptest::prelude::*;
use std::collections::BTreeMap;

const BACKEND: BackendId = BackendId([0xb3; 16]);

#[derive(Clone, Debug)]
enum Step {
    Put { shard: u64, bytes: u64, seed: u64 },
    Drop { shard: u64, bytes: u64 },
    Delete { shards: Vec<u64> },
    Read { shard: u64, first: u32, count: u32 },
    List { limit: usize },
    Scrub { budget: u64 },
    Maintain,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..12u64;
    let bytes = prop_oneof![Just(0), 1..5_000u64, 100_000..140_000u64, 200_000..900_000u64];
    prop_oneof![
        6 => (shard.clone(), bytes.clone(), any::<u64>()).prop_map(|(shard, bytes, seed)| Step::Put { shard, bytes, seed }),
        1 => (shard.clone(), bytes).prop_map(|(shard, bytes)| Step::Drop { shard, bytes }),
        2 => proptest::collection::vec(shard.clone(), 0..6).prop_map(|shards| Step::Delete { shards }),
        4 => (shard, 0..5u32, 0..5u32).prop_map(|(shard, first, count)| Step::Read { shard, first, count }),
        1 => (1..8usize).prop_map(|limit| Step::List { limit }),
        1 => (1..2_000_000u64).prop_map(|budget| Step::Scrub { budget }),
        1 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
    ]
}

struct Pair {
    backend: Option<DiskBackend>,
    place: tempfile::TempDir,
    model: BTreeMap<ShardId, (ShardHeader, u64)>,
    runtime: tokio::runtime::Runtime,
}

impl Pair {
    fn open(&mut self) {
        let options = DiskOptions {
            reserve_bytes: Some(0),
            extent_bytes_max: 2 << 20,
            io_threads: 2,
            upkeep: Upkeep::Manual,
            ..DiskOptions::default()
        };
        self.backend = None;
        self.backend = Some(DiskBackend::open_with(self.place.path(), CLUSTER, BACKEND, options).unwrap());
    }

    fn run(&mut self, step: Step) {
        let backend = self.backend.as_ref().unwrap();
        let header = |shard, shard_bytes| ShardHeader { shard_bytes, ..sample_header(shard) };
        match step {
            Step::Put { shard, bytes, seed } => {
                let header = header(shard, bytes);
                self.runtime.block_on(put(backend, &header, sample_cells(&header, seed))).unwrap();
                self.model.insert(header.id, (header, seed));
            }
            Step::Drop { shard, bytes } => {
                let header = header(shard, bytes);
                self.runtime.block_on(async {
                    let mut writer = backend.begin(header.clone()).await.unwrap();
                    writer.append(sample_cells(&header, 1)).await.unwrap();
                });
            }
            Step::Delete { shards } => {
                let ids: Vec<ShardId> = shards.iter().map(|&shard| header(shard, 0).id).collect();
                self.model.retain(|id, _| !ids.contains(id));
                self.runtime.block_on(backend.delete(ids)).unwrap();
            }
            Step::Read { shard, first, count } => self.read(header(shard, 0).id, first, count),
            Step::List { limit } => {
                let listed = self.runtime.block_on(backend.list(PgId(7), None, limit)).unwrap();
                let expected: Vec<ShardId> = self.model.keys().copied().take(limit).collect();
                assert_eq!(listed.iter().map(|stat| stat.id).collect::<Vec<_>>(), expected);
            }
            Step::Scrub { budget } => {
                let (mut after, mut shards) = (None, 0);
                loop {
                    let step = self.runtime.block_on(backend.scrub(after, budget)).unwrap();
                    assert_eq!(step.damaged, []);
                    shards += step.shards;
                    after = step.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(shards, self.model.len() as u64);
            }
            Step::Maintain => {
                backend.maintain().unwrap();
            }
            Step::Reopen => self.open(),
        }
    }

    fn read(&self, id: ShardId, first: u32, count: u32) {
        let backend = self.backend.as_ref().unwrap();
        let read = self.runtime.block_on(backend.read(id, first, count, None));
        let Some((header, seed)) = self.model.get(&id) else {
            assert!(matches!(read, Err(ShardError::NotFound { .. })), "{read:?}");
            return;
        };
        if first + count > header.cell_count() {
            assert!(matches!(read, Err(ShardError::Invalid { .. })), "{read:?}");
            return;
        }
        let read = read.unwrap();
        let cells = sample_cells(header, *seed);
        assert_eq!(read.bytes, joined(&cells[first as usize..(first + count) as usize]));
        assert_eq!((&read.header, read.damaged.len()), (header, 0));
    }

    fn check(&self) {
        let status = self.runtime.block_on(self.backend.as_ref().unwrap().status());
        assert_eq!(status.shard_count, self.model.len() as u64);
        let sum: u64 = self.model.values().map(|(header, _)| RecordLayout::of(header).unwrap().record_bytes).sum();
        assert_eq!(status.used_bytes, sum);
        for (id, (header, _)) in &self.model {
            self.read(*id, 0, header.cell_count());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn the_backend_answers_as_a_map_does(steps in proptest::collection::vec(step(), 1..60)) {
        let place = tempfile::tempdir().unwrap();
        DiskBackend::format(place.path(), CLUSTER, BACKEND, "d1").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut pair = Pair { place, backend: None, model: BTreeMap::new(), runtime };
        pair.open();
        for step in steps {
            pair.run(step);
        }
        pair.check();
        pair.open();
        pair.check();
    }
}
