//! Small words: times ago, durations, rates, counts, percentages.

use holdfast_sdk::byte_size;

/// `2 min ago`, `never` for 0.
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> String {
    if then_ms == 0 {
        return "never".to_owned();
    }
    format!("{} ago", duration(now_ms.saturating_sub(then_ms) / 1000))
}

/// The largest unit, and the next where it helps: `9 s`, `27 min`, `5 h 10 min`, `3 d 4 h`.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `410 MiB/s`, `-` for none.
pub(crate) fn rate(bytes_per_second: u64) -> String {
    if bytes_per_second == 0 { "-".to_owned() } else { format!("{}/s", byte_size::format(bytes_per_second)) }
}

/// Thousands apart: `1,204`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `61 %` of `whole`, rounded down; `-` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{} %", u128::from(part) * 100 / u128::from(whole)),
    }
}

/// `2026-11-23 14:02:07 UTC`.
pub(crate) fn moment(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(ago(0, 5), "never");
        assert_eq!(ago(1_000, 10_000), "9 s ago");
        assert_eq!(ago(10_000, 1_000), "0 s ago", "a clock behind the server's is no reason to fail");
        assert_eq!(duration(27 * 60 + 3), "27 min");
        assert_eq!(duration(5 * 3600 + 600), "5 h 10 min");
        assert_eq!(duration(3 * 86_400 + 4 * 3600), "3 d 4 h");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(44_211_090), "44,211,090");
        assert_eq!(percent(61, 100), "61 %");
        assert_eq!(percent(1, 0), "-");
        assert_eq!(percent(u64::MAX, u64::MAX), "100 %");
        assert_eq!(rate(0), "-");
        assert_eq!(rate(410 << 20), "410 MiB/s");
        assert_eq!(moment(1_795_000_000_000), "2026-11-18 11:06:40 UTC");
    }
}
