//! The command line of `holdfast fault`, and amounts as people write them.

use clap::Subcommand;
use holdfast_faults::FaultKind;
use holdfast_sdk::byte_size;
use std::time::Duration;

/// Verbs of `holdfast fault`.
#[derive(Debug, Subcommand)]
pub(crate) enum FaultVerb {
    /// Inject a fault. It ends by itself.
    Add {
        /// Between nodes: partition, delay, error, drop, bandwidth. Of disks: disk-full, disk-error, disk-delay, bit-flip,
        /// fsync-error. Of a node: clock-jump.
        kind: FaultKind,
        /// Where: a node (n1), zone:NAME, region:NAME; once for each [default: everywhere]. Between nodes: who calls.
        #[arg(long, value_name = "WHERE", visible_alias = "from")]
        at: Vec<String>,
        /// Between nodes: who is called; once for each [default: everybody].
        #[arg(long, value_name = "WHERE")]
        to: Vec<String>,
        /// Of disks: name or id of a backend; once for each [default: all of the node].
        #[arg(long, value_name = "BACKEND")]
        backend: Vec<String>,
        /// How much: 50ms or 2s of delay, 1MiB a second, a clock -2h wrong.
        #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
        amount: Option<String>,
        /// How often, of a hundred times [default: 100].
        #[arg(long, value_name = "PERCENT")]
        percent: Option<f64>,
        /// What its chances follow from [default: any].
        #[arg(long)]
        seed: Option<u64>,
        /// How long: 30s, 5m, 2h.
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = crate::arguments::duration)]
        ttl: Duration,
    },
    /// All faults that stand.
    List,
    /// End faults.
    Clear {
        /// Which; its id.
        #[arg(required_unless_present = "all", value_name = "ID or --all")]
        id: Option<String>,
        /// All of them.
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

/// An amount of a kind of fault: milliseconds, or bytes a second.
pub(crate) fn amount(kind: FaultKind, text: &str) -> Result<i64, String> {
    if kind.amount_unit() == "bytes/s" {
        let bytes = byte_size::parse(text.trim_end_matches("/s")).map_err(|e| e.to_string())?;
        return i64::try_from(bytes).map_err(|_| format!("{text:?} is too much"));
    }
    let wrong = || format!("{text:?} is not a time: a number and ms, s, m, h or d, for instance 50ms");
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = rest.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(sign * unit_ms).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_their_kind_has_them() {
        for (kind, text, expected) in [
            (FaultKind::Delay, "50ms", Some(50)),
            (FaultKind::DiskDelay, "2s", Some(2_000)),
            (FaultKind::ClockJump, "-2h", Some(-7_200_000)),
            (FaultKind::ClockJump, "1d", Some(86_400_000)),
            (FaultKind::Bandwidth, "1MiB", Some(1 << 20)),
            (FaultKind::Bandwidth, "1MiB/s", Some(1 << 20)),
            (FaultKind::Bandwidth, "5m", Some(5 << 20)),
            (FaultKind::Delay, "5m", Some(300_000)),
            (FaultKind::Delay, "50", None),
            (FaultKind::Delay, "ms", None),
            (FaultKind::Delay, "5x", None),
            (FaultKind::Delay, "", None),
            (FaultKind::ClockJump, "--2h", None),
            (FaultKind::ClockJump, "99999999999999999d", None),
            (FaultKind::Bandwidth, "-1", None),
        ] {
            assert_eq!(amount(kind, text).ok(), expected, "{kind} {text:?}");
        }
        assert!(amount(FaultKind::Delay, "5x").unwrap_err().contains("50ms"));
    }
}
