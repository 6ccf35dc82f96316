//! The table of injected faults.

use super::{columns, words};
use holdfast_faults::FaultKind;
use holdfast_proto::faults::FaultView;
use holdfast_sdk::byte_size;

/// One line each.
pub(crate) fn table(faults: &[FaultView]) -> String {
    let rows = faults.iter().map(|fault| {
        let some = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(",") };
        vec![
            fault.id.clone(),
            fault.kind.clone(),
            fault.at.join(","),
            some(&fault.to),
            some(&fault.backends),
            amount(fault),
            format!("{} %", fault.percent),
            fault.seed.to_string(),
            words::duration(fault.remaining_seconds),
        ]
    });
    columns(&["FAULT", "KIND", "AT", "TO", "BACKENDS", "AMOUNT", "CHANCE", "SEED", "LEFT"], rows.collect(), &[])
}

fn amount(fault: &FaultView) -> String {
    match fault.kind.parse::<FaultKind>().map(FaultKind::amount_unit) {
        Ok("ms") => format!("{} ms", fault.amount),
        Ok("bytes/s") => format!("{}/s", byte_size::format(fault.amount.unsigned_abs())),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot() {
        let cut = FaultView {
            id: "0a0b0c".into(),
            kind: "partition".into(),
            at: vec!["n1".into(), "n2".into()],
            to: vec!["n3".into()],
            percent: 100.0,
            seed: 7,
            remaining_seconds: 90,
            ..FaultView::default()
        };
        let slow = FaultView { id: "ff".into(), kind: "bandwidth".into(), amount: 1 << 20, ..cut.clone() };
        let disk = FaultView {
            id: "1".into(),
            kind: "disk-delay".into(),
            to: Vec::new(),
            backends: vec!["d1".into()],
            amount: 50,
            percent: 12.5,
            ..cut.clone()
        };
        let expected = "\
FAULT   KIND        AT     TO  BACKENDS  AMOUNT     CHANCE  SEED  LEFT
0a0b0c  partition   n1,n2  n3  -         -          100 %   7     1 min
ff      bandwidth   n1,n2  n3  -         1.0 MiB/s  100 %   7     1 min
1       disk-delay  n1,n2  -   d1        50 ms      12.5 %  7     1 min
";
        assert_eq!(table(&[cut, slow, disk]), expected);
    }
}
