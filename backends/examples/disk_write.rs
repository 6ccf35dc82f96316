//! Measures the disk backend's write path: shards per second, MiB/s, and shards per sync, for several shard sizes and
//! numbers of concurrent writers. `cargo run -p holdfast-backends --example disk_write -- DIRECTORY [BACKENDS]`
//!
//! Not a benchmark of record: one process, cells hashed once beforehand, content repeated.

use bytes::Bytes;
use holdfast_backends::contract::{CLUSTER, sample_header};
use holdfast_backends::{Backend, DiskBackend};
use holdfast_proto::BackendId;
use holdfast_proto::cell_buffer::CellBuffer;
use holdfast_proto::node::Cell;
use holdfast_proto::shard_header::ShardHeader;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECONDS: u64 = 4;
const CELL_BYTES: u32 = 65_536;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/disk-write".to_owned()));
    let count: u8 = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut out = std::io::stdout();
    for (shard_bytes, writers) in [
        (4_096, 1),
        (4_096, 16),
        (16_384, 16),
        (65_536, 16),
        (262_144, 1),
        (262_144, 16),
        (16 << 20, 1),
        (16 << 20, 16),
    ] {
        let backends = open(&directory, count)?;
        let (shards, seconds, latencies) = run(&backends, shard_bytes, writers).await?;
        let syncs: u64 = backends.iter().map(|backend| backend.sync_count()).sum();
        let rate = shards as f64 / seconds;
        writeln!(
            out,
            "shard={shard_bytes:>8} writers={writers:>2} backends={count}: {rate:>8.0} shards/s {:>7.0} MiB/s, \
             {:.1} shards per sync, p50 {:.2} ms, p99 {:.2} ms",
            rate * shard_bytes as f64 / 1_048_576.0,
            shards as f64 / syncs as f64,
            latencies[latencies.len() / 2] * 1e3,
            latencies[latencies.len() * 99 / 100] * 1e3,
        )?;
        drop(backends);
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

fn open(directory: &std::path::Path, count: u8) -> anyhow::Result<Vec<Arc<DiskBackend>>> {
    (0..count)
        .map(|n| {
            let place = directory.join(format!("d{n}"));
            let id = BackendId([n; 16]);
            DiskBackend::format(&place, CLUSTER, id, &format!("d{n}"))?;
            Ok(Arc::new(DiskBackend::open(&place, CLUSTER, id)?))
        })
        .collect()
}

/// Each writer writes one shard to every backend at once, as an object's segment does, again and again.
async fn run(backends: &[Arc<DiskBackend>], shard_bytes: u64, writers: u64) -> anyhow::Result<(u64, f64, Vec<f64>)> {
    let cells = cells(shard_bytes);
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (backends, cells) = (backends.to_vec(), cells.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for round in 0.. {
                    if began.elapsed() >= Duration::from_secs(SECONDS) {
                        break;
                    }
                    let header = sample_header(writer * 10_000_000 + round);
                    let header = ShardHeader { shard_bytes, cell_bytes: CELL_BYTES, ..header };
                    let at = Instant::now();
                    let puts = backends.iter().map(|backend| put(backend, &header, &cells));
                    for result in futures::future::join_all(puts).await {
                        result?;
                    }
                    latencies.push(at.elapsed().as_secs_f64());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    latencies.sort_by(f64::total_cmp);
    Ok((latencies.len() as u64 * backends.len() as u64, began.elapsed().as_secs_f64(), latencies))
}

async fn put(backend: &DiskBackend, header: &ShardHeader, cells: &[Cell]) -> anyhow::Result<()> {
    let mut writer = backend.begin(header.clone()).await?;
    for cells in cells.chunks(4) {
        writer.append(cells.to_vec()).await?;
    }
    writer.finish().await?;
    Ok(())
}

fn cells(shard_bytes: u64) -> Vec<Cell> {
    let mut rest = shard_bytes;
    let mut cells = Vec::new();
    while rest > 0 {
        let length = rest.min(u64::from(CELL_BYTES));
        let mut buffer = CellBuffer::new(usize::try_from(length).unwrap_or(0));
        blake3::Hasher::new().update(&rest.to_le_bytes()).finalize_xof().fill(&mut buffer);
        let bytes: Bytes = buffer.freeze();
        cells.push(Cell { hash: *blake3::hash(&bytes).as_bytes(), bytes });
        rest -= length;
    }
    cells
}
