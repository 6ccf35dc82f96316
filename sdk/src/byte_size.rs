//! Byte counts as people write and read them: `64KiB`, `1 MiB`, `5GB`. JSON always carries plain numbers instead.

/// Suffixes with their factor; IEC first, so that formatting picks them.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// A text that is not a byte count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: give bytes or a number with KiB, MiB, GiB, TiB (or KB, MB, GB, TB)")]
pub struct ByteSizeError {
    /// As given.
    pub text: String,
}

/// Reads a whole number with an optional unit, any case, an optional blank between.
pub fn parse(text: &str) -> Result<u64, ByteSizeError> {
    let error = || ByteSizeError { text: text.to_owned() };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim();
    if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        return Ok(number);
    }
    let known = UNITS.iter().find(|(name, _)| {
        // `64K` means KiB, as every tool that writes disks reads it.
        name.eq_ignore_ascii_case(unit) || (unit.len() == 1 && name.len() == 3 && name[..1].eq_ignore_ascii_case(unit))
    });
    known.and_then(|(_, factor)| number.checked_mul(*factor)).ok_or_else(error)
}

/// Three digits and an IEC unit: `0 B`, `999 B`, `3.8 GiB`, `611 MiB`.
pub fn format(bytes: u64) -> String {
    let unit = UNITS[..4].iter().find(|(_, factor)| bytes >= *factor);
    let Some((name, factor)) = unit else { return format!("{bytes} B") };
    let whole = bytes / factor;
    if whole >= 100 {
        return format!("{whole} {name}");
    }
    // Tenths, rounded down: a size is never shown as more than it is.
    let tenths = u128::from(bytes) * 10 / u128::from(*factor) % 10;
    format!("{whole}.{tenths} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let cases = [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("4KiB", Some(4096)),
            ("4 kib", Some(4096)),
            ("64K", Some(65_536)),
            ("1MiB", Some(1 << 20)),
            ("5GB", Some(5_000_000_000)),
            ("2TiB", Some(2 << 40)),
            ("7b", Some(7)),
            ("", None),
            ("KiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1 parsec", None),
            ("99999999999999999999", None),
            ("99999999999TiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_400, "100 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (4_080_218_931, "3.7 GiB"),
            (u64::MAX, "16777215 TiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(format(bytes), expected);
        }
    }
}
