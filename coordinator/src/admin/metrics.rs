//! The table of gauges that the administration port keeps, and how a status becomes their values at each scrape.
//!
//! Counters and histograms of requests belong to who serves them. Names: `holdfast_` and base units; `process_` as
//! Prometheus names a process's own.

use holdfast_proto::admin::ClusterStatus;
use holdfast_proto::node::BackendStatus;
use metrics::{Unit, describe_gauge, gauge};
use std::collections::BTreeSet;

/// Name, unit and meaning of every gauge below. A dashboard may rely on these names.
pub const GAUGES: &[(&str, Unit, &str)] = &[
    ("holdfast_ready", Unit::Count, "1 while a PUT can be acknowledged, else 0"),
    ("holdfast_status_known", Unit::Count, "1 while the figures below are of this scrape, 0 while they are old"),
    ("holdfast_verdict", Unit::Count, "0 healthy, 3 degraded, 4 a promise broken, 5 data lost"),
    ("holdfast_uptime_seconds", Unit::Seconds, "Since this server started"),
    ("holdfast_buckets", Unit::Count, "Buckets"),
    ("holdfast_layout_epoch", Unit::Count, "Number of the cluster map in use"),
    ("holdfast_backend_readable", Unit::Count, "1 while the backend's shards can be read"),
    ("holdfast_backend_writable", Unit::Count, "1 while the backend takes shards"),
    ("holdfast_backend_capacity_bytes", Unit::Bytes, "Bytes of the backend's file system"),
    ("holdfast_backend_free_bytes", Unit::Bytes, "Bytes free there"),
    ("holdfast_backend_used_bytes", Unit::Bytes, "Bytes its shards take"),
    ("holdfast_backend_shards", Unit::Count, "Shards it holds"),
    ("holdfast_backend_scrubbed_timestamp_seconds", Unit::Seconds, "When its last full scrub ended; 0 for never"),
    ("holdfast_segments", Unit::Count, "Segments by how many more shards each can lose (label margin; -1: unreadable)"),
    ("holdfast_segment_bytes", Unit::Bytes, "Object bytes by margin"),
    ("holdfast_repair_shards_to_write", Unit::Count, "Shards repair still has to write"),
    ("holdfast_repair_bytes_to_write", Unit::Bytes, "Bytes repair still has to write"),
    ("holdfast_repair_written_bytes", Unit::Bytes, "Bytes written since this run of repair began"),
    ("holdfast_repair_bytes_per_second", Unit::Bytes, "Rate of repair over the last seconds"),
    ("holdfast_repair_failed_segments", Unit::Count, "Segments that could not be repaired"),
    ("process_resident_memory_bytes", Unit::Bytes, "Memory of this process"),
    ("process_cpu_seconds", Unit::Seconds, "CPU time of this process"),
];

/// Tells the recorder units and meanings.
pub fn describe() {
    for (name, unit, meaning) in GAUGES {
        describe_gauge!(*name, *unit, *meaning);
    }
}

/// Sets every gauge from a status; without one the old values stay and `holdfast_status_known` says so. `named` holds
/// the backends that have gauges: one that was removed reads NaN from then on, which no alert takes for a value.
pub(crate) fn record(ready: bool, status: Option<&ClusterStatus>, named: &mut BTreeSet<String>) {
    gauge!("holdfast_ready").set(flag(ready));
    gauge!("holdfast_status_known").set(flag(status.is_some()));
    record_process();
    let Some(status) = status else { return };
    gauge!("holdfast_verdict").set(f64::from(status.verdict.exit_code()));
    gauge!("holdfast_uptime_seconds").set(number(status.uptime_seconds));
    gauge!("holdfast_buckets").set(number(status.bucket_count));
    gauge!("holdfast_layout_epoch").set(number(status.epoch.0));
    for view in &status.backends {
        record_backend(&view.status.name, Some(&view.status));
    }
    let present: BTreeSet<String> = status.backends.iter().map(|view| view.status.name.clone()).collect();
    for removed in named.difference(&present) {
        record_backend(removed, None);
    }
    named.extend(present);
    let repair = &status.repair;
    // Rows that are gone must read 0, not their last value.
    for margin in -1..=repair.margin_target {
        let row = repair.margins.iter().find(|row| row.margin == margin);
        let label = margin.to_string();
        gauge!("holdfast_segments", "margin" => label.clone()).set(number(row.map_or(0, |r| r.segments)));
        gauge!("holdfast_segment_bytes", "margin" => label).set(number(row.map_or(0, |r| r.bytes)));
    }
    gauge!("holdfast_repair_shards_to_write").set(number(repair.shards_to_write));
    gauge!("holdfast_repair_bytes_to_write").set(number(repair.bytes_to_write));
    gauge!("holdfast_repair_written_bytes").set(number(repair.bytes_written));
    gauge!("holdfast_repair_bytes_per_second").set(number(repair.bytes_per_second));
    gauge!("holdfast_repair_failed_segments").set(number(repair.failed_segments));
}

fn record_backend(name: &str, status: Option<&BackendStatus>) {
    let set = |gauge: &'static str, value: Option<f64>| {
        gauge!(gauge, "backend" => name.to_owned()).set(value.unwrap_or(f64::NAN));
    };
    set("holdfast_backend_readable", status.map(|s| flag(s.health.can_read())));
    set("holdfast_backend_writable", status.map(|s| flag(s.health.can_write())));
    set("holdfast_backend_capacity_bytes", status.map(|s| number(s.capacity_bytes)));
    set("holdfast_backend_free_bytes", status.map(|s| number(s.free_bytes)));
    set("holdfast_backend_used_bytes", status.map(|s| number(s.used_bytes)));
    set("holdfast_backend_shards", status.map(|s| number(s.shard_count)));
    set("holdfast_backend_scrubbed_timestamp_seconds", status.map(|s| number(s.scrubbed_ms / 1000)));
}

/// From `/proc/self`; on a system without it the gauges are absent.
fn record_process() {
    if let Ok(statm) = std::fs::read_to_string("/proc/self/statm") {
        let pages = statm.split(' ').nth(1).and_then(|v| v.parse::<u64>().ok());
        if let Some(pages) = pages {
            let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
            gauge!("process_resident_memory_bytes").set(number(pages * page_bytes));
        }
    }
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
        // The second field is the program's name in brackets and may hold blanks; user and system time are the 12th
        // and 13th after it (proc(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|v| v.parse::<u64>().ok());
        if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
            let per_second = rustix::param::clock_ticks_per_second().max(1);
            gauge!("process_cpu_seconds").set(number(user + system) / number(per_second));
        }
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Exact up to 2^53, which no figure here reaches.
fn number(value: u64) -> f64 {
    value as f64
}
