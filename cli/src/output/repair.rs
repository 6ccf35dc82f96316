//! Repair and scrub as tables, as one line of progress, and repair as a verdict.

use super::{columns, words};
use holdfast_proto::admin::{MarginRow, RepairStatus, ScrubStatus, Verdict};
use holdfast_sdk::byte_size;

/// By remaining margin, most endangered first, then what is being done about it.
pub(crate) fn repair_table(status: &RepairStatus, now_ms: u64) -> String {
    // Lost segments are a line of their own only when there are some: it would frighten without cause.
    let mut rows: Vec<&MarginRow> = status.margins.iter().filter(|row| row.margin >= 0 || row.segments > 0).collect();
    rows.sort_by_key(|row| row.margin);
    let rows = rows
        .into_iter()
        .map(|row| {
            vec![margin(row.margin, status.margin_target), words::count(row.segments), byte_size::format(row.bytes)]
        })
        .collect();
    let mut text = columns(&["MARGIN LEFT", "SEGMENTS", "BYTES"], rows, &[1, 2]);
    text += &format!("{}\n", repair_line(status));
    if status.failed_segments > 0 {
        text += &format!("! {} segments could not be repaired\n", words::count(status.failed_segments));
        for reason in &status.failures {
            text += &format!("  {reason}\n");
        }
    }
    text + &format!("figures from {}; a restart continues where it stopped\n", scanned(status.scanned_ms, now_ms))
}

fn scanned(scanned_ms: u64, now_ms: u64) -> String {
    match scanned_ms {
        0 => "a first scan that is not complete yet".to_owned(),
        _ => format!("the scan of {}", words::ago(scanned_ms, now_ms)),
    }
}

fn margin(margin: i32, target: i32) -> String {
    match margin {
        i32::MIN..0 => "lost: fewer shards than reading needs".to_owned(),
        0 => "0 (the next loss breaks a read)".to_owned(),
        m if m >= target => "at target".to_owned(),
        m => m.to_string(),
    }
}

/// `repairing: 1,204 shards, 3.8 GiB to write at 410 MiB/s, 9 s to go`.
pub(crate) fn repair_line(status: &RepairStatus) -> String {
    if status.shards_to_write == 0 && status.bytes_to_write == 0 {
        return format!("{}: nothing to write", status.state);
    }
    let mut text = format!(
        "{}: {} shards, {} to write",
        status.state,
        words::count(status.shards_to_write),
        byte_size::format(status.bytes_to_write)
    );
    if status.bytes_per_second > 0 {
        text += &format!(" at {}", words::rate(status.bytes_per_second));
    }
    if let Some(seconds) = status.eta_seconds {
        text += &format!(", {} to go", words::duration(seconds));
    }
    text
}

/// What the margins say over all, as `Verdict` defines it.
pub(crate) fn repair_verdict(status: &RepairStatus) -> Verdict {
    let fewest = status.margins.iter().filter(|row| row.segments > 0).map(|row| row.margin).min();
    let by_margin = match fewest {
        Some(i32::MIN..0) => Verdict::DataLost,
        Some(0) if status.margin_target > 0 => Verdict::PromiseBroken,
        Some(margin) if margin < status.margin_target => Verdict::Degraded,
        _ => Verdict::Healthy,
    };
    let unfinished = status.shards_to_write > 0 || status.failed_segments > 0;
    if unfinished { by_margin.max(Verdict::Degraded) } else { by_margin }
}

/// How far the scrub is.
pub(crate) fn scrub_table(status: &ScrubStatus, now_ms: u64) -> String {
    let damaged = match status.damaged {
        0 => "none damaged".to_owned(),
        n => format!("! {} damaged, queued for repair", words::count(n)),
    };
    format!("{}\n{damaged}\nlast full run ended: {}\n", scrub_line(status), words::ago(status.finished_ms, now_ms))
}

/// `running: 412 shards, 3.8 GiB of 10.0 GiB verified at 410 MiB/s`.
pub(crate) fn scrub_line(status: &ScrubStatus) -> String {
    let mut text = format!(
        "{}: {} shards, {} of {} verified",
        status.state,
        words::count(status.shards),
        byte_size::format(status.bytes),
        byte_size::format(status.bytes_total.max(status.bytes))
    );
    if status.bytes_per_second > 0 {
        text += &format!(" at {}", words::rate(status.bytes_per_second));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000_000;

    pub(crate) fn sample() -> RepairStatus {
        let row = |margin, segments, bytes| MarginRow { margin, segments, bytes };
        RepairStatus {
            state: "repairing".into(),
            margin_target: 2,
            margins: vec![row(2, 44_211_090, 157 << 40), row(-1, 0, 0), row(0, 0, 0), row(1, 1_204, 4_080_218_931)],
            shards_to_write: 1_204,
            bytes_to_write: 1 << 30,
            bytes_written: 1 << 29,
            bytes_per_second: 410 << 20,
            eta_seconds: Some(9),
            failed_segments: 0,
            failures: Vec::new(),
            scanned_ms: NOW - 120_000,
        }
    }

    #[test]
    fn repair_snapshot() {
        let expected = "\
MARGIN LEFT                        SEGMENTS    BYTES
0 (the next loss breaks a read)           0      0 B
1                                     1,204  3.7 GiB
at target                        44,211,090  157 TiB
repairing: 1,204 shards, 1.0 GiB to write at 410 MiB/s, 9 s to go
figures from the scan of 2 min ago; a restart continues where it stopped
";
        assert_eq!(repair_table(&sample(), NOW), expected);
        let failed = RepairStatus { failed_segments: 1, failures: vec!["segment ab: no space".into()], ..sample() };
        assert!(repair_table(&failed, NOW).contains("! 1 segments could not be repaired\n  segment ab: no space\n"));
    }

    #[test]
    fn verdicts() {
        let rows = |rows: &[(i32, u64)]| RepairStatus {
            margin_target: 2,
            margins: rows.iter().map(|&(margin, segments)| MarginRow { margin, segments, bytes: segments }).collect(),
            ..RepairStatus::default()
        };
        let cases = [
            (rows(&[]), Verdict::Healthy),
            (rows(&[(2, 9), (1, 0), (0, 0), (-1, 0)]), Verdict::Healthy),
            (rows(&[(2, 9), (1, 1)]), Verdict::Degraded),
            (rows(&[(2, 9), (0, 1)]), Verdict::PromiseBroken),
            (rows(&[(0, 1), (-1, 1)]), Verdict::DataLost),
            (RepairStatus { failed_segments: 1, ..rows(&[(2, 9)]) }, Verdict::Degraded),
            (RepairStatus { shards_to_write: 1, ..rows(&[(2, 9)]) }, Verdict::Degraded),
            (RepairStatus { shards_to_write: 1, ..rows(&[(-1, 1)]) }, Verdict::DataLost),
        ];
        for (status, expected) in cases {
            assert_eq!(repair_verdict(&status), expected, "{:?}", status.margins);
        }
    }

    #[test]
    fn scrub_snapshot() {
        let status = ScrubStatus {
            state: "running".into(),
            shards: 412,
            bytes: 1 << 30,
            bytes_total: 4 << 30,
            damaged: 3,
            bytes_per_second: 200 << 20,
            finished_ms: 0,
        };
        let expected = "\
running: 412 shards, 1.0 GiB of 4.0 GiB verified at 200 MiB/s
! 3 damaged, queued for repair
last full run ended: never
";
        assert_eq!(scrub_table(&status, NOW), expected);
    }
}
