//! Bucket names, and the URL encoding of listings.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What `encoding-type=url` leaves as it is: unreserved characters and the slash.
const LISTING: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The name as a listing with `encoding-type=url` shows it.
pub(super) fn url_encoded(name: &str) -> String {
    utf8_percent_encode(name, LISTING).to_string()
}

/// S3's rules for new buckets: 3 to 63 of lower case, digits, dots and hyphens, labels beginning and ending with a
/// letter or digit, not like an address, no reserved prefix or suffix.
/// Source: S3 user guide, "General purpose bucket naming rules".
pub(super) fn is_valid_bucket(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..")
        && !name.contains(".-")
        && !name.contains("-.")
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && !name.starts_with("xn--")
        && !name.ends_with("-s3alias")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names() {
        for good in ["abc", "a.b.c", "my-bucket-1", "1ab", &"a".repeat(63)] {
            assert!(is_valid_bucket(good), "{good}");
        }
        for bad in [
            "",
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "a..b",
            "a.-b",
            "192.168.1.1",
            "xn--a",
            &"a".repeat(64),
            "a/b",
        ] {
            assert!(!is_valid_bucket(bad), "{bad}");
        }
        assert_eq!(url_encoded("a b+ü/c"), "a%20b%2B%C3%BC/c");
    }
}
