//! What a disk backend counts, under `holdfast_backend_*`. A recorder must be installed before the backend opens.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Handles of one backend's metrics.
pub(crate) struct Meters {
    pub(crate) sync_seconds: Histogram,
    /// Finished shards one sync made durable.
    pub(crate) sync_batch: Histogram,
    pub(crate) written_bytes: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) scrubbed_bytes: Counter,
    pub(crate) given_back_bytes: Counter,
    pub(crate) compacted_bytes: Counter,
    pub(crate) damaged_cells: Counter,
    pub(crate) damaged_shards: Counter,
    pub(crate) write_errors: Counter,
    pub(crate) shards: Gauge,
    pub(crate) used_bytes: Gauge,
}

impl Meters {
    pub(crate) fn new(backend: &str) -> Self {
        let name = backend.to_owned();
        Self {
            sync_seconds: histogram!("holdfast_backend_sync_seconds", "backend" => name.clone()),
            sync_batch: histogram!("holdfast_backend_sync_batch_shards", "backend" => name.clone()),
            written_bytes: counter!("holdfast_backend_written_bytes_total", "backend" => name.clone()),
            read_bytes: counter!("holdfast_backend_read_bytes_total", "backend" => name.clone()),
            scrubbed_bytes: counter!("holdfast_backend_scrubbed_bytes_total", "backend" => name.clone()),
            given_back_bytes: counter!("holdfast_backend_given_back_bytes_total", "backend" => name.clone()),
            compacted_bytes: counter!("holdfast_backend_compacted_bytes_total", "backend" => name.clone()),
            damaged_cells: counter!("holdfast_backend_damaged_cells_total", "backend" => name.clone()),
            damaged_shards: counter!("holdfast_backend_damaged_shards_total", "backend" => name.clone()),
            write_errors: counter!("holdfast_backend_write_errors_total", "backend" => name.clone()),
            shards: gauge!("holdfast_backend_shards", "backend" => name.clone()),
            used_bytes: gauge!("holdfast_backend_used_bytes", "backend" => name),
        }
    }
}
