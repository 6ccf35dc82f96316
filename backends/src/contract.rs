//! What every backend owes its callers, as checks that run against any of them. A new implementation or wrapper is
//! done when [`check_all`] passes on it.
//!
//! The checks use ids of their own and leave other shards alone, so they may run on a backend that is in use. They
//! return the first promise that was not kept instead of panicking.

use crate::backend::Backend;
use bytes::Bytes;
use holdfast_proto::ids::BucketId;
use holdfast_proto::node::{Cell, ShardError, ShardRead, ShardStat, shard_root};
use holdfast_proto::shard_header::ShardHeader;
use holdfast_proto::{ClusterId, PgId, SegmentId, ShardId, Slot, VersionId};

/// The cluster the checks' shards belong to.
pub const CLUSTER: ClusterId = ClusterId([0xc1; 16]);

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    /// What was seen.
    pub detail: String,
}

/// What a check finds out.
type Finding = Result<(), String>;

/// Runs every check. The backend must belong to [`CLUSTER`] and take at least 64 MiB.
pub async fn check_all(backend: &dyn Backend) -> Result<(), Violation> {
    macro_rules! run {
        ($($check:ident),* $(,)?) => {
            $($check(backend).await.map_err(|detail| Violation { check: stringify!($check), detail })?;)*
        };
    }
    run!(
        what_is_finished_is_read_back,
        any_range_of_cells_is_read,
        ranges_past_the_end_are_invalid,
        nothing_is_there_before_finish,
        a_dropped_writer_leaves_nothing,
        wrong_cells_are_invalid,
        too_few_bytes_are_invalid,
        impossible_headers_are_invalid,
        the_expected_root_is_checked,
        what_is_absent_is_not_found,
        the_newest_record_counts,
        deleted_shards_are_gone,
        listings_are_complete_and_in_order,
        scrub_visits_every_shard_in_steps,
        damage_is_listed_and_quarantined,
        status_counts,
    );
    Ok(())
}

/// A header for tests: shards of 150,000 bytes in cells of 64 KiB; `number` tells segments apart.
pub fn sample_header(number: u64) -> ShardHeader {
    let mut random = [0x5e; 10];
    random[..8].copy_from_slice(&number.to_be_bytes());
    ShardHeader {
        cluster: CLUSTER,
        id: ShardId {
            pg: PgId(7),
            segment: SegmentId::from_parts(1_795_000_000_000 + number, random),
            slot: Slot(u8::try_from(number % 6).unwrap_or(0)),
        },
        bucket: BucketId(1),
        key_hash: [3; 32],
        version: VersionId::from_parts(1_795_000_000_000, [4; 10]),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes: 65_536,
        shard_bytes: 150_000,
        segment_bytes: 600_000,
        segment_offset: 0,
        created_ms: 1_795_000_000_000,
    }
}

/// Cells for the header with content that depends on `seed` and nothing else.
pub fn sample_cells(header: &ShardHeader, seed: u64) -> Vec<Cell> {
    let mut bytes = vec![0u8; usize::try_from(header.shard_bytes).unwrap_or(0)];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&header.id.encode());
    hasher.finalize_xof().fill(&mut bytes);
    let all = Bytes::from(bytes);
    let cell_bytes = header.cell_bytes.max(1) as usize;
    (0..all.len())
        .step_by(cell_bytes)
        .map(|at| {
            let bytes = all.slice(at..(at + cell_bytes).min(all.len()));
            Cell { hash: *blake3::hash(&bytes).as_bytes(), bytes }
        })
        .collect()
}

/// The bytes of the cells, back to back.
pub fn joined(cells: &[Cell]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.bytes.iter().copied()).collect()
}

/// Writes a shard in one append.
pub async fn put(backend: &dyn Backend, header: &ShardHeader, cells: Vec<Cell>) -> Result<ShardStat, ShardError> {
    let mut writer = backend.begin(header.clone()).await?;
    writer.append(cells).await?;
    writer.finish().await
}

/// Reads a whole shard.
pub async fn get(backend: &dyn Backend, header: &ShardHeader) -> Result<ShardRead, ShardError> {
    backend.read(header.id, 0, header.cell_count(), None).await
}

macro_rules! ensure {
    ($condition:expr, $($detail:tt)*) => {
        if !$condition {
            return Err(format!($($detail)*));
        }
    };
}

/// Shapes at and around every boundary of a shard: empty, one byte, odd cells, whole cells, many cells.
fn shapes() -> Vec<ShardHeader> {
    let sizes: [(u64, u32); 14] = [
        (0, 65_536),
        (1, 65_536),
        (64, 64),
        (4_095, 4_096),
        (4_096, 4_096),
        (10_000, 1_000),
        (65_536, 65_536),
        (126_000, 65_536),
        (131_072, 65_536),
        (131_072 + 64, 65_536),
        (300_000, 7_777),
        (1 << 20, 65_536),
        ((1 << 20) + 12_345, 32_768),
        (5 << 20, 65_536),
    ];
    let number = |index: usize| 1_000 + index as u64;
    sizes
        .iter()
        .enumerate()
        .map(|(index, &(shard_bytes, cell_bytes))| ShardHeader {
            shard_bytes,
            cell_bytes,
            ..sample_header(number(index))
        })
        .collect()
}

async fn what_is_finished_is_read_back(backend: &dyn Backend) -> Finding {
    for header in shapes() {
        let cells = sample_cells(&header, 1);
        let root = shard_root(cells.iter().map(|cell| cell.hash));
        let mut writer = backend.begin(header.clone()).await.map_err(words)?;
        for cell in cells.clone() {
            writer.append(vec![cell]).await.map_err(words)?;
        }
        let stat = writer.finish().await.map_err(words)?;
        let shape = format!("{} bytes in cells of {}", header.shard_bytes, header.cell_bytes);
        ensure!(stat.root == root && stat.id == header.id, "{shape}: finish answered {stat:?}");
        ensure!(stat.shard_bytes == header.shard_bytes, "{shape}: finish answered {stat:?}");
        let read = backend.read(header.id, 0, header.cell_count(), Some(root)).await.map_err(words)?;
        ensure!(read.header == header, "{shape}: the header read is {:?}", read.header);
        ensure!(read.damaged.is_empty(), "{shape}: cells {:?} are damaged", read.damaged);
        ensure!(read.bytes == joined(&cells), "{shape}: other bytes were read");
        let seen = backend.stat(header.id).await.map_err(words)?;
        ensure!(seen.as_ref() == Some(&stat), "{shape}: stat answered {seen:?}, finish {stat:?}");
    }
    Ok(())
}

async fn any_range_of_cells_is_read(backend: &dyn Backend) -> Finding {
    for (number, shard_bytes, cell_bytes) in
        [(1_100, 300_000, 65_536), (1_101, 50_000, 8_192), (1_102, 2_000_000, 65_536)]
    {
        let header = ShardHeader { shard_bytes, cell_bytes, ..sample_header(number) };
        let cells = sample_cells(&header, 2);
        put(backend, &header, cells.clone()).await.map_err(words)?;
        let count = header.cell_count();
        for first in 0..=count {
            for end in [first, first + 1, (first + count) / 2, count] {
                if end < first || end > count {
                    continue;
                }
                let read = backend.read(header.id, first, end - first, None).await.map_err(words)?;
                let expected = joined(&cells[first as usize..end as usize]);
                ensure!(read.bytes == expected, "cells {first}..{end} of {count} came back as other bytes");
                ensure!(read.damaged.is_empty(), "cells {first}..{end} of {count} came back damaged");
            }
        }
    }
    Ok(())
}

async fn ranges_past_the_end_are_invalid(backend: &dyn Backend) -> Finding {
    let header = sample_header(1_200);
    put(backend, &header, sample_cells(&header, 1)).await.map_err(words)?;
    for (first, count) in [(0, 4), (3, 1), (4, 0), (u32::MAX, 2), (1, u32::MAX)] {
        let answer = backend.read(header.id, first, count, None).await;
        ensure!(matches!(answer, Err(ShardError::Invalid { .. })), "{count} cells from {first}: {answer:?}");
    }
    Ok(())
}

async fn nothing_is_there_before_finish(backend: &dyn Backend) -> Finding {
    let header = sample_header(1_300);
    let mut writer = backend.begin(header.clone()).await.map_err(words)?;
    writer.append(sample_cells(&header, 1)).await.map_err(words)?;
    let seen = backend.stat(header.id).await.map_err(words)?;
    ensure!(seen.is_none(), "an unfinished shard is there: {seen:?}");
    let read = get(backend, &header).await;
    ensure!(matches!(read, Err(ShardError::NotFound { .. })), "an unfinished shard was read: {read:?}");
    writer.finish().await.map_err(words)?;
    ensure!(backend.stat(header.id).await.map_err(words)?.is_some(), "a finished shard is not there");
    Ok(())
}

async fn a_dropped_writer_leaves_nothing(backend: &dyn Backend) -> Finding {
    let header = ShardHeader { shard_bytes: 2 << 20, ..sample_header(1_400) };
    let cells = sample_cells(&header, 1);
    for taken in [0, 1, 20, cells.len()] {
        let mut writer = backend.begin(header.clone()).await.map_err(words)?;
        writer.append(cells[..taken].to_vec()).await.map_err(words)?;
        drop(writer);
        let seen = backend.stat(header.id).await.map_err(words)?;
        ensure!(seen.is_none(), "a shard dropped after {taken} cells is there: {seen:?}");
    }
    put(backend, &header, cells).await.map_err(words)?;
    Ok(())
}

async fn wrong_cells_are_invalid(backend: &dyn Backend) -> Finding {
    let header = sample_header(1_500);
    let cell = |bytes: usize| Cell { bytes: Bytes::from(vec![1; bytes]), hash: [0; 32] };
    for sizes in [vec![1], vec![65_537], vec![65_536, 65_535], vec![65_536, 65_536, 65_536], vec![65_536, 65_536, 0]] {
        let mut writer = backend.begin(header.clone()).await.map_err(words)?;
        let mut answer = Ok(());
        for &bytes in &sizes {
            answer = answer.and(writer.append(vec![cell(bytes)]).await);
        }
        ensure!(matches!(answer, Err(ShardError::Invalid { .. })), "cells of {sizes:?} bytes: {answer:?}");
    }
    let mut writer = backend.begin(header.clone()).await.map_err(words)?;
    writer.append(sample_cells(&header, 1)).await.map_err(words)?;
    let answer = writer.append(vec![cell(1)]).await;
    ensure!(matches!(answer, Err(ShardError::Invalid { .. })), "a cell too many: {answer:?}");
    Ok(())
}

async fn too_few_bytes_are_invalid(backend: &dyn Backend) -> Finding {
    let header = sample_header(1_600);
    let mut writer = backend.begin(header.clone()).await.map_err(words)?;
    writer.append(sample_cells(&header, 1)[..2].to_vec()).await.map_err(words)?;
    let answer = writer.finish().await;
    ensure!(matches!(answer, Err(ShardError::Invalid { .. })), "two of three cells: {answer:?}");
    ensure!(backend.stat(header.id).await.map_err(words)?.is_none(), "a shard cut short is there");
    Ok(())
}

async fn impossible_headers_are_invalid(backend: &dyn Backend) -> Finding {
    let headers = [
        ShardHeader { cluster: ClusterId([0; 16]), ..sample_header(1_700) },
        ShardHeader { cell_bytes: 0, ..sample_header(1_700) },
    ];
    for header in headers {
        let answer = backend.begin(header.clone()).await.map(|_| ());
        ensure!(matches!(answer, Err(ShardError::Invalid { .. })), "{header:?}: {answer:?}");
    }
    Ok(())
}

async fn the_expected_root_is_checked(backend: &dyn Backend) -> Finding {
    let header = sample_header(1_800);
    let stat = put(backend, &header, sample_cells(&header, 1)).await.map_err(words)?;
    let read = backend.read(header.id, 0, 1, Some(stat.root)).await;
    ensure!(read.is_ok(), "the right root: {read:?}");
    let read = backend.read(header.id, 0, 1, Some([0; 32])).await;
    ensure!(matches!(read, Err(ShardError::Damaged { .. })), "another root: {read:?}");
    ensure!(backend.stat(header.id).await.map_err(words)?.is_some(), "asking for another root made the shard missing");
    Ok(())
}

async fn what_is_absent_is_not_found(backend: &dyn Backend) -> Finding {
    let header = sample_header(1_900);
    ensure!(backend.stat(header.id).await.map_err(words)?.is_none(), "an absent shard has a stat");
    let read = get(backend, &header).await;
    ensure!(matches!(read, Err(ShardError::NotFound { .. })), "an absent shard was read: {read:?}");
    let answer = backend.delete(vec![header.id]).await;
    ensure!(answer.is_ok(), "deleting an absent shard: {answer:?}");
    Ok(())
}

async fn the_newest_record_counts(backend: &dyn Backend) -> Finding {
    let header = sample_header(2_000);
    let before = backend.status().await.shard_count;
    for seed in 0..5 {
        let cells = sample_cells(&header, seed);
        put(backend, &header, cells.clone()).await.map_err(words)?;
        let read = get(backend, &header).await.map_err(words)?;
        ensure!(read.bytes == joined(&cells), "after writing {} times an older record is read", seed + 1);
    }
    let after = backend.status().await.shard_count;
    ensure!(after == before + 1, "five records of one shard count as {}", after - before);
    Ok(())
}

async fn deleted_shards_are_gone(backend: &dyn Backend) -> Finding {
    let headers: Vec<ShardHeader> = (2_100..2_110).map(sample_header).collect();
    for header in &headers {
        put(backend, header, sample_cells(header, 1)).await.map_err(words)?;
    }
    backend.delete(headers[..5].iter().map(|header| header.id).collect()).await.map_err(words)?;
    for (index, header) in headers.iter().enumerate() {
        let is_there = backend.stat(header.id).await.map_err(words)?.is_some();
        ensure!(is_there == (index >= 5), "shard {index} of ten, five deleted: there is {is_there}");
        let read = get(backend, header).await;
        ensure!(read.is_ok() == (index >= 5), "shard {index} of ten, five deleted: {read:?}");
    }
    put(backend, &headers[0], sample_cells(&headers[0], 2)).await.map_err(words)?;
    let read = get(backend, &headers[0]).await.map_err(words)?;
    ensure!(read.bytes == joined(&sample_cells(&headers[0], 2)), "a shard written after its deletion is not itself");
    Ok(())
}

async fn listings_are_complete_and_in_order(backend: &dyn Backend) -> Finding {
    let mut expected = Vec::new();
    for number in 0..25 {
        for pg in [0, 4_000_000_000, u32::MAX] {
            let mut header = ShardHeader { shard_bytes: 100, ..sample_header(2_200 + number * 37 % 25) };
            header.id.pg = PgId(pg);
            expected.push(put(backend, &header, sample_cells(&header, 1)).await.map_err(words)?);
        }
    }
    expected.sort_by_key(|stat| stat.id);
    for pg in [0, 4_000_000_000, u32::MAX] {
        let of_pg: Vec<&ShardStat> = expected.iter().filter(|stat| stat.id.pg == PgId(pg)).collect();
        for limit in [1, 7, 25, 1_000] {
            let mut listed = Vec::new();
            let mut after = None;
            loop {
                let page = backend.list(PgId(pg), after, limit).await.map_err(words)?;
                ensure!(page.len() <= limit, "a page of {} for limit {limit}", page.len());
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                listed.extend(page);
            }
            ensure!(
                listed.iter().collect::<Vec<_>>() == of_pg,
                "group {pg} in pages of {limit}: {} listed",
                listed.len()
            );
        }
    }
    let empty = backend.list(PgId(5), None, 10).await.map_err(words)?;
    ensure!(empty.is_empty(), "an empty group lists {empty:?}");
    Ok(())
}

async fn scrub_visits_every_shard_in_steps(backend: &dyn Backend) -> Finding {
    let count = backend.status().await.shard_count;
    for budget in [1, 1_000_000, u64::MAX] {
        let (mut after, mut shards) = (None, 0);
        loop {
            let step = backend.scrub(after, budget).await.map_err(words)?;
            ensure!(step.damaged.is_empty(), "sound shards are called damaged: {:?}", step.damaged);
            ensure!(budget > 1 || step.shards <= 1, "{} shards for a budget of one byte", step.shards);
            ensure!(step.next.is_none() || step.next > after, "the cursor does not advance from {after:?}");
            shards += step.shards;
            after = step.next;
            if after.is_none() {
                break;
            }
        }
        ensure!(shards == count, "{shards} of {count} shards were visited with a budget of {budget}");
    }
    ensure!(backend.status().await.scrubbed_ms > 0, "a full scrub is not remembered");
    Ok(())
}

async fn damage_is_listed_and_quarantined(backend: &dyn Backend) -> Finding {
    for (number, shard_bytes) in [(2_300, 150_000), (2_301, 1_000_000)] {
        let header = ShardHeader { shard_bytes, ..sample_header(number) };
        let mut cells = sample_cells(&header, 1);
        let expected = joined(&cells);
        // The writer's hash does not fit: as if the disk had changed the bytes.
        cells[1].hash[0] ^= 1;
        put(backend, &header, cells).await.map_err(words)?;
        let read = get(backend, &header).await.map_err(words)?;
        let (begin, end) = (65_536, 131_072);
        ensure!(read.damaged == [1], "cell 1 is damaged, listed are {:?}", read.damaged);
        ensure!(read.bytes[begin..end].iter().all(|&byte| byte == 0), "bytes of a damaged cell came out");
        ensure!(read.bytes[..begin] == expected[..begin], "a good cell before the damaged one changed");
        ensure!(read.bytes[end..] == expected[end..], "a good cell after the damaged one changed");
        let other = backend.read(header.id, 2, 1, None).await.map_err(words)?;
        ensure!(other.damaged.is_empty(), "a good cell of a damaged shard cannot be read");
        let before = ShardId { segment: SegmentId::from_parts(0, [0; 10]), ..header.id };
        let step = backend.scrub(Some(before), u64::MAX).await.map_err(words)?;
        ensure!(step.damaged == [header.id], "scrub found {:?} damaged", step.damaged);
        ensure!(backend.stat(header.id).await.map_err(words)?.is_none(), "a quarantined shard has a stat");
        let listed = backend.list(header.id.pg, None, 10_000).await.map_err(words)?;
        let found = listed.iter().find(|stat| stat.id == header.id).map(|stat| stat.root);
        ensure!(found == Some(ShardStat::NO_ROOT), "a quarantined shard is listed with the root {found:?}");
        put(backend, &header, sample_cells(&header, 1)).await.map_err(words)?;
        let read = get(backend, &header).await.map_err(words)?;
        ensure!(read.damaged.is_empty() && read.bytes == expected, "a shard written again is still damaged");
        ensure!(backend.stat(header.id).await.map_err(words)?.is_some(), "a shard written again is still missing");
    }
    Ok(())
}

async fn status_counts(backend: &dyn Backend) -> Finding {
    let before = backend.status().await;
    ensure!(before.health.can_write(), "it is {:?}: {}", before.health, before.reason);
    ensure!(before.id == backend.id(), "its status names {}", before.id);
    let header = sample_header(2_400);
    put(backend, &header, sample_cells(&header, 1)).await.map_err(words)?;
    let after = backend.status().await;
    ensure!(after.shard_count == before.shard_count + 1, "one more shard counts as {}", after.shard_count);
    ensure!(after.used_bytes >= before.used_bytes + header.shard_bytes, "its bytes do not count");
    backend.delete(vec![header.id]).await.map_err(words)?;
    let freed = backend.status().await;
    ensure!(
        (freed.shard_count, freed.used_bytes) == (before.shard_count, before.used_bytes),
        "deleting does not count"
    );
    Ok(())
}

fn words(error: ShardError) -> String {
    error.to_string()
}
