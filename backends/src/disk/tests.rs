//! The disk backend against the contract, and what only a disk can do: be deleted, swapped, cut, filled and damaged
//! under way.

use super::*;
use crate::contract::{CLUSTER, check_all, get, joined, put, sample_cells, sample_header};
use holdfast_proto::node::Cell;
use std::time::Duration;

pub(crate) const BACKEND: BackendId = BackendId([0xb1; 16]);

fn options() -> DiskOptions {
    DiskOptions { reserve_bytes: Some(0), upkeep: Upkeep::Manual, ..DiskOptions::default() }
}

fn fresh(directory: &Path) -> DiskBackend {
    DiskBackend::format(directory, CLUSTER, BACKEND, "d1").unwrap();
    reopen(directory)
}

fn reopen(directory: &Path) -> DiskBackend {
    DiskBackend::open_with(directory, CLUSTER, BACKEND, options()).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Path of the only extent.
fn extent(directory: &Path) -> PathBuf {
    let mut names: Vec<_> =
        std::fs::read_dir(directory.join(EXTENTS_NAME)).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.remove(0)
}

fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn keeps_the_contract_with_each_kind_of_upkeep_and_after_reopening() {
    for upkeep in [Upkeep::Manual, Upkeep::Automatic] {
        let place = tempfile::tempdir().unwrap();
        DiskBackend::format(place.path(), CLUSTER, BACKEND, "d1").unwrap();
        let options = DiskOptions { upkeep, checkpoint_interval: Duration::from_millis(50), ..options() };
        let open = || DiskBackend::open_with(place.path(), CLUSTER, BACKEND, options.clone()).unwrap();
        runtime().block_on(check_all(&open())).unwrap();
        let again = open();
        assert_eq!(again.findings(), [""; 0]);
        // The checks bring their own shards; those of the first run are overwritten or counted out.
        let header = sample_header(1_200);
        let read = runtime().block_on(get(&again, &header)).unwrap();
        assert_eq!(read.bytes, joined(&sample_cells(&header, 1)));
    }
}

#[test]
fn keeps_the_contract_on_a_file_system_without_direct_io() {
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else { return };
    runtime().block_on(check_all(&fresh(place.path()))).unwrap();
}

#[test]
fn a_second_opener_and_a_foreign_one_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let first = fresh(place.path());
    let second = DiskBackend::open(place.path(), CLUSTER, BACKEND).map(|_| ());
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    drop(first);
    let foreign = DiskBackend::open(place.path(), CLUSTER, BackendId([1; 16])).map(|_| ());
    assert!(matches!(foreign, Err(OpenError::Foreign { .. })), "{foreign:?}");
    reopen(place.path());
}

#[test]
fn closing_lets_go_even_of_a_writer_left_lying_about() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = fresh(place.path());
    let header = sample_header(1);
    let mut writer = runtime.block_on(backend.begin(header.clone())).unwrap();
    runtime.block_on(writer.append(sample_cells(&header, 1)[..1].to_vec())).unwrap();
    runtime.block_on(backend.close()).unwrap();
    let late = runtime.block_on(get(&backend, &header));
    assert!(matches!(late, Err(ShardError::Unavailable { .. })), "{late:?}");
    let again = reopen(place.path());
    let late = runtime.block_on(async {
        writer.append(sample_cells(&header, 1)[1..].to_vec()).await.ok();
        writer.finish().await
    });
    assert!(matches!(late, Err(ShardError::Unavailable { .. })), "{late:?}");
    assert_eq!(runtime.block_on(again.stat(header.id)).unwrap(), None);
}

#[test]
fn a_lost_index_is_made_anew_and_the_newest_record_counts() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = fresh(place.path());
    let headers: Vec<_> =
        (0..20).map(|n| ShardHeader { shard_bytes: 5_000 + n * 20_000, ..sample_header(n) }).collect();
    for seed in 0..3 {
        for header in &headers {
            runtime.block_on(put(&backend, header, sample_cells(header, seed))).unwrap();
        }
    }
    runtime.block_on(backend.delete(headers[..5].iter().map(|h| h.id).collect())).unwrap();
    backend.maintain().unwrap(); // gives the room back, so that deleted shards stay deleted
    drop(backend);
    for damage in ["gone", "garbage", "foreign"] {
        let index = place.path().join(INDEX_NAME);
        match damage {
            "gone" => std::fs::remove_dir_all(&index).unwrap(),
            "garbage" => std::fs::write(index.join("CURRENT"), "nonsense").unwrap(),
            _ => {
                let other = tempfile::tempdir().unwrap();
                DiskBackend::format(&other.path().join("x"), CLUSTER, BackendId([5; 16]), "x").unwrap();
                drop(DiskBackend::open(&other.path().join("x"), CLUSTER, BackendId([5; 16])).unwrap());
                std::fs::remove_dir_all(&index).unwrap();
                std::fs::rename(other.path().join("x").join(INDEX_NAME), &index).unwrap();
            }
        }
        let backend = reopen(place.path());
        assert_eq!(backend.findings().len(), usize::from(damage != "gone"), "{:?}", backend.findings());
        for (n, header) in headers.iter().enumerate() {
            let read = runtime.block_on(get(&backend, header));
            match n {
                0..5 => assert!(matches!(read, Err(ShardError::NotFound { .. })), "{damage} {n}: {read:?}"),
                _ => assert_eq!(read.unwrap().bytes, joined(&sample_cells(header, 2)), "{damage} {n}"),
            }
        }
        assert_eq!(runtime.block_on(backend.status()).shard_count, 15);
    }
}

#[test]
fn flipped_bits_never_come_out_and_cost_only_their_cell() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = fresh(place.path());
    // One record from offset 4096: head block, 4 cells of 64 KiB, trailer.
    let header = ShardHeader { shard_bytes: 262_144, ..sample_header(1) };
    let cells = sample_cells(&header, 1);
    let data = 8_192;
    for (offset, expected) in [
        (4_096, None),               // frame
        (4_096 + 64 + 20, None),     // shard header
        (data, Some(0)),             // first byte of cell 0
        (data + 200_000, Some(3)),   // cell 3
        (data + 262_144 + 40, None), // trailer
    ] {
        let backend_now = &backend;
        runtime.block_on(put(backend_now, &header, cells.clone())).unwrap();
        let stat = runtime.block_on(backend.stat(header.id)).unwrap().unwrap();
        let engine = backend.running.lock().as_ref().unwrap().engine.clone();
        let room = engine.ledger.index().get(&header.id).unwrap().unwrap().room;
        drop(engine);
        flip(&extent(place.path()), room.offset - 4_096 + offset);
        let read = runtime.block_on(backend.read(header.id, 0, 4, Some(stat.root)));
        match expected {
            None => assert!(matches!(read, Err(ShardError::Damaged { .. })), "{offset}: {read:?}"),
            Some(cell) => {
                let read = read.unwrap();
                assert_eq!(read.damaged, [cell], "{offset}");
                let good = if cell == 0 { 3 } else { 0 };
                let range = good * 65_536..(good + 1) * 65_536;
                assert_eq!(read.bytes[range.clone()], joined(&cells)[range]);
            }
        }
        assert_eq!(runtime.block_on(backend.stat(header.id)).unwrap(), None, "{offset}: damage counts as missing");
        let step = runtime.block_on(backend.scrub(None, u64::MAX)).unwrap();
        assert_eq!(step.damaged, [header.id], "{offset}");
    }
}

#[test]
fn scrub_finds_what_nobody_read() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = fresh(place.path());
    let headers: Vec<_> = (0..6).map(|n| ShardHeader { shard_bytes: 200_000, ..sample_header(n) }).collect();
    for header in &headers {
        runtime.block_on(put(&backend, header, sample_cells(header, 1))).unwrap();
    }
    let engine = backend.running.lock().as_ref().unwrap().engine.clone();
    let room = engine.ledger.index().get(&headers[3].id).unwrap().unwrap().room;
    drop(engine);
    flip(&extent(place.path()), room.offset + 100_000);
    let step = runtime.block_on(backend.scrub(None, u64::MAX)).unwrap();
    assert_eq!((step.shards, step.damaged), (6, vec![headers[3].id]));
    assert_eq!(runtime.block_on(backend.stat(headers[3].id)).unwrap(), None);
    drop(backend);
    let backend = reopen(place.path());
    assert_eq!(runtime.block_on(backend.stat(headers[3].id)).unwrap(), None, "quarantine outlives a clean restart");
}

#[test]
fn damaged_foreign_truncated_and_absent_extents_are_named_and_the_rest_served() {
    let runtime = runtime();
    for damage in ["header", "foreign", "truncated", "gone", "renamed", "noise", "empty"] {
        let place = tempfile::tempdir().unwrap();
        DiskBackend::format(place.path(), CLUSTER, BACKEND, "d1").unwrap();
        let small = DiskOptions { extent_bytes_max: 1 << 20, ..options() };
        let open = || DiskBackend::open_with(place.path(), CLUSTER, BACKEND, small.clone()).unwrap();
        let backend = open();
        let headers: Vec<_> = (0..12).map(|n| ShardHeader { shard_bytes: 300_000, ..sample_header(n) }).collect();
        for header in &headers {
            runtime.block_on(put(&backend, header, sample_cells(header, 1))).unwrap();
        }
        drop(backend);
        let path = |number| place.path().join(EXTENTS_NAME).join(extent::file_name(number));
        let lost = match damage {
            "header" => {
                flip(&path(2), 20);
                3..6
            }
            "foreign" => {
                let other = tempfile::tempdir().unwrap();
                DiskBackend::format(&other.path().join("x"), CLUSTER, BackendId([5; 16]), "x").unwrap();
                let foreign = DiskBackend::open(&other.path().join("x"), CLUSTER, BackendId([5; 16])).unwrap();
                runtime.block_on(put(&foreign, &headers[0], sample_cells(&headers[0], 9))).unwrap();
                drop(foreign);
                std::fs::copy(other.path().join("x/extents/00000001.ext"), path(2)).unwrap();
                3..6
            }
            "truncated" => {
                std::fs::File::options().write(true).open(path(2)).unwrap().set_len(700_000).unwrap();
                5..6
            }
            "gone" => {
                std::fs::remove_file(path(2)).unwrap();
                3..6
            }
            "renamed" => {
                std::fs::rename(path(2), path(9)).unwrap();
                3..6
            }
            "empty" => {
                std::fs::File::options().write(true).open(path(2)).unwrap().set_len(0).unwrap();
                3..6
            }
            _ => {
                std::fs::write(path(77), b"noise noise noise").unwrap();
                std::fs::write(place.path().join(EXTENTS_NAME).join("notes.txt"), b"hello").unwrap();
                0..0
            }
        };
        for round in 0..2 {
            let backend = open();
            if round == 0 {
                assert!(!backend.findings().is_empty(), "{damage}: nothing was reported");
            }
            for (n, header) in headers.iter().enumerate() {
                let there = runtime.block_on(backend.stat(header.id)).unwrap().is_some();
                assert_eq!(there, !lost.contains(&n), "{damage} {round}: shard {n}");
                if there {
                    let read = runtime.block_on(get(&backend, header)).unwrap();
                    assert_eq!(read.bytes, joined(&sample_cells(header, 1)), "{damage} {round}: shard {n}");
                }
            }
            // And it goes on taking shards, the lost ones too.
            if round == 1 {
                for header in &headers {
                    runtime.block_on(put(&backend, header, sample_cells(header, 2))).unwrap();
                    let read = runtime.block_on(get(&backend, header)).unwrap();
                    assert_eq!(read.bytes, joined(&sample_cells(header, 2)), "{damage}");
                }
            }
        }
    }
}

#[test]
fn an_extent_put_back_brings_its_shards_back() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let header = sample_header(1);
    let backend = fresh(place.path());
    runtime.block_on(put(&backend, &header, sample_cells(&header, 1))).unwrap();
    drop(backend);
    let path = extent(place.path());
    let aside = place.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    let backend = reopen(place.path());
    assert_eq!(runtime.block_on(backend.stat(header.id)).unwrap(), None);
    drop(backend);
    std::fs::rename(&aside, &path).unwrap();
    let backend = reopen(place.path());
    assert_eq!(runtime.block_on(get(&backend, &header)).unwrap().bytes, joined(&sample_cells(&header, 1)));
}

#[test]
fn a_directory_that_vanishes_or_changes_is_noticed_at_once() {
    let runtime = runtime();
    for (change, expected) in [
        ("removed", BackendHealth::Missing),
        ("wiped", BackendHealth::Wiped),
        ("foreign", BackendHealth::Foreign),
        ("replaced", BackendHealth::Missing),
        ("extents removed", BackendHealth::Missing),
        ("moved", BackendHealth::Missing),
        ("restored", BackendHealth::Missing),
    ] {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("d1");
        let backend = fresh(&place);
        let header = sample_header(1);
        runtime.block_on(put(&backend, &header, sample_cells(&header, 1))).unwrap();
        let begun = ShardHeader { shard_bytes: 3_000, ..sample_header(2) };
        let mut writer = runtime.block_on(backend.begin(begun.clone())).unwrap();
        match change {
            "removed" => std::fs::remove_dir_all(&place).unwrap(),
            "wiped" => {
                std::fs::remove_dir_all(&place).unwrap();
                std::fs::create_dir(&place).unwrap();
            }
            "foreign" | "replaced" => {
                std::fs::remove_dir_all(&place).unwrap();
                let id = if change == "foreign" { BackendId([5; 16]) } else { BACKEND };
                DiskBackend::format(&place, CLUSTER, id, "other").unwrap();
            }
            // Its files live on under another name, which is not where anybody will look.
            "moved" => std::fs::rename(&place, base.path().join("away")).unwrap(),
            // As it was an hour ago, byte by byte: what was acknowledged since is not in it.
            "restored" => {
                copy_tree(&place, &base.path().join("backup"));
                std::fs::remove_dir_all(&place).unwrap();
                copy_tree(&base.path().join("backup"), &place);
            }
            _ => std::fs::remove_dir_all(place.join(EXTENTS_NAME)).unwrap(),
        }
        // A writer that had begun gets no acknowledgement for bytes in a file without a name.
        runtime.block_on(writer.append(sample_cells(&begun, 1))).unwrap();
        let finished = runtime.block_on(writer.finish());
        assert!(finished.is_err(), "{change}: {finished:?}");
        let status = runtime.block_on(backend.status());
        assert_eq!(status.health, expected, "{change}: {}", status.reason);
        let begun = runtime.block_on(backend.begin(header.clone())).map(|_| ());
        assert!(matches!(begun, Err(ShardError::Unavailable { .. })), "{change}: {begun:?}");
        let read = runtime.block_on(get(&backend, &header));
        assert!(matches!(read, Err(ShardError::Unavailable { .. })), "{change}: {read:?}");
        drop(backend);
        if change == "foreign" {
            let other = Identity::read(&place).unwrap();
            assert_eq!(other.name, "other", "closing must not touch what lies there now");
        }
    }
}

#[test]
fn a_record_half_written_when_its_directory_was_moved_is_not_acknowledged() {
    let base = tempfile::tempdir().unwrap();
    let place = base.path().join("d1");
    let runtime = runtime();
    let backend = fresh(&place);
    let header = ShardHeader { shard_bytes: 1_000_000, ..sample_header(1) };
    let mut cells = sample_cells(&header, 1);
    let last = cells.split_off(cells.len() - 1);
    let mut writer = runtime.block_on(backend.begin(header)).unwrap();
    runtime.block_on(writer.append(cells)).unwrap();
    // It has room and an open file: nothing asks for the path again but the check after the sync.
    std::fs::rename(&place, base.path().join("away")).unwrap();
    std::fs::create_dir(&place).unwrap();
    let finished = runtime.block_on(async {
        writer.append(last).await?;
        writer.finish().await
    });
    assert!(finished.is_err(), "{finished:?}");
    assert_eq!(runtime.block_on(backend.status()).health, BackendHealth::Wiped);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn an_index_found_damaged_in_use_is_made_anew_at_the_next_open() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = fresh(place.path());
    let headers: Vec<_> = (0..400).map(|n| ShardHeader { shard_bytes: 100 + n, ..sample_header(n) }).collect();
    runtime.block_on(async {
        let puts = headers.iter().map(|header| put(&backend, header, sample_cells(header, 1)));
        futures::future::try_join_all(puts).await.unwrap();
    });
    drop(backend);
    // Opening reads little of a table but its end.
    let tables: Vec<_> = std::fs::read_dir(place.path().join(INDEX_NAME)).unwrap().map(|e| e.unwrap().path()).collect();
    let tables: Vec<_> = tables.iter().filter(|path| path.extension().is_some_and(|e| e == "sst")).collect();
    let largest = tables.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let middle = largest.metadata().unwrap().len() / 3;
    (0..64).for_each(|offset| flip(largest, middle + offset));

    let backend = reopen(place.path());
    let answers: Vec<_> = headers.iter().map(|header| runtime.block_on(get(&backend, header))).collect();
    assert!(answers.iter().any(Result::is_err), "the damage was not met");
    let status = runtime.block_on(backend.status());
    assert_eq!(status.health, BackendHealth::Failed, "{}", status.reason);
    assert!(status.reason.contains("made anew"), "{}", status.reason);
    drop(backend);
    for round in 0..2 {
        let backend = reopen(place.path());
        assert_eq!(backend.findings().len(), 1 - round, "{:?}", backend.findings());
        for header in &headers {
            let read = runtime.block_on(get(&backend, header)).unwrap();
            assert_eq!(read.bytes, joined(&sample_cells(header, 1)));
        }
    }
}

#[test]
fn what_is_written_after_an_unclean_end_supersedes_what_was_indexed_before_it() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = fresh(place.path());
    let header = sample_header(1);
    for seed in 0..8 {
        runtime.block_on(put(&backend, &header, sample_cells(&header, seed))).unwrap();
    }
    // RocksDB writes out its memory when it is closed, and now and then before; no checkpoint was made.
    let engine = backend.running.lock().as_ref().unwrap().engine.clone();
    engine.gate.fault.raise(BackendHealth::ReadOnly, "a test says so");
    drop(engine);
    drop(backend);
    let backend = reopen(place.path());
    runtime.block_on(put(&backend, &header, sample_cells(&header, 100))).unwrap();
    let read = runtime.block_on(get(&backend, &header)).unwrap();
    assert_eq!(read.bytes, joined(&sample_cells(&header, 100)));
}

#[test]
fn the_reserve_is_kept_and_deleting_makes_room() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    DiskBackend::format(place.path(), CLUSTER, BACKEND, "d1").unwrap();
    let free = LocalIo.space(place.path()).unwrap().free_bytes;
    let full = DiskOptions { reserve_bytes: Some(free + (1 << 40)), ..options() };
    let backend = DiskBackend::open_with(place.path(), CLUSTER, BACKEND, full).unwrap();
    let answer = runtime.block_on(backend.begin(sample_header(1))).map(|_| ());
    assert!(matches!(answer, Err(ShardError::Full { .. })), "{answer:?}");
    let status = runtime.block_on(backend.status());
    assert_eq!(status.health, BackendHealth::ReadOnly, "{}", status.reason);
    runtime.block_on(backend.delete(vec![sample_header(1).id])).unwrap();
}

#[test]
fn room_is_given_back_and_dead_extents_go() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    DiskBackend::format(place.path(), CLUSTER, BACKEND, "d1").unwrap();
    let small = DiskOptions { extent_bytes_max: 4 << 20, ..options() };
    let backend = DiskBackend::open_with(place.path(), CLUSTER, BACKEND, small.clone()).unwrap();
    let headers: Vec<_> = (0..40).map(|n| ShardHeader { shard_bytes: 400_000, ..sample_header(n) }).collect();
    for header in &headers {
        runtime.block_on(put(&backend, header, sample_cells(header, 1))).unwrap();
    }
    let taken = || -> u64 {
        let extents = std::fs::read_dir(place.path().join(EXTENTS_NAME)).unwrap();
        extents.map(|entry| std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512).sum()
    };
    let count = || std::fs::read_dir(place.path().join(EXTENTS_NAME)).unwrap().count();
    backend.maintain().unwrap();
    let (before, extents_before) = (taken(), count());
    assert!(extents_before >= 4, "{extents_before}");
    // One of nine lives in each extent: first its neighbours' room is given back, then it moves.
    let dead: Vec<_> = headers.iter().enumerate().filter(|(n, _)| n % 9 != 0).map(|(_, h)| h.id).collect();
    runtime.block_on(backend.delete(dead.clone())).unwrap();
    for _ in 0..extents_before + 2 {
        backend.maintain().unwrap();
    }
    assert!(taken() < before / 3, "{} of {before} bytes are still taken", taken());
    assert!(count() <= 2, "{} of {extents_before} extents are left", count());
    let check = |backend: &DiskBackend| {
        for (n, header) in headers.iter().enumerate() {
            let read = runtime.block_on(get(backend, header));
            assert_eq!(read.is_ok(), n % 9 == 0, "shard {n}: {read:?}");
            if let Ok(read) = read {
                assert_eq!(read.bytes, joined(&sample_cells(header, 1)), "shard {n}");
            }
        }
    };
    check(&backend);
    drop(backend);
    std::fs::remove_dir_all(place.path().join(INDEX_NAME)).unwrap();
    check(&DiskBackend::open_with(place.path(), CLUSTER, BACKEND, small).unwrap());
}

#[test]
fn many_writers_share_syncs() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = Arc::new(fresh(place.path()));
    let before = backend.sync_count();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                let backend = backend.clone();
                tokio::spawn(async move {
                    let header = ShardHeader { shard_bytes: 9_000, ..sample_header(n) };
                    put(&*backend, &header, sample_cells(&header, n)).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let after = backend.sync_count();
    assert!(after - before <= 100, "{} syncs for 200 concurrent shards", after - before);
    for n in 0..200 {
        let header = ShardHeader { shard_bytes: 9_000, ..sample_header(n) };
        assert_eq!(runtime.block_on(get(&*backend, &header)).unwrap().bytes, joined(&sample_cells(&header, n)));
    }
}

#[test]
fn unaligned_and_aligned_cells_come_back_alike() {
    let place = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let backend = fresh(place.path());
    let header = ShardHeader { shard_bytes: 3_000_000, ..sample_header(1) };
    for shift in [0usize, 1, 64, 512] {
        let cells: Vec<Cell> = sample_cells(&header, shift as u64)
            .into_iter()
            .map(|cell| {
                let mut buffer = holdfast_proto::cell_buffer::CellBuffer::new(cell.bytes.len() + shift);
                buffer[shift..].copy_from_slice(&cell.bytes);
                Cell { bytes: buffer.freeze().slice(shift..), hash: cell.hash }
            })
            .collect();
        runtime.block_on(put(&backend, &header, cells)).unwrap();
        let read = runtime.block_on(get(&backend, &header)).unwrap();
        assert_eq!(read.bytes, joined(&sample_cells(&header, shift as u64)), "{shift}");
    }
}
